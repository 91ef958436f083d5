//! What to do about code whose guard failed: the trait, and the policies that come with the crate.

use super::{DeoptHistory, Recovery};
use crate::id::TierId;

/// Decides what becomes of code whose guard failed. Any `Fn(&DeoptHistory) -> Recovery` is one; given to
/// [`EngineBuilder::deopt`](crate::EngineBuilder::deopt).
///
/// It is asked on the thread that bails out, with no lock held, once per bailout, and by several threads at once; if the code is
/// gone when it has answered, the answer is dropped. A panic in it is contained and logged; the function pauses.
///
/// ```
/// use beadwork::{DeoptHistory, Engine, Recovery};
/// // Guards from 100 on are known to fail rarely.
/// let engine = Engine::builder()
///     .deopt(|history: &DeoptHistory| match history.last.guard {
///         100.. => Recovery::Keep,
///         _ if history.repeats > 0 => Recovery::Blacklist,
///         _ => Recovery::Recompile,
///     })
///     .build()?;
/// # Ok::<(), beadwork::BuildError>(())
/// ```
pub trait DeoptPolicy: Send + Sync + 'static {
    /// What should be done. The last bailout is in the history already.
    fn decide(&self, history: &DeoptHistory) -> Recovery;

    /// Whether baseline code is held when a higher tier takes its place, so that [`Recovery::Revert`] can bring it back at
    /// once. Asked when the engine is built. True unless a policy says otherwise; the memory of that code is the price
    /// ([`Engine::drop_all_kept`](crate::Engine::drop_all_kept) gives it back).
    fn keeps_baseline(&self) -> bool {
        true
    }
}

impl<F: Fn(&DeoptHistory) -> Recovery + Send + Sync + 'static> DeoptPolicy for F {
    fn decide(&self, history: &DeoptHistory) -> Recovery {
        self(history)
    }
}

/// Recompiles after every bailout. Only the governor ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AlwaysRecompile;

impl DeoptPolicy for AlwaysRecompile {
    fn decide(&self, _: &DeoptHistory) -> Recovery {
        Recovery::Recompile
    }
    fn keeps_baseline(&self) -> bool {
        false
    }
}

/// Recompiles after the first bailouts, 3 by default, and blacklists the function at the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeoptThreshold {
    recompiles: u32,
}

impl DeoptThreshold {
    /// Blacklists at the bailout after `recompiles` of them; 0 means the first.
    pub const fn new(recompiles: u32) -> DeoptThreshold {
        DeoptThreshold { recompiles }
    }
}

impl Default for DeoptThreshold {
    fn default() -> Self {
        DeoptThreshold::new(3)
    }
}

impl DeoptPolicy for DeoptThreshold {
    fn decide(&self, history: &DeoptHistory) -> Recovery {
        if history.bailouts <= self.recompiles { Recovery::Recompile } else { Recovery::Blacklist }
    }
    fn keeps_baseline(&self) -> bool {
        false
    }
}

/// Pauses after each bailout, twice as long each time, and blacklists in the end: by default 1,000, 2,000, 4,000 and 8,000
/// calls, and blacklisted at the fifth bailout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExponentialBackoff {
    base: u32,
    pauses: u32,
}

impl ExponentialBackoff {
    /// Pauses for `base` calls first, doubles (saturating), and blacklists at the bailout after `pauses` of them.
    pub const fn new(base: u32, pauses: u32) -> ExponentialBackoff {
        ExponentialBackoff { base, pauses }
    }
}

impl Default for ExponentialBackoff {
    fn default() -> Self {
        ExponentialBackoff::new(1_000, 4)
    }
}

impl DeoptPolicy for ExponentialBackoff {
    fn decide(&self, history: &DeoptHistory) -> Recovery {
        if history.bailouts > self.pauses {
            return Recovery::Blacklist;
        }
        let factor = 1u32.checked_shl(history.bailouts.saturating_sub(1)).unwrap_or(u32::MAX);
        Recovery::Pause { calls: self.base.saturating_mul(factor) }
    }
    fn keeps_baseline(&self) -> bool {
        false
    }
}

