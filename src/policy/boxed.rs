//! A policy whose type is chosen while the program runs.

use super::scale::Scale;
use super::{Activity, HalfLife, Policy, Verdict};
use std::fmt;

/// A policy behind a pointer; made by [`Policy::boxed`].
pub struct BoxedPolicy(Box<dyn Policy>);

impl BoxedPolicy {
    pub(super) fn new(policy: impl Policy) -> BoxedPolicy {
        BoxedPolicy(Box::new(policy))
    }
}

impl Policy for BoxedPolicy {
    fn decide(&self, activity: &Activity) -> Verdict {
        self.0.decide(activity)
    }

    fn decide_scaled(&self, activity: &Activity, scale: Scale) -> Verdict {
        self.0.decide_scaled(activity, scale)
    }

    fn half_life(&self) -> Option<HalfLife> {
        self.0.half_life()
    }
}

impl fmt::Debug for BoxedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxedPolicy")
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::policy::Threshold;
    use crate::policy::testing::{after, asks};
    use std::time::Duration;

    #[test]
    fn factors_on_either_side_of_the_box_are_one_product_and_the_half_life_comes_through() {
        let half_life = HalfLife::Time(Duration::from_secs(1));
        let policy = Threshold::new(1_000).decay(half_life).scaled(0.1).boxed().scaled(3.0);
        assert_eq!(asks(&policy, after), [1, 300]);
        assert_eq!(policy.half_life(), Some(half_life));
    }
}
