//! One threshold of calls.

use super::{Activity, Policy, Verdict};

/// Promotes at the n-th call; 1,000 by default.
///
/// Counts [heat](Activity::heat), so with a [half-life](Policy::decay) the calls have to come close enough together.
///
/// ```
/// use beadwork::Threshold;
/// let early = Threshold::new(10_000).queue_ahead(500);
/// assert_eq!(early.asks_at(), 9_500);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    calls: u32,
    ahead: u32,
}

impl Threshold {
    /// Promotes when `calls` calls were counted; 0 and 1 both mean the first call.
    pub const fn new(calls: u32) -> Threshold {
        Threshold { calls, ahead: 0 }
    }

    /// Asks for the compile `calls` calls before the threshold, so that the code is there when it is reached.
    #[must_use]
    pub const fn queue_ahead(mut self, calls: u32) -> Threshold {
        self.ahead = calls;
        self
    }

    /// The call at which the compile is asked for.
    pub const fn asks_at(&self) -> u32 {
        let at = self.calls.saturating_sub(self.ahead);
        if at == 0 { 1 } else { at }
    }
}

impl Default for Threshold {
    fn default() -> Self {
        Threshold::new(1_000)
    }
}

impl Policy for Threshold {
    fn decide(&self, activity: &Activity) -> Verdict {
        // Crossed, not hit: a count that jumped past the threshold promotes as well.
        match self.asks_at().saturating_sub(activity.heat) {
            0 => Verdict::Promote,
            left => Verdict::wait(left),
        }
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::policy::testing::after;

    #[test]
    fn a_threshold_promotes_when_crossed_and_waits_for_the_rest_before() {
        let policy = Threshold::new(1_000);
        assert_eq!(policy.decide(&after(1)), Verdict::wait(999));
        assert_eq!(policy.decide(&after(999)), Verdict::wait(1));
        assert_eq!(policy.decide(&after(1_000)), Verdict::Promote);
    }

    #[test]
    fn p40_a_count_that_jumps_past_the_threshold_promotes() {
        assert_eq!(Threshold::new(1_000).decide(&after(1_001)), Verdict::Promote);
        assert_eq!(Threshold::new(1_000).decide(&after(u32::MAX)), Verdict::Promote);
    }

    #[test]
    fn queueing_ahead_asks_earlier_and_never_before_the_first_call() {
        assert_eq!(Threshold::new(1_000).queue_ahead(500).decide(&after(500)), Verdict::Promote);
        assert_eq!(Threshold::new(1_000).queue_ahead(5_000).asks_at(), 1);
        assert_eq!(Threshold::new(0).decide(&after(1)), Verdict::Promote);
    }
}
