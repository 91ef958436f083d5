//! When is a function worth compiling? A [`Policy`] answers, and is asked only when a budget runs out.

use crate::id::{Bead, TierId};
use std::num::NonZeroU32;
use std::time::Duration;

/// What a policy sees of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Activity {
    /// The function.
    pub bead: Bead,
    /// The tier it runs at now.
    pub tier: TierId,
    /// The tier this policy guards.
    pub target: TierId,
    /// Calls counted so far, including this one. Saturates at `u32::MAX`. Threads that count the same function at
    /// the same time can lose counts to each other.
    pub calls: u32,
    /// The calls, faded by the policy's [half-life](Policy::half_life): what was counted a half-life ago counts half. The
    /// same as `calls` where the policy has none.
    pub heat: u32,
    /// The size given at registration, in the VM's units.
    pub size: Option<u32>,
    /// Requests that wait in the target's lane.
    pub queued: u32,
    /// Workers that may compile for the target at once, at least 1.
    pub workers: u32,
    /// Bytes of code installed or waiting to be freed.
    pub code_bytes: u64,
    /// The engine's [limit](crate::EngineBuilder::code_limit) for them.
    pub code_limit: Option<u64>,
    /// Uniformly distributed, and the same for the same seed, function and count.
    pub random: u32,
}

/// How fast counts fade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HalfLife {
    /// With time, of the engine's clock.
    Time(Duration),
    /// With ticks the VM gives by [`Engine::decay_tick`](crate::Engine::decay_tick), one for each collection, say.
    Ticks(u32),
}

/// A policy's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Compile it at the target tier.
    Promote,
    /// Ask again after this many further calls.
    Wait(NonZeroU32),
}

impl Verdict {
    /// Ask again after `calls` further calls, at least 1.
    pub fn wait(calls: u32) -> Verdict {
        Verdict::Wait(NonZeroU32::new(calls).unwrap_or(NonZeroU32::MIN))
    }
}

/// Decides when functions enter the tier it guards. Any `Fn(&Activity) -> Verdict` is one.
///
/// It is consulted on the mutator's thread at a function's first call and then each time the calls it asked for
/// have passed, never per call, so it may take its time; but it must not block, and a panic in it unwinds out of
/// [`Mutator::dispatch`](crate::Mutator::dispatch) with nothing changed.
pub trait Policy: Send + Sync + 'static {
    /// Promote now, or ask again when?
    fn decide(&self, activity: &Activity) -> Verdict;

    /// How fast [`Activity::heat`] fades for this policy; not at all by default. Where the policies of several tiers
    /// differ, that of the next tier up counts.
    fn half_life(&self) -> Option<HalfLife> {
        None
    }
}

impl<F: Fn(&Activity) -> Verdict + Send + Sync + 'static> Policy for F {
    fn decide(&self, activity: &Activity) -> Verdict {
        self(activity)
    }
}

/// Promotes at the n-th call; 1,000 by default.
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

/// Never promotes: functions enter the tier only when the VM says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Manual;

impl Policy for Manual {
    fn decide(&self, _: &Activity) -> Verdict {
        Verdict::Wait(NonZeroU32::MAX)
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    fn after(calls: u32) -> Activity {
        Activity {
            bead: Bead::new(0, 0),
            tier: TierId::INTERPRETER,
            target: TierId::BASELINE,
            calls,
            heat: calls,
            size: None,
            queued: 0,
            workers: 1,
            code_bytes: 0,
            code_limit: None,
            random: 0,
        }
    }

    #[test]
    fn a_threshold_promotes_when_crossed_and_waits_for_the_rest_before() {
        let policy = Threshold::new(1_000);
        assert_eq!(policy.decide(&after(1)), Verdict::wait(999));
        assert_eq!(policy.decide(&after(999)), Verdict::wait(1));
        assert_eq!(policy.decide(&after(1_000)), Verdict::Promote);
        assert_eq!(policy.decide(&after(5_000)), Verdict::Promote);
    }

    #[test]
    fn queueing_ahead_asks_earlier_and_never_before_the_first_call() {
        assert_eq!(Threshold::new(1_000).queue_ahead(500).decide(&after(500)), Verdict::Promote);
        assert_eq!(Threshold::new(1_000).queue_ahead(5_000).asks_at(), 1);
        assert_eq!(Threshold::new(0).decide(&after(1)), Verdict::Promote);
    }
}
