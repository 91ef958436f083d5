//! Knobs that turn while the engine runs, and its orderly end.

use super::Engine;
use crate::drain::{Crew, Drain};
use crate::error::{NoSuchTier, ShutdownError};
use crate::id::TierId;
use crate::queue::Lane;
use crate::sync::{fence, park_timeout};
use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

impl Engine {
    /// Takes no more work until the guard is dropped. Nests, never blocks, and starts no thread; compiles in flight finish (a
    /// worker that is taking a batch at this moment counts as such), requests go on to be queued. A forked child is not
    /// paused: the guard may be on a thread that it does not have.
    pub fn pause(&self) -> PauseGuard {
        self.shared().drain.pause();
        PauseGuard(self.clone())
    }

    /// Whether policies may promote and [`promote`](Engine::promote) is accepted; true at first. Code that is there goes on
    /// running, what is queued is still compiled, and functions that are hot ask again when it is switched on.
    pub fn set_enabled(&self, enabled: bool) {
        // Relaxed: advice, looked at by the next question.
        self.shared().enabled.store(enabled, Relaxed);
    }

    /// See [`set_enabled`](Engine::set_enabled).
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.shared().enabled.load(Relaxed)
    }

    /// Whether functions are compiled for `tier`. Switched off, its requests wait, and policies pass it over; code that is
    /// there goes on running.
    ///
    /// # Errors
    /// [`NoSuchTier`]; so for every knob of a tier.
    pub fn set_tier_enabled(&self, tier: TierId, enabled: bool) -> Result<(), NoSuchTier> {
        self.turn(tier, |lane| lane.set_enabled(enabled))
    }

    /// The most workers that compile for `tier` at once; 0 means 1. See [`Tier::max_parallel`](crate::Tier::max_parallel).
    pub fn set_max_parallel(&self, tier: TierId, workers: usize) -> Result<(), NoSuchTier> {
        self.turn(tier, |lane| lane.set_limit(workers))
    }

    /// The most functions given to the backend of `tier` in one call; 0 means 1. See [`Tier::batch`](crate::Tier::batch).
    pub fn set_batch(&self, tier: TierId, functions: usize) -> Result<(), NoSuchTier> {
        self.turn(tier, |lane| lane.set_batch(functions))
    }

    /// Multiplies the thresholds of all policies: 2 makes functions wait twice as long, 0.5 half as long. 1 at first;
    /// values that are not finite or not above 0 are taken as 1. Takes effect when a function's present budget runs out.
    pub fn set_threshold_scale(&self, factor: f64) {
        let factor = if factor.is_finite() && factor > 0.0 { factor } else { 1.0 };
        // Relaxed: advice.
        self.shared().scale.store(factor.to_bits(), Relaxed);
    }

    fn turn(&self, tier: TierId, knob: impl FnOnce(&Lane)) -> Result<(), NoSuchTier> {
        let lanes = &self.shared().drain.lanes;
        let lane = lanes.get(tier).ok_or(NoSuchTier { tier, tiers: lanes.top().get() })?;
        knob(lane);
        // What was held back may go on.
        self.wake_for(|_| lane.len());
        Ok(())
    }

    /// Ends the engine's work: drops what is queued, waits for compiles in flight, and frees what can be freed. Handles
    /// and code that is there stay usable; requests are refused from now on.
    ///
    /// # Errors
    /// [`ShutdownError`] names what is stuck after `timeout`. It may be called again.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), ShutdownError> {
        let shared = self.shared();
        shared.close();
        shared.drop_queued();
        let start = Instant::now();
        // Helpers count too; a worker that shuts its own engine down does not wait for itself.
        while shared.drain.others_busy() > 0 {
            shared.announce_waiter();
            let Some(left) = timeout.checked_sub(start.elapsed()) else {
                shared.withdraw_waiter();
                let _no_fork = shared.gate.enter();
                let stuck =
                    shared.drain.compiling().iter().map(|(ticket, _)| (ticket.bead, ticket.tier)).collect();
                return Err(ShutdownError { waited: timeout, stuck });
            };
            if shared.drain.others_busy() > 0 {
                park_timeout(left);
            }
        }
        shared.withdraw_waiter();
        shared.drop_queued();
        self.reclaim();
        Ok(())
    }
}

impl Engine {
    /// Something that held requests back was changed: wakes workers for as many as wait; each signal starts one.
    fn wake_for(&self, waiting: impl FnOnce(&Drain) -> usize) {
        let shared = self.shared();
        let waiting = {
            let _no_fork = shared.no_fork();
            // SeqCst, edge PAUSE: between the change and the look at what waits. Partner is the fence in `wake`.
            fence(mutant!("pause-fence", SeqCst));
            waiting(&shared.drain)
        };
        // Without workers, this wakes those who wait and do the work themselves.
        let workers = shared.drain.workers.max(1);
        (0..workers.min(waiting)).for_each(|_| shared.wake());
    }
}

/// Keeps an engine from taking work; see [`Engine::pause`].
#[must_use = "the engine goes on when this is dropped"]
pub struct PauseGuard(Engine);

impl Drop for PauseGuard {
    fn drop(&mut self) {
        let shared = self.0.shared();
        shared.drain.resume();
        if !mutant!("pause-unsignalled") {
            self.0.wake_for(|drain| drain.queued());
        }
        // On a thread of the pool, who waits works too.
        shared.idle();
    }
}

impl fmt::Debug for PauseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PauseGuard")
    }
}
