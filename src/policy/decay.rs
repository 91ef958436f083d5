//! Counts that fade.

use super::scale::Scale;
use super::{Activity, HalfLife, Policy, Verdict};

/// A policy that counts only what happened lately; made by [`Policy::decay`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decaying<P> {
    inner: P,
    half_life: HalfLife,
}

impl<P: Policy> Decaying<P> {
    pub(super) fn new(inner: P, half_life: HalfLife) -> Decaying<P> {
        Decaying { inner, half_life }
    }
}

impl<P: Policy> Policy for Decaying<P> {
    fn decide(&self, activity: &Activity) -> Verdict {
        self.inner.decide(activity)
    }

    fn decide_scaled(&self, activity: &Activity, scale: Scale) -> Verdict {
        self.inner.decide_scaled(activity, scale)
    }

    fn half_life(&self) -> Option<HalfLife> {
        Some(self.half_life)
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::policy::testing::{after, asks};
    use crate::policy::{Manual, Threshold};
    use std::time::Duration;

    const SECOND: HalfLife = HalfLife::Time(Duration::from_secs(1));

    #[test]
    fn the_half_life_is_passed_on_by_everything_around_it_and_the_outer_one_counts() {
        let policies: [&dyn Policy; 6] = [
            &Manual.decay(SECOND).scaled(2.0),
            &Manual.decay(SECOND).jitter(0.1),
            &Manual.decay(SECOND).scaled_by_size(100),
            &Manual.decay(SECOND).scaled_by_load(5),
            &Manual.decay(SECOND).scaled_by_code_memory(0.5),
            &Manual.decay(HalfLife::Ticks(3)).decay(SECOND),
        ];
        assert!(policies.iter().all(|policy| policy.half_life() == Some(SECOND)));
        assert_eq!(Manual.scaled(2.0).jitter(0.1).half_life(), None);
    }

    #[test]
    fn a_threshold_of_a_fading_count_asks_for_what_is_still_missing() {
        let policy = Threshold::new(1_000).decay(SECOND);
        assert_eq!(policy.decide(&Activity { heat: 400, ..after(5_000) }), Verdict::wait(600));
        assert_eq!(policy.decide(&Activity { heat: 1_000, ..after(9_000) }), Verdict::Promote);
    }

    #[test]
    fn factors_on_either_side_of_it_are_one_product() {
        let inside = Threshold::new(1_000).scaled(0.1).decay(SECOND).scaled(3.0);
        assert_eq!(asks(&inside, after), [1, 300]);
    }
}
