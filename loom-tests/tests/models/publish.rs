//! Edges REGISTER, PUBLISH, RETIRE and ONLINE: code is seen whole, and not freed while it is run.

use beadwork::{Bead, BeadInfo, Core, Engine, FnBackend, Mutator, Tier, TierId};
use beadwork_loom_tests::*;
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;
use std::time::Duration;

const T1: TierId = TierId::BASELINE;

/// A function, and the memory of the code it may get.
fn interpreted() -> (Engine, Bead, Memory) {
    let engine = engine(1, unused);
    let bead = bead(&engine);
    (engine, bead, Memory::new())
}

fn install((engine, bead, memory): &(Engine, Bead, Memory)) {
    engine.install(*bead, T1, memory.compile(1)).unwrap();
}

#[test]
fn who_dispatches_code_sees_all_of_it() {
    both_ways(
        interpreted,
        install,
        |(engine, bead, memory)| {
            if entry(engine.mutator().code(*bead)) == 1 {
                memory.run();
            }
        },
        |(engine, bead, _)| assert_eq!(entry(engine.mutator().code(*bead)), 1),
    );
}

#[test]
fn who_dispatches_code_that_a_sweep_marked_sees_all_of_it() {
    // One installs, another sweeps, and who dispatches has met neither.
    model_within(2, || {
        let builder = Engine::builder().capacity(2).workers(1).code_limit(1).evict_after(Duration::ZERO);
        let engine = builder.tier(Tier::new(FnBackend::new(unused))).build().unwrap();
        let (bead, memory) = (bead(&engine), Memory::new());
        let m = engine.mutator();
        let function = (engine.clone(), bead, memory.clone());
        let installer = thread::spawn(move || install(&function));
        // Orders nothing; it has loom try the dispatch after the sweep.
        let swept = Arc::new(AtomicBool::new(false));
        let (on, is) = (engine.clone(), swept.clone());
        let sweeper = thread::spawn(move || {
            installer.join().unwrap();
            on.run_pending(1);
            is.store(true, Relaxed);
        });
        if swept.load(Relaxed) && entry(m.code(bead)) == 1 {
            memory.run();
        }
        sweeper.join().unwrap();
        assert_eq!(entry(m.code(bead)), 1);
    });
}

#[test]
fn who_leases_code_sees_all_of_it() {
    both_ways(
        interpreted,
        install,
        |(engine, bead, memory)| {
            if engine.lease(*bead).is_some() {
                memory.run();
            }
        },
        |(engine, bead, _)| assert!(engine.lease(*bead).is_some()),
    );
}

#[test]
fn who_calls_through_a_slot_sees_all_of_the_code() {
    both_ways(
        || {
            let (engine, bead, memory) = interpreted();
            let slot = engine.slot(bead).unwrap();
            ((engine, bead, memory), slot)
        },
        |(function, _)| install(function),
        |((engine, _, memory), slot)| {
            if engine.slot_value(*slot) == 1 {
                memory.run();
            }
        },
        |((engine, ..), slot)| assert_eq!(engine.slot_value(*slot), 1),
    );
}

#[test]
fn who_reads_a_core_that_was_moved_sees_the_object_there() {
    both_ways(
        interpreted,
        |(engine, bead, memory)| {
            drop(memory.compile(1));
            engine.set_core(*bead, Core::new(7)).unwrap();
        },
        |(engine, bead, memory)| {
            if engine.core(*bead) == Ok(Core::new(7)) {
                assert!(memory.is_written());
            }
        },
        |(engine, bead, _)| assert_eq!(engine.core(*bead), Ok(Core::new(7))),
    );
}

#[test]
fn who_sees_the_tier_sees_the_code() {
    both_ways(
        interpreted,
        install,
        |(engine, bead, _)| {
            let m = engine.mutator();
            if engine.tier(*bead) == Ok(T1) {
                assert_eq!(entry(m.code(*bead)), 1);
            }
        },
        |(engine, bead, _)| assert_eq!(engine.tier(*bead), Ok(T1)),
    );
}

