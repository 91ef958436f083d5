//! A constant factor.

use super::scale::Scale;
use super::{Activity, HalfLife, Policy, Verdict};

/// A policy whose thresholds are multiplied by a constant; made by [`Policy::scaled`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scaled<P> {
    inner: P,
    factor: f64,
}

impl<P: Policy> Scaled<P> {
    pub(super) fn new(inner: P, factor: f64) -> Scaled<P> {
        let usable = factor.is_finite() && factor > 0.0;
        Scaled { inner, factor: if usable { factor } else { 1.0 } }
    }
}

impl<P: Policy> Policy for Scaled<P> {
    fn decide(&self, activity: &Activity) -> Verdict {
        self.decide_scaled(activity, Scale::ONE)
    }

    fn decide_scaled(&self, activity: &Activity, scale: Scale) -> Verdict {
        self.inner.decide_scaled(activity, scale.times(self.factor))
    }

    fn half_life(&self) -> Option<HalfLife> {
        self.inner.half_life()
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::policy::testing::{after, asks};
    use crate::policy::{Manual, Threshold};
    use std::num::NonZeroU32;

    #[test]
    fn thresholds_are_multiplied() {
        assert_eq!(asks(&Threshold::new(1_000).scaled(2.0), after), [1, 2_000]);
        assert_eq!(asks(&Threshold::new(1_000).scaled(0.1).scaled(3.0), after), [1, 300]);
        assert_eq!(asks(&Threshold::new(1_000).scaled(1e-9), after), [1]);
    }

    #[test]
    fn a_factor_that_is_none_counts_as_one() {
        for factor in [0.0, -2.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(asks(&Threshold::new(1_000).scaled(factor), after), [1, 1_000]);
        }
    }

    #[test]
    fn what_never_promotes_never_does() {
        assert_eq!(Manual.scaled(1e-9).decide(&after(u32::MAX)), Verdict::Wait(NonZeroU32::MAX));
    }
}
