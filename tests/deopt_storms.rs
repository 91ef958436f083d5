//! Failed speculation: who decides, and what a storm of bailouts can cost.

mod common;
use beadwork::*;
use common::rig::*;

const T1: TierId = TierId::BASELINE;
const T2: TierId = match TierId::new(2) {
    Some(tier) => tier,
    None => unreachable!(),
};
const T0: TierId = TierId::INTERPRETER;

#[test]
fn exponential_backoff_pauses_for_its_calls_and_blacklists_at_the_fifth_bailout() {
    let mut rig = Rig::new(&[10], |b| b.deopt(ExponentialBackoff::default()));
    let mut waits = vec![];
    for calls in [1_000, 2_000, 4_000, 8_000] {
        let version = rig.warm().0;
        assert_eq!(rig.bail(version), pause(calls));
        assert!(rig.m.code(rig.bead).is_none(), "the failing code is not live while it pauses");
        waits.push(rig.warm().1);
    }
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000]);
    let version = rig.warm().0;
    assert_eq!(rig.bail(version), DeoptDecision::Blacklist);
    let barred = PromoteError::Barred { bead: rig.bead, tier: T1, cap: T0 };
    assert_eq!(rig.engine.promote(rig.bead, T1), Err(barred));
    let stats = rig.stats();
    assert_eq!((stats.bailouts, stats.pauses, stats.blacklisted, stats.overruled), (5, 4, 1, 0));
}

#[test]
fn the_threshold_recompiles_three_times_and_then_blacklists() {
    let mut rig = Rig::new(&[10], |b| b.deopt(DeoptThreshold::default()).deopt_governor(false));
    let decisions = [(); 4].map(|()| {
        let version = rig.warm().0;
        rig.bail(version)
    });
    assert_eq!(decisions, [RECOMPILE, RECOMPILE, RECOMPILE, DeoptDecision::Blacklist]);
    assert_eq!((rig.deopts().recompiles, rig.compiles()), (3, 4));
}

#[test]
fn the_governor_shows_where_it_overrules_the_policy() {
    let mut rig = Rig::new(&[10], |b| b.deopt(DeoptThreshold::default()));
    let decisions = [(); 4].map(|()| {
        let version = rig.warm().0;
        rig.bail(version)
    });
    assert_eq!(decisions, [RECOMPILE, pause(1_000), pause(2_000), DeoptDecision::Blacklist]);
    assert_eq!(rig.stats().overruled, 2);
    let overruled = rig.events.lock().unwrap().iter().any(|event| {
        matches!(event, Event::Deoptimized { proposal: Recovery::Recompile, decision, .. } if *decision == pause(1_000))
    });
    assert!(overruled);
}

#[test]
fn p8_a_guard_that_always_fails_costs_five_bailouts_and_compiles_a_tier_under_every_policy() {
    fn check(policy: impl DeoptPolicy) {
        let mut rig = Rig::new(&[10, 100], |b| b.deopt(policy));
        let (bailouts, compiles) = rig.storm(|_| 1);
        assert!(bailouts >= 1);
        // Each tier at most so often; and baseline compiles that a revert from above asks for.
        assert!(bailouts <= 2 * DEOPT_CYCLE_LIMIT, "{bailouts} bailouts");
        assert!(compiles as u32 <= 2 * DEOPT_CYCLE_LIMIT, "{compiles} compiles");
        assert_eq!(rig.stats().bailouts, u64::from(bailouts));
    }
    check(AlwaysRecompile);
    check(DeoptThreshold::default());
    check(ExponentialBackoff::default());
    check(TieredDeopt::default());
    check(|_: &DeoptHistory| Recovery::Revert);
    check(|_: &DeoptHistory| Recovery::Pause { calls: 0 });
    check(|_: &DeoptHistory| -> Recovery { std::panic::resume_unwind(Box::new("a policy")) });
}

