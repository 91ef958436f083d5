//! Edges PAUSE, CLOSE, SETTLE and FORK: what is asked for is compiled after a pause, dropped by a shutdown, and waited for in
//! vain by nobody; and a fork cuts no section in two.

use beadwork::{Bead, CompileError, Engine, ForkGate, TierId};
use beadwork_loom_tests::*;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;
// Not the model's: nobody waits for it.
use std::sync::atomic::{AtomicBool as Late, Ordering::SeqCst};
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const HOUR: Duration = Duration::from_secs(3600);

fn compiling() -> (Engine, Bead) {
    let engine = engine(1, |_| Ok(at(1)));
    let bead = bead(&engine);
    (engine, bead)
}

#[test]
fn a_request_made_during_a_pause_is_compiled_after_it() {
    both_ways(
        || {
            let (engine, bead) = compiling();
            let pause = std::sync::Arc::new(std::sync::Mutex::new(Some(engine.pause())));
            engine.promote(bead, T1).unwrap();
            (engine, bead, pause)
        },
        |(engine, ..)| _ = engine.work_if_started(),
        |(.., pause)| drop(pause.lock().unwrap().take()),
        |(engine, bead, _)| {
            while engine.work_if_started() {}
            assert_eq!(engine.tier(*bead), Ok(T1), "queued, and nobody comes");
        },
    );
}

#[test]
fn a_request_that_meets_a_pause_is_compiled_after_it() {
    both_ways(
        compiling,
        |(engine, _)| drop(engine.pause()),
        |(engine, bead)| {
            engine.promote(*bead, T1).unwrap();
            engine.work_if_started();
        },
        |(engine, bead)| {
            while engine.work_if_started() {}
            assert_eq!(engine.tier(*bead), Ok(T1), "queued, and nobody comes");
        },
    );
}

#[test]
fn a_request_that_meets_its_tier_being_switched_on_is_compiled() {
    both_ways(
        || {
            let (engine, bead) = compiling();
            engine.set_tier_enabled(T1, false).unwrap();
            (engine, bead)
        },
        |(engine, _)| engine.set_tier_enabled(T1, true).unwrap(),
        |(engine, bead)| {
            engine.promote(*bead, T1).unwrap();
            engine.work_if_started();
        },
        |(engine, bead)| {
            while engine.work_if_started() {}
            assert_eq!(engine.tier(*bead), Ok(T1), "queued, and nobody comes");
        },
    );
}

#[test]
fn nothing_stays_queued_on_an_engine_that_was_shut_down() {
    both_ways(
        compiling,
        |(engine, bead)| _ = engine.promote(*bead, T1),
        |(engine, _)| _ = engine.shutdown(Duration::ZERO),
        |(engine, bead)| {
            assert_eq!(engine.state(*bead).unwrap().pending, None);
            assert!(engine.promote(*bead, T1).is_err());
        },
    );
}

#[test]
fn no_compile_begins_after_a_shutdown_has_returned() {
    both_ways(
        || {
            let (over, late) = (Arc::new(AtomicBool::new(false)), std::sync::Arc::new(Late::new(false)));
            let seen = (over.clone(), late.clone());
            let engine = engine(1, move |_| {
                seen.1.fetch_or(seen.0.load(SeqCst), SeqCst);
                Ok(at(1))
            });
            let bead = bead(&engine);
            engine.promote(bead, T1).unwrap();
            (engine, over, late)
        },
        |(engine, ..)| _ = engine.work_if_started(),
        |(engine, over, _)| {
            if engine.shutdown(Duration::ZERO).is_ok() {
                over.store(true, SeqCst);
            }
        },
        |(.., late)| assert!(!late.load(SeqCst), "a compile began afterwards"),
    );
}

/// Is the worker that the other thread's request starts.
fn work(engine: &Engine) {
    while !engine.work_if_started() {
        thread::yield_now();
    }
}

#[test]
fn who_waits_for_a_compile_is_woken() {
    both_ways(
        compiling,
        |(engine, bead)| assert!(engine.compile_now(*bead, T1, HOUR).is_ok()),
        |(engine, _)| work(engine),
        |_| (),
    );
}

#[test]
fn who_waits_for_a_compile_that_somebody_else_asked_for_is_woken() {
    both_ways(
        || {
            let (engine, bead) = compiling();
            engine.promote(bead, T1).unwrap();
            (engine, bead)
        },
        |(engine, bead)| assert!(engine.compile_now(*bead, T1, HOUR).is_ok()),
        |(engine, _)| work(engine),
        |_| (),
    );
}

