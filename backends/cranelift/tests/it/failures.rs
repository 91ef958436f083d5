//! Failures are one function's, and say why.

use crate::rig::{Body, Rig, body, options, plus, signature};
use beadwork::{CompileError, Engine, Manual, Tier, TierId};
use beadwork_arena::Arena;
use beadwork_cranelift::ir::{ExtFuncData, ExternalName, UserExternalName};
use beadwork_cranelift::types::{I32, I64};
use beadwork_cranelift::{FunctionUnit, InstBuilder};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

fn invalid() -> Body {
    body(|unit, x, _| {
        let narrow = unit.builder().ins().ireduce(I32, x);
        Ok(unit.builder().ins().iadd(x, narrow))
    })
}

fn unresolved() -> Body {
    body(|unit, x, _| {
        let name = unit.builder().func.declare_imported_user_function(UserExternalName::new(7, 3));
        let signature = signature(unit);
        let signature = unit.builder().import_signature(signature);
        let data =
            ExtFuncData { name: ExternalName::user(name), signature, colocated: false, patchable: false };
        let function = unit.builder().import_function(data);
        let call = unit.builder().ins().call(function, &[x]);
        Ok(unit.builder().inst_results(call)[0])
    })
}

/// Calls a symbol by a 32-bit distance, which cannot reach it.
fn out_of_reach() -> Body {
    body(|unit, x, _| {
        let signature = signature(unit);
        let near_null = unit.symbol("near_null", &signature);
        unit.builder().func.dfg.ext_funcs[near_null].colocated = true;
        let call = unit.builder().ins().call(near_null, &[x]);
        Ok(unit.builder().inst_results(call)[0])
    })
}

#[test]
fn each_kind_of_failure_fails_its_own_function_and_says_what_was_wrong() {
    let bodies: Vec<(Body, Option<&[&str]>)> = vec![
        (plus(1), None),
        (body(|_, _, _| Err(CompileError::failed("no such opcode"))), Some(&["no such opcode"])),
        (invalid(), Some(&["function_2", "invalid IR", "type"])),
        (
            body(|unit, _, _| Ok(unit.symbol_address("missing_thing"))),
            Some(&["unknown runtime symbol `missing_thing`", "CraneliftBuilder::symbol"]),
        ),
        (
            body(|unit, x, all| {
                let call = unit.call_bead(all[9], &signature(unit), &[x]);
                Ok(unit.builder().inst_results(call)[0])
            }),
            Some(&["callee", "9v1", "not live"]),
        ),
        (unresolved(), Some(&["function_5", "u7:3", "FunctionUnit::symbol"])),
        (
            body(|unit, x, _| {
                let open = unit.builder().create_block();
                unit.builder().ins().brif(x, open, &[], open, &[]);
                unit.builder().switch_to_block(open);
                let other = unit.builder().create_block();
                unit.builder().ins().iconst(I64, 1);
                // Returns from a block of its own, which leaves `open` without an end.
                unit.builder().func.layout.append_block(other);
                Err(CompileError::failed("given up half-way"))
            }),
            Some(&["given up half-way"]),
        ),
        (body(|unit, _, _| Ok(unit.data(b"x", 3))), Some(&["aligned to 3"])),
        (plus(8), None),
        (plus(9), None),
    ];
    let expected: Vec<_> = bodies.iter().map(|(_, words)| *words).collect();
    let rig = Rig::new(options(), bodies.into_iter().map(|(body, _)| body).collect());
    rig.engine.remove(rig.beads[9]).unwrap();
    rig.compile(0..9);
    for (number, words) in expected.into_iter().enumerate().take(9) {
        match words {
            None => assert_eq!(rig.call(number, 0), [1, 8][usize::from(number == 8)]),
            Some(words) => {
                let failure = rig.failure(number).unwrap_or_else(|| panic!("{number} did not fail"));
                assert!(words.iter().all(|word| failure.contains(word)), "{number}: {failure}");
                assert!(!rig.is_native(number));
            }
        }
    }
    let stats = rig.backend.stats();
    assert_eq!((stats.compiled, stats.failed, stats.split, stats.arena.live_blocks), (2, 7, 0, 2));
    assert!(stats.batches < 9, "the failing functions had company: {stats:?}");
}

#[test]
fn a_function_without_blocks_or_with_an_open_block_fails_with_that_reason() {
    let empty = |_: &mut FunctionUnit<'_, '_>| Ok(());
    let open = |unit: &mut FunctionUnit<'_, '_>| {
        unit.begin(&unit.new_signature());
        unit.builder().ins().iconst(I64, 1);
        Ok(())
    };
    let failure = |tier: Tier| {
        let log = Arc::new(std::sync::Mutex::new(String::new()));
        let heard = log.clone();
        let engine =
            Engine::builder().inline().capacity(16).tier(tier.policy(Manual)).on_event(move |event| {
                if let beadwork::Event::Failed { error, .. } = event {
                    *heard.lock().unwrap() = error.to_string();
                }
            });
        let engine = engine.build().unwrap();
        let bead = engine.register(0.into()).unwrap();
        engine.promote(bead, TierId::BASELINE).unwrap();
        engine.run_pending(1);
        log.lock().unwrap().clone()
    };
    let empty = failure(Tier::new(options().build(empty).unwrap()));
    assert!(empty.contains("no block"), "{empty}");
    let open = failure(Tier::new(options().build(open).unwrap()));
    assert!(open.contains("block0 has no terminator"), "{open}");
    let begun = |unit: &mut FunctionUnit<'_, '_>| {
        unit.begin(&unit.new_signature());
        Ok(())
    };
    let begun = failure(Tier::new(options().build(begun).unwrap()));
    assert!(begun.contains("no instruction") && begun.contains("is empty"), "{begun}");
    let jumps = |unit: &mut FunctionUnit<'_, '_>| {
        unit.begin(&unit.new_signature());
        let to = unit.builder().create_block();
        unit.builder().ins().jump(to, &[]);
        unit.builder().switch_to_block(to);
        Ok(())
    };
    let jumps = failure(Tier::new(options().build(jumps).unwrap()));
    assert!(jumps.contains("block0 goes to block1, which is empty"), "{jumps}");
}

