//! Units of several functions: bodies in the module of another function, and what becomes of them.

use crate::rig::{Body, Rig, body, call, number, options, plus, signature, word};
use beadwork::{Bead, BeadInfo, Core, Engine, Manual, Tier, TierId};
use beadwork_llvm::inkwell::IntPredicate;
use beadwork_llvm::inkwell::values::IntValue;
use beadwork_llvm::{BuildError, Entry, FunctionUnit, LlvmBackend, Passes};
use std::sync::{Arc, OnceLock};

/// Calls function 1, which is included if `includes`, and adds 1000.
fn caller(includes: bool) -> Body {
    body(move |unit, x, all| {
        if all.first() == Some(&unit.bead()) && includes {
            assert!(unit.include(all[1]) && unit.include(all[1]), "asked twice, it is there once");
        }
        let value = call(unit, all[1], x)?;
        Ok(unit.builder().build_int_add(value, number(unit, 1000), "")?)
    })
}

#[test]
fn an_included_callee_is_part_of_the_code_and_needs_none_of_its_own() {
    for passes in crate::rig::all_passes() {
        let rig = Rig::new(LlvmBackend::builder().passes(passes), vec![caller(true), plus(3)]);
        rig.compile([0]);
        assert_eq!(rig.call(0, 4), 1007);
        assert!(!rig.is_native(1));
        let stats = rig.backend.stats();
        assert_eq!((stats.included, stats.units_failed, stats.compiled), (1, 0, 1));
    }
}

#[test]
fn a_small_included_callee_is_inlined() {
    let size = |includes| {
        let rig = Rig::new(LlvmBackend::builder().passes(Passes::O3), vec![caller(includes), plus(3)]);
        rig.compile([0, 1]);
        assert_eq!(rig.call(0, 4), 1007);
        rig.installs()[0].1
    };
    let (inlined, called) = (size(true), size(false));
    assert!(inlined < called && inlined <= 16, "{inlined} bytes, {called} with a call");
}

#[test]
fn the_code_goes_with_a_redefinition_of_what_it_contains_and_comes_back_with_the_new_body() {
    static ADDS: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(3);
    let adds = body(|unit, x, _| {
        let n = ADDS.load(std::sync::atomic::Ordering::SeqCst);
        Ok(unit.builder().build_int_add(x, number(unit, n), "")?)
    });
    let rig = Rig::new(options(), vec![caller(true), adds]);
    rig.compile([0, 1]);
    assert_eq!((rig.call(0, 4), rig.call(1, 4)), (1007, 7));
    ADDS.store(5, std::sync::atomic::Ordering::SeqCst);
    rig.engine.invalidate(rig.beads[1]).unwrap();
    assert!(!rig.is_native(0) && !rig.is_native(1));
    rig.compile([0, 1]);
    assert_eq!((rig.call(0, 4), rig.call(1, 4)), (1009, 9));
    // What became of the other's own code is no redefinition.
    let version = rig.engine.version(rig.beads[1]).unwrap();
    assert_eq!(rig.engine.invalidate_version(rig.beads[1], version), Ok(true));
    assert_eq!(rig.call(0, 4), 1009);
}

/// `if x == 0 { at_zero } else { other(x - 1) }`, with all functions of the program in one unit.
fn parity(at_zero: i64, other: usize) -> Body {
    body(move |unit, x, all| {
        all.iter().for_each(|&bead| _ = unit.include(bead));
        let (more, done) = (unit.append_block("more")?, unit.append_block("done")?);
        let entry = unit.builder().get_insert_block().expect("begin opened a block");
        let zero = unit.builder().build_int_compare(IntPredicate::EQ, x, number(unit, 0), "")?;
        unit.builder().build_conditional_branch(zero, done, more)?;
        unit.builder().position_at_end(more);
        let less = unit.builder().build_int_sub(x, number(unit, 1), "")?;
        let value = call(unit, all[other], less)?;
        unit.builder().build_unconditional_branch(done)?;
        unit.builder().position_at_end(done);
        let result = unit.builder().build_phi(word(unit), "")?;
        result.add_incoming(&[(&number(unit, at_zero), entry), (&value, more)]);
        Ok(result.as_basic_value().into_int_value())
    })
}

