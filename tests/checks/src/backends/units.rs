//! Units of several functions: bodies in the code of another function, and what becomes of them.

use super::{Rig, Tested, With, plus};
use beadwork::{CompileError, Engine};
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

/// Includes these functions, calls them one after the other, and adds `n`.
fn caller<T: Tested>(n: i64, callees: &'static [usize]) -> T::Body {
    T::body(move |ir, x, all| {
        let mut value = x;
        for &callee in callees {
            ir.include(all[callee]);
            value = ir.call(all[callee], value);
        }
        Ok(ir.plus(value, n))
    })
}

pub fn included_callees_are_part_of_the_code_and_need_none_of_their_own<T: Tested>() {
    for ((level, options), bits) in
        T::levels().into_iter().flat_map(|level| [(level.clone(), false), (level, true)])
    {
        let bodies =
            vec![caller::<T>(1000, &[1, 2, 1]), plus::<T>(3), plus::<T>(50), caller::<T>(7, &[2, 0])];
        let options = if bits { T::with(options, With::CalleeBits) } else { options };
        let rig = Rig::<T>::new(options, bodies);
        // Both units are of one batch.
        rig.compile([0, 3]);
        let run = |number, x| if bits { rig.call_with_bits(number, x) } else { rig.call(number, x) };
        assert_eq!(run(0, 4), 1060, "4 + 3 + 50 + 3 + 1000; {level}");
        assert!(!rig.is_native(1) && !rig.is_native(2));
        // What is included includes nothing, so `3` has the body of `0`, and that needs code of `1` and `2`.
        rig.compile([1, 2]);
        assert_eq!(run(3, 4), 1117, "4 + 50, + 3 + 50 + 3 + 1000, + 7; {level}");
        let stats = rig.stats();
        // What is asked for twice is there once.
        assert_eq!((stats.included, stats.units_failed, stats.compiled), (4, 0, 4), "{level}");
    }
}

pub fn the_code_goes_with_a_redefinition_of_what_it_contains_and_comes_back_with_the_new_body<T: Tested>() {
    let adds = Arc::new(AtomicI64::new(3));
    let now = adds.clone();
    let callee = T::body(move |ir, x, _| Ok(ir.plus(x, now.load(SeqCst))));
    let rig = Rig::<T>::compiled(T::options(), vec![caller::<T>(1000, &[1]), callee]);
    assert_eq!((rig.call(0, 4), rig.call(1, 4)), (1007, 7));
    adds.store(5, SeqCst);
    rig.engine.invalidate(rig.beads[1]).unwrap();
    assert!(!rig.is_native(0) && !rig.is_native(1));
    rig.engine.reclaim();
    assert_eq!(rig.stats().arena.live_blocks, 0, "its memory goes with it");
    rig.compile([0, 1]);
    assert_eq!((rig.call(0, 4), rig.call(1, 4)), (1009, 9));
    let version = rig.engine.version(rig.beads[1]).unwrap();
    assert_eq!(rig.engine.invalidate_version(rig.beads[1], version), Ok(true));
    assert_eq!(rig.call(0, 4), 1009, "what became of the other's own code is no redefinition");
}

/// `if x == 0 { at_zero } else { other(x - 1) }`, with all functions of the program in one unit.
pub fn parity<T: Tested>(at_zero: i64, other: usize) -> T::Body {
    T::body(move |ir, x, all| {
        all.iter().for_each(|&bead| _ = ir.include(bead));
        Ok(ir.unless_zero(x, at_zero, &mut |ir| {
            let less = ir.plus(x, -1);
            ir.call(all[other], less)
        }))
    })
}

pub fn functions_that_call_each_other_and_themselves_are_direct_calls_within_a_unit<T: Tested>() {
    let bodies = vec![parity::<T>(1, 1), parity::<T>(0, 0), parity::<T>(5, 2)];
    let rig = Rig::<T>::new(T::options(), bodies);
    // Without a fallback a call through a slot would jump to null.
    rig.compile([0, 2]);
    assert_eq!((rig.call(0, 1_000), rig.call(0, 7), rig.call(2, 9)), (1, 0, 5));
    rig.compile([1]);
    assert_eq!((rig.call(1, 1_001), rig.call(1, 4)), (1, 0));
    rig.engine.invalidate(rig.beads[0]).unwrap();
    assert!(!rig.is_native(0) && !rig.is_native(1), "each contains the other, and goes for itself");
}

