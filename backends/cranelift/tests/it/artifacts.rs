//! Code that outlives its engine: kept by one, run by another in which every address and handle is another one.

use crate::rig::{Body, Rig, body, options, plus, signature};
use beadwork::{
    Archive, Artifact, ArtifactStore, Bead, BeadInfo, CompileError, Core, Engine, MemoryStore, Refusal,
    TierId,
};
use beadwork_checks::backends::artifacts;
use beadwork_cranelift::ir::MemFlagsData;
use beadwork_cranelift::types::{F64, I64};
use beadwork_cranelift::{AbiParam, CraneliftBuilder, Entry, FunctionUnit, InstBuilder, LiveValue, OptLevel};
use std::panic::{AssertUnwindSafe, catch_unwind};

extern "C-unwind" fn thrice(x: i64) -> i64 {
    if x == 13 {
        std::panic::panic_any(x);
    }
    x * 3
}

extern "C-unwind" fn four_times(x: i64) -> i64 {
    x * 4
}

/// One of each thing that code can refer to.
fn bodies() -> Vec<Body> {
    vec![
        plus(1),
        body(|unit, x, all| {
            let call = unit.call_bead(all[0], &signature(unit), &[x]);
            let once = unit.builder().inst_results(call)[0];
            let call = unit.call_bead(all[0], &signature(unit), &[once]);
            Ok(unit.builder().inst_results(call)[0])
        }),
        body(|unit, x, _| {
            let signature = signature(unit);
            let function = unit.symbol("runtime", &signature);
            let call = unit.builder().ins().call(function, &[x]);
            let runtime = unit.builder().inst_results(call)[0];
            let table = unit.data(&[0; 40].map(|byte: u8| byte + 7), 32);
            let seven = unit.builder().ins().uload8(I64, MemFlagsData::trusted(), table, 33);
            Ok(unit.builder().ins().iadd(runtime, seven))
        }),
        // Where the processor has no such instruction, by a function of the library.
        body(|unit, x, _| {
            let float = unit.builder().ins().fcvt_from_sint(F64, x);
            let half = unit.builder().ins().f64const(0.75);
            let product = unit.builder().ins().fma(float, half, half);
            let floor = unit.builder().ins().floor(product);
            Ok(unit.builder().ins().fcvt_to_sint(I64, floor))
        }),
        body(|unit, x, all| {
            let (bits, version) = (unit.bits(all[1]), unit.version());
            let sum = unit.builder().ins().iadd(bits, version);
            Ok(unit.builder().ins().iadd(sum, x))
        }),
        body(|unit, x, _| {
            assert!(unit.count_blocks(3));
            unit.count_block(2);
            Ok(x)
        }),
        body(|unit, x, _| {
            unit.add_loop_entry(5);
            Ok(match unit.entry() {
                Entry::Function => unit.builder().ins().iadd_imm_s(x, 50),
                Entry::Loop(_) => {
                    let live = unit.load_live(x, &[LiveValue::new(I64, 8)]);
                    unit.builder().ins().iadd_imm_s(live[0], 500)
                }
            })
        }),
    ]
}

fn with(archive: &Archive) -> CraneliftBuilder {
    options().symbol("runtime", thrice as *const u8).archive(archive.clone())
}

fn rig(strangers: usize, options: CraneliftBuilder) -> Rig {
    let rig = Rig::beside(strangers, Engine::builder().inline(), options, bodies());
    rig.compile(0..bodies().len());
    rig
}

/// An archive in which one engine has kept all functions.
fn kept() -> (MemoryStore, Archive) {
    let store = MemoryStore::new();
    let archive = Archive::new(store.clone());
    archive.set_saving(true);
    let rig = rig(0, with(&archive));
    archive.set_saving(false);
    check(&rig);
    let stats = archive.stats();
    assert_eq!((stats.saved, stats.missing, stats.unsavable), (7, 7, 0));
    (store, archive)
}

fn check(rig: &Rig) {
    assert_eq!((rig.call(0, 10), rig.call(1, 10)), (11, 12));
    assert_eq!((rig.call(2, 10), rig.call(3, 10)), (37, 8));
    artifacts::what_code_has_of_an_engine_is_of_this_one(rig);
}

fn compiled(rig: &Rig) -> String {
    format!("{:?}", rig.backend.stats())
}

#[test]
fn p30_kept_code_runs_in_an_engine_where_every_address_and_handle_is_another() {
    let (_, archive) = kept();
    let before = archive.stats();
    let rig = rig(5, with(&archive));
    check(&rig);
    let mut after = archive.stats();
    after.loaded -= 7;
    assert_eq!(after, before);
    // Retargeted like any other call, and freed like any other code.
    rig.engine.invalidate(rig.beads[1]).unwrap();
    rig.engine.reclaim();
    assert_eq!(rig.backend.arena().stats().live_blocks, 6);
    let caught = catch_unwind(AssertUnwindSafe(|| rig.call(2, 13))).unwrap_err();
    assert_eq!(*caught.downcast::<i64>().unwrap(), 13, "a panic passes through loaded frames");
}

#[test]
fn runtime_symbols_are_resolved_by_name_and_a_missing_one_has_the_function_compiled() {
    let (_, archive) = kept();
    let moved = rig(0, options().archive(archive.clone()).symbol("runtime", four_times as *const u8));
    assert_eq!(moved.call(2, 10), 47);
    let without = rig(0, options().archive(archive.clone()));
    assert_eq!(archive.stats().missing_symbol, 1);
    assert!(without.failure(2).unwrap().contains("unknown runtime symbol `runtime`"));
    assert_eq!(without.call(1, 10), 12);
}

