//! Edges PUBLISH and RETIRE: code is seen whole, and not freed while it is run.

#![cfg(beadwork_loom)]

use beadwork::{Bead, Engine, Mutator, TierId};
use beadwork_loom_tests::*;
use loom::thread;

const T1: TierId = TierId::BASELINE;

#[test]
fn who_dispatches_code_sees_all_of_it() {
    model(|| {
        let engine = engine(1, unused);
        let (bead, memory) = (bead(&engine), Memory::new());
        let installer = {
            let (engine, memory) = (engine.clone(), memory.clone());
            thread::spawn(move || drop(engine.install(bead, T1, memory.compile(1))))
        };
        let m = engine.mutator();
        if entry(m.code(bead)) == 1 {
            memory.run();
        }
        installer.join().unwrap();
        assert_eq!(entry(m.code(bead)), 1);
    });
}

#[test]
fn superseded_code_is_not_freed_while_a_mutator_can_be_in_it() {
    model(|| {
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
            m.safepoint();
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

/// An engine with code retired, so that a scan looks, and code that a mutator will dispatch and then retire.
fn two_generations_of_code() -> (Engine, Bead, Memory) {
    let engine = engine(1, unused);
    let (retired, bead) = (bead(&engine), bead(&engine));
    let memory = Memory::new();
    engine.install(retired, T1, Memory::new().compile(1)).unwrap();
    engine.install(bead, T1, memory.compile(2)).unwrap();
    engine.invalidate(retired).unwrap();
    (engine, bead, memory)
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
        let (engine, bead, memory) = two_generations_of_code();
        let mut m = engine.mutator();
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
        let (engine, bead, memory) = two_generations_of_code();
        let mut m = engine.mutator();
        m.offline(|| ());
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
fn code_is_not_freed_under_a_mutator_that_comes_online_during_a_scan_while_another_passes() {
    model(|| {
        let (engine, bead, memory) = two_generations_of_code();
        let (mut m, mut other) = (engine.mutator(), engine.mutator());
        let reclaimer = m.offline(|| {
            let engine = engine.clone();
            thread::spawn(move || engine.reclaim())
        });
        retire_what_it_runs(&engine, &m, bead, &memory, || other.safepoint());
        m.safepoint();
        reclaimer.join().unwrap();
    });
}

#[test]
fn code_is_not_freed_under_a_mutator_that_comes_online_during_a_scan_by_the_spawner_while_another_passes() {
    model(|| {
        let (engine, bead, memory) = two_generations_of_code();
        let (mut m, mut other) = (engine.mutator(), engine.mutator());
        let mutator = {
            let engine = engine.clone();
            thread::spawn(move || {
                m.offline(|| ());
                retire_what_it_runs(&engine, &m, bead, &memory, || other.safepoint());
                m.safepoint();
            })
        };
        engine.reclaim();
        mutator.join().unwrap();
    });
}
