//! What all factors have in common: a threshold times `f` is the same as counts divided by `f`.
//!
//! Wrappers do not each divide and round: they pass the product of their factors inward, and the policy in the middle
//! is shown the counts divided once. So their order does not matter, and `Threshold::new(n).scaled(f)` is
//! exactly a threshold of `n * f`.

use super::{Activity, Verdict};
use std::num::NonZeroU32;

/// Calls after which a function that is held back by load or memory is looked at again at the latest, unless its
/// own policy would wait longer. A wait that was stretched by what has passed since must not keep it cold for ever (P7).
pub(crate) const LOOK_AGAIN_CALLS: u32 = 1_000;

/// Products of a few factors are off by some 2^-52. A quotient this close below a whole number is one, so that 1,000
/// times 0.1 times 3 is 300.
const ROUNDING: f64 = 1.0 / (1u64 << 44) as f64;

/// Less than [`ROUNDING`], so that the count a wait ends at always divides to the count it was meant for.
const ROUNDING_OF_WAITS: f64 = 1.0 / (1u64 << 48) as f64;

/// The product of the factors met so far.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// What stays: constants, size, jitter.
    fixed: f64,
    /// What passes, at least 1: load and memory.
    passing: f64,
}

impl Scale {
    pub(crate) const ONE: Scale = Scale { fixed: 1.0, passing: 1.0 };

    /// A factor of the function's or of the policy's own, finite and not negative.
    pub(crate) fn times(self, factor: f64) -> Scale {
        Scale { fixed: self.fixed * factor, ..self }
    }

    /// A factor that changes while the function waits, at least 1; infinite means not now.
    pub(crate) fn times_passing(self, factor: f64) -> Scale {
        Scale { passing: self.passing * factor, ..self }
    }

    /// Shows `decide` the counts divided by the factor, and stretches the wait it asks for.
    pub(crate) fn apply(self, activity: &Activity, decide: impl FnOnce(&Activity) -> Verdict) -> Verdict {
        let factor = self.fixed * self.passing;
        if factor == 1.0 {
            return decide(activity);
        }
        if !factor.is_finite() {
            return Verdict::wait(LOOK_AGAIN_CALLS);
        }
        let shown = Activity {
            calls: divided(activity.calls, factor),
            heat: divided(activity.heat, factor),
            ..*activity
        };
        match decide(&shown) {
            Verdict::Wait(wait) if wait < NonZeroU32::MAX => {
                // Up to the count that divides to the one the policy waits for; converting floats saturates.
                let wanted =
                    (f64::from(shown.heat) + f64::from(wait.get())) * factor * (1.0 - ROUNDING_OF_WAITS);
                let stretched = (wanted.ceil() - f64::from(activity.heat)) as u32;
                Verdict::wait(stretched.min(self.longest(wait)))
            }
            promote_or_never => promote_or_never,
        }
    }

    /// How long a wait of that many scaled calls may get.
    fn longest(self, wait: NonZeroU32) -> u32 {
        if self.passing == 1.0 {
            return u32::MAX;
        }
        let unstretched = (f64::from(wait.get()) * self.fixed * (1.0 - ROUNDING_OF_WAITS)).ceil() as u32;
        unstretched.max(LOOK_AGAIN_CALLS)
    }
}

