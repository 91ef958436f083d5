//! Edges CLAIM, WAKE and FAULT: every request is compiled once, by one worker, and none is lost; and no failure outlives its
//! function.

use beadwork::{CompileError, Core, Engine, FnBackend, Job, Threshold, Tier, TierId};
use beadwork_loom_tests::*;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use loom::thread;
use std::time::Duration;

const T1: TierId = TierId::BASELINE;

/// An engine that counts its compiles.
fn counting(workers: usize) -> (Engine, Arc<AtomicUsize>) {
    let compiles = Arc::new(AtomicUsize::new(0));
    let counted = compiles.clone();
    let engine = engine(workers, move |_| {
        counted.fetch_add(1, Relaxed);
        Ok(at(1))
    });
    (engine, compiles)
}

#[test]
fn two_threads_that_ask_together_get_one_compile() {
    model(|| {
        let (engine, compiles) = counting(1);
        let bead = bead(&engine);
        let other = {
            let engine = engine.clone();
            thread::spawn(move || engine.promote(bead, T1).unwrap())
        };
        engine.promote(bead, T1).unwrap();
        other.join().unwrap();
        while engine.work_if_started() {}
        assert_eq!((compiles.load(Relaxed), engine.stats().requested), (1, 1));
        assert_eq!(engine.tier(bead).unwrap(), T1);
    });
}

// Two preemptions: three take minutes.
#[test]
fn two_workers_never_compile_the_same_request() {
    model_within(2, || {
        let (engine, compiles) = counting(2);
        let bead = bead(&engine);
        engine.promote(bead, T1).unwrap();
        // Who cannot wait puts a second token there.
        assert!(engine.compile_now(bead, T1, Duration::ZERO).is_err());
        let other = {
            let engine = engine.clone();
            thread::spawn(move || engine.run_pending(2))
        };
        engine.work_if_started();
        other.join().unwrap();
        assert_eq!(compiles.load(Relaxed), 1);
        assert_eq!(engine.tier(bead).unwrap(), T1);
    });
}

#[test]
fn a_request_that_meets_a_worker_going_idle_is_not_lost() {
    model(|| {
        let (engine, compiles) = counting(1);
        let (first, second) = (bead(&engine), bead(&engine));
        engine.promote(first, T1).unwrap();
        let worker = {
            let engine = engine.clone();
            thread::spawn(move || engine.work_if_started())
        };
        engine.promote(second, T1).unwrap();
        worker.join().unwrap();
        while engine.work_if_started() {}
        assert_eq!(compiles.load(Relaxed), 2);
    });
}

#[test]
fn code_the_vm_installs_wins_over_a_claim_in_flight() {
    model(|| {
        let (engine, _) = counting(1);
        let (bead, memory) = (bead(&engine), Memory::new());
        engine.promote(bead, T1).unwrap();
        let worker = {
            let engine = engine.clone();
            thread::spawn(move || engine.work_if_started())
        };
        engine.install(bead, T1, memory.compile(2)).unwrap();
        worker.join().unwrap();
        let m = engine.mutator();
        // The worker's result came before, or was dropped.
        assert_eq!(entry(m.code(bead)), 2);
        memory.run();
    });
}

#[test]
fn a_request_that_meets_an_invalidation_is_compiled_or_cancelled_and_can_be_asked_again() {
    model(|| {
        let (engine, _) = counting(1);
        let bead = bead(&engine);
        let other = {
            let engine = engine.clone();
            thread::spawn(move || engine.invalidate(bead).unwrap())
        };
        engine.promote(bead, T1).unwrap();
        engine.work_if_started();
        other.join().unwrap();
        while engine.work_if_started() {}
        if engine.tier(bead).unwrap() != T1 {
            assert_eq!(engine.state(bead).unwrap().pending, None, "queued, and nobody comes");
            engine.promote(bead, T1).unwrap();
            while engine.work_if_started() {}
        }
        assert_eq!(engine.tier(bead).unwrap(), T1);
    });
}

