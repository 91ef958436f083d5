//! The governor: keeps failing speculation from costing more than it is worth, whatever the policy says.
//!
//! Pure: a [`Ledger`] per function and a clock reading go in, a ruling comes out. Per function and tier the calls until the
//! tier may be entered again double with each deopt; the same guard that fails again and again, and too many deopts of a
//! tier, cap the function below it; leaving failing code in place is limited in rate. So a guard that always fails costs a
//! bounded number of bailouts and compiles, ever: [`DEOPT_CYCLE_LIMIT`] of each per tier, or [`DEOPT_TIER_LIMIT`] if a
//! different guard fails each time; where the policy keeps the code, each of these stands for [`DEOPT_KEEP_BURST`] + 1
//! bailouts, and [`DEOPT_KEEP_PER_SECOND`] more pass in each second.

use super::{BailoutInfo, Recovery};
use crate::id::TierId;

/// Calls until a tier may be entered again after its second deopt; each further one doubles it. After the first it may be
/// entered at once. The same as after a failed compile ([`RETRY_AFTER_CALLS`](crate::RETRY_AFTER_CALLS)).
///
/// JavaScriptCore doubles its optimization thresholds with each reoptimization of a function in the same way
/// (`CodeBlock::reoptimizationRetryCounter`).
pub const DEOPT_REENTRY_CALLS: u32 = crate::fault::RETRY_AFTER_CALLS;

/// Deopts in a row by the same guard at the same pc of the same tier after which the function is capped below that tier. The
/// compiles in between did not learn, so further ones will not. As many as failed compiles
/// ([`DEFAULT_FAULT_LIMIT`](crate::DEFAULT_FAULT_LIMIT)), and one more than
/// [`ExponentialBackoff`](crate::ExponentialBackoff) pauses, so that the governor does not cut that short. HotSpot stops
/// speculating on a bytecode after 4 failures (`PerBytecodeTrapLimit`).
pub const DEOPT_CYCLE_LIMIT: u32 = crate::builder::DEFAULT_FAULT_LIMIT;

/// Deopts of one tier, by whatever guards, after which a function is capped below it: by then it has spent 255,000 calls
/// waiting for re-entry. HotSpot's limit is 400 recompiles (`PerMethodRecompilationCutoff`), without waits in between.
pub const DEOPT_TIER_LIMIT: u32 = 10;

/// Bailouts that may leave the code in place at once; then it counts as failing. JavaScriptCore leaves optimized code through
/// an exit 100 times before it reoptimizes (`osrExitCountForReoptimization`).
pub const DEOPT_KEEP_BURST: u32 = 100;

/// Bailouts a second that may leave the code in place for ever, by the engine's clock. Ours: at 100 µs for a bailout and
/// what the interpreter then loses, 10 of them cost a thousandth of a core.
pub const DEOPT_KEEP_PER_SECOND: u32 = 10;

/// Doublings after which a pause stays the same.
const MAX_DOUBLINGS: u32 = 20;

const TIERS: usize = TierId::MAX.get() as usize;

/// The pause after the `failures`th failure, if the first is followed by none.
fn reentry(failures: u32) -> u32 {
    match failures {
        0 | 1 => 0,
        more => DEOPT_REENTRY_CALLS << (more - 2).min(MAX_DOUBLINGS),
    }
}

/// What the governor remembers of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ledger {
    tiers: [Account; TIERS],
    /// The call at which any tier may be asked for again. Counts start over when code is taken.
    paused_until: u32,
    bucket: Bucket,
}

/// What it remembers of one tier's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Account {
    /// How often it was taken back.
    taken: u32,
    /// The call at which this tier, and those above it, may be asked for again.
    not_before: u32,
    /// For which guard it was taken back last, and how often in a row. Kept for each tier: tiers take turns in failing.
    guard: u32,
    in_a_row: u32,
    pc: u64,
}

impl Account {
    fn repeats_with(&self, info: &BailoutInfo) -> u32 {
        if (self.guard, self.pc) == (info.guard, info.pc) { self.in_a_row } else { 0 }
    }
}

