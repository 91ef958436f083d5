//! Back to the baseline: code that is held while a higher tier runs, when it comes back, and when it goes.

mod common;
use beadwork::*;
use common::rig::*;
use common::*;

const T0: TierId = TierId::INTERPRETER;
const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

#[test]
fn a_revert_runs_the_same_baseline_code_again_at_once_and_its_guards_still_count() {
    let mut rig = Rig::new(&[10, 100], |b| b);
    let baseline = rig.compile(T1);
    let entry = rig.m.code(rig.bead).unwrap().addr();
    let optimized = rig.compile(T2);
    rig.m.safepoint();
    rig.engine.reclaim();
    assert_eq!((rig.alive.count(), rig.stats().held, rig.stats().held_bytes), (2, 1, 16), "held");
    assert_eq!(rig.bail(baseline), DeoptDecision::Outdated, "while it is only held");
    assert_eq!(rig.bail(optimized), REVERT_AT_ONCE);
    assert_eq!(rig.m.code(rig.bead).unwrap().addr(), entry);
    assert_eq!((rig.tier(), rig.compiles()), (T1, 2), "nothing was compiled for it");
    rig.m.safepoint();
    rig.engine.reclaim();
    assert_eq!((rig.alive.count(), rig.stats().held), (1, 0));
    // It tiers up again when it has earned that anew.
    let calls = (1..).find(|_| rig.call() != Some(baseline)).unwrap();
    assert_eq!((calls, rig.tier()), (101, T2));
    let again = rig.call().unwrap();
    assert_eq!(rig.bail(again), DeoptDecision::Cap(T1), "the default allows one revert");
    assert_eq!((rig.call(), rig.tier()), (Some(baseline), T1), "capped, and the baseline runs");
    (0..1_000).for_each(|_| assert_eq!(rig.call(), Some(baseline)));
    assert_eq!(rig.bail(baseline), RECOMPILE, "its guards name the version it always had");
    rig.m.safepoint();
    rig.engine.run_pending(usize::MAX);
    assert_eq!((rig.alive.count(), rig.deopts().reverts, rig.stats().reverted_at_once), (1, 1, 1));
}

#[test]
fn a_revert_without_held_code_compiles_the_baseline_before_what_is_merely_hot() {
    let mut rig = Rig::new(&[10, 100], |b| b);
    rig.compile(T1);
    let optimized = rig.compile(T2);
    assert!(rig.engine.drop_kept(rig.bead));
    assert!(!rig.engine.drop_kept(rig.bead));
    let hot = rig.engine.register(Core::new(1)).unwrap();
    rig.engine.promote(hot, T1).unwrap();
    assert_eq!(rig.bail(optimized), DeoptDecision::Revert { at_once: false });
    assert!(rig.m.code(rig.bead).is_none());
    rig.engine.run_pending(1);
    let baseline = rig.call().unwrap();
    assert_eq!(rig.compiled.lock().unwrap()[2], (T1, baseline, Reason::Deopt));
    rig.engine.run_pending(usize::MAX);
    rig.m.safepoint();
    rig.engine.reclaim();
    assert_eq!(rig.alive.count(), 2);
}

#[test]
fn held_code_goes_when_its_function_is_invalidated_removed_or_gets_other_baseline_code() {
    let mut rig = Rig::new(&[10, 100], |b| b);
    let ends: [fn(&Engine, Bead); 6] = [
        |engine, bead| engine.invalidate(bead).unwrap(),
        |engine, bead| engine.demote(bead, T0).unwrap(),
        |engine, bead| engine.set_tier_cap(bead, T1).unwrap(),
        |engine, bead| engine.blacklist(bead).unwrap(),
        |engine, bead| engine.install(bead, T1, code()).map(drop).unwrap(),
        |engine, bead| engine.remove(bead).map(drop).unwrap(),
    ];
    for end in ends {
        rig.bead = rig.engine.register(Core::new(0)).unwrap();
        rig.compile(T1);
        rig.compile(T2);
        assert_eq!(rig.stats().held, 1);
        end(&rig.engine, rig.bead);
        rig.m.safepoint();
        rig.engine.reclaim();
        assert_eq!((rig.stats().held, rig.alive.count()), (0, 0));
    }
}

#[test]
fn held_code_survives_a_tier_up_above_it_and_the_end_of_the_engine_frees_it() {
    let mut rig = Rig::new(&[10, 100, 1_000], |b| b);
    let baseline = rig.compile(T1);
    rig.compile(T2);
    let top = rig.compile(TierId::new(3).unwrap());
    rig.m.safepoint();
    rig.engine.reclaim();
    assert_eq!((rig.alive.count(), rig.stats().held), (2, 1));
    assert_eq!(rig.bail(top), REVERT_AT_ONCE);
    assert_eq!(rig.call(), Some(baseline));
    rig.compile(T2);
    let alive = rig.alive.clone();
    drop(rig);
    assert_eq!(alive.count(), 0);
}

#[test]
fn one_version_can_be_taken_back_wherever_it_is() {
    let mut rig = Rig::new(&[10, 100], |b| b);
    let baseline = rig.compile(T1);
    let optimized = rig.compile(T2);
    assert_eq!(rig.engine.invalidate_version(rig.bead, baseline), Ok(false));
    assert_eq!((rig.tier(), rig.stats().held), (T2, 0), "the held code went, the other runs on");
    assert_eq!(rig.engine.invalidate_version(rig.bead, baseline), Ok(false));
    assert_eq!(rig.engine.invalidate_version(rig.bead, optimized), Ok(true));
    assert_eq!((rig.tier(), rig.m.code(rig.bead).is_none()), (T0, true));
    rig.m.safepoint();
    rig.engine.reclaim();
    assert_eq!(rig.alive.count(), 0);
}

#[test]
fn policies_that_never_revert_hold_nothing() {
    let mut rig = Rig::new(&[10, 100], |b| b.deopt(AlwaysRecompile));
    rig.compile(T1);
    rig.compile(T2);
    rig.m.safepoint();
    rig.engine.reclaim();
    assert_eq!((rig.stats().held, rig.alive.count()), (0, 1));
}

#[test]
fn a_revert_brings_the_loop_entries_of_the_baseline_back_but_for_those_that_failed() {
    let mut rig = Rig::new(&[10, 100], |b| b);
    let entries = |entry| code().osr(1, entry).osr(2, entry);
    rig.engine.install(rig.bead, T1, entries(addr(one))).unwrap();
    rig.engine.osr_failed(rig.bead, 2).unwrap();
    let optimized = rig.engine.install(rig.bead, T2, entries(addr(two))).unwrap();
    let answered = |rig: &Rig| [1, 2].map(|site| rig.m.osr_entry(rig.bead, site).map(|code| code.as_ptr()));
    assert_eq!(answered(&rig), [Some(addr(two)), None]);
    assert_eq!(rig.bail_with(BailoutInfo::new(optimized).osr_site(1)), REVERT_AT_ONCE);
    assert_eq!(answered(&rig), [None, None], "both sites failed");
    // Once it went round often enough the site may be entered again.
    let iterations = (1..100_000).find(|_| rig.m.back_edge(rig.bead, 1).is_some()).unwrap();
    assert_eq!((iterations, answered(&rig)), (8_001, [Some(addr(one)), None]));
}