#[test]
fn a_relocation_out_of_reach_fails_only_its_function_and_the_batch_is_placed_without_it() {
    let options = options().symbol("near_null", std::ptr::without_provenance(16));
    let rig = Rig::new(options, vec![plus(1), out_of_reach(), plus(3)]);
    rig.compile(0..3);
    assert_eq!((rig.call(0, 0), rig.call(2, 0)), (1, 3));
    let failure = rig.failure(1).unwrap();
    assert!(failure.contains("`function_1`") && failure.contains("cannot hold"), "{failure}");
    let stats = rig.backend.stats();
    assert_eq!((stats.compiled, stats.failed, stats.split, stats.arena.live_blocks), (2, 1, 1, 2));
}

#[test]
fn a_batch_that_does_not_fit_is_placed_as_far_as_it_fits() {
    let arena = Arena::builder().region_bytes(4096).max_bytes(Some(4096)).build().unwrap();
    let huge = body(|unit, _, _| Ok(unit.data(&[7; 5000], 8)));
    let rig = Rig::new(options().arena(arena), vec![plus(1), huge, plus(3)]);
    rig.compile(0..3);
    assert_eq!((rig.call(0, 0), rig.call(2, 0)), (1, 3));
    let failure = rig.failure(1).unwrap();
    assert!(failure.contains("function_1") && failure.contains("do not fit"), "{failure}");
    let fault = rig.engine.fault(rig.beads[1], TierId::BASELINE).unwrap();
    assert!(matches!(fault.last, CompileError::NoRoom(_)), "{fault:?}");
}

#[test]
fn a_panic_in_a_frontend_costs_only_its_function_and_leaves_the_backend_usable() {
    let angry = Arc::new(AtomicBool::new(true));
    let (mood, calm) = (angry.clone(), angry);
    let moody = body(move |unit, x, all| {
        // Half-built when it panics: an open block and a pinned callee.
        let call = unit.call_bead(all[0], &signature(unit), &[x]);
        assert!(!mood.load(Relaxed), "not in the mood");
        Ok(unit.builder().inst_results(call)[0])
    });
    let rig = Rig::new(options(), vec![plus(1), moody, plus(3)]);
    rig.compile(0..3);
    assert_eq!((rig.call(0, 0), rig.call(2, 0)), (1, 3));
    assert!(rig.failure(1).unwrap().contains("not in the mood"));
    assert_eq!(rig.backend.stats().arena.live_blocks, 2, "nothing of the interrupted batch is left");

    calm.store(false, Relaxed);
    rig.compile([1]);
    assert_eq!(rig.call(1, 10), 11);
    // Callees pinned by the compile that panicked are let go: only live code holds their indices.
    for &bead in &rig.beads {
        rig.engine.remove(bead).unwrap();
    }
    rig.engine.reclaim();
    assert_eq!(rig.backend.stats().arena.live_blocks, 0);
    let again: Vec<_> = (0..3).map(|_| rig.engine.register(0.into()).unwrap().index()).collect();
    assert!(rig.beads.iter().all(|bead| again.contains(&bead.index())), "{again:?}");
}

#[test]
fn without_the_verifier_a_panic_of_cranelift_itself_is_contained() {
    let rig = Rig::new(options().flag("enable_verifier", "false"), vec![plus(1), invalid(), plus(3)]);
    rig.compile(0..3);
    assert_eq!((rig.call(0, 0), rig.call(2, 0)), (1, 3));
}

#[test]
fn a_function_whose_frame_is_larger_than_allowed_stays_interpreted_and_the_error_names_both() {
    use beadwork_cranelift::cranelift_codegen::ir::{StackSlotData, StackSlotKind};
    let backend = beadwork_cranelift::CraneliftBackend::builder()
        .max_frame_bytes(4096)
        .build(|unit: &mut beadwork_cranelift::FunctionUnit<'_, '_>| {
            let bytes = unit.job().core()?.get() as u32;
            let signature = unit.new_signature();
            unit.begin(&signature);
            let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3);
            let slot = unit.builder().create_sized_stack_slot(slot);
            let pointer = unit.pointer_type();
            let value = unit.builder().ins().iconst(pointer, 1);
            unit.builder().ins().stack_store(pointer, value, slot, 0);
            unit.builder().ins().return_(&[]);
            Ok(())
        })
        .unwrap();
    let engine = beadwork::Engine::builder().inline().tier(beadwork::Tier::new(backend)).build().unwrap();
    let (small, large) = (engine.register(64.into()).unwrap(), engine.register(8192.into()).unwrap());
    for bead in [small, large] {
        engine.promote(bead, TierId::BASELINE).unwrap();
    }
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(small), Ok(beadwork::TierId::BASELINE));
    let error = engine.fault(large, beadwork::TierId::BASELINE).unwrap().last.to_string();
    assert!(error.contains("8192 bytes of stack") && error.contains("limit is 4096"), "{error}");
}
