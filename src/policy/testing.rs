//! Drives a policy the way the engine does, for the unit tests beside it.

use super::{Activity, Policy, Verdict};
use crate::clock;
use crate::id::{Bead, TierId};

/// A function of unknown size after so many calls, in an idle engine.
pub(crate) fn after(calls: u32) -> Activity {
    Activity {
        bead: Bead::new(0, 0),
        tier: TierId::INTERPRETER,
        target: TierId::BASELINE,
        calls,
        heat: calls,
        iterations: 0,
        size: None,
        queued: 0,
        workers: 1,
        code_bytes: 0,
        code_limit: None,
        random: 0,
    }
}

/// The same for bead `index`, with the engine's chance at seed 0.
pub(crate) fn chancy(index: u32, calls: u32) -> Activity {
    let bead = Bead::new(index, 0);
    Activity { bead, random: clock::random(0, bead.to_bits(), calls.into()), ..after(calls) }
}

/// The calls at which the policy is asked, the last being the one that promotes; cut off at 100 questions.
pub(crate) fn asks(policy: &dyn Policy, activity: impl Fn(u32) -> Activity) -> Vec<u32> {
    let mut asked = vec![1_u32];
    while asked.len() < 100 {
        let calls = asked[asked.len() - 1];
        match policy.decide(&activity(calls)) {
            Verdict::Promote => break,
            Verdict::Wait(wait) => asked.push(calls.saturating_add(wait.get())),
        }
    }
    asked
}