/// Rounded down: a count is there when it is there in full. Saturates; nothing divided by zero is nothing.
fn divided(count: u32, factor: f64) -> u32 {
    (f64::from(count) / factor * (1.0 + ROUNDING)).floor() as u32
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::policy::testing::{after, asks};
    use crate::policy::{Policy, Threshold};

    #[test]
    fn counts_are_divided_and_rounded_down() {
        let mut seen = (0, 0);
        let verdict = Scale::ONE.times(2.5).apply(&Activity { heat: 99, ..after(1_004) }, |shown| {
            seen = (shown.calls, shown.heat);
            Verdict::Promote
        });
        assert_eq!((seen, verdict), ((401, 39), Verdict::Promote));
    }

    #[test]
    fn waits_are_stretched_rounded_up_saturated_and_at_least_one() {
        let wait =
            |factor: f64, heat, wait| Scale::ONE.times(factor).apply(&after(heat), |_| Verdict::wait(wait));
        assert_eq!(wait(2.5, 0, 3), Verdict::wait(8));
        assert_eq!(wait(2.5, 5, 3), Verdict::wait(8));
        assert_eq!(wait(2.5, 6, 3), Verdict::wait(7), "one call of the next 2.5 is there already");
        assert_eq!(wait(0.001, 0, 3), Verdict::wait(1));
        assert_eq!(wait(1e9, 0, 1_000), Verdict::Wait(NonZeroU32::MAX));
        assert_eq!(wait(0.5, 0, u32::MAX), Verdict::Wait(NonZeroU32::MAX), "never stays never");
    }

    #[test]
    fn a_scaled_threshold_is_exactly_that_threshold() {
        for factor in [0.1, 0.25, 0.7, 1.0, 1.1, 1.5, 2.0, 3.3, 10.0] {
            for calls in [10, 100, 990, 1_000, 12_340] {
                let scaled = asks(&Threshold::new(calls).scaled(factor), after);
                let plain = (f64::from(calls) * factor - 1e-6).ceil() as u32;
                assert_eq!(scaled, asks(&Threshold::new(plain), after), "{calls} times {factor}");
            }
        }
    }

    #[test]
    fn a_factor_that_is_not_finite_waits_without_asking() {
        for fixed in [0.0, 1.0, 1e300, f64::INFINITY, f64::NAN] {
            let verdict = Scale::ONE
                .times(fixed)
                .times_passing(f64::INFINITY)
                .apply(&after(1_000), |_| Verdict::Promote);
            assert_eq!(verdict, Verdict::wait(LOOK_AGAIN_CALLS));
        }
    }

    #[test]
    fn the_smallest_factors_show_every_count_as_the_largest_and_none_as_none() {
        for factor in [0.0, f64::MIN_POSITIVE, 1e-300] {
            for (count, shown) in [(0, 0), (1, u32::MAX), (u32::MAX, u32::MAX)] {
                let verdict = Scale::ONE.times(factor).apply(&after(count), |activity| {
                    assert_eq!(activity.heat, shown);
                    Verdict::wait(1_000)
                });
                assert_eq!(verdict, Verdict::wait(1));
            }
        }
    }

    #[test]
    fn order_of_factors_does_not_matter() {
        let base = Threshold::new(1_000);
        let orders: [Box<dyn Policy>; 6] = [
            Box::new(
                base.scaled(0.1).scaled_by_size(70).jitter(0.3).scaled_by_load(5).scaled_by_code_memory(0.5),
            ),
            Box::new(
                base.scaled_by_code_memory(0.5).scaled_by_load(5).jitter(0.3).scaled_by_size(70).scaled(0.1),
            ),
            Box::new(
                base.jitter(0.3).scaled_by_code_memory(0.5).scaled(0.1).scaled_by_load(5).scaled_by_size(70),
            ),
            Box::new(
                base.scaled_by_size(70).scaled_by_load(5).scaled_by_code_memory(0.5).scaled(0.1).jitter(0.3),
            ),
            Box::new(
                base.scaled_by_load(5).jitter(0.3).scaled_by_size(70).scaled(0.1).scaled_by_code_memory(0.5),
            ),
            Box::new(
                base.scaled_by_load(5).scaled(0.1).jitter(0.3).scaled_by_code_memory(0.5).scaled_by_size(70),
            ),
        ];
        for calls in 1..2_000 {
            let activity = Activity {
                size: Some(100 + calls % 90),
                queued: calls % 40,
                workers: 1 + calls % 3,
                code_bytes: u64::from(calls) % 990,
                code_limit: Some(1_000),
                random: calls.wrapping_mul(0x9E37_79B9),
                ..after(calls)
            };
            let first = orders[0].decide(&activity);
            assert!(orders.iter().all(|order| order.decide(&activity) == first), "{activity:?}");
        }
    }
}
