//! A factor for how full the code memory is.

use super::scale::Scale;
use super::{Activity, HalfLife, Policy, Verdict};

/// The fraction of the code limit in use from which [`Policy::scaled_by_code_memory`] holds back, where nothing else is
/// known: HotSpot's `IncreaseFirstTierCompileThresholdAt`, 50 %.
pub const CODE_MEMORY_PRESSURE_FROM: f64 = 0.5;

/// A policy whose thresholds grow as code memory fills up; made by [`Policy::scaled_by_code_memory`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ScaledByCodeMemory<P> {
    inner: P,
    /// Limit over free bytes from which the thresholds grow; infinite if they only stop at the limit.
    from_ratio: f64,
}

impl<P: Policy> ScaledByCodeMemory<P> {
    pub(super) fn new(inner: P, from_fraction: f64) -> ScaledByCodeMemory<P> {
        let from =
            if from_fraction.is_nan() { CODE_MEMORY_PRESSURE_FROM } else { from_fraction.clamp(0.0, 1.0) };
        ScaledByCodeMemory { inner, from_ratio: 1.0 / (1.0 - from) }
    }

    fn factor(&self, activity: &Activity) -> f64 {
        let Some(limit) = activity.code_limit else { return 1.0 };
        let free = limit.saturating_sub(activity.code_bytes);
        if free == 0 {
            return f64::INFINITY;
        }
        let ratio = limit as f64 / free as f64;
        // Overflows to infinity where the exponent is above 709, which is as good as full.
        if ratio > self.from_ratio { (ratio - self.from_ratio).exp() } else { 1.0 }
    }
}

impl<P: Policy> Policy for ScaledByCodeMemory<P> {
    fn decide(&self, activity: &Activity) -> Verdict {
        self.decide_scaled(activity, Scale::ONE)
    }

    fn decide_scaled(&self, activity: &Activity, scale: Scale) -> Verdict {
        self.inner.decide_scaled(activity, scale.times_passing(self.factor(activity)))
    }

    fn half_life(&self) -> Option<HalfLife> {
        self.inner.half_life()
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::policy::Threshold;
    use crate::policy::scale::LOOK_AGAIN_CALLS;
    use crate::policy::testing::{after, asks};

    fn filled(code_bytes: u64, limit: u64) -> impl Fn(u32) -> Activity {
        move |calls| Activity { code_bytes, code_limit: Some(limit), ..after(calls) }
    }

    fn threshold_at(from: f64, code_bytes: u64) -> u32 {
        *asks(&Threshold::new(1_000).scaled_by_code_memory(from), filled(code_bytes, 1_000)).last().unwrap()
    }

    #[test]
    fn thresholds_grow_exponentially_with_limit_over_free_bytes() {
        // Ratios of 1, 2, 2.5, 4 and 5 against 2: e^0, e^0, e^0.5, e^2 and e^3.
        let thresholds = [0, 500, 600, 750, 800].map(|bytes| threshold_at(0.5, bytes));
        assert_eq!(thresholds, [1_000, 1_000, 1_649, 7_390, 20_086]);
        assert_eq!(threshold_at(0.0, 500), 2_719, "e^1, from an empty memory on");
        assert_eq!(threshold_at(1.0, 999), 1_000, "no pressure before it is full");
    }

    #[test]
    fn a_fraction_that_is_none_is_clamped_or_the_default() {
        assert_eq!(threshold_at(f64::NAN, 600), threshold_at(CODE_MEMORY_PRESSURE_FROM, 600));
        assert_eq!(threshold_at(-1.0, 500), threshold_at(0.0, 500));
        assert_eq!(threshold_at(f64::INFINITY, 999), 1_000);
    }

    #[test]
    fn without_a_limit_there_is_no_pressure() {
        let policy = Threshold::new(1_000).scaled_by_code_memory(0.5);
        assert_eq!(asks(&policy, |calls| Activity { code_bytes: u64::MAX, ..after(calls) }), [1, 1_000]);
    }

    #[test]
    fn full_memory_promotes_nothing_whatever_the_policy_says() {
        let always = (|_: &Activity| Verdict::Promote).scaled_by_code_memory(0.5);
        for bytes in [1_000, 1_001, u64::MAX] {
            assert_eq!(always.decide(&filled(bytes, 1_000)(u32::MAX)), Verdict::wait(LOOK_AGAIN_CALLS));
        }
        assert_eq!(always.decide(&filled(0, 0)(1)), Verdict::wait(LOOK_AGAIN_CALLS), "a limit of 0 is full");
        assert_eq!(always.decide(&filled(998, 1_000)(u32::MAX)), Verdict::Promote);
    }

    #[test]
    fn p7_promotion_resumes_when_memory_is_freed() {
        let policy = Threshold::new(500).scaled_by_code_memory(0.5);
        for worst in [1_000, 999] {
            // Full, or so nearly full that the threshold is beyond every count.
            let asked = asks(&policy, |calls| match calls {
                ..4_000 => filled(worst, 1_000)(calls),
                _ => filled(100, 1_000)(calls),
            });
            assert_eq!(asked, [1, 1_001, 2_001, 3_001, 4_001]);
        }
    }
}
