//! A factor for the function's size.

use super::scale::Scale;
use super::{Activity, HalfLife, Policy, Verdict};

/// A policy whose thresholds grow with the function's size; made by [`Policy::scaled_by_size`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScaledBySize<P> {
    inner: P,
    reference: u32,
}

impl<P: Policy> ScaledBySize<P> {
    pub(super) fn new(inner: P, reference: u32) -> ScaledBySize<P> {
        ScaledBySize { inner, reference: reference.max(1) }
    }

    fn factor(&self, activity: &Activity) -> f64 {
        activity.size.map_or(1.0, |size| (f64::from(size) / f64::from(self.reference)).clamp(0.25, 4.0))
    }
}

impl<P: Policy> Policy for ScaledBySize<P> {
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
    use crate::policy::testing::{after, asks};

    fn threshold_at(reference: u32, size: Option<u32>) -> u32 {
        let policy = Threshold::new(1_000).scaled_by_size(reference);
        *asks(&policy, |calls| Activity { size, ..after(calls) }).last().unwrap()
    }

    #[test]
    fn thresholds_follow_the_size_between_a_quarter_and_four_times() {
        let sizes = [0, 1, 25, 50, 100, 200, 333, 400, 401, u32::MAX];
        let thresholds = sizes.map(|size| threshold_at(100, Some(size)));
        assert_eq!(thresholds, [250, 250, 250, 500, 1_000, 2_000, 3_330, 4_000, 4_000, 4_000]);
    }

    #[test]
    fn a_function_of_unknown_size_is_not_scaled() {
        assert_eq!(threshold_at(100, None), 1_000);
    }

    #[test]
    fn a_reference_of_zero_counts_as_one() {
        assert_eq!((threshold_at(0, Some(1)), threshold_at(0, Some(3))), (1_000, 3_000));
    }
}
