//! Edge ASSUME: no code that relies on a broken assumption is found after the call that broke it has returned; and what
//! takes code back by reload and invalidation agrees with what installs it.

use beadwork::{
    Assumption, BailoutInfo, Bead, CompiledCode, DeoptHistory, Engine, FnBackend, Job, Recovery, Tier, TierId,
};
use beadwork_loom_tests::*;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

type Case = (Engine, Bead, Assumption);

fn break_it((engine, bead, assumption): &Case) {
    engine.invalidate_assumption(*assumption);
    assert_eq!(entry(engine.mutator().code(*bead)), 0, "found after it was broken");
}

fn consistent((engine, bead, assumption): &Case) {
    assert!(!engine.is_valid(*assumption));
    while engine.work_if_started() {}
    let state = engine.state(*bead).unwrap();
    assert_eq!((state.tier, state.pending), (TierId::INTERPRETER, None));
    assert_eq!(entry(engine.mutator().code(*bead)), 0);
}

/// A function queued for a backend that names the assumption in the way `name` does.
fn queued(name: fn(&mut Job<'_>, Assumption) -> CompiledCode) -> Case {
    let assumption = Arc::new(Mutex::new(None));
    let named = assumption.clone();
    let engine = engine(1, move |job| {
        let assumption = *named.lock().unwrap();
        Ok(assumption.map_or_else(|| at(9), |assumption| name(job, assumption)))
    });
    let made = engine.assumption();
    *assumption.lock().unwrap() = Some(made);
    let bead = bead(&engine);
    engine.promote(bead, T1).unwrap();
    (engine, bead, made)
}

#[test]
fn code_that_names_an_assumption_when_it_is_finished_is_never_found_after_that_is_broken() {
    both_ways(
        || queued(|_, assumption| at(1).assumes(assumption)),
        |(engine, _, _)| _ = engine.work_if_started(),
        break_it,
        consistent,
    );
}

#[test]
fn a_compile_that_names_an_assumption_early_is_never_found_after_that_is_broken() {
    both_ways(
        || {
            queued(|job, assumption| {
                let holds = job.assume(assumption);
                if holds { at(1) } else { at(1).assumes(assumption) }
            })
        },
        |(engine, _, _)| _ = engine.work_if_started(),
        break_it,
        consistent,
    );
}

#[test]
fn code_of_the_vms_own_is_never_found_after_its_assumption_is_broken() {
    both_ways(
        || {
            let engine = engine(1, unused);
            let (bead, assumption) = (bead(&engine), engine.assumption());
            (engine, bead, assumption)
        },
        |(engine, bead, assumption)| drop(engine.install(*bead, T1, at(1).assumes(*assumption))),
        break_it,
        consistent,
    );
}

#[test]
fn code_of_the_vms_own_outlives_the_assumption_of_the_compile_whose_claim_it_ended() {
    both_ways(
        || {
            queued(|job, assumption| {
                let _ = job.assume(assumption);
                at(1)
            })
        },
        |(engine, _, _)| _ = engine.work_if_started(),
        |(engine, bead, _)| {
            engine.install(*bead, T1, at(2)).unwrap();
        },
        |(engine, bead, assumption)| {
            while engine.work_if_started() {}
            let m = engine.mutator();
            assert_eq!(entry(m.code(*bead)), 2, "the VM's code is what was installed last");
            engine.invalidate_assumption(*assumption);
            assert_eq!(entry(m.code(*bead)), 2, "taken for what the compile relied on");
        },
    );
}

#[test]
fn of_two_threads_that_break_an_assumption_neither_returns_before_the_code_is_gone() {
    both_ways(
        || {
            let engine = engine(1, unused);
            let (bead, assumption) = (bead(&engine), engine.assumption());
            engine.install(bead, T1, at(1).assumes(assumption)).unwrap();
            (engine, bead, assumption)
        },
        break_it,
        break_it,
        consistent,
    );
}

#[test]
fn an_install_that_another_overtakes_is_listed_under_the_version_it_gets() {
    both_ways(
        || {
            let engine = engine(1, unused);
            let (bead, assumption) = (bead(&engine), engine.assumption());
            (engine, bead, assumption)
        },
        |(engine, bead, assumption)| {
            engine.install(*bead, T1, at(1).assumes(*assumption)).unwrap();
        },
        |(engine, bead, _)| engine.invalidate(*bead).unwrap(),
        |(engine, bead, assumption)| {
            let found = engine.invalidate_assumption(*assumption);
            assert!(found <= 1);
            assert_eq!(entry(engine.mutator().code(*bead)), 0, "it was listed under another version");
        },
    );
}

#[test]
fn code_held_for_a_revert_never_comes_back_once_its_assumption_is_broken() {
    both_ways(
        || {
            let tier = || Tier::new(FnBackend::new(unused));
            let builder = Engine::builder().capacity(2).workers(1).tier(tier()).tier(tier());
            let Ok(engine) = builder.deopt(|_: &DeoptHistory| Recovery::Revert).build() else {
                panic!("an engine of two beads")
            };
            let (bead, assumption) = (bead(&engine), engine.assumption());
            engine.install(bead, T1, at(1).assumes(assumption)).unwrap();
            let version = engine.install(bead, T2, at(2)).unwrap();
            ((engine, bead, assumption), version)
        },
        |((engine, bead, _), version)| {
            engine.bailout(*bead, BailoutInfo::new(*version)).unwrap();
        },
        |((engine, bead, assumption), _)| {
            engine.invalidate_assumption(*assumption);
            assert_ne!(entry(engine.mutator().code(*bead)), 1, "found after it was broken");
        },
        |((engine, bead, _), _)| assert_eq!(entry(engine.mutator().code(*bead)), 0, "it came back"),
    );
}

// ---- reload and invalidate

type Plain = (Engine, Bead);

/// Compiles answer 1.
fn compiling() -> Plain {
    let engine = engine(1, |_| Ok(at(1)));
    let bead = bead(&engine);
    engine.promote(bead, T1).unwrap();
    (engine, bead)
}

fn code_and_state_agree((engine, bead): &Plain) {
    while engine.work_if_started() {}
    let state = engine.state(*bead).unwrap();
    assert_eq!(state.pending, None, "queued, and nobody comes");
    assert_eq!(entry(engine.mutator().code(*bead)) != 0, state.tier == T1);
}

#[test]
fn p25_a_reload_that_meets_a_compile_ends_with_the_new_code_and_never_with_a_null_entry() {
    both_ways(
        || {
            // Code of a source is entered at its number.
            let source = Arc::new(AtomicUsize::new(1));
            let read = source.clone();
            let engine = engine(1, move |_| Ok(at(read.load(Relaxed))));
            let bead = bead(&engine);
            engine.promote(bead, T1).unwrap();
            (engine, bead, source)
        },
        |(engine, _, _)| _ = engine.work_if_started(),
        |(engine, bead, source)| {
            source.store(2, Relaxed);
            engine.reload(*bead).unwrap();
        },
        |(engine, bead, _)| {
            code_and_state_agree(&(engine.clone(), *bead));
            assert_eq!(entry(engine.mutator().code(*bead)), 2, "asked for again, and of the new source");
        },
    );
}

#[test]
fn a_reload_that_meets_an_invalidation_leaves_code_and_state_agreeing() {
    both_ways(
        || {
            let (engine, bead) = compiling();
            while engine.work_if_started() {}
            (engine, bead)
        },
        |(engine, bead)| engine.invalidate(*bead).unwrap(),
        |(engine, bead)| {
            engine.reload(*bead).unwrap();
            engine.work_if_started();
        },
        code_and_state_agree,
    );
}

#[test]
fn a_reload_that_meets_an_install_of_the_vms_leaves_code_and_state_agreeing() {
    both_ways(
        || {
            let engine = engine(1, |_| Ok(at(1)));
            let bead = bead(&engine);
            (engine, bead)
        },
        |(engine, bead)| drop(engine.install(*bead, T1, at(2))),
        |(engine, bead)| {
            engine.reload(*bead).unwrap();
            engine.work_if_started();
        },
        code_and_state_agree,
    );
}

#[test]
fn a_dependent_that_is_about_to_be_installed_is_not_struck_off() {
    both_ways(
        || {
            let engine = engine(1, unused);
            let beads = [bead(&engine), bead(&engine)];
            let assumption = engine.assumption();
            (engine, beads, assumption)
        },
        |(engine, [one, _], assumption)| _ = engine.install(*one, T1, at(1).assumes(*assumption)).unwrap(),
        // Looks through the list, which in models is full with one.
        |(engine, [_, other], assumption)| {
            _ = engine.install(*other, T1, at(2).assumes(*assumption)).unwrap()
        },
        |(engine, beads, assumption)| {
            assert_eq!(engine.invalidate_assumption(*assumption), 2, "one was struck off");
            assert_eq!(beads.map(|bead| entry(engine.mutator().code(bead))), [0, 0]);
        },
    );
}

#[test]
fn a_dependent_that_is_just_being_superseded_is_not_struck_off_before_it_is_gone() {
    both_ways(
        || {
            let engine = engine(1, unused);
            let beads = [bead(&engine), bead(&engine)];
            let assumption = engine.assumption();
            let code = at(1).osr(7, std::ptr::without_provenance(1));
            engine.install(beads[0], T1, code.assumes(assumption)).unwrap();
            (engine, beads, assumption)
        },
        |(engine, [one, _], _)| _ = engine.install(*one, T1, at(3)).unwrap(),
        |(engine, [one, other], assumption)| {
            engine.install(*other, T1, at(2).assumes(*assumption)).unwrap();
            engine.invalidate_assumption(*assumption);
            let m = engine.mutator();
            let found = [m.code(*one), m.osr_entry(*one, 7)].map(entry);
            assert!(!found.contains(&1), "found after it was broken");
        },
        |_| (),
    );
}