#[test]
fn code_that_calls_a_function_that_is_not_there_is_refused() {
    let (_, archive) = kept();
    let loads = archive.stats().loaded;
    let lone = Rig::new(with(&archive), bodies());
    lone.engine.remove(lone.beads[0]).unwrap();
    lone.engine.promote(lone.beads[1], TierId::BASELINE).unwrap();
    lone.engine.run_pending(usize::MAX);
    assert_eq!((archive.stats().missing_symbol, archive.stats().loaded), (1, loads));
    assert!(!lone.is_native(1));
}

#[test]
fn what_was_compiled_otherwise_is_not_found() {
    let (_, archive) = kept();
    let missing = || archive.stats().missing - 7;
    rig(0, with(&archive).opt_level(OptLevel::None));
    assert_eq!(missing(), 7);
    rig(0, with(&archive).max_frame_bytes(1 << 20));
    assert_eq!(missing(), 14);
    assert_eq!(archive.stats().loaded, 0);
}

#[test]
fn a_tag_keeps_the_artifacts_of_machines_apart() {
    let (store, _) = kept();
    let other = Archive::tagged(store, "another VM");
    rig(0, with(&other));
    assert_eq!((other.stats().missing, other.stats().loaded), (7, 0));
}

#[test]
fn corrupted_artifacts_are_refused_and_the_functions_compiled() {
    let (store, _) = kept();
    let mut keys = Vec::new();
    store.keys(&mut |key| keys.push(key)).unwrap();
    let sound: Vec<_> = keys.iter().map(|&key| store.get(key).unwrap().unwrap().to_vec()).collect();
    // 10,000 with BEADWORK_STRESS=10000: each round corrupts all seven, each in one of four ways.
    let wanted = std::env::var("BEADWORK_STRESS").ok().and_then(|count| count.parse().ok()).unwrap_or(280);
    let archive = Archive::new(store.clone());
    let (mut random, mut count) = (1u64, 0u64);
    while count < wanted {
        for (&key, sound) in keys.iter().zip(&sound) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 33) as usize % sound.len();
            let mut bytes = sound.clone();
            match count % 4 {
                0 => bytes[at] ^= 1 << (random % 8),
                1 => bytes.truncate(at),
                2 => bytes = [&sound[at..], &sound[..at]].concat(),
                _ => bytes.extend_from_slice(&sound[..=at]),
            }
            if bytes == *sound {
                bytes.push(0);
            }
            let _ = store.put(key, &bytes, true).unwrap();
            count += 1;
        }
        check(&rig(1, with(&archive)));
        assert_eq!((archive.stats().refused(), archive.stats().loaded), (count, 0));
    }
    // Compiled again, they are replaced.
    archive.set_saving(true);
    check(&rig(1, with(&archive)));
    let loaded = rig(2, with(&archive));
    check(&loaded);
    assert_eq!((archive.stats().saved, archive.stats().loaded), (7, 7), "{}", compiled(&loaded));
}

/// The object is altered, and the digest made to fit: nothing that a store does by itself.
#[test]
fn an_object_that_cannot_be_linked_is_refused_with_the_reason() {
    let (store, archive) = kept();
    let mut keys = Vec::new();
    store.keys(&mut |key| keys.push(key)).unwrap();
    for key in keys {
        let artifact = Artifact::open(store.get(key).unwrap().unwrap()).unwrap();
        let object = &artifact.object()[..artifact.object().len() / 2];
        let _ = store.put(key, &Artifact::pack(artifact.manifest(), object).unwrap(), true).unwrap();
    }
    check(&rig(0, with(&archive)));
    assert_eq!(archive.stats().object, 7);
}

#[test]
fn code_that_failed_is_compiled_anew_and_not_loaded_again() {
    let (_, archive) = kept();
    let rig = rig(0, with(&archive));
    artifacts::code_that_failed_is_compiled_anew_and_not_loaded_again(&rig, &archive);
}

#[test]
fn code_that_refers_to_what_has_no_name_is_run_and_not_kept() {
    let archive = Archive::new(MemoryStore::new());
    archive.set_saving(true);
    let nameless = |unit: &mut FunctionUnit<'_, '_>| -> Result<(), CompileError> {
        let mut signature = unit.new_signature();
        signature.returns.push(AbiParam::new(I64));
        unit.begin(&signature);
        let stranger = Bead::from_bits(1 << 32).unwrap();
        let bits = unit.bits(stranger);
        unit.builder().ins().return_(&[bits]);
        Ok(())
    };
    let tier = beadwork::Tier::new(options().archive(archive.clone()).build(nameless).unwrap());
    let engine = Engine::builder().inline().tier(tier).build().unwrap();
    engine.register(Core::ZERO).unwrap();
    let keyed = engine.register_with(Core::ZERO, &BeadInfo::new().key(9)).unwrap();
    engine.promote(keyed, TierId::BASELINE).unwrap();
    engine.run_pending(1);
    assert_eq!(engine.tier(keyed), Ok(TierId::BASELINE));
    assert_eq!((archive.stats().unsavable, archive.stats().saved), (1, 0));
}

#[test]
fn a_refusal_says_what_was_refused() {
    let refusal = Refusal::MissingSymbol { symbol: "beadwork.slot.0000000000001000".to_owned() };
    assert_eq!(refusal.to_string(), "it refers to `beadwork.slot.0000000000001000`, which is not there");
}
