//! Edge UNIT: code with the body of another function is not found any more when a redefinition of that function has returned.

use beadwork::{Bead, Engine, TierId};
use beadwork_loom_tests::*;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;
use std::sync::{Arc, OnceLock};

/// Engine, caller, callee, and the callee's body, which code that contains it is entered at.
type Case = (Engine, Bead, Bead, Arc<AtomicUsize>);

/// A caller queued for a backend that includes the callee.
fn queued() -> Case {
    let (body, callee) = (Arc::new(AtomicUsize::new(1)), Arc::new(OnceLock::new()));
    let (read, known) = (body.clone(), callee.clone());
    let engine = engine(1, move |job| {
        let included = known.get().is_some_and(|&callee| job.include(callee).unwrap_or(false));
        // 9 calls through the slot.
        let entry = if included { read.load(Relaxed) } else { 9 };
        Ok(at(entry))
    });
    let (caller, second) = (bead(&engine), bead(&engine));
    callee.set(second).unwrap();
    engine.promote(caller, TierId::BASELINE).unwrap();
    (engine, caller, second, body)
}

fn redefined((engine, caller, callee, body): &Case) {
    body.store(2, Relaxed);
    engine.invalidate(*callee).unwrap();
    assert_ne!(entry(engine.mutator().code(*caller)), 1, "the old body is found");
}

#[test]
fn a_compile_that_meets_a_redefinition_never_has_the_old_body_installed() {
    both_ways(
        queued,
        |(engine, ..)| _ = engine.work_if_started(),
        redefined,
        |(engine, caller, ..)| assert_ne!(entry(engine.mutator().code(*caller)), 1),
    );
}

#[test]
fn of_two_redefinitions_neither_returns_before_the_old_body_is_gone() {
    model(|| {
        let case = queued();
        case.0.work_if_started();
        assert_eq!(entry(case.0.mutator().code(case.1)), 1);
        let other = case.clone();
        let redefines = thread::spawn(move || redefined(&other));
        redefined(&case);
        redefines.join().unwrap();
    });
}

#[test]
fn a_compile_that_meets_the_removal_of_what_it_includes_never_has_that_installed() {
    model(|| {
        let case = queued();
        let (engine, caller, callee, _) = case.clone();
        let removes = thread::spawn(move || {
            engine.remove(callee).unwrap();
            assert_ne!(entry(engine.mutator().code(caller)), 1, "the body of a removed function is found");
        });
        case.0.work_if_started();
        removes.join().unwrap();
        assert_ne!(entry(case.0.mutator().code(case.1)), 1);
    });
}
