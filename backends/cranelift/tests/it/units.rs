//! Units of several functions: bodies beside the code of another function, called directly, and what becomes of them.

use crate::rig::{Body, Rig, body, options, plus, signature};
use beadwork::{Bead, CompileError, Core, Engine, Manual, Tier, TierId};
use beadwork_cranelift::types::I64;
use beadwork_cranelift::{AbiParam, CraneliftBackend, Entry, FunctionUnit, InstBuilder, OptLevel, ir::Value};
use std::sync::{Arc, OnceLock};

fn call(unit: &mut FunctionUnit<'_, '_>, callee: Bead, x: Value) -> Value {
    let signature = signature(unit);
    let call = unit.call_bead(callee, &signature, &[x]);
    unit.builder().inst_results(call)[0]
}

/// Includes these functions, calls them one after the other, and adds `n`.
fn caller(n: i64, callees: &'static [usize]) -> Body {
    body(move |unit, x, all| {
        let mut value = x;
        for &callee in callees {
            unit.include(all[callee]);
            value = call(unit, all[callee], value);
        }
        Ok(unit.builder().ins().iadd_imm_s(value, n))
    })
}

#[test]
fn included_callees_are_part_of_the_code_and_need_none_of_their_own() {
    for (level, bits) in [(OptLevel::None, false), (OptLevel::Speed, false), (OptLevel::None, true)] {
        let bodies = vec![caller(1000, &[1, 2, 1]), plus(3), plus(50), caller(7, &[2, 0])];
        let rig = Rig::new(options().opt_level(level).pass_callee_bits(bits), bodies);
        // Both units are of one batch.
        rig.compile([0, 3]);
        let run = |number, x| if bits { rig.call_with_bits(number, x) } else { rig.call(number, x) };
        assert_eq!(run(0, 4), 1060, "4 + 3 + 50 + 3 + 1000");
        assert!(!rig.is_native(1) && !rig.is_native(2));
        // What is included includes nothing, so `3` has the body of `0`, and that needs code of `1`.
        rig.compile([1]);
        assert_eq!(run(3, 4), 1117, "4 + 50, + 3 + 50 + 3 + 1000, + 7");
        let stats = rig.backend.stats();
        assert_eq!((stats.included, stats.units_failed, stats.compiled), (4, 0, 3));
    }
}

#[test]
fn the_code_goes_with_a_redefinition_of_what_it_contains_and_its_memory_with_it() {
    let rig = Rig::new(options(), vec![caller(1000, &[1]), plus(3)]);
    rig.compile([0, 1]);
    assert_eq!((rig.call(0, 4), rig.call(1, 4)), (1007, 7));
    let version = rig.engine.version(rig.beads[1]).unwrap();
    assert_eq!(rig.engine.invalidate_version(rig.beads[1], version), Ok(true));
    assert_eq!(rig.call(0, 4), 1007, "what became of the other's own code is no redefinition");
    rig.engine.invalidate(rig.beads[1]).unwrap();
    assert!(!rig.is_native(0));
    rig.engine.reclaim();
    assert_eq!(rig.backend.stats().arena.live_blocks, 0);
}

/// `if x == 0 { at_zero } else { other(x - 1) }`, with all functions of the program in one unit.
fn parity(at_zero: i64, other: usize) -> Body {
    body(move |unit, x, all| {
        all.iter().for_each(|&bead| _ = unit.include(bead));
        let b = unit.builder();
        let (more, done) = (b.create_block(), b.create_block());
        let result = b.append_block_param(done, I64);
        let at_zero = b.ins().iconst(I64, at_zero);
        b.ins().brif(x, more, &[], done, &[at_zero.into()]);
        b.switch_to_block(more);
        let less = b.ins().iadd_imm_s(x, -1);
        let value = call(unit, all[other], less);
        let b = unit.builder();
        b.ins().jump(done, &[value.into()]);
        b.switch_to_block(done);
        Ok(result)
    })
}

#[test]
fn functions_that_call_each_other_and_themselves_are_direct_calls_within_a_unit() {
    let rig = Rig::new(options(), vec![parity(1, 1), parity(0, 0), parity(5, 2)]);
    // Without a fallback a call through a slot would jump to null.
    rig.compile([0, 2]);
    assert_eq!((rig.call(0, 1_000), rig.call(0, 7), rig.call(2, 9)), (1, 0, 5));
    rig.compile([1]);
    rig.engine.invalidate(rig.beads[0]).unwrap();
    assert!(!rig.is_native(0) && !rig.is_native(1), "each contains the other, and goes for itself");
}

#[test]
fn a_unit_with_a_function_that_cannot_be_built_is_compiled_without() {
    let broken = body(|_, _, _| Err(CompileError::failed("broken")));
    let rig = Rig::new(options(), vec![caller(1000, &[1]), broken]);
    rig.compile([0]);
    assert!(rig.is_native(0), "{:?}", rig.failure(0));
    let stats = rig.backend.stats();
    assert_eq!((stats.included, stats.units_failed, stats.failed), (0, 1, 0));
}

