//! Two thresholds in one policy.

use super::{Activity, Policy, Threshold, Verdict};
use crate::id::TierId;

/// One policy for a baseline and an optimizing tier: T1 is entered at the first threshold, T2 and every tier above it at
/// the second; 500 and 10,000 calls by default.
///
/// Give the same value to both tiers; it picks the threshold by [`Activity::target`]. Calls are counted from the
/// function's first, so the second threshold includes the calls before the first promotion.
///
/// ```
/// use beadwork::{Engine, FnBackend, Job, CompileError, Tier, Tiered};
/// # let (baseline, optimizing) = (FnBackend::new(|_: &mut Job<'_>| Err(CompileError::failed("none"))),
/// #     FnBackend::new(|_: &mut Job<'_>| Err(CompileError::failed("none"))));
/// let tiered = Tiered::new(200, 5_000).queue_ahead(50);
/// let engine = Engine::builder()
///     .tier(Tier::new(baseline).policy(tiered))
///     .tier(Tier::new(optimizing).policy(tiered))
///     .build()?;
/// # Ok::<(), beadwork::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tiered {
    baseline: Threshold,
    optimizing: Threshold,
}

impl Tiered {
    /// Enters T1 after `baseline` calls, T2 and above after `optimizing` calls in all. 0 means the first call.
    pub const fn new(baseline: u32, optimizing: u32) -> Tiered {
        Tiered { baseline: Threshold::new(baseline), optimizing: Threshold::new(optimizing) }
    }

    /// Asks for both compiles `calls` calls before their thresholds, so that the code is there when they are reached.
    #[must_use]
    pub const fn queue_ahead(self, calls: u32) -> Tiered {
        Tiered { baseline: self.baseline.queue_ahead(calls), optimizing: self.optimizing.queue_ahead(calls) }
    }

    /// The threshold at which functions enter `target`.
    pub fn threshold(&self, target: TierId) -> Threshold {
        if target <= TierId::BASELINE { self.baseline } else { self.optimizing }
    }
}

impl Default for Tiered {
    fn default() -> Self {
        Tiered::new(500, 10_000)
    }
}

impl Policy for Tiered {
    fn decide(&self, activity: &Activity) -> Verdict {
        self.threshold(activity.target).decide(activity)
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::policy::testing::{after, asks};

    fn towards(target: u8) -> impl Fn(u32) -> Activity {
        let target = TierId::new(target).unwrap();
        move |calls| Activity { target, ..after(calls) }
    }

    #[test]
    fn each_target_has_its_own_threshold() {
        let policy = Tiered::default();
        assert_eq!(asks(&policy, towards(1)), [1, 500]);
        assert_eq!(asks(&policy, towards(2)), [1, 10_000]);
        assert_eq!(asks(&policy, towards(3)), [1, 10_000], "tiers above the second share its threshold");
    }

    #[test]
    fn queueing_ahead_holds_for_both() {
        let policy = Tiered::new(500, 10_000).queue_ahead(600);
        assert_eq!(asks(&policy, towards(1)), [1]);
        assert_eq!(asks(&policy, towards(2)), [1, 9_400]);
    }
}