#[test]
fn p8_guards_that_take_turns_cost_ten_bailouts_and_compiles_a_tier() {
    let mut rig = Rig::new(&[10], |b| b.deopt(AlwaysRecompile));
    assert_eq!(rig.storm(|bailout| bailout), (DEOPT_TIER_LIMIT, DEOPT_TIER_LIMIT as usize));
    assert_eq!((rig.tier(), rig.stats().capped), (T0, 1));
}

#[test]
fn p8_a_guard_that_always_fails_in_kept_code_ends_it() {
    let mut rig = Rig::new(&[10], |b| b.deopt(Tolerate));
    // The clock stands, so nothing leaks: each life of the code ends after the burst.
    let (bailouts, compiles) = rig.storm(|_| 1);
    assert_eq!(bailouts, DEOPT_CYCLE_LIMIT * (DEOPT_KEEP_BURST + 1));
    assert_eq!(compiles as u32, DEOPT_CYCLE_LIMIT);
    assert_eq!((rig.tier(), rig.deopts().repeats), (T0, DEOPT_CYCLE_LIMIT - 1));
}

#[test]
fn a_rare_guard_is_tolerated_for_ever() {
    let mut rig = Rig::new(&[10], |b| b.deopt(Tolerate));
    let version = rig.warm().0;
    for second in 0..10_000 {
        rig.time.set(second * 1_000);
        for _ in 0..DEOPT_KEEP_PER_SECOND {
            assert_eq!(rig.bail(version), DeoptDecision::Keep);
        }
    }
    assert_eq!((rig.tier(), rig.compiles(), rig.stats().kept), (T1, 1, 100_000));
}

#[test]
fn without_the_governor_the_policy_rules() {
    let mut rig = Rig::new(&[10], |b| b.deopt(AlwaysRecompile).deopt_governor(false));
    for _ in 0..1_000 {
        let version = rig.warm().0;
        assert_eq!(rig.bail(version), RECOMPILE);
    }
    let mut rig = Rig::new(&[10], |b| b.deopt(Tolerate).deopt_governor(false));
    let version = rig.warm().0;
    (0..10_000).for_each(|_| assert_eq!(rig.bail(version), DeoptDecision::Keep));
}

#[test]
fn above_the_baseline_an_early_recompile_runs_the_baseline_until_the_tier_may_be_entered_again() {
    let mut rig = Rig::new(&[10, 100], |b| b.deopt(|_: &DeoptHistory| Recovery::Recompile));
    let baseline = rig.compile(T1);
    let mut calls = vec![];
    for round in 0..4 {
        while rig.tier() != T2 {
            rig.call();
        }
        let optimized = rig.call().unwrap();
        let expected = if round == 0 { RECOMPILE } else { REVERT_AT_ONCE };
        assert_eq!(rig.bail(optimized), expected);
        assert_eq!(rig.m.code(rig.bead).map(|code| code.addr()), Some(0x1000), "the baseline runs meanwhile");
        calls.push((1..).find(|_| rig.call() != Some(baseline)).unwrap() - 1);
    }
    assert_eq!(calls, [1, 1_000, 2_000, 4_000]);
}

#[test]
fn p8_a_loop_entry_that_always_fails_costs_seven_bailouts_a_million_iterations_and_other_loops_none() {
    let mut rig = Rig::new(&[10], |b| b.deopt(Tolerate));
    let entries = common::code().osr(1, common::addr(common::two)).osr(2, common::addr(common::two));
    let version = rig.engine.install(rig.bead, T1, entries).unwrap();
    let mut bailouts = 0;
    for _ in 0..1_000_000 {
        if rig.m.back_edge(rig.bead, 1).is_some() {
            bailouts += 1;
            assert_eq!(rig.bail_with(BailoutInfo::new(version).osr_site(1)), DeoptDecision::Keep);
        }
        assert!(rig.m.osr_entry(rig.bead, 2).is_some());
    }
    // It waits 8,000 iterations after the first, and twice as long each time: 504,000 before the seventh.
    assert_eq!((bailouts, rig.engine.osr_failures(rig.bead, 1)), (7, 7));
}
