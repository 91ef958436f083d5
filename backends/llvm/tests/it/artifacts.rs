//! Code that outlives its engine: kept by one, run by another in which every address and handle is another one.

use crate::rig::{Body, Rig, all_passes, body, call, call_symbol, number, options, plus, word};
use beadwork::resident::{CodeCache, Lookup, Origin, Unit};
use beadwork::{
    Archive, ArtifactStore, Bead, BeadInfo, CompileError, Core, Engine, FileStore, MemoryStore, Threshold,
    Tier, TierId,
};
use beadwork_checks::backends::artifacts;
use beadwork_llvm::inkwell::intrinsics::Intrinsic;
use beadwork_llvm::inkwell::{FloatPredicate, IntPredicate};
use beadwork_llvm::{
    Entry, FunctionUnit, KeptCode, LiveValue, LlvmBackend, LlvmBuilder, OptimizationLevel, Passes,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

extern "C-unwind" fn thrice(x: i64) -> i64 {
    if x == 13 {
        std::panic::panic_any(x);
    }
    x * 3
}

extern "C-unwind" fn four_times(x: i64) -> i64 {
    x * 4
}

static SEVENTEEN: i64 = 17;
static EIGHTEEN: i64 = 18;

/// One of each thing that code can refer to.
fn bodies() -> Vec<Body> {
    vec![
        plus(1),
        body(|unit, x, all| {
            let once = call(unit, all[0], x)?;
            call(unit, all[0], once)
        }),
        body(|unit, x, _| {
            let runtime = call_symbol(unit, "runtime", x)?;
            let bytes = [0; 40].map(|byte: u8| byte + 7);
            let table = unit.data(&bytes, 32);
            let low = unit.builder().build_and(x, number(unit, 31), "")?;
            let place = unit.offset(table, low)?;
            let byte = unit.builder().build_load(unit.context().i8_type(), place, "")?.into_int_value();
            let seven = unit.builder().build_int_z_extend(byte, word(unit), "")?;
            Ok(unit.builder().build_int_add(runtime, seven, "")?)
        }),
        // A jump table, and a function of the C library that LLVM calls by itself.
        body(|unit, x, _| {
            let (join, other) = (unit.append_block("join")?, unit.append_block("other")?);
            let cases = (0..12)
                .map(|n| Ok((n, unit.append_block("case")?)))
                .collect::<Result<Vec<_>, CompileError>>()?;
            let numbers: Vec<_> = cases.iter().map(|&(n, block)| (number(unit, n), block)).collect();
            unit.builder().build_switch(x, other, &numbers)?;
            let mut ways = vec![(number(unit, -1), other)];
            unit.builder().position_at_end(other);
            unit.builder().build_unconditional_branch(join)?;
            for (n, block) in cases {
                unit.builder().position_at_end(block);
                let product = unit.builder().build_int_mul(x, number(unit, n * n + 1), "")?;
                let float =
                    unit.builder().build_signed_int_to_float(product, unit.context().f64_type(), "")?;
                let by = unit.context().f64_type().const_float(7.5 + n as f64);
                let rest = unit.builder().build_float_rem(float, by, "")?;
                let rest = unit.builder().build_float_to_signed_int(rest, word(unit), "")?;
                ways.push((rest, block));
                unit.builder().build_unconditional_branch(join)?;
            }
            unit.builder().position_at_end(join);
            let phi = unit.builder().build_phi(word(unit), "")?;
            ways.iter().for_each(|(value, block)| phi.add_incoming(&[(value, *block)]));
            Ok(phi.as_basic_value().into_int_value())
        }),
        body(|unit, x, all| {
            let (bits, version) = (unit.bits(all[1]), unit.version());
            let sum = unit.builder().build_int_add(bits, version, "")?;
            Ok(unit.builder().build_int_add(sum, x, "")?)
        }),
        body(|unit, x, _| {
            assert!(unit.count_blocks(3));
            unit.count_block(2)?;
            Ok(x)
        }),
        body(|unit, x, _| {
            unit.add_loop_entry(5);
            Ok(match unit.entry() {
                Entry::Function => unit.builder().build_int_add(x, number(unit, 50), "")?,
                Entry::Loop(_) => {
                    let pointer = unit.context().ptr_type(Default::default());
                    let frame = unit.builder().build_int_to_ptr(x, pointer, "")?;
                    let live = unit.load_live(frame, &[LiveValue::new(word(unit), 8)])?;
                    unit.builder().build_int_add(live[0].into_int_value(), number(unit, 500), "")?
                }
            })
        }),
        // Itself, as long as x is positive.
        body(|unit, x, all| {
            let (more, done) = (unit.append_block("more")?, unit.append_block("done")?);
            let goes_on = unit.builder().build_int_compare(IntPredicate::SGT, x, number(unit, 0), "")?;
            let entry = unit.builder().get_insert_block().expect("it has a position");
            unit.builder().build_conditional_branch(goes_on, more, done)?;
            unit.builder().position_at_end(more);
            let less = unit.builder().build_int_sub(x, number(unit, 1), "")?;
            let below = call(unit, all[7], less)?;
            let sum = unit.builder().build_int_add(below, x, "")?;
            unit.builder().build_unconditional_branch(done)?;
            unit.builder().position_at_end(done);
            let phi = unit.builder().build_phi(word(unit), "")?;
            phi.add_incoming(&[(&number(unit, 0), entry), (&sum, more)]);
            Ok(phi.as_basic_value().into_int_value())
        }),
        // A datum of the runtime, whose name is no assembler's.
        body(|unit, x, _| {
            let datum = unit.symbol_address("a \"datum\" of ${0} {runtime|$$}");
            let value = unit.builder().build_load(word(unit), datum, "")?.into_int_value();
            Ok(unit.builder().build_int_add(x, value, "")?)
        }),
        // Numbers of the engine's that are compared.
        body(|unit, x, all| {
            let (one, two) = (unit.bits(all[0]), unit.bits(all[0]));
            let same = unit.builder().build_int_compare(IntPredicate::EQ, one, two, "")?;
            let version = unit.version();
            let some = unit.builder().build_int_compare(IntPredicate::NE, version, number(unit, 0), "")?;
            let both = unit.builder().build_and(same, some, "")?;
            Ok(unit.builder().build_select(both, x, number(unit, -1), "")?.into_int_value())
        }),
    ]
}

const ALL: u64 = 10;

fn with(options: LlvmBuilder, archive: &Archive) -> LlvmBuilder {
    let options = options.symbol("runtime", thrice as *const u8).archive(archive.clone());
    options.symbol("a \"datum\" of ${0} {runtime|$$}", (&raw const SEVENTEEN).cast())
}

fn rig(strangers: usize, options: LlvmBuilder) -> Rig {
    let rig = Rig::beside(strangers, Engine::builder().inline(), options, bodies());
    rig.compile(0..bodies().len());
    rig
}

/// An archive in which one engine has kept all functions.
fn kept(options: LlvmBuilder) -> (MemoryStore, Archive) {
    let store = MemoryStore::new();
    let archive = Archive::new(store.clone());
    archive.set_saving(true);
    let rig = rig(0, with(options, &archive));
    archive.set_saving(false);
    check(&rig);
    let stats = archive.stats();
    assert_eq!((stats.saved, stats.missing, stats.unsavable), (ALL, ALL, 0));
    (store, archive)
}

fn check(rig: &Rig) {
    assert_eq!((rig.call(0, 10), rig.call(1, 10), rig.call(2, 10)), (11, 12, 37));
    for x in 0..14 {
        let expected = if x < 12 { ((x * (x * x + 1)) as f64 % (7.5 + x as f64)) as i64 } else { -1 };
        assert_eq!(rig.call(3, x), expected);
    }
    artifacts::what_code_has_of_an_engine_is_of_this_one(rig);
    assert_eq!((rig.call(7, 100), rig.call(8, 10), rig.call(9, 10)), (5050, 27, 10));
}

#[test]
fn p30_kept_code_runs_in_an_engine_where_every_address_and_handle_is_another() {
    for passes in all_passes() {
        let options = options().passes(passes);
        let (_, archive) = kept(options.clone());
        let before = archive.stats();
        let rig = rig(5, with(options, &archive));
        check(&rig);
        let mut after = archive.stats();
        after.loaded -= ALL;
        assert_eq!(after, before);
        // Retargeted like any other call, and freed like any other code.
        rig.engine.invalidate(rig.beads[1]).unwrap();
        rig.engine.reclaim();
        assert_eq!(rig.backend.arena().stats().live_blocks as u64, ALL - 1);
        let caught = catch_unwind(AssertUnwindSafe(|| rig.call(2, 13))).unwrap_err();
        assert_eq!(*caught.downcast::<i64>().unwrap(), 13, "a panic passes through loaded frames");
        assert_eq!(rig.backend.contexts(), 0, "LLVM had no part in it");
    }
}

#[test]
fn code_for_an_archive_is_as_large_as_any_other() {
    let sizes = |options: LlvmBuilder| {
        rig(0, options).installs().iter().map(|(_, bytes, _)| *bytes).collect::<Vec<_>>()
    };
    let options = options().passes(Passes::O2);
    let archive = Archive::new(MemoryStore::new());
    let without = options.clone().symbol("runtime", thrice as *const u8);
    let without = without.symbol("a \"datum\" of ${0} {runtime|$$}", (&raw const SEVENTEEN).cast());
    let (kept, without) = (sizes(with(options, &archive)), sizes(without));
    // Numbers that are small are shorter where they are known, and what is known decides the last function.
    let all = |sizes: &[usize]| sizes[..9].iter().sum::<usize>();
    assert!(all(&kept) <= all(&without) + 9 * 24, "{kept:?} {without:?}");
}

#[test]
fn runtime_symbols_are_resolved_by_name_and_a_missing_one_has_the_function_compiled() {
    let (_, archive) = kept(options());
    let datum = "a \"datum\" of ${0} {runtime|$$}";
    let moved = options().archive(archive.clone()).symbol("runtime", four_times as *const u8);
    let moved = rig(0, moved.symbol(datum, (&raw const EIGHTEEN).cast()));
    assert_eq!((moved.call(2, 10), moved.call(8, 10)), (47, 28));
    assert_eq!(archive.stats().loaded, ALL);
    let without = rig(0, options().archive(archive.clone()));
    assert_eq!(archive.stats().missing_symbol, 2);
    assert!(without.failure(2).unwrap().contains("unknown runtime symbol `runtime`"));
    assert_eq!(without.call(1, 10), 12);
}

#[test]
fn what_was_compiled_otherwise_is_not_found() {
    let (_, archive) = kept(options());
    let others = [
        options().passes(Passes::O3),
        options().codegen_level(OptimizationLevel::None),
        options().cpu("x86-64-v2"),
        options().features("-avx2"),
        options().max_frame_bytes(1 << 20),
    ];
    for (round, other) in others.into_iter().enumerate() {
        check(&rig(0, with(other, &archive)));
        assert_eq!(archive.stats().missing - ALL, ALL * (round as u64 + 1));
    }
    let stats = archive.stats();
    assert_eq!((stats.loaded, stats.refused()), (0, 0));
}

/// Somebody renames the files: what artifacts say of themselves counts.
#[test]
fn artifacts_of_another_processor_or_level_under_the_name_of_the_right_one_are_refused() {
    let first = |store: &MemoryStore, options: LlvmBuilder| {
        let archive = Archive::new(store.clone());
        archive.set_saving(true);
        let rig = Rig::new(options.archive(archive.clone()), vec![plus(1)]);
        rig.compile([0]);
        let mut keys = Vec::new();
        store.keys(&mut |key| keys.push(key)).unwrap();
        assert_eq!((keys.len(), archive.stats().refused()), (1, 0));
        keys[0]
    };
    for (options_there, features, recipe) in [
        (options().features("-avx2"), 1, 0),
        (options().cpu("x86-64-v2"), 1, 0),
        (options().passes(Passes::O1), 0, 1),
    ] {
        let (here, there) = (MemoryStore::new(), MemoryStore::new());
        let key = first(&here, options());
        let stranger = first(&there, options_there);
        let bytes = there.get(stranger).unwrap().unwrap();
        let _ = here.put(key, &bytes, true).unwrap();
        let archive = Archive::new(here);
        let rig = Rig::new(options().archive(archive.clone()), vec![plus(1)]);
        rig.compile([0]);
        assert_eq!(rig.call(0, 4), 5);
        let stats = archive.stats();
        assert_eq!((stats.features, stats.recipe, stats.refused(), stats.loaded), (features, recipe, 1, 0));
    }
}

#[test]
fn corrupted_artifacts_are_refused_and_the_functions_compiled() {
    let (store, _) = kept(options());
    let mut keys = Vec::new();
    store.keys(&mut |key| keys.push(key)).unwrap();
    for (at, &key) in keys.iter().enumerate() {
        let mut bytes = store.get(key).unwrap().unwrap().to_vec();
        let middle = bytes.len() / 2;
        match at % 3 {
            0 => bytes[middle] ^= 1,
            1 => bytes.truncate(middle),
            _ => bytes.push(0),
        }
        let _ = store.put(key, &bytes, true).unwrap();
    }
    let archive = Archive::new(store);
    archive.set_saving(true);
    check(&rig(1, with(options(), &archive)));
    assert_eq!(
        (archive.stats().loaded, archive.stats().saved),
        (0, ALL),
        "compiled again, they are replaced"
    );
    check(&rig(2, with(options(), &archive)));
    assert_eq!(archive.stats().loaded, ALL);
}

#[test]
fn code_that_failed_is_compiled_anew_and_not_loaded_again() {
    let (_, archive) = kept(options());
    let rig = rig(0, with(options(), &archive));
    artifacts::code_that_failed_is_compiled_anew_and_not_loaded_again(&rig, &archive);
}

#[test]
fn code_with_bodies_of_others_or_names_of_none_is_run_and_not_kept() {
    let archive = Archive::new(MemoryStore::new());
    archive.set_saving(true);
    let includes = body(|unit, x, all| {
        assert!(unit.include(all[1]));
        call(unit, all[1], x)
    });
    let stranger = body(|unit, x, _| {
        let bits = unit.bits(Bead::from_bits(1 << 32).unwrap());
        Ok(unit.builder().build_int_add(x, bits, "")?)
    });
    let options = options().archive(archive.clone());
    let rig = Rig::beside(1, Engine::builder().inline(), options, vec![includes, plus(1), stranger]);
    rig.compile(0..3);
    assert_eq!((rig.call(0, 1), rig.call(1, 1), rig.call(2, 1)), (2, 2, 1 + (1 << 32)));
    assert_eq!((archive.stats().unsavable, archive.stats().saved), (2, 1));
}

#[test]
fn intrinsics_that_become_library_calls_are_resolved_again() {
    let archive = Archive::new(MemoryStore::new());
    archive.set_saving(true);
    let power = || {
        body(|unit, x, _| {
            let double = unit.context().f64_type();
            let float = unit.builder().build_signed_int_to_float(x, double, "")?;
            let pow = Intrinsic::find("llvm.pow").expect("LLVM has it");
            let pow = pow.get_declaration(unit.module(), &[double.into()]).expect("of doubles");
            let args = [float.into(), double.const_float(2.5).into()];
            let call = unit.builder().build_call(pow, &args, "")?;
            let result = call.try_as_basic_value().unwrap_basic().into_float_value();
            let large = double.const_float(1e9);
            let fits = unit.builder().build_float_compare(FloatPredicate::OLT, result, large, "")?;
            let result = unit.builder().build_float_to_signed_int(result, word(unit), "")?;
            Ok(unit.builder().build_select(fits, result, number(unit, 0), "")?.into_int_value())
        })
    };
    for loaded in [0, 1] {
        let rig =
            Rig::beside(3, Engine::builder().inline(), options().archive(archive.clone()), vec![power()]);
        rig.compile([0]);
        assert_eq!((rig.call(0, 9), archive.stats().loaded), (243, loaded));
    }
}

/// The code cache, by the same adapter as for any backend; the rest of its tests are with Cranelift.
#[test]
fn c7_a_code_cache_keeps_what_llvm_compiled_and_the_next_process_loads_it() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("llvm-kept-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&root);
    let built = Arc::new(AtomicUsize::new(0));
    let live = || {
        let count = built.clone();
        let frontend = move |unit: &mut FunctionUnit<'_, '_>| {
            count.fetch_add(1, SeqCst);
            let source = Unit::<u64>::of(unit.job())?.source().to_vec();
            let signature = word(unit).fn_type(&[word(unit).into()], false);
            let mut x = unit.begin(signature)[0].into_int_value();
            for byte in source {
                x = unit.builder().build_int_add(x, number(unit, byte.into()), "")?;
            }
            unit.builder().build_return(Some(&x))?;
            Ok(())
        };
        let archive = Archive::new(FileStore::open(&root).unwrap());
        let backend = Arc::new(options().archive(archive).build(frontend).unwrap());
        CodeCache::<u64>::builder(Tier::new(backend.clone()).policy(Threshold::new(2)))
            .engine(Engine::builder().inline().capacity(1 << 10))
            .artifacts(KeptCode::new(backend).unwrap())
            .build()
            .unwrap()
    };
    let source = |key: u64| vec![key as u8; 3];
    let patience = Duration::from_secs(120);
    for origin in [Origin::Compiled, Origin::Loaded] {
        let cache = live();
        if origin == Origin::Compiled {
            assert_eq!(
                cache.prepare_batch(
                    (1..20).map(|key| (key, beadwork::resident::Lazy::new(move || source(key))))
                ),
                []
            );
        } else {
            assert_eq!(cache.preload().unwrap(), 19);
        }
        cache.drain(patience).unwrap();
        let m = cache.mutator();
        for key in 1..20 {
            let Lookup::Compiled { code, origin: from } = m.lookup(&key, &source(key)) else {
                panic!("{key}")
            };
            // SAFETY: the frontend gives functions of this type, and no safepoint is passed meanwhile.
            let function: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
            assert_eq!((function(1), from), (1 + 3 * key.cast_signed(), origin));
        }
        let stats = cache.stats();
        let (kept, loaded) = if origin == Origin::Compiled { (19, 0) } else { (0, 19) };
        assert_eq!((stats.kept, stats.loaded, stats.persisted, stats.refused), (kept, loaded, 19, 0));
    }
    assert_eq!(built.load(SeqCst), 19);
    std::fs::remove_dir_all(&root).unwrap();
}

#[test]
fn a_function_without_a_key_is_neither_looked_for_nor_kept() {
    let archive = Archive::new(MemoryStore::new());
    archive.set_saving(true);
    let frontend = |unit: &mut FunctionUnit<'_, '_>| {
        let signature = word(unit).fn_type(&[], false);
        unit.begin(signature);
        let answer = number(unit, 42);
        unit.builder().build_return(Some(&answer))?;
        Ok(())
    };
    let tier = Tier::new(LlvmBackend::builder().archive(archive.clone()).build(frontend).unwrap());
    let engine = Engine::builder().inline().tier(tier).build().unwrap();
    let beads = [
        engine.register(Core::ZERO).unwrap(),
        engine.register_with(Core::ZERO, &BeadInfo::new().key(9)).unwrap(),
    ];
    for bead in beads {
        engine.promote(bead, TierId::BASELINE).unwrap();
        engine.run_pending(1);
        assert_eq!(engine.tier(bead), Ok(TierId::BASELINE));
    }
    assert_eq!((archive.stats().missing, archive.stats().saved), (1, 1));
}