#[test]
fn who_waits_for_a_compile_that_fails_is_told_why() {
    both_ways(
        || {
            let engine = engine(1, |_| Err(CompileError::NullEntry));
            let bead = bead(&engine);
            engine.promote(bead, T1).unwrap();
            (engine, bead, Arc::new(AtomicBool::new(false)))
        },
        |(engine, bead, told)| {
            let answer = engine.compile_now(*bead, T1, HOUR);
            told.store(true, SeqCst);
            assert_eq!(
                answer,
                Err(beadwork::CompileNowError::Compile(CompileError::NullEntry)),
                "not told why"
            );
        },
        |(engine, _, told)| {
            engine.work_if_started();
            // Perhaps it had failed before it was asked for again.
            while !told.load(SeqCst) {
                engine.work_if_started();
                thread::yield_now();
            }
        },
        |_| (),
    );
}

#[test]
fn who_waits_for_the_drain_is_woken() {
    both_ways(
        || {
            let (engine, bead) = compiling();
            engine.promote(bead, T1).unwrap();
            (engine, bead)
        },
        |(engine, bead)| {
            engine.drain(HOUR).unwrap();
            assert_eq!(engine.tier(*bead), Ok(T1));
        },
        |(engine, _)| work(engine),
        |_| (),
    );
}

#[test]
fn who_waits_for_a_helper_that_finds_nothing_to_do_is_woken() {
    both_ways(
        compiling,
        |(engine, _)| engine.drain(HOUR).unwrap(),
        |(engine, _)| assert_eq!(engine.run_pending(1), 0),
        |_| (),
    );
}

/// What a section works on: loom reports a fork handler that looks at it meanwhile.
struct HalfDone(UnsafeCell<u32>);

// SAFETY: every access goes through loom, which reports those that race; finding them is what the models are for.
#[allow(unsafe_code)]
unsafe impl Send for HalfDone {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for HalfDone {}

impl HalfDone {
    fn add(&self) {
        // SAFETY: loom checks that nobody else is here.
        #[allow(unsafe_code)]
        self.0.with_mut(|at| unsafe { *at += 1 });
    }
}

#[test]
fn a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended() {
    both_ways(
        || (Arc::new(ForkGate::new()), Arc::new(HalfDone(UnsafeCell::new(0)))),
        |(gate, cell)| {
            gate.section(|| cell.add());
            gate.section(|| cell.add());
        },
        |(gate, cell)| gate.fork(|| cell.add()),
        |(_, cell)| cell.add(),
    );
}

#[test]
fn a_shutdown_that_waits_is_woken_by_a_helper_that_leaves() {
    both_ways(
        compiling,
        |(engine, _)| _ = engine.run_pending(1),
        |(engine, _)| assert!(engine.shutdown(HOUR).is_ok()),
        |_| (),
    );
}

/// Asks for a compile of its own, which answers 5; `kept` is there as long as that closure is.
fn submit(engine: &Engine, bead: Bead, kept: &std::sync::Arc<()>) {
    let kept = kept.clone();
    drop(engine.submit(bead, T1, move |_| {
        drop(kept);
        Ok(at(5))
    }));
}

fn to_submit() -> (Engine, Bead, std::sync::Arc<()>) {
    let (engine, bead) = compiling();
    (engine, bead, std::sync::Arc::new(()))
}

#[test]
fn a_compile_submitted_as_the_engine_is_shut_down_is_dropped_and_stays_nowhere() {
    both_ways_within(
        2,
        to_submit,
        |(engine, bead, kept)| submit(engine, *bead, kept),
        |(engine, ..)| _ = engine.shutdown(Duration::ZERO),
        |(engine, bead, kept)| {
            assert_eq!(engine.state(*bead).unwrap().pending, None, "queued on a closed engine");
            assert_eq!(std::sync::Arc::strong_count(kept), 1, "what was submitted is kept");
        },
    );
}

#[test]
fn a_compile_submitted_as_the_engine_is_paused_is_the_one_that_is_run_after_it() {
    both_ways(
        to_submit,
        |(engine, ..)| drop(engine.pause()),
        |(engine, bead, kept)| {
            submit(engine, *bead, kept);
            engine.work_if_started();
        },
        |(engine, bead, kept)| {
            while engine.work_if_started() {}
            assert_eq!(entry(engine.mutator().code(*bead)), 5, "queued, and nobody comes");
            assert_eq!(std::sync::Arc::strong_count(kept), 1);
        },
    );
}

// Two preemptions: with more, the waiting thread can meet a lock in use between its being woken and its parking, and loom forgets then
// that it was woken.
#[test]
fn who_waits_for_the_drain_of_an_engine_that_is_shut_down_finds_everything_dropped() {
    both_ways_within(
        2,
        || {
            let (engine, bead) = compiling();
            engine.promote(bead, T1).unwrap();
            (engine, bead)
        },
        |(engine, bead)| {
            engine.drain(HOUR).unwrap();
            assert_eq!(engine.state(*bead).unwrap().pending, None, "still queued");
        },
        |(engine, _)| _ = engine.shutdown(Duration::ZERO),
        |_| (),
    );
}
