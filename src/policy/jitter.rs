//! A factor left to chance.

use super::scale::Scale;
use super::{Activity, HalfLife, Policy, Verdict};

/// A policy whose waits and thresholds vary a little; made by [`Policy::jitter`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Jittered<P> {
    inner: P,
    fraction: f64,
}

impl<P: Policy> Jittered<P> {
    pub(super) fn new(inner: P, fraction: f64) -> Jittered<P> {
        // Not a number clamps to none.
        Jittered { inner, fraction: fraction.clamp(0.0, 1.0).max(0.0) }
    }

    /// Uniform from 1 - fraction to 1 + fraction.
    fn factor(&self, activity: &Activity) -> f64 {
        let chance = f64::from(activity.random) / f64::from(u32::MAX);
        1.0 + self.fraction * (2.0 * chance - 1.0)
    }
}

impl<P: Policy> Policy for Jittered<P> {
    fn decide(&self, activity: &Activity) -> Verdict {
        self.decide_scaled(activity, Scale::ONE)
    }

    fn decide_scaled(&self, activity: &Activity, scale: Scale) -> Verdict {
        self.inner.decide_scaled(activity, scale.times(self.factor(activity)))
    }

    fn half_life(&self) -> Option<HalfLife> {
        self.inner.half_life()
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::policy::Threshold;
    use crate::policy::testing::{after, asks, chancy};

    const LOOP: usize = 10;

    /// How often each iteration of a loop of ten calls was the one that asked.
    fn iterations(calls: impl Iterator<Item = u32>) -> [usize; LOOP] {
        let mut asked = [0; LOOP];
        calls.for_each(|call| asked[call as usize % LOOP] += 1);
        asked
    }

    #[test]
    fn the_range_of_the_factor_is_what_was_given() {
        let wait = |fraction, random| {
            let policy = (|_: &Activity| Verdict::wait(1_000)).jitter(fraction);
            policy.decide(&Activity { random, ..after(0) })
        };
        assert_eq!(wait(0.1, 0), Verdict::wait(900));
        assert_eq!(wait(0.1, u32::MAX), Verdict::wait(1_100));
        assert_eq!(wait(5.0, 0), Verdict::wait(1), "clamped to 1: down to nothing");
        assert_eq!(wait(5.0, u32::MAX), Verdict::wait(2_000), "clamped to 1: up to double");
        for none in [0.0, -0.5, f64::NAN] {
            assert_eq!((wait(none, 0), wait(none, u32::MAX)), (Verdict::wait(1_000), Verdict::wait(1_000)));
        }
    }

    #[test]
    fn p12_a_loop_whose_length_divides_the_budget_asks_in_every_iteration() {
        let every_thousand = |_: &Activity| Verdict::wait(1_000);
        assert_eq!(
            iterations(asks(&every_thousand, |c| chancy(7, c)).into_iter()),
            [0, 100, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        let asked = iterations(asks(&every_thousand.jitter(0.1), |calls| chancy(7, calls)).into_iter());
        assert!(asked.iter().all(|times| (3..=20).contains(times)), "{asked:?}");
    }

    #[test]
    fn p12_functions_cross_a_threshold_in_every_iteration_and_within_the_fraction() {
        let policy = Threshold::new(1_000).jitter(0.1);
        let promoted: Vec<u32> =
            (0..1_000).map(|bead| *asks(&policy, |calls| chancy(bead, calls)).last().unwrap()).collect();
        assert!(promoted.iter().all(|call| (900..=1_100).contains(call)));
        let asked = iterations(promoted.into_iter());
        assert!(asked.iter().all(|times| (70..=130).contains(times)), "{asked:?}");
    }

    #[test]
    fn the_same_seed_repeats_every_wait() {
        let policy = Threshold::new(1_000).jitter(0.5);
        let first = asks(&policy, |calls| chancy(3, calls));
        assert_eq!(first, asks(&policy, |calls| chancy(3, calls)));
        assert_ne!(first, asks(&policy, |calls| chancy(4, calls)));
    }
}
