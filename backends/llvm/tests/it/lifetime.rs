//! Code is freed function by function, and contexts are replaced.

use crate::rig::{Rig, body, number, options, plus, word};
use std::sync::{Arc, OnceLock};

#[test]
fn the_engine_hears_the_size_and_compile_time_of_each_function() {
    let large = body(|unit, _, _| {
        let data = unit.data(&[7; 1000], 8);
        Ok(unit.builder().build_ptr_to_int(data, word(unit), "")?)
    });
    let rig = Rig::new(options(), vec![plus(1), large]);
    rig.compile(0..2);
    let mut installs = rig.installs();
    installs.sort_by_key(|(bead, ..)| *bead);
    let [(_, small, small_took), (_, large, large_took)] = installs[..] else { panic!("{installs:?}") };
    assert!(small > 0 && large >= 1000, "{installs:?}");
    assert!(!small_took.is_zero() && !large_took.is_zero(), "{installs:?}");
    assert_eq!(rig.backend.stats().code_bytes, (small + large) as u64);
}

#[test]
fn code_is_freed_per_function_while_its_batch_lives_on() {
    let rig = Rig::new(options(), (0..8).map(plus).collect());
    rig.compile(0..8);
    assert_eq!(rig.backend.stats().arena.live_blocks, 8);
    for number in [1, 3, 4] {
        rig.engine.invalidate(rig.beads[number]).unwrap();
    }
    rig.engine.reclaim();
    assert_eq!(rig.backend.stats().arena.live_blocks, 5);
    for number in [0, 2, 5, 6, 7] {
        assert_eq!(rig.call(number, 100), 100 + number as i64);
    }
}

#[test]
fn code_waits_for_every_mutator_before_it_is_freed() {
    let rig = Rig::new(options(), vec![plus(1)]);
    let mut m = rig.engine.mutator();
    rig.compile([0]);
    rig.engine.invalidate(rig.beads[0]).unwrap();
    rig.engine.reclaim();
    assert_eq!(rig.backend.stats().arena.live_blocks, 1, "the mutator has passed no safepoint");
    m.safepoint();
    rig.engine.reclaim();
    assert_eq!(rig.backend.stats().arena.live_blocks, 0);
}

#[test]
fn a_superseded_result_frees_its_code_at_once() {
    // Removed by its own frontend, after it was taken from the queue.
    let engine = Arc::new(OnceLock::<beadwork::Engine>::new());
    let handle = engine.clone();
    let late = body(move |unit, x, all| {
        handle.get().unwrap().remove(all[0]).unwrap();
        Ok(unit.builder().build_int_add(x, number(unit, 1), "")?)
    });
    let rig = Rig::new(options(), vec![late]);
    engine.set(rig.engine.clone()).unwrap();
    rig.compile([0]);
    let stats = rig.backend.stats();
    assert_eq!((stats.compiled, stats.arena.live_blocks), (1, 0));
    assert_eq!(rig.engine.stats().discarded, 1);
}

#[test]
fn a_context_is_replaced_after_the_number_of_functions_asked_for() {
    for (after, contexts) in [(1, 20), (5, 4), (6, 4), (20, 1), (0, 20)] {
        let rig = Rig::new(options().contexts_recycled_after(after), (0..20).map(plus).collect());
        rig.compile(0..20);
        assert_eq!(rig.backend.contexts(), contexts, "after {after}");
        for number in 0..20 {
            assert_eq!(rig.call(number, 1), 1 + number as i64);
        }
    }
}

#[test]
fn code_outlives_the_backend_and_goes_with_the_engine() {
    let arena = beadwork_arena::Arena::builder().build().unwrap();
    let rig = Rig::new(options().arena(arena.clone()), vec![plus(1)]);
    rig.compile([0]);
    let Rig { engine, backend, .. } = rig;
    drop(backend);
    assert_eq!(arena.stats().live_blocks, 1);
    drop(engine);
    assert_eq!(arena.stats().live_blocks, 0);
}