#[test]
fn who_meets_a_function_on_a_walk_sees_its_core_and_its_name() {
    who_meets_a_function_sees_all_of_it(7);
}

#[test]
fn who_meets_a_function_whose_core_is_zero_sees_its_name() {
    who_meets_a_function_sees_all_of_it(0);
}

#[test]
fn a_function_whose_core_becomes_zero_is_live_all_the_time() {
    both_ways(
        interpreted,
        |(engine, bead, _)| engine.set_core(*bead, Core::new(0)).unwrap(),
        |(engine, bead, _)| assert!(engine.is_live(*bead), "not live"),
        |(engine, bead, _)| assert_eq!(engine.core(*bead), Ok(Core::new(0))),
    );
}

fn who_meets_a_function_sees_all_of_it(core: usize) {
    both_ways(
        || engine(1, unused),
        move |engine| _ = engine.register_with(Core::new(core), &BeadInfo::named("f")).unwrap(),
        move |engine| {
            engine.walk(|bead| {
                // Before the core, whose load is an edge of its own.
                let name = engine.name(bead);
                assert_eq!(engine.core(bead), Ok(Core::new(core)));
                assert_eq!(name.as_deref(), Some("f"));
            });
        },
        |_| (),
    );
}

#[test]
fn superseded_code_is_not_freed_while_a_mutator_can_be_in_it() {
    superseded_code_is_not_freed_before(Mutator::safepoint);
}

#[test]
fn superseded_code_is_not_freed_before_a_safepoint_that_names_frames() {
    superseded_code_is_not_freed_before(|m| m.safepoint_with(&[]));
}

#[test]
fn superseded_code_is_not_freed_before_a_mutator_goes_offline() {
    superseded_code_is_not_freed_before(|m| m.offline(|| ()));
}

fn superseded_code_is_not_freed_before(pass: fn(&mut Mutator)) {
    model(move || {
        let engine = engine(1, unused);
        let (bead, memory) = (bead(&engine), [Memory::new(), Memory::new()]);
        engine.install(bead, T1, memory[0].compile(1)).unwrap();
        let mut m = engine.mutator();
        let upgrader = {
            let (engine, memory) = (engine.clone(), memory.clone());
            thread::spawn(move || {
                engine.install(bead, T1, memory[1].compile(2)).unwrap();
                engine.reclaim();
            })
        };
        for _ in 0..2 {
            memory[entry(m.code(bead)) - 1].run();
            pass(&mut m);
        }
        upgrader.join().unwrap();
        m.safepoint();
        engine.reclaim();
        assert!(memory[0].is_freed() && !memory[1].is_freed());
    });
}

#[test]
fn dispatch_after_invalidate_returned_is_cold() {
    model(|| {
        let engine = engine(1, unused);
        let (bead, memory) = (bead(&engine), Memory::new());
        engine.install(bead, T1, memory.compile(1)).unwrap();
        let other = {
            let engine = engine.clone();
            thread::spawn(move || {
                engine.invalidate(bead).unwrap();
                assert_eq!(entry(engine.mutator().code(bead)), 0);
            })
        };
        let mut m = engine.mutator();
        if entry(m.code(bead)) == 1 {
            memory.run();
        }
        m.safepoint();
        engine.reclaim();
        other.join().unwrap();
        m.safepoint();
        engine.reclaim();
        assert!(memory.is_freed());
    });
}

#[test]
fn an_offline_mutator_that_comes_back_sees_what_was_unlinked_or_is_waited_for() {
    model(|| {
        let engine = engine(1, unused);
        let (bead, memory) = (bead(&engine), Memory::new());
        engine.install(bead, T1, memory.compile(1)).unwrap();
        let mut m = engine.mutator();
        let other = m.offline(|| {
            let engine = engine.clone();
            thread::spawn(move || {
                engine.invalidate(bead).unwrap();
                engine.reclaim();
            })
        });
        if entry(m.code(bead)) == 1 {
            memory.run();
        }
        m.safepoint();
        other.join().unwrap();
        m.safepoint();
        engine.reclaim();
        assert!(memory.is_freed());
    });
}