/// Treats baseline and optimized code differently; the default of an engine, with limits 3 and 1.
///
/// Baseline code is recompiled after its first 3 bailouts, and the function is blacklisted at the fourth. Code above the baseline
/// goes back to baseline code, which [runs again at once](Recovery::Revert); it may be optimized once more when it has
/// earned it anew, and at the next bailout above the baseline it is capped there for good.
///
/// The limits are beadie's. There one count serves both kinds of code, so an optimized function that bails out a second
/// time is blacklisted although its baseline code never failed; here each kind has its own count, and code that works
/// stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TieredDeopt {
    recompiles: u32,
    reverts: u32,
}

impl TieredDeopt {
    /// Recompiles baseline code up to `recompiles` times, and goes back from optimized code up to `reverts` times before the
    /// function is capped at the baseline. 0 means not even once.
    pub const fn new(recompiles: u32, reverts: u32) -> TieredDeopt {
        TieredDeopt { recompiles, reverts }
    }
}

impl Default for TieredDeopt {
    fn default() -> Self {
        TieredDeopt::new(3, 1)
    }
}

impl DeoptPolicy for TieredDeopt {
    fn decide(&self, history: &DeoptHistory) -> Recovery {
        const BASELINE: TierId = TierId::BASELINE;
        if history.tier > BASELINE {
            let reverts = history.bailouts_above(BASELINE) <= self.reverts;
            if reverts { Recovery::Revert } else { Recovery::Cap(BASELINE) }
        } else {
            let recompiles = history.bailouts_of(BASELINE) <= self.recompiles;
            if recompiles { Recovery::Recompile } else { Recovery::Blacklist }
        }
    }
}

/// Leaves the code in place: for guards that fail rarely. The governor's limit on how often that is cheap
/// ([`DEOPT_KEEP_BURST`](crate::DEOPT_KEEP_BURST)) ends it; without the governor nothing does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tolerate;

impl DeoptPolicy for Tolerate {
    fn decide(&self, _: &DeoptHistory) -> Recovery {
        Recovery::Keep
    }
    fn keeps_baseline(&self) -> bool {
        false
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::deopt::BailoutInfo;
    use crate::id::Bead;

    /// What the policy says to bailouts of code of these tiers, one after the other.
    fn answers<const N: usize>(policy: &impl DeoptPolicy, tiers: [u8; N]) -> [Recovery; N] {
        let (bead, info) = (Bead::new(0, 0), BailoutInfo::new(1));
        let mut history = DeoptHistory::new(bead, TierId::BASELINE, info);
        tiers.map(|tier| {
            history = history.after(TierId::new(tier).unwrap(), info, 0);
            policy.decide(&history)
        })
    }

    use Recovery::{Blacklist, Cap, Pause, Recompile, Revert};

    #[test]
    fn the_default_sequences_are_the_documented_ones() {
        assert_eq!(answers(&AlwaysRecompile, [1; 6]), [Recompile; 6]);
        assert_eq!(answers(&DeoptThreshold::default(), [1; 4]), [Recompile, Recompile, Recompile, Blacklist]);
        let pauses = [1_000, 2_000, 4_000, 8_000].map(|calls| Pause { calls });
        let [a, b, c, d] = pauses;
        assert_eq!(answers(&ExponentialBackoff::default(), [1; 5]), [a, b, c, d, Blacklist]);
        assert_eq!(answers(&Tolerate, [1; 6]), [Recovery::Keep; 6]);
        let tiered = TieredDeopt::default();
        assert_eq!(answers(&tiered, [1; 4]), [Recompile, Recompile, Recompile, Blacklist]);
        assert_eq!(answers(&tiered, [2; 2]), [Revert, Cap(TierId::BASELINE)]);
    }

    #[test]
    fn tiered_counts_baseline_and_optimized_code_apart() {
        let tiered = TieredDeopt::default();
        let expected = [Recompile, Revert, Recompile, Cap(TierId::BASELINE), Recompile, Blacklist];
        assert_eq!(answers(&tiered, [1, 2, 1, 3, 1, 1]), expected);
    }

    #[test]
    fn limits_of_zero_and_pauses_beyond_every_number_are_fine() {
        assert_eq!(answers(&DeoptThreshold::new(0), [1]), [Blacklist]);
        assert_eq!(answers(&TieredDeopt::new(0, 0), [1, 2]), [Blacklist, Cap(TierId::BASELINE)]);
        let last = answers(&ExponentialBackoff::new(1_000, u32::MAX), [1; 40])[39];
        assert_eq!(last, Pause { calls: u32::MAX });
    }
}