#[test]
fn functions_that_call_each_other_and_themselves_are_direct_calls_within_a_unit() {
    let rig = Rig::new(LlvmBackend::builder().passes(Passes::O3), vec![parity(1, 1), parity(0, 0)]);
    rig.compile([0]);
    assert_eq!((rig.call(0, 1_000_000), rig.call(0, 7)), (1, 0), "deep recursion has become a loop");
    rig.compile([1]);
    assert_eq!((rig.call(1, 1_000_001), rig.call(1, 4)), (1, 0));
    // Each contains the other, and goes for itself.
    rig.engine.invalidate(rig.beads[0]).unwrap();
    assert!(!rig.is_native(0) && !rig.is_native(1));
}

#[test]
fn a_unit_with_a_function_that_cannot_be_built_is_compiled_without() {
    let broken = body(|_, _, _| Err(BuildError::failed("broken")));
    let rig = Rig::new(options(), vec![caller_of_what_is_broken(), broken]);
    rig.compile([0]);
    assert!(rig.is_native(0), "{:?}", rig.failure(0));
    let stats = rig.backend.stats();
    assert_eq!((stats.included, stats.units_failed, stats.failed), (0, 1, 0));
}

fn caller_of_what_is_broken() -> Body {
    body(|unit, x, all| {
        unit.include(all[1]);
        call(unit, all[1], x)
    })
}

#[test]
fn the_body_of_another_signature_is_refused_by_name() {
    let other = Arc::new(OnceLock::<Bead>::new());
    let called = other.clone();
    let backend = options().build(move |unit: &mut FunctionUnit<'_, '_>| {
        let word = word(unit);
        if unit.core()?.get() == 1 {
            let x = unit.begin(word.fn_type(&[word.into(), word.into()], false))[1];
            unit.builder().build_return(Some(&x))?;
            return Ok(());
        }
        let signature = signature(unit);
        let x = unit.begin(signature)[0];
        let callee = *called.get().expect("registered");
        let included = unit.include(callee);
        let result = if included {
            unit.call_bead(callee, signature, &[x.into()])?.try_as_basic_value().unwrap_basic()
        } else {
            x
        };
        unit.builder().build_return(Some(&result))?;
        Ok(())
    });
    let backend = Arc::new(backend.unwrap());
    let engine = Engine::builder().inline().tier(Tier::new(backend.clone()).policy(Manual)).build().unwrap();
    let caller = engine.register(0.into()).unwrap();
    other.set(engine.register(1.into()).unwrap()).unwrap();
    engine.promote(caller, TierId::BASELINE).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(backend.stats().units_failed, 1, "calling it so would mean anything");
    assert_eq!(engine.tier(caller), Ok(TierId::BASELINE), "and alone it is compiled");
}

/// Counts down from `x`, adding what function 1 answers each time; a loop entry gets `x` and the sum.
fn looped(unit: &mut FunctionUnit<'_, '_>, callee: Bead) -> Result<(), BuildError> {
    let word = word(unit);
    let (start, sum): (IntValue<'_>, IntValue<'_>) = match unit.entry() {
        Entry::Function => {
            unit.add_loop_entry(9);
            let x = unit.begin(signature(unit))[0].into_int_value();
            (x, number(unit, 0))
        }
        Entry::Loop(_) => {
            let params = unit.begin(word.fn_type(&[word.into(), word.into()], false));
            (params[0].into_int_value(), params[1].into_int_value())
        }
    };
    assert!(unit.include(callee));
    let before = unit.builder().get_insert_block().expect("begin opened a block");
    let (header, more, done) =
        (unit.append_block("header")?, unit.append_block("more")?, unit.append_block("done")?);
    unit.builder().build_unconditional_branch(header)?;
    unit.builder().position_at_end(header);
    let (i, total) = (unit.builder().build_phi(word, "")?, unit.builder().build_phi(word, "")?);
    let (i_now, total_now) = (i.as_basic_value().into_int_value(), total.as_basic_value().into_int_value());
    let end = unit.builder().build_int_compare(IntPredicate::EQ, i_now, number(unit, 0), "")?;
    unit.builder().build_conditional_branch(end, done, more)?;
    unit.builder().position_at_end(more);
    let value = call(unit, callee, i_now)?;
    let next_total = unit.builder().build_int_add(total_now, value, "")?;
    let next = unit.builder().build_int_sub(i_now, number(unit, 1), "")?;
    unit.builder().build_unconditional_branch(header)?;
    i.add_incoming(&[(&start, before), (&next, more)]);
    total.add_incoming(&[(&sum, before), (&next_total, more)]);
    unit.builder().position_at_end(done);
    unit.builder().build_return(Some(&total_now))?;
    Ok(())
}