impl Ledger {
    /// What is done about a bailout of code of `tier`, at `now` milliseconds; notes it.
    pub(super) fn rule(
        &mut self,
        governed: bool,
        proposal: Recovery,
        tier: TierId,
        info: &BailoutInfo,
        now: u32,
    ) -> Recovery {
        let below = tier.below();
        let mut ruling = match proposal {
            Recovery::Keep if !governed || self.bucket.admits(now) => return Recovery::Keep,
            Recovery::Keep => Recovery::Recompile,
            Recovery::Revert if tier <= TierId::BASELINE => Recovery::Recompile,
            Recovery::Cap(cap) => Recovery::Cap(cap.min(below)),
            proposal => proposal,
        };
        self.bucket = Bucket::default();
        let Some(account) = self.tiers.get_mut(tier.lane()) else { return ruling };
        account.in_a_row = account.repeats_with(info).saturating_add(1);
        (account.guard, account.pc) = (info.guard, info.pc);
        account.taken = account.taken.saturating_add(1);
        if governed {
            let pause = reentry(account.taken);
            let hopeless = account.taken >= DEOPT_TIER_LIMIT || account.in_a_row >= DEOPT_CYCLE_LIMIT;
            ruling = match ruling {
                Recovery::Cap(_) | Recovery::Blacklist => ruling,
                _ if hopeless => Recovery::Cap(below),
                Recovery::Recompile if pause > 0 && tier > TierId::BASELINE => Recovery::Revert,
                Recovery::Recompile if pause > 0 => Recovery::Pause { calls: pause },
                Recovery::Pause { calls } => Recovery::Pause { calls: calls.max(pause) },
                _ => ruling,
            };
            account.not_before = pause;
        }
        self.paused_until = if let Recovery::Pause { calls } = ruling { calls } else { 0 };
        ruling
    }

    /// How often in a row code of the tier was taken back for this very guard.
    pub(super) fn repeats_with(&self, tier: TierId, info: &BailoutInfo) -> u32 {
        self.tiers.get(tier.lane()).map_or(0, |account| account.repeats_with(info))
    }

    /// The call at which `tier` may be asked for.
    pub(super) fn not_before(&self, tier: TierId) -> u32 {
        let up_to = self.tiers.iter().take(usize::from(tier.get()));
        up_to.map(|account| account.not_before).max().map_or(0, |own| own.max(self.paused_until))
    }
}

/// A leaky bucket of bailouts that left the code in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Bucket {
    /// Thousandths of a bailout.
    level: u32,
    /// When it was last looked at, in milliseconds.
    at: u32,
}

