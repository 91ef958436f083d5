//! Code is freed function by function, and what a batch costs does not depend on what is there.

use crate::rig::{Rig, body, options, plus};
use beadwork_arena::ArenaStats;
use beadwork_cranelift::InstBuilder;
use std::sync::{Arc, OnceLock};

#[test]
fn the_engine_hears_the_size_and_compile_time_of_each_function() {
    let large = body(|unit, _, _| Ok(unit.data(&[0; 1000], 8)));
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
        Ok(unit.builder().ins().iadd_imm_s(x, 1))
    });
    let rig = Rig::new(options(), vec![late]);
    engine.set(rig.engine.clone()).unwrap();
    rig.compile([0]);
    let stats = rig.backend.stats();
    assert_eq!((stats.compiled, stats.arena.live_blocks), (1, 0));
    assert_eq!(rig.engine.stats().discarded, 1);
}

#[test]
fn a_request_superseded_while_its_batch_is_compiled_costs_no_compile() {
    // Whichever function is built first removes all the others.
    let engine = Arc::new(OnceLock::<beadwork::Engine>::new());
    let removes_others = |number: usize| {
        let engine = engine.clone();
        body(move |_, x, all| {
            for (_, &bead) in all.iter().enumerate().filter(|&(other, _)| other != number) {
                engine.get().unwrap().remove(bead).unwrap();
            }
            Ok(x)
        })
    };
    let rig = Rig::new(options(), (0..8).map(removes_others).collect());
    engine.set(rig.engine.clone()).unwrap();
    rig.compile(0..8);
    let stats = rig.backend.stats();
    assert_eq!((stats.compiled, stats.failed), (1, 0), "a second build would have failed to remove");
    assert!(stats.superseded > 0);
    assert_eq!(rig.engine.stats().discarded, stats.superseded);
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

/// P28: one finalize re-protects all memory.
#[test]
fn p28_the_cost_of_a_batch_does_not_depend_on_the_code_compiled_before() {
    const BATCH: usize = 16;
    let count = BATCH * 64;
    let rig = Rig::new(options(), (0..count).map(|_| plus(1)).collect());
    let cost = |number: usize| {
        let before = rig.backend.stats();
        rig.compile(number * BATCH..(number + 1) * BATCH);
        let after = rig.backend.stats();
        let batches = after.batches - before.batches;
        assert!(batches < BATCH as u64 / 2, "{BATCH} functions are few batches: {batches}");
        assert_eq!(
            after.arena.placements - before.arena.placements,
            batches,
            "a batch is placed by one call"
        );
        let (ArenaStats { bytes_written, protect_calls, .. }, before) = (after.arena, before.arena);
        (bytes_written - before.bytes_written, protect_calls - before.protect_calls)
    };
    cost(0); // maps the region
    let second = cost(1);
    assert_eq!(second.1, 0, "no protection is changed");
    for number in 2..64 {
        assert_eq!(cost(number), second, "round {number}");
    }
    // Unwind tables are merged like the runs of a merge sort: each record is copied a logarithmic number of times.
    let stats = rig.backend.stats().arena;
    assert!(stats.unwind_records_written <= (count * 10) as u64, "{stats:?}");
    assert!(stats.unwind_tables <= 10, "{stats:?}");
}