#[test]
fn a_loop_entry_contains_bodies_too_and_goes_with_the_function() {
    let callee = Arc::new(OnceLock::<Bead>::new());
    let known = callee.clone();
    let backend = options().build(move |unit: &mut FunctionUnit<'_, '_>| {
        if unit.core()?.get() == 0 {
            return looped(unit, *known.get().expect("registered"));
        }
        let signature = signature(unit);
        let x = unit.begin(signature)[0].into_int_value();
        let doubled = unit.builder().build_int_add(x, x, "")?;
        unit.builder().build_return(Some(&doubled))?;
        Ok(())
    });
    let backend = Arc::new(backend.unwrap());
    let engine = Engine::builder().inline().tier(Tier::new(backend.clone()).policy(Manual)).build().unwrap();
    let register = |number| engine.register_with(Core::new(number), &BeadInfo::named("f")).unwrap();
    let (function, second) = (register(0), register(1));
    callee.set(second).unwrap();
    engine.promote(function, TierId::BASELINE).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!((backend.stats().included, backend.stats().loop_entries), (2, 1));
    let m = engine.mutator();
    let entry = m.osr_entry(function, 9).expect("a loop entry");
    // SAFETY: built above with this signature; `m` passes no safepoint during the call.
    let entry: extern "C" fn(i64, i64) -> i64 = unsafe { std::mem::transmute(entry.as_ptr()) };
    assert_eq!(entry(3, 100), 112);
    engine.reload(second).unwrap();
    assert!(m.osr_entry(function, 9).is_none() && m.code(function).is_none());
}

#[test]
fn a_unit_that_is_overtaken_by_a_redefinition_is_discarded_and_no_failure() {
    let itself = Arc::new(OnceLock::<Engine>::new());
    let engine = itself.clone();
    let redefines = body(move |unit, x, all| {
        if all.first() == Some(&unit.bead()) {
            assert!(unit.include(all[1]));
            engine.get().expect("set below").invalidate(all[1]).unwrap();
        }
        call(unit, all[1], x)
    });
    let rig = Rig::new(options(), vec![redefines, plus(1)]);
    itself.set(rig.engine.clone()).ok();
    rig.compile([0]);
    let stats = rig.engine.stats();
    assert_eq!((rig.is_native(0), stats.failed, stats.discarded), (false, 0, 1));
    assert_eq!(rig.failure(0), None::<String>);
}

/// Calls function 1, which is included, and then function 2, which is not.
fn caller_of_two() -> Body {
    body(|unit, x, all| {
        unit.include(all[1]);
        let value = call(unit, all[1], x)?;
        call(unit, all[2], value)
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
        call(unit, all[4], x)
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
            call(unit, all[callee], x)
        })
    };
    let rig = Rig::new(options(), vec![asks(1, Some(1)), asks(3, None)]);
    rig.compile([0]);
    assert_eq!(rig.backend.stats().included, 1, "{:?}", rig.failure(0));
    let profile = rig.engine.profile(rig.beads[0]).unwrap().unwrap();
    assert_eq!(profile.call_sites().len(), 1);
}

#[test]
fn a_function_that_panics_with_bodies_of_others_in_it_is_compiled_without() {
    let panics = body(|unit, x, all| {
        if unit.include(all[1]) {
            panic!("a bug of the inliner");
        }
        call(unit, all[1], x)
    });
    let rig = Rig::new(options(), vec![panics, plus(3)]);
    rig.compile([0, 1]);
    assert!(rig.is_native(0), "{:?}", rig.failure(0));
    assert_eq!(rig.call(0, 4), 7);
    assert_eq!(rig.backend.stats().units_failed, 1);
}