impl Bucket {
    fn admits(&mut self, now: u32) -> bool {
        const ONE: u32 = 1_000;
        // A bailout a second is a thousandth a millisecond.
        let leaked = crate::clock::since(now, self.at).saturating_mul(DEOPT_KEEP_PER_SECOND);
        (self.level, self.at) = (self.level.saturating_sub(leaked), now);
        let admitted = self.level + ONE <= DEOPT_KEEP_BURST * ONE;
        if admitted {
            self.level += ONE;
        }
        admitted
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use Recovery::{Blacklist, Cap, Keep, Pause, Recompile, Revert};

    const T1: TierId = TierId::BASELINE;

    fn tier(number: u8) -> TierId {
        TierId::new(number).unwrap()
    }

    fn guard(guard: u32) -> BailoutInfo {
        BailoutInfo::new(1).guard(guard)
    }

    fn pause(calls: u32) -> Recovery {
        Pause { calls }
    }

    #[test]
    fn the_same_guard_may_be_recompiled_at_once_then_after_doubling_pauses_then_not_any_more() {
        let mut ledger = Ledger::default();
        let rulings = [(); 5].map(|()| {
            let ruling = ledger.rule(true, Recompile, T1, &guard(1), 0);
            (ruling, ledger.not_before(T1))
        });
        let expected = [
            (Recompile, 0),
            (pause(1_000), 1_000),
            (pause(2_000), 2_000),
            (pause(4_000), 4_000),
            (Cap(TierId::INTERPRETER), 8_000),
        ];
        assert_eq!(rulings, expected);
    }

    #[test]
    fn guards_that_take_turns_end_at_the_tiers_limit() {
        let mut ledger = Ledger::default();
        let rulings: Vec<_> =
            (0..DEOPT_TIER_LIMIT).map(|n| ledger.rule(true, Recompile, T1, &guard(n % 2), 0)).collect();
        assert_eq!(rulings[8], pause(128_000));
        assert_eq!(rulings[9], Cap(TierId::INTERPRETER));
        let waited: u32 = (1..DEOPT_TIER_LIMIT).map(reentry).sum();
        assert_eq!(waited, 255_000, "as documented");
    }

    #[test]
    fn above_the_baseline_a_recompile_that_comes_too_early_runs_the_baseline_meanwhile() {
        let mut ledger = Ledger::default();
        let mut bail = || ledger.rule(true, Recompile, tier(3), &guard(1), 0);
        assert_eq!(
            [bail(), bail(), bail(), bail(), bail()],
            [Recompile, Revert, Revert, Revert, Cap(tier(2))]
        );
        assert_eq!((ledger.not_before(tier(2)), ledger.not_before(tier(3))), (0, 8_000));
        assert_eq!(ledger.not_before(tier(4)), 8_000, "what is above waits as well");
    }

    #[test]
    fn tiers_that_take_turns_in_failing_are_counted_apart() {
        let mut ledger = Ledger::default();
        let mut bail = |number| ledger.rule(true, Recompile, tier(number), &guard(1), 0);
        (0..4).for_each(|_| assert!([bail(2), bail(1)].iter().all(|ruling| !matches!(ruling, Cap(_)))));
        assert_eq!([bail(2), bail(1)], [Cap(T1), Cap(TierId::INTERPRETER)]);
    }

    #[test]
    fn a_policys_own_pauses_caps_and_blacklists_stand() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.rule(true, pause(7), T1, &guard(1), 0), pause(7));
        assert_eq!(ledger.rule(true, pause(7), T1, &guard(1), 0), pause(1_000), "too short");
        assert_eq!(ledger.rule(true, Blacklist, T1, &guard(1), 0), Blacklist);
        assert_eq!(ledger.rule(true, Cap(tier(9)), tier(3), &guard(1), 0), Cap(tier(2)));
        assert_eq!(ledger.rule(true, Cap(T1), tier(3), &guard(1), 0), Cap(T1));
        assert_eq!(Ledger::default().rule(true, Revert, T1, &guard(1), 0), Recompile);
    }

    #[test]
    fn ungoverned_the_policy_rules() {
        let mut ledger = Ledger::default();
        for _ in 0..1_000 {
            assert_eq!(ledger.rule(false, Keep, T1, &guard(1), 0), Keep);
            assert_eq!(ledger.rule(false, Recompile, T1, &guard(1), 0), Recompile);
            assert_eq!(ledger.not_before(T1), 0);
        }
        assert_eq!(ledger.rule(false, pause(3), T1, &guard(1), 0), pause(3));
        assert_eq!((ledger.not_before(T1), ledger.not_before(tier(2))), (3, 3));
    }

    #[test]
    fn keeping_the_code_is_limited_in_burst_and_rate() {
        let mut ledger = Ledger::default();
        let mut bail = |now| ledger.rule(true, Keep, T1, &guard(1), now);
        assert!((0..DEOPT_KEEP_BURST).all(|_| bail(5) == Keep));
        assert_eq!(bail(5 + 100), Keep, "one has leaked");
        assert_eq!(bail(5 + 100), Recompile);
        // What is rare stays, across the wrap of the clock too.
        let mut ledger = Ledger::default();
        let mut rare = (0..10_000u32).map(|n| (u32::MAX - 50_000).wrapping_add(n * 100));
        assert!(rare.all(|now| ledger.rule(true, Keep, T1, &guard(1), now) == Keep));
    }
}