#[test]
fn install_and_invalidate_leave_code_and_state_agreeing() {
    model(|| {
        let engine = engine(1, unused);
        let (bead, memory) = (bead(&engine), Memory::new());
        let installer = {
            let (engine, memory) = (engine.clone(), memory.clone());
            thread::spawn(move || drop(engine.install(bead, T1, memory.compile(1))))
        };
        engine.invalidate(bead).unwrap();
        installer.join().unwrap();
        let m = engine.mutator();
        assert_eq!(entry(m.code(bead)) == 1, engine.tier(bead).unwrap() == T1);
    });
}

/// An engine with code retired that waits for the mutator, which is offline by now, so that a scan looks; and code that this mutator
/// will dispatch and then retire.
fn two_generations_of_code() -> (Engine, Mutator, Bead, Memory) {
    let engine = engine(1, unused);
    let (retired, bead) = (bead(&engine), bead(&engine));
    let (memory, mut m) = (Memory::new(), engine.mutator());
    engine.install(retired, T1, Memory::new().compile(1)).unwrap();
    engine.install(bead, T1, memory.compile(2)).unwrap();
    engine.invalidate(retired).unwrap();
    m.offline(|| ());
    assert_eq!(engine.stats().retired, 1, "not set up");
    (engine, m, bead, memory)
}

/// Comes online, and retires the code it is still in.
fn retire_what_it_runs(engine: &Engine, m: &Mutator, bead: Bead, memory: &Memory, meanwhile: impl FnOnce()) {
    if entry(m.code(bead)) == 2 {
        engine.invalidate(bead).unwrap();
        meanwhile();
        memory.run();
    }
}

// A scan that found the mutator offline answers for the time at which it began, not for what was retired since.
#[test]
fn code_is_not_freed_under_a_mutator_that_comes_online_during_a_scan() {
    model(|| {
        let (engine, mut m, bead, memory) = two_generations_of_code();
        let reclaimer = m.offline(|| {
            let engine = engine.clone();
            thread::spawn(move || engine.reclaim())
        });
        retire_what_it_runs(&engine, &m, bead, &memory, || ());
        m.safepoint();
        reclaimer.join().unwrap();
    });
}

#[test]
fn code_is_not_freed_under_a_mutator_that_comes_online_during_a_scan_by_the_spawner() {
    // Which thread loom runs first decides what it finds within the bound, so the roles are tried both ways.
    model(|| {
        let (engine, mut m, bead, memory) = two_generations_of_code();
        let mutator = {
            let engine = engine.clone();
            thread::spawn(move || {
                m.offline(|| ());
                retire_what_it_runs(&engine, &m, bead, &memory, thread::yield_now);
                m.safepoint();
            })
        };
        engine.reclaim();
        mutator.join().unwrap();
    });
}

#[test]
fn code_is_not_freed_under_a_mutator_that_comes_online_while_one_takes_it_back_and_another_scans() {
    model_within(2, || {
        let engine = engine(1, unused);
        let (bead, memory) = (bead(&engine), Memory::new());
        engine.install(bead, T1, memory.compile(1)).unwrap();
        let mut m = engine.mutator();
        let (takes, scans) = m.offline(|| {
            let (taker, scanner) = (engine.clone(), engine.clone());
            let takes = thread::spawn(move || taker.invalidate(bead).unwrap());
            (takes, thread::spawn(move || scanner.reclaim()))
        });
        if entry(m.code(bead)) == 1 {
            memory.run();
        }
        m.safepoint();
        takes.join().unwrap();
        scans.join().unwrap();
        m.safepoint();
        m.engine().reclaim();
        assert!(memory.is_freed());
    });
}
