//! Edges REUSE and BUDGET, for what native code stores by itself: budgets and counters whose addresses it embeds.

use beadwork::{Bead, BlockCounters, Core, Engine, FnBackend, Job, Mutator, Tier, TierId};
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
    in_both_roles_within(3, setup);
}

/// The same with a bound of its own on preemptions.
fn in_both_roles_within<A, B, C>(preemptions: usize, setup: impl Fn() -> (A, B, C) + Send + Sync + 'static)
where
    C: FnOnce() + 'static,
    A: FnOnce() + Send + 'static,
    B: FnOnce() + Send + 'static,
{
    let setup = Arc::new(setup);
    let spawned = setup.clone();
    model_within(preemptions, move || {
        let (here, there, afterwards) = spawned();
        let there = thread::spawn(there);
        here();
        there.join().unwrap();
        afterwards();
    });
    model_within(preemptions, move || {
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
            assert!((1..=1_000).contains(&left), "{left}: spent, and nobody grants another");
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

#[test]
fn code_below_a_callback_that_counts_once_more_counts_for_no_other_function() {
    in_both_roles_within(2, || {
        let memory = Memory::new();
        let (engine, old, mut m) = counted(memory.clone());
        let same = engine.clone();
        let runs = move || {
            if entry(m.code(old)) == 1 {
                // It called back, and goes on.
                m.safepoint_with(&[1 + 8]);
                memory.run();
                same.count_natively(old);
            }
            m.safepoint();
        };
        let reuses = move || {
            engine.remove(old).unwrap();
            engine.reclaim();
            let (first, second) = (engine.register(Core::new(1)), engine.register(Core::new(2)));
            for new in [first, second].into_iter().flatten().filter(|new| new.index() == old.index()) {
                loom::thread::yield_now();
                assert_eq!(engine.budget_left(new), 0, "nobody stores there any more");
            }
        };
        (runs, reuses, || ())
    });
}

/// The counters each compile got.
type Got = Mutex<Vec<Option<BlockCounters>>>;

/// Two functions whose code counts four blocks, all counters there are; the first of them is compiled. Answers its first counter.
fn counting(hands_back: bool) -> (Engine, [Bead; 2], usize, Arc<Got>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let log = got.clone();
    let tier = Tier::new(FnBackend::new(move |job: &mut Job<'_>| {
        let mut log = log.lock().unwrap();
        log.push(job.block_counters(4));
        Ok(Memory::new().compile(log.len()))
    }));
    let builder = Engine::builder().capacity(2).workers(1).tier(tier);
    let builder = if hands_back { builder.hand_back(drop) } else { builder };
    let Ok(engine) = builder.build() else { panic!("an engine of two beads") };
    let beads = [bead(&engine), bead(&engine)];
    engine.promote(beads[0], T1).unwrap();
    engine.work_if_started();
    let counter = got.lock().unwrap()[0].unwrap().addr(0).unwrap();
    (engine, beads, counter, got)
}

/// Ends the first function, and compiles the second; what that counts is its own.
fn give_out_again(engine: &Engine, [old, new]: [Bead; 2], got: &Got) {
    engine.remove(old).unwrap();
    engine.reclaim();
    engine.promote(new, T1).unwrap();
    engine.work_if_started();
    if got.lock().unwrap().get(1).is_some_and(|counters| counters.is_some()) {
        assert_eq!(engine.profile(new).unwrap().unwrap().blocks(), [0; 4]);
        loom::thread::yield_now();
        assert_eq!(engine.profile(new).unwrap().unwrap().blocks(), [0; 4]);
    }
}

#[test]
fn counters_of_code_below_a_callback_are_not_given_out_again() {
    in_both_roles_within(2, || {
        let (engine, beads, counter, got) = counting(false);
        let (mut m, same) = (engine.mutator(), engine.clone());
        let runs = move || {
            if entry(m.code(beads[0])) == 1 {
                m.safepoint_with(&[1 + 8]);
                same.raise_natively(counter);
            }
            m.safepoint();
        };
        (runs, move || give_out_again(&engine, beads, &got), || ())
    });
}

// The VM frees the code, and need not have done so when it is told.
#[test]
fn counters_of_code_that_was_handed_back_are_not_given_out_again_before_a_safepoint() {
    in_both_roles_within(2, || {
        let (engine, beads, counter, got) = counting(true);
        let (mut m, same) = (engine.mutator(), engine.clone());
        let runs = move || {
            if entry(m.code(beads[0])) == 1 {
                same.raise_natively(counter);
            }
            m.safepoint();
        };
        (runs, move || give_out_again(&engine, beads, &got), || ())
    });
}

#[test]
fn counters_given_out_again_are_not_raised_by_code_of_the_function_before() {
    in_both_roles_within(2, || {
        let (engine, beads, counter, got) = counting(false);
        let (mut m, same) = (engine.mutator(), engine.clone());
        let runs = move || {
            if entry(m.code(beads[0])) == 1 {
                same.raise_natively(counter);
            }
            m.safepoint();
        };
        (runs, move || give_out_again(&engine, beads, &got), || ())
    });
}
