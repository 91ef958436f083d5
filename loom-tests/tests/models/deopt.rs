//! Edge DEOPT: bailouts against installs, against each other and against the end of a function: one counts, failing code is never
//! answered again, and no owner is lost or freed twice. Races are tried with both threads in both roles.

use beadwork::{
    BailoutInfo, Bead, DeoptDecision, DeoptHistory, Engine, FnBackend, Recovery, Threshold, Tier, TierId,
};
use beadwork_loom_tests::*;
use loom::thread;

const T1: TierId = TierId::BASELINE;
const T2: TierId = match TierId::new(2) {
    Some(tier) => tier,
    None => unreachable!(),
};
const ALL: u32 = u32::MAX;

/// An engine of two tiers, entered at the first call, whose policy always says `recovery`; the upper backend gives `upper`.
fn engine_that(recovery: Recovery, upper: Option<&Memory>) -> Engine {
    let upper = upper.cloned();
    let builder = Engine::builder().capacity(2).workers(1).deopt(move |_: &DeoptHistory| recovery);
    let tier = |backend| Tier::new(backend).policy(Threshold::new(1));
    match builder
        .tier(tier(FnBackend::new(unused)))
        .tier(Tier::new(FnBackend::new(move |job| match &upper {
            Some(memory) => Ok(memory.compile(2)),
            None => unused(job),
        })))
        .build()
    {
        Ok(engine) => engine,
        Err(error) => panic!("{error}"),
    }
}

fn bail(engine: &Engine, bead: Bead, version: u32) -> DeoptDecision {
    engine.bailout(bead, BailoutInfo::new(version)).unwrap_or(DeoptDecision::Outdated)
}

fn install(engine: &Engine, bead: Bead, tier: TierId, memory: &Memory, entry: usize) -> u32 {
    match engine.install(bead, tier, memory.compile(entry)) {
        Ok(version) => version,
        Err(error) => panic!("{error}"),
    }
}

/// Two threads; which of them loom runs first decides what it finds within the bound, so the roles are tried both ways.
fn race(
    a: impl Fn(&Engine, Bead) + Clone + Send + Sync + 'static,
    b: impl Fn(&Engine, Bead) + Clone + Send + Sync + 'static,
    prepare: impl Fn() -> (Engine, Bead, [Memory; 3]) + Clone + Send + Sync + 'static,
    check: impl Fn(&Engine, Bead, &[Memory; 3]) + Clone + Send + Sync + 'static,
) {
    race_within(3, a, b, prepare, check);
}

/// The same with a bound of its own on preemptions.
fn race_within(
    preemptions: usize,
    a: impl Fn(&Engine, Bead) + Clone + Send + Sync + 'static,
    b: impl Fn(&Engine, Bead) + Clone + Send + Sync + 'static,
    prepare: impl Fn() -> (Engine, Bead, [Memory; 3]) + Clone + Send + Sync + 'static,
    check: impl Fn(&Engine, Bead, &[Memory; 3]) + Clone + Send + Sync + 'static,
) {
    fn once(
        here: impl Fn(&Engine, Bead),
        there: impl Fn(&Engine, Bead) + Send + 'static,
        (engine, bead, memory): (Engine, Bead, [Memory; 3]),
        check: impl Fn(&Engine, Bead, &[Memory; 3]),
    ) {
        let other = {
            let engine = engine.clone();
            thread::spawn(move || there(&engine, bead))
        };
        here(&engine, bead);
        other.join().unwrap();
        engine.reclaim();
        check(&engine, bead, &memory);
        drop(engine);
        assert!(memory.iter().all(|memory| memory.is_freed() || !memory.is_written()), "an owner was lost");
    }
    let (a2, b2, prepare2, check2) = (a.clone(), b.clone(), prepare.clone(), check.clone());
    model_within(preemptions, move || once(&a, b.clone(), prepare(), &check));
    model_within(preemptions, move || once(&b2, a2.clone(), prepare2(), &check2));
}

fn code(engine: &Engine, bead: Bead) -> usize {
    entry(engine.pin().code(bead))
}