pub fn a_unit_with_a_function_that_cannot_be_built_is_compiled_without<T: Tested>() {
    let broken = T::body(|_, _, _| Err(CompileError::failed("broken")));
    let rig = Rig::<T>::new(T::options(), vec![caller::<T>(1000, &[1]), broken]);
    rig.compile([0]);
    assert!(rig.is_native(0), "{:?}", rig.failure(0));
    let stats = rig.stats();
    assert_eq!((stats.included, stats.units_failed, stats.failed), (0, 1, 0));
}

pub fn a_unit_that_is_overtaken_by_a_redefinition_is_discarded_and_no_failure<T: Tested>() {
    let itself = Arc::new(OnceLock::<Engine>::new());
    let engine = itself.clone();
    let redefines = T::body(move |ir, x, all| {
        if ir.is_root() {
            assert!(ir.include(all[1]));
            engine.get().expect("set below").invalidate(all[1]).unwrap();
        }
        Ok(ir.call(all[1], x))
    });
    let rig = Rig::<T>::new(T::options(), vec![redefines, plus::<T>(1)]);
    itself.set(rig.engine.clone()).unwrap();
    rig.compile([0]);
    let stats = rig.engine.stats();
    assert_eq!((rig.is_native(0), stats.failed, stats.discarded), (false, 0, 1));
    assert_eq!(rig.failure(0), None::<String>);
}

/// Calls one function, which is included, and then another, which is not.
fn caller_of_two<T: Tested>() -> T::Body {
    T::body(|ir, x, all| {
        ir.include(all[1]);
        let value = ir.call(all[1], x);
        Ok(ir.call(all[2], value))
    })
}

pub fn a_callee_that_is_gone_fails_the_function_whether_it_is_built_with_bodies_or_without<T: Tested>() {
    let rig = Rig::<T>::new(T::options(), vec![caller_of_two::<T>(), plus::<T>(3), plus::<T>(5)]);
    rig.engine.remove(rig.beads[2]).unwrap();
    rig.compile([0]);
    assert!(!rig.is_native(0), "it would read a slot at address 0");
    assert!(rig.failure(0).is_some_and(|failure| failure.contains("a callee cannot be called")));
}

pub fn a_unit_with_a_body_that_panics_is_compiled_without_and_the_next_one_with<T: Tested>() {
    let panics = T::body(|_, _, _| panic!("a body that cannot be built"));
    let bodies = vec![caller_of_two::<T>(), panics, plus::<T>(5), caller::<T>(0, &[4]), plus::<T>(7)];
    let rig = Rig::<T>::new(T::options(), bodies);
    rig.compile([0]);
    assert!(rig.is_native(0), "{:?}", rig.failure(0));
    let stats = rig.stats();
    assert_eq!((stats.included, stats.units_failed, stats.failed), (0, 1, 0));
    rig.compile([3]);
    assert_eq!((rig.call(3, 1), rig.stats().included), (8, 1));
}

pub fn a_function_that_panics_with_bodies_of_others_in_it_is_compiled_without<T: Tested>() {
    let panics = T::body(|ir, x, all| {
        if ir.include(all[1]) {
            panic!("a bug of the inliner");
        }
        Ok(ir.call(all[1], x))
    });
    let rig = Rig::<T>::compiled(T::options(), vec![panics, plus::<T>(3)]);
    assert_eq!(rig.call(0, 4), 7);
    assert_eq!(rig.stats().units_failed, 1);
}

pub fn call_sites_are_recorded_for_the_function_and_never_for_a_body_in_it<T: Tested>() {
    let asks = |count, callee: Option<usize>| {
        T::body(move |ir, x, all| {
            let is_root = ir.is_root();
            assert_eq!(ir.call_sites(count), is_root);
            let Some(callee) = callee else { return Ok(x) };
            ir.include(all[callee]);
            Ok(ir.call(all[callee], x))
        })
    };
    let rig = Rig::<T>::new(T::options(), vec![asks(1, Some(1)), asks(3, None)]);
    rig.compile([0]);
    assert_eq!(rig.stats().included, 1, "{:?}", rig.failure(0));
    let profile = rig.engine.profile(rig.beads[0]).unwrap().unwrap();
    assert_eq!(profile.call_sites().len(), 1);
}