#[test]
fn the_body_of_another_signature_is_refused_and_the_function_compiled_without() {
    let other = Arc::new(OnceLock::<Bead>::new());
    let called = other.clone();
    let backend = CraneliftBackend::builder().build(move |unit: &mut FunctionUnit<'_, '_>| {
        let mut plain = signature(unit);
        if unit.core()?.get() == 1 {
            plain.params.push(AbiParam::new(I64));
            let x = unit.begin(&plain)[1];
            unit.builder().ins().return_(&[x]);
            return Ok(());
        }
        let x = unit.begin(&plain)[0];
        let callee = *called.get().expect("registered");
        let result = if unit.include(callee) { call(unit, callee, x) } else { x };
        unit.builder().ins().return_(&[result]);
        Ok(())
    });
    let backend = Arc::new(backend.unwrap());
    let engine = Engine::builder().inline().tier(Tier::new(backend.clone()).policy(Manual)).build().unwrap();
    let caller = engine.register(0.into()).unwrap();
    other.set(engine.register(1.into()).unwrap()).unwrap();
    engine.promote(caller, TierId::BASELINE).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(backend.stats().units_failed, 1, "calling it so would mean anything");
    assert_eq!(engine.tier(caller), Ok(TierId::BASELINE));
}

#[test]
fn a_loop_entry_calls_the_bodies_of_its_function_directly() {
    let callee = Arc::new(OnceLock::<Bead>::new());
    let known = callee.clone();
    let backend = CraneliftBackend::builder().build(move |unit: &mut FunctionUnit<'_, '_>| {
        let x = unit.begin(&signature(unit))[0];
        let result = match (unit.core()?.get(), unit.entry()) {
            (0, entry) => {
                let callee = *known.get().expect("registered");
                unit.add_loop_entry(9);
                assert!(unit.include(callee));
                let value = call(unit, callee, x);
                unit.builder().ins().iadd_imm_s(value, if entry == Entry::Function { 100 } else { 200 })
            }
            _ => unit.builder().ins().iadd_imm_s(x, 1),
        };
        unit.builder().ins().return_(&[result]);
        Ok(())
    });
    let backend = Arc::new(backend.unwrap());
    let engine = Engine::builder().inline().tier(Tier::new(backend.clone()).policy(Manual)).build().unwrap();
    let [function, second] = [0, 1].map(|number| engine.register(Core::new(number)).unwrap());
    callee.set(second).unwrap();
    engine.promote(function, TierId::BASELINE).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!((backend.stats().included, backend.stats().loop_entries), (1, 1), "one body serves both");
    let m = engine.mutator();
    let code = [m.code(function), m.osr_entry(function, 9)].map(|code| {
        // SAFETY: built above with this signature; `m` passes no safepoint during the call.
        let code: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.unwrap().as_ptr()) };
        code(5)
    });
    assert_eq!(code, [106, 206]);
}

/// Calls function 1, which is included, and then function 2, which is not.
fn caller_of_two() -> Body {
    body(|unit, x, all| {
        unit.include(all[1]);
        let value = call(unit, all[1], x);
        Ok(call(unit, all[2], value))
    })
}

#[test]
fn a_callee_that_is_gone_fails_the_function_whether_it_is_built_with_bodies_or_without() {
    let rig = Rig::new(options(), vec![caller_of_two(), plus(3), plus(5)]);
    rig.engine.remove(rig.beads[2]).unwrap();
    rig.compile([0]);
    assert!(!rig.is_native(0), "it would read a slot at address 0");
    assert!(rig.failure(0).is_some_and(|failure| failure.contains("a callee cannot be called")));
}

#[test]
fn a_unit_with_a_body_that_panics_is_compiled_without_and_the_next_one_with() {
    let panics = body(|_, _, _| panic!("a body that cannot be built"));
    let rig = Rig::new(options(), vec![caller_of_two(), panics, plus(5), caller_of_the_last(), plus(7)]);
    rig.compile([0]);
    assert!(rig.is_native(0), "{:?}", rig.failure(0));
    let stats = rig.backend.stats();
    assert_eq!((stats.included, stats.units_failed, stats.failed), (0, 1, 0));
    rig.compile([3]);
    assert_eq!((rig.call(3, 1), rig.backend.stats().included), (8, 1));
}

fn caller_of_the_last() -> Body {
    body(|unit, x, all| {
        unit.include(all[4]);
        Ok(call(unit, all[4], x))
    })
}

#[test]
fn call_sites_are_recorded_for_the_function_and_never_for_a_body_in_it() {
    let asks = |count, callee: Option<usize>| {
        body(move |unit, x, all| {
            let is_root = unit.bead() == unit.job().bead();
            assert_eq!(unit.call_sites(count).is_some(), is_root);
            let Some(callee) = callee else { return Ok(x) };
            unit.include(all[callee]);
            Ok(call(unit, all[callee], x))
        })
    };
    let rig = Rig::new(options(), vec![asks(1, Some(1)), asks(3, None)]);
    rig.compile([0]);
    assert_eq!(rig.backend.stats().included, 1, "{:?}", rig.failure(0));
    let profile = rig.engine.profile(rig.beads[0]).unwrap().unwrap();
    assert_eq!(profile.call_sites().len(), 1);
}
