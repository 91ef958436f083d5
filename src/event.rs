//! What happened, for listeners.

use crate::assumption::Assumption;
use crate::deopt::{DeoptDecision, Recovery};
use crate::error::CompileError;
use crate::id::{Bead, Reason, TierId};
use crate::sync::Arc;
use std::time::Duration;

/// Something the engine did. Listeners get it on the thread that did it, after it took effect, with no lock held; so events of
/// different threads can come in another order than they happened in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A compile was asked for.
    Queued {
        /// The function.
        bead: Bead,
        /// The tier asked for.
        tier: TierId,
        /// Why.
        reason: Reason,
        /// Calls counted so far, 0 if it was asked for while another compile ran.
        calls: u32,
    },
    /// Code was installed: dispatches find it.
    Installed {
        /// The function.
        bead: Bead,
        /// Its tier now.
        tier: TierId,
        /// The version given to the code.
        version: u32,
        /// The code's size in bytes as its backend stated it.
        bytes: usize,
        /// What the compile took: the backend's own figure, or else the time since the batch was handed to it. Zero
        /// for code the VM installed itself.
        compile_time: Duration,
    },
    /// A compile gave no code; the function runs as before.
    Failed {
        /// The function.
        bead: Bead,
        /// The tier it was compiled for.
        tier: TierId,
        /// The version its code would have had; see [`Job::version`](crate::Job::version).
        version: u32,
        /// Why.
        error: CompileError,
        /// Failures of this function at this tier so far.
        failures: u32,
        /// Calls until it may be asked for again.
        retry_after: u32,
    },
    /// A tier, and those above it, was given up for a function after too many failures; lower tiers go on.
    /// [`Engine::fault`](crate::Engine::fault) keeps the reason.
    GaveUp {
        /// The function.
        bead: Bead,
        /// The tier it will not be compiled for any more.
        tier: TierId,
        /// The last failure.
        error: CompileError,
    },
    /// The result of a compile came too late: the request had been superseded.
    Discarded {
        /// The function.
        bead: Bead,
        /// The tier it was compiled for.
        tier: TierId,
        /// The version its code would have had.
        version: u32,
    },
    /// The result of a compile was dropped because something it relied on is broken. No failure: the function counts from zero
    /// again. Comes in place of [`Discarded`](Event::Discarded).
    AssumedInVain {
        /// The function.
        bead: Bead,
        /// The tier it was compiled for.
        tier: TierId,
        /// The version its code would have had.
        version: u32,
        /// What it relied on; the first of them, if there are several. One that the VM never made stands for a function whose body
        /// was to be [contained](crate::Job::include) and that was redefined.
        assumption: Assumption,
    },
    /// An assumption was broken, and all code that relied on it taken back. Comes once for each call of
    /// [`Engine::invalidate_assumption`](crate::Engine::invalidate_assumption) that found it, after the events of the
    /// functions.
    AssumptionBroken {
        /// The assumption.
        assumption: Assumption,
        /// Functions whose code or compile the call took.
        functions: usize,
    },
    /// A request was dropped because the function was not called any more while it waited.
    Cooled {
        /// The function.
        bead: Bead,
        /// The tier it waited for.
        tier: TierId,
    },
    /// Code of a function that was not called was taken back to make room. [`Event::Invalidated`] follows.
    Evicted {
        /// The function.
        bead: Bead,
        /// The size of its code.
        bytes: u64,
    },
    /// Code was taken back; the function is interpreted.
    Invalidated {
        /// The function.
        bead: Bead,
    },
    /// A guard of its code failed. Unless the decision is to keep it, the code was taken back; no
    /// [`Invalidated`](Event::Invalidated) tells of that again.
    Deoptimized {
        /// The function.
        bead: Bead,
        /// The tier of the code.
        tier: TierId,
        /// Which guard.
        guard: u32,
        /// Where the interpreter goes on.
        pc: u64,
        /// The version of the code.
        version: u32,
        /// What the policy proposed.
        proposal: Recovery,
        /// What was done.
        decision: DeoptDecision,
    },
    /// The function is gone; its handles are stale.
    Removed {
        /// The function.
        bead: Bead,
    },
    /// More retired code waits to be freed than the
    /// [limit](crate::EngineBuilder::retired_limit) allows: policies promote nothing until less does. Told once each time the
    /// limit is crossed.
    HeldBack {
        /// The mutator that holds it back: the one furthest behind, or else one with frames in that code; see
        /// [`Engine::laggards`](crate::Engine::laggards). `None` if leases do, or nobody any more.
        mutator: Option<Arc<str>>,
        /// How many epochs it is behind.
        epochs: u64,
        /// How many return addresses it named at its last safepoint.
        addresses: usize,
        /// The bytes that wait.
        retired_bytes: usize,
    },
    /// Freeing code, or handing it back, panicked; the rest was freed or handed back.
    FreePanicked {
        /// How many did.
        count: usize,
    },
    /// The worker pool could not be started. Requests stay queued, and the next one tries again.
    PoolFailed {
        /// What the system said.
        error: String,
    },
}

impl Event {
    /// The function it is about; `None` if it is about the engine.
    pub fn bead(&self) -> Option<Bead> {
        match *self {
            Event::Queued { bead, .. }
            | Event::Installed { bead, .. }
            | Event::Failed { bead, .. }
            | Event::GaveUp { bead, .. }
            | Event::Discarded { bead, .. }
            | Event::AssumedInVain { bead, .. }
            | Event::Cooled { bead, .. }
            | Event::Evicted { bead, .. }
            | Event::Invalidated { bead }
            | Event::Deoptimized { bead, .. }
            | Event::Removed { bead } => Some(bead),
            Event::AssumptionBroken { .. }
            | Event::HeldBack { .. }
            | Event::FreePanicked { .. }
            | Event::PoolFailed { .. } => None,
        }
    }

    /// The tier it is about, if it is about one.
    pub fn tier(&self) -> Option<TierId> {
        match *self {
            Event::Queued { tier, .. }
            | Event::Installed { tier, .. }
            | Event::Failed { tier, .. }
            | Event::GaveUp { tier, .. }
            | Event::Discarded { tier, .. }
            | Event::AssumedInVain { tier, .. }
            | Event::Cooled { tier, .. }
            | Event::Deoptimized { tier, .. } => Some(tier),
            _ => None,
        }
    }

    /// The event's name in logs, metrics and traces: `"installed"`, `"gave_up"`.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Queued { .. } => "queued",
            Event::Installed { .. } => "installed",
            Event::Failed { .. } => "failed",
            Event::GaveUp { .. } => "gave_up",
            Event::Discarded { .. } => "discarded",
            Event::AssumedInVain { .. } => "assumed_in_vain",
            Event::AssumptionBroken { .. } => "assumption_broken",
            Event::Cooled { .. } => "cooled",
            Event::Evicted { .. } => "evicted",
            Event::Invalidated { .. } => "invalidated",
            Event::Deoptimized { .. } => "deoptimized",
            Event::Removed { .. } => "removed",
            Event::HeldBack { .. } => "held_back",
            Event::FreePanicked { .. } => "free_panicked",
            Event::PoolFailed { .. } => "pool_failed",
        }
    }
}

/// What a per-bead callback hears.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Invalidation {
    /// The code was taken back; the function is interpreted and may be compiled again.
    Invalidated,
    /// The function was removed. Nothing follows, but for what another thread had begun to tell.
    Removed,
}
