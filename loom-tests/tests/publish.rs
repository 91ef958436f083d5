//! Edges PUBLISH and RETIRE: code is seen whole, and not freed while it is run.

#![cfg(beadwork_loom)]

use beadwork::TierId;
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