/// Baseline code at entry 1, and with `optimized` code above it at entry 2.
fn compiled(recovery: Recovery, optimized: bool) -> (Engine, Bead, [Memory; 3]) {
    let memory = [Memory::new(), Memory::new(), Memory::new()];
    let engine = engine_that(recovery, (!optimized).then_some(&memory[1]));
    let bead = bead(&engine);
    assert_eq!(install(&engine, bead, T1, &memory[0], 1), 1);
    if optimized {
        assert_eq!(install(&engine, bead, T2, &memory[1], 2), 2);
    }
    (engine, bead, memory)
}

#[test]
fn a_late_bailout_leaves_newer_code_alone() {
    race(
        |engine, bead| {
            bail(engine, bead, 1);
        },
        |engine, bead| {
            install(engine, bead, T1, &Memory::new(), 2);
        },
        || compiled(Recovery::Pause { calls: 1 }, false),
        |engine, bead, memory| {
            assert_eq!(code(engine, bead), 2, "newer code was taken for an old failure");
            assert!(memory[0].is_freed());
        },
    );
}

#[test]
fn failing_code_is_taken_whatever_is_asked_for_meanwhile() {
    race(
        |engine, bead| assert_ne!(bail(engine, bead, 1), DeoptDecision::Outdated),
        |engine, bead| engine.promote(bead, T2).unwrap(),
        || compiled(Recovery::Pause { calls: 1 }, false),
        |engine, bead, _| assert_eq!(code(engine, bead), 0),
    );
}

#[test]
fn of_two_bailouts_of_one_version_one_counts_and_neither_thread_is_answered_that_code_again() {
    let bail_and_look = |engine: &Engine, bead| {
        bail(engine, bead, 1);
        assert_eq!(code(engine, bead), 0);
    };
    race(
        bail_and_look,
        bail_and_look,
        || compiled(Recovery::Pause { calls: 1 }, false),
        |engine, bead, memory| {
            assert_eq!(engine.deopts(bead).map(|history| history.bailouts), Some(1));
            assert_eq!(engine.stats().deopts.outdated, 1);
            assert!(memory[0].is_freed());
        },
    );
}

#[test]
fn a_bailout_ends_a_compile_in_flight_or_comes_too_late_for_its_code() {
    race(
        |engine, bead| {
            let decision = bail(engine, bead, 1);
            let code = code(engine, bead);
            assert_eq!(code, if decision == DeoptDecision::Outdated { 2 } else { 0 });
        },
        |engine, _| {
            engine.run_pending(1);
        },
        || {
            let (engine, bead, memory) = compiled(Recovery::Pause { calls: 1 }, false);
            engine.promote(bead, T2).unwrap();
            (engine, bead, memory)
        },
        |engine, bead, memory| {
            let runs = engine.tier(bead) == Ok(T2);
            assert_eq!(memory[0].is_freed(), !runs, "held while the code above it runs");
            assert_eq!((code(engine, bead), engine.stats().deopts.held), if runs { (2, 1) } else { (0, 0) });
        },
    );
}

#[test]
fn who_finds_the_code_gone_finds_the_pause_that_goes_with_it() {
    race(
        |engine, bead| assert_eq!(bail(engine, bead, 1), DeoptDecision::Pause { calls: ALL }),
        |engine, bead| {
            let m = engine.mutator();
            for _ in 0..2 {
                m.dispatch(bead);
            }
        },
        || {
            let memory = [Memory::new(), Memory::new(), Memory::new()];
            let engine = Engine::builder().capacity(2).workers(1);
            let engine = engine.deopt(|_: &DeoptHistory| Recovery::Pause { calls: ALL });
            let tier = Tier::new(FnBackend::new(unused)).policy(Threshold::new(1));
            let Ok(engine) = engine.tier(tier).build() else { panic!("an engine of two beads") };
            let bead = bead(&engine);
            install(&engine, bead, T1, &memory[0], 1);
            (engine, bead, memory)
        },
        |engine, bead, _| assert_eq!(engine.state(bead).map(|state| state.pending), Ok(None)),
    );
}