/// An engine of two beads whose tier is set up by `tier`.
fn with_tier(tier: Tier) -> Engine {
    match Engine::builder().capacity(2).workers(1).tier(tier).build() {
        Ok(engine) => engine,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_request_that_meets_a_helper_in_a_full_lane_is_not_lost() {
    let model_of = |helper_is_spawned: bool| {
        model(move || {
            let inside = std::sync::Arc::new(std::sync::Mutex::new(None::<Engine>));
            let nested = inside.clone();
            let backend = FnBackend::new(move |_: &mut Job<'_>| {
                nested.lock().unwrap().take().inspect(|engine| _ = engine.run_pending(1));
                Ok(at(1))
            });
            let engine = with_tier(Tier::new(backend).max_parallel(1));
            let (first, second) = (bead(&engine), bead(&engine));
            // A seat for each of the two, so that they meet only where they have to.
            *inside.lock().unwrap() = Some(engine.clone());
            engine.promote(first, T1).unwrap();
            while engine.work_if_started() {}
            engine.invalidate(first).unwrap();
            engine.promote(first, T1).unwrap();
            let help = |engine: &Engine| _ = engine.run_pending(1);
            let ask = move |engine: &Engine| {
                engine.promote(second, T1).unwrap();
                while engine.work_if_started() {}
            };
            let other = {
                let engine = engine.clone();
                thread::spawn(move || if helper_is_spawned { help(&engine) } else { ask(&engine) })
            };
            if helper_is_spawned {
                ask(&engine)
            } else {
                help(&engine)
            }
            other.join().unwrap();
            while engine.work_if_started() {}
            let tiers = (engine.tier(first).unwrap(), engine.tier(second).unwrap());
            assert_eq!(tiers, (T1, T1), "queued, and nobody comes");
        });
    };
    model_of(true);
    model_of(false);
}

#[test]
fn a_failed_compile_of_a_removed_function_leaves_no_fault() {
    model(|| {
        let engine = engine(1, |_| Err(CompileError::NullEntry));
        let old = bead(&engine);
        engine.promote(old, T1).unwrap();
        let worker = {
            let engine = engine.clone();
            thread::spawn(move || engine.work_if_started())
        };
        engine.remove(old).unwrap();
        worker.join().unwrap();
        assert_eq!(engine.fault(old, T1), None, "nobody would ever forget it");
    });
}

#[test]
fn a_failed_compile_of_a_removed_function_leaves_no_fault_when_the_remover_is_spawned() {
    model(|| {
        let engine = engine(1, |_| Err(CompileError::NullEntry));
        let old = bead(&engine);
        engine.promote(old, T1).unwrap();
        let remover = {
            let engine = engine.clone();
            thread::spawn(move || engine.remove(old).unwrap())
        };
        engine.work_if_started();
        remover.join().unwrap();
        assert_eq!(engine.fault(old, T1), None, "nobody would ever forget it");
    });
}

#[test]
fn the_pause_after_a_failed_compile_is_not_inherited_by_the_next_function() {
    model(|| {
        let backend = FnBackend::new(|_: &mut Job<'_>| Err(CompileError::NullEntry));
        let engine = with_tier(Tier::new(backend).policy(Threshold::new(1)));
        let old = bead(&engine);
        engine.promote(old, T1).unwrap();
        let worker = {
            let engine = engine.clone();
            thread::spawn(move || engine.work_if_started())
        };
        engine.remove(old).unwrap();
        let new = engine.register(Core::new(9)).unwrap();
        worker.join().unwrap();
        engine.mutator().tick(new);
        assert!(engine.state(new).unwrap().pending.is_some(), "its first call meets its threshold");
    });
}

#[test]
fn a_result_of_a_cancelled_claim_never_ends_a_newer_one() {
    model(|| {
        // Which compile comes first is settled, so that the search is about how they end.
        let stage = Arc::new(AtomicUsize::new(0));
        let reach = |stage: &AtomicUsize, at| {
            while stage.load(Acquire) < at {
                thread::yield_now();
            }
        };
        let compiling = stage.clone();
        let engine = engine(2, move |_| {
            let first = compiling.fetch_add(1, AcqRel) == 0;
            reach(&compiling, if first { 2 } else { 3 });
            Ok(at(if first { 1 } else { 2 }))
        });
        let bead = bead(&engine);
        engine.promote(bead, T1).unwrap();
        let older = {
            let (engine, stage) = (engine.clone(), stage.clone());
            thread::spawn(move || {
                engine.run_pending(1);
                stage.fetch_add(1, AcqRel);
            })
        };
        reach(&stage, 1);
        engine.reload(bead).unwrap();
        engine.run_pending(1);
        older.join().unwrap();
        assert_eq!(entry(engine.mutator().code(bead)), 2, "of the source before");
    });
}

#[test]
fn who_claims_a_request_finds_the_compile_that_came_with_it() {
    both_ways(
        || {
            let (engine, _) = counting(1);
            let bead = bead(&engine);
            // A token is left over.
            engine.promote(bead, T1).unwrap();
            engine.invalidate(bead).unwrap();
            (engine, bead)
        },
        |(engine, _)| _ = engine.work_if_started(),
        |(engine, bead)| assert!(engine.submit(*bead, T1, |_| Ok(at(7))).is_ok()),
        |(engine, bead)| {
            while engine.work_if_started() {}
            assert_eq!(entry(engine.mutator().code(*bead)), 7);
        },
    );
}

#[test]
fn a_function_that_gets_hot_while_another_thread_publishes_is_asked_for_by_its_next_call() {
    both_ways(
        || {
            let backend = FnBackend::new(|_: &mut Job<'_>| Ok(at(1)));
            let engine = with_tier(Tier::new(backend).policy(Threshold::new(1)));
            let bead = bead(&engine);
            (engine, bead)
        },
        |(engine, bead)| engine.set_core(*bead, Core::new(7)).unwrap(),
        |(engine, bead)| engine.mutator().tick(*bead),
        |(engine, bead)| {
            engine.mutator().tick(*bead);
            assert!(engine.state(*bead).unwrap().pending.is_some(), "hot, and not asked for");
        },
    );
}

#[test]
fn a_function_that_gets_hot_beside_a_token_left_over_is_compiled() {
    both_ways(
        || {
            let backend = FnBackend::new(|_: &mut Job<'_>| Ok(at(1)));
            let engine = with_tier(Tier::new(backend).policy(Threshold::new(1)));
            let bead = bead(&engine);
            engine.promote(bead, T1).unwrap();
            engine.invalidate(bead).unwrap();
            (engine, bead)
        },
        |(engine, _)| _ = engine.work_if_started(),
        |(engine, bead)| engine.mutator().tick(*bead),
        |(engine, bead)| {
            while engine.work_if_started() {}
            assert_eq!(engine.state(*bead).unwrap().pending, None, "queued, and nobody comes");
        },
    );
}

#[test]
fn what_a_helper_that_meets_a_pause_puts_back_is_not_lost() {
    both_ways_within(
        2,
        || {
            let inside = std::sync::Arc::new(std::sync::Mutex::new(None::<Engine>));
            // The model's: who takes the guard has to know of the pause.
            let paused = Arc::new(loom::sync::Mutex::new(None));
            let (nested, pause) = (inside.clone(), paused.clone());
            let backend = FnBackend::new(move |_: &mut Job<'_>| {
                let engine = nested.lock().unwrap().take();
                let guard = engine.map(|engine| engine.pause());
                if guard.is_some() {
                    *pause.lock().unwrap() = guard;
                }
                Ok(at(1))
            });
            let engine = with_tier(Tier::new(backend).batch(1));
            let beads = [bead(&engine), bead(&engine)];
            beads.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
            *inside.lock().unwrap() = Some(engine.clone());
            (engine, beads, paused)
        },
        |(engine, ..)| _ = engine.run_pending(2),
        |(engine, _, paused)| {
            let pause = paused.lock().unwrap().take();
            drop(pause);
            engine.work_if_started();
        },
        |(engine, beads, paused)| {
            let pause = paused.lock().unwrap().take();
            drop(pause);
            while engine.work_if_started() {}
            let tiers = beads.map(|bead| engine.tier(bead).unwrap());
            assert_eq!(tiers, [T1, T1], "queued, and nobody comes");
        },
    );
}

#[test]
fn a_request_that_meets_an_eviction_is_compiled() {
    const T2: TierId = TierId::new(2).unwrap();
    both_ways(
        || {
            let millis = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(100));
            let now = millis.clone();
            let engine = Engine::builder()
                .capacity(2)
                .workers(1)
                .code_limit(16)
                .evict_after(Duration::from_millis(10))
                .clock(move || Duration::from_millis(now.load(Relaxed)))
                .tier(Tier::new(FnBackend::new(unused)))
                .tier(Tier::new(FnBackend::new(|_: &mut Job<'_>| Ok(at(2)))))
                .build()
                .unwrap();
            let bead = bead(&engine);
            engine.install(bead, T1, Memory::new().compile(1)).unwrap();
            // Marks it.
            engine.run_pending(1);
            millis.store(200, Relaxed);
            (engine, bead)
        },
        |(engine, _)| _ = engine.run_pending(1),
        |(engine, bead)| engine.promote(*bead, T2).unwrap(),
        |(engine, bead)| {
            while engine.work_if_started() {}
            assert_eq!(engine.tier(*bead).unwrap(), T2, "asked for, and evicted");
        },
    );
}
