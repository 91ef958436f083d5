//! What a policy sees and what it answers.

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
    /// The calls, faded by the policy's [half-life](crate::Policy::half_life): what was counted a half-life ago counts half. The
    /// same as `calls` where the policy has none.
    pub heat: u32,
    /// Iterations of the loop for whose sake this is asked; 0 when it is for a call. `calls` and `heat` contain one for each
    /// [`ITERATIONS_PER_CALL`](crate::ITERATIONS_PER_CALL) of them.
    pub iterations: u32,
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
