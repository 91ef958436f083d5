//! Edges REUSE and BUDGET, for what native code stores by itself: budgets and counters whose addresses it embeds.

use beadwork::{Bead, BlockCounters, CompiledCode, Core, Engine, Mutator, TierId};
use beadwork_loom_tests::*;
use loom::thread;
use std::sync::{Arc, Mutex};

const T1: TierId = TierId::BASELINE;

/// Runs one of the two in a thread of its own, and the other one here; then the other way round. The third comes after both.
fn in_both_roles<A, B, C>(setup: impl Fn() -> (A, B, C) + Send + Sync + 'static)
where
    C: FnOnce() + 'static,
    A: FnOnce() + Send + 'static,
    B: FnOnce() + Send + 'static,
{
    let setup = Arc::new(setup);
    let spawned = setup.clone();
    model(move || {
        let (here, there, afterwards) = spawned();
        let there = thread::spawn(there);
        here();
        there.join().unwrap();
        afterwards();
    });
    model(move || {
        let (there, here, afterwards) = setup();
        let there = thread::spawn(there);
        here();
        there.join().unwrap();
        afterwards();
    });
}

/// A function whose code embeds its own budget, compiled, and asked for its first budget.
fn counted(memory: Memory) -> (Engine, Bead, Mutator) {
    let engine = engine(1, move |job| {
        let bead = job.bead();
        job.budget_slot(bead)?;
        Ok(memory.compile(1))
    });
    let bead = bead(&engine);
    engine.promote(bead, T1).unwrap();
    engine.work_if_started();
    let m = engine.mutator();
    m.native_call(bead);
    (engine, bead, m)
}

#[test]
fn a_late_native_count_is_not_inherited_by_the_next_function_of_the_index() {
    in_both_roles(|| {
        let memory = Memory::new();
        let (engine, old, mut m) = counted(memory.clone());
        let same = engine.clone();
        let runs = move || {
            if entry(m.code(old)) == 1 {
                memory.run();
                same.count_natively(old);
            }
            m.safepoint();
        };
        let reuses = move || {
            engine.remove(old).unwrap();
            engine.reclaim();
            // Another index, while its code is there.
            let first = engine.register(Core::new(1)).unwrap();
            engine.reclaim();
            let second = engine.register(Core::new(2));
            for new in [Ok(first), second].into_iter().flatten().filter(|new| new.index() == old.index()) {
                assert_eq!(engine.budget_left(new), 0, "never asked for a budget");
                loom::thread::yield_now();
                assert_eq!(engine.budget_left(new), 0, "nobody stores there any more");
            }
        };
        (runs, reuses, || ())
    });
}

#[test]
fn a_budget_that_threads_overdraw_at_the_same_time_is_granted_anew_and_none_is_stuck() {
    in_both_roles(|| {
        let engine = engine(1, unused);
        let (bead, m) = (bead(&engine), engine.mutator());
        // Spent by the next native call, whoever makes it.
        engine.set_budget(bead, 1);
        let (same, other) = (engine.clone(), engine.clone());
        let calls = |engine: Engine, m: Mutator, times: u32| {
            move || {
                for _ in 0..times {
                    if engine.count_natively(bead) {
                        m.native_call(bead);
                    }
                }
            }
        };
        let (twice, once) = (calls(same, m, 2), calls(other.clone(), other.mutator(), 1));
        let afterwards = move || {
            // The policy of these models waits for 1,000 calls.
            let left = engine.budget_left(bead);
            assert!((1..=1_000).contains(&left), "{left}");
        };
        (twice, once, afterwards)
    });
}

#[test]
fn a_budget_that_native_code_overdraws_is_a_spent_one_to_a_dispatch() {
    in_both_roles(|| {
        let engine = engine(1, unused);
        let bead = bead(&engine);
        engine.set_budget(bead, 1);
        let (native, interprets) = (engine.clone(), engine.clone());
        // Neither goes to the slow path before the other has counted.
        let calls = move || _ = native.count_natively(bead) | native.count_natively(bead);
        let dispatches = move || {
            interprets.mutator().tick(bead);
        };
        let afterwards = move || {
            engine.mutator().tick(bead);
            let left = engine.budget_left(bead);
            assert!((1..=1_000).contains(&left), "{left}: spent, and nobody grants another");
        };
        (calls, dispatches, afterwards)
    });
}

#[test]
fn counters_given_out_again_are_not_raised_by_code_of_the_function_before() {
    in_both_roles(|| {
        let memories = [Memory::new(), Memory::new()];
        let (got, compiled) = (Arc::new(Mutex::new(Vec::<Option<BlockCounters>>::new())), memories.clone());
        let log = got.clone();
        let engine = engine(1, move |job| {
            // All there are.
            let counters = job.block_counters(4);
            let mut log = log.lock().unwrap();
            log.push(counters);
            Ok::<CompiledCode, _>(compiled[log.len() - 1].compile(log.len()))
        });
        let (old, new) = (bead(&engine), bead(&engine));
        engine.promote(old, T1).unwrap();
        engine.work_if_started();
        let counter = got.lock().unwrap()[0].unwrap().addr(0).unwrap();
        let (mut m, same, memory) = (engine.mutator(), engine.clone(), memories[0].clone());
        let runs = move || {
            if entry(m.code(old)) == 1 {
                memory.run();
                same.raise_natively(counter);
            }
            m.safepoint();
        };
        let reuses = move || {
            engine.remove(old).unwrap();
            engine.reclaim();
            engine.promote(new, T1).unwrap();
            engine.work_if_started();
            if got.lock().unwrap().get(1).is_some_and(|counters| counters.is_some()) {
                assert_eq!(engine.profile(new).unwrap().unwrap().blocks(), [0; 4]);
                loom::thread::yield_now();
                assert_eq!(engine.profile(new).unwrap().unwrap().blocks(), [0; 4]);
            }
        };
        (runs, reuses, || ())
    });
}

#[test]
fn counters_asked_for_while_the_function_is_removed_are_not_lost() {
    in_both_roles(|| {
        let given = Arc::new(Mutex::new(Vec::new()));
        let log = given.clone();
        let engine = engine(1, move |job| {
            log.lock().unwrap().push(job.block_counters(4).is_some());
            Ok(Memory::new().compile(1))
        });
        let old = bead(&engine);
        engine.promote(old, T1).unwrap();
        let (compiler, remover) = (engine.clone(), engine.clone());
        let compiles = move || _ = compiler.work_if_started();
        let removes = move || _ = remover.remove(old).unwrap();
        let afterwards = move || {
            engine.reclaim();
            engine.promote(bead(&engine), T1).unwrap();
            engine.work_if_started();
            assert_eq!(given.lock().unwrap().last(), Some(&true));
        };
        (compiles, removes, afterwards)
    });
}