#[test]
fn a_revert_against_removal_loses_no_owner_and_leaves_nothing_behind() {
    race(
        |engine, bead| {
            bail(engine, bead, 2);
        },
        |engine, bead| {
            engine.remove(bead).unwrap();
        },
        || compiled(Recovery::Revert, true),
        |engine, bead, memory| {
            assert!(memory[0].is_freed() && memory[1].is_freed());
            let deopts = engine.stats().deopts;
            assert_eq!((deopts.held, deopts.functions, engine.deopts(bead)), (0, 0, None));
        },
    );
}

#[test]
fn a_kept_bailout_against_removal_leaves_nothing_behind() {
    race(
        |engine, bead| {
            bail(engine, bead, 1);
        },
        |engine, bead| {
            engine.remove(bead).unwrap();
        },
        || compiled(Recovery::Keep, false),
        |engine, bead, memory| {
            assert!(memory[0].is_freed());
            assert_eq!((engine.stats().deopts.functions, engine.deopts(bead)), (0, None));
        },
    );
}

#[test]
fn a_revert_never_brings_back_what_was_invalidated() {
    race(
        |engine, bead| {
            bail(engine, bead, 2);
        },
        |engine, bead| {
            engine.invalidate(bead).unwrap();
            assert_eq!(code(engine, bead), 0);
        },
        || compiled(Recovery::Revert, true),
        |engine, bead, memory| {
            assert_eq!((code(engine, bead), engine.stats().deopts.held), (0, 0));
            assert!(memory[0].is_freed() && memory[1].is_freed());
        },
    );
}

// Two preemptions: three take most of a minute, and find nothing else.
#[test]
fn a_revert_of_newer_code_never_brings_back_what_was_invalidated_before_it() {
    race_within(
        2,
        |engine, bead| {
            let version = install(engine, bead, T2, &Memory::new(), 3);
            bail(engine, bead, version);
        },
        |engine, bead| {
            engine.invalidate(bead).unwrap();
            assert_ne!(code(engine, bead), 1);
        },
        || compiled(Recovery::Revert, true),
        |engine, bead, memory| {
            assert_ne!(code(engine, bead), 1);
            assert!(memory[0].is_freed() && memory[1].is_freed());
        },
    );
}

#[test]
fn a_tier_up_against_an_invalidation_holds_nothing_that_was_taken_back() {
    race(
        |engine, bead| {
            install(engine, bead, T2, &Memory::new(), 2);
        },
        |engine, bead| engine.invalidate(bead).unwrap(),
        || compiled(Recovery::Revert, false),
        |engine, _, memory| {
            assert_eq!(engine.stats().deopts.held, 0);
            assert!(memory[0].is_freed());
        },
    );
}

#[test]
fn a_version_that_moves_between_running_and_held_is_taken_back_all_the_same() {
    race(
        |engine, bead| {
            bail(engine, bead, 2);
        },
        |engine, bead| {
            engine.invalidate_version(bead, 1).unwrap();
            assert_ne!(code(engine, bead), 1);
        },
        || compiled(Recovery::Revert, true),
        |engine, bead, memory| {
            assert_eq!((code(engine, bead), engine.stats().deopts.held), (0, 0));
            assert!(memory[0].is_freed());
        },
    );
}

#[test]
fn a_revert_against_a_tier_up_holds_the_baseline_once() {
    race(
        |engine, bead| {
            bail(engine, bead, 2);
        },
        |engine, bead| {
            install(engine, bead, T2, &Memory::new(), 3);
        },
        || compiled(Recovery::Revert, true),
        |engine, bead, memory| {
            assert_eq!((code(engine, bead), engine.stats().deopts.held), (3, 1));
            assert!(!memory[0].is_freed() && memory[1].is_freed());
            assert!(engine.drop_kept(bead));
            engine.reclaim();
            assert!(memory[0].is_freed());
        },
    );
}

#[test]
fn a_revert_against_dropping_what_is_held_runs_it_or_frees_it() {
    race(
        |engine, bead| {
            let decision = bail(engine, bead, 2);
            let runs = code(engine, bead) == 1;
            assert_eq!(decision, DeoptDecision::Revert { at_once: runs });
        },
        |engine, bead| {
            engine.drop_kept(bead);
        },
        || compiled(Recovery::Revert, true),
        |engine, bead, memory| assert_eq!(code(engine, bead) == 1, !memory[0].is_freed()),
    );
}
