//! Code is freed function by function.

use super::{Rig, Tested, With, plus};
use beadwork::Engine;
use std::sync::{Arc, OnceLock};

pub fn the_engine_hears_the_size_and_compile_time_of_each_function<T: Tested>() {
    let large = T::body(|ir, _, _| Ok(ir.data(&[7; 1000])));
    let rig = Rig::<T>::compiled(T::options(), vec![plus::<T>(1), large]);
    let mut installs = rig.installs();
    installs.sort_by_key(|(bead, ..)| *bead);
    let [(_, small, small_took), (_, large, large_took)] = installs[..] else { panic!("{installs:?}") };
    assert!(small > 0 && large >= 1000, "{installs:?}");
    assert!(!small_took.is_zero() && !large_took.is_zero(), "{installs:?}");
    assert_eq!(rig.stats().code_bytes, (small + large) as u64);
}

pub fn code_is_freed_per_function_while_its_batch_lives_on<T: Tested>() {
    let rig = Rig::<T>::compiled(T::options(), (0..8).map(plus::<T>).collect());
    assert_eq!(rig.stats().arena.live_blocks, 8);
    for number in [1, 3, 4] {
        rig.engine.invalidate(rig.beads[number]).unwrap();
    }
    rig.engine.reclaim();
    assert_eq!(rig.stats().arena.live_blocks, 5);
    for number in [0, 2, 5, 6, 7] {
        assert_eq!(rig.call(number, 100), 100 + number as i64);
    }
}

pub fn code_waits_for_every_mutator_before_it_is_freed<T: Tested>() {
    let rig = Rig::<T>::new(T::options(), vec![plus::<T>(1)]);
    let mut m = rig.engine.mutator();
    rig.compile([0]);
    rig.engine.invalidate(rig.beads[0]).unwrap();
    rig.engine.reclaim();
    assert_eq!(rig.stats().arena.live_blocks, 1, "the mutator has passed no safepoint");
    m.safepoint();
    rig.engine.reclaim();
    assert_eq!(rig.stats().arena.live_blocks, 0);
}

pub fn a_superseded_result_frees_its_code_at_once<T: Tested>() {
    // Removed by its own frontend, after it was taken from the queue.
    let engine = Arc::new(OnceLock::<Engine>::new());
    let handle = engine.clone();
    let late = T::body(move |ir, x, all| {
        handle.get().unwrap().remove(all[0]).unwrap();
        Ok(ir.plus(x, 1))
    });
    let rig = Rig::<T>::new(T::options(), vec![late]);
    engine.set(rig.engine.clone()).unwrap();
    rig.compile([0]);
    let stats = rig.stats();
    assert_eq!((stats.compiled, stats.arena.live_blocks), (1, 0));
    assert_eq!(rig.engine.stats().discarded, 1);
}

pub fn a_request_superseded_while_its_batch_is_compiled_costs_no_compile<T: Tested>() {
    // Whichever function is built first removes all the others.
    let engine = Arc::new(OnceLock::<Engine>::new());
    let removes_others = |number: usize| {
        let engine = engine.clone();
        T::body(move |_, x, all| {
            for (_, &bead) in all.iter().enumerate().filter(|&(other, _)| other != number) {
                engine.get().unwrap().remove(bead).unwrap();
            }
            Ok(x)
        })
    };
    let rig = Rig::<T>::new(T::options(), (0..8).map(removes_others).collect());
    engine.set(rig.engine.clone()).unwrap();
    rig.compile(0..8);
    let stats = rig.stats();
    assert_eq!((stats.compiled, stats.failed), (1, 0), "a second build would have failed to remove");
    assert!(stats.superseded > 0);
    assert_eq!(rig.engine.stats().discarded, stats.superseded);
}

pub fn code_outlives_the_backend_and_goes_with_the_engine<T: Tested>() {
    let arena = beadwork_arena::Arena::builder().build().unwrap();
    let options = T::with(T::options(), With::Arena(arena.clone()));
    let Rig { engine, backend, .. } = Rig::<T>::compiled(options, vec![plus::<T>(1)]);
    drop(backend);
    assert_eq!(arena.stats().live_blocks, 1);
    drop(engine);
    assert_eq!(arena.stats().live_blocks, 0);
}
