//! Direct control over single functions: compile now, compile this way, no higher than that, never.

use super::Engine;
use crate::backend::Job;
use crate::code::CompiledCode;
use crate::direct::End;
use crate::drain::Crew;
use crate::error::{CompileError, CompileNowError, PromoteError, Stale, SubmitError};
use crate::event::Event;
use crate::id::{Bead, Group, Reason, TierId};
use std::time::{Duration, Instant};

impl Engine {
    /// Has a function compiled for `tier` before anything that is merely hot, and waits for it. Answers the version of its code.
    ///
    /// On an [inline](crate::EngineBuilder::inline) engine, and on one of the pool's own threads, the calling thread does
    /// the work meanwhile. A compile above the baseline that waits for another one above the baseline may hold the only place
    /// there is for them, and then waits until its timeout. While the engine is [paused](Engine::pause) it waits for the
    /// pause to end.
    ///
    /// # Errors
    /// [`CompileNowError`]: the request was refused, the compile failed, something overtook it, or `timeout` passed (the
    /// request stays queued then).
    pub fn compile_now(&self, bead: Bead, tier: TierId, timeout: Duration) -> Result<u32, CompileNowError> {
        let (shared, start) = (self.shared(), Instant::now());
        let wait = {
            let _no_fork = shared.gate.enter();
            shared.waits.join(bead, tier)
        };
        let result = self.ask(bead, tier, Reason::Now).map_err(CompileNowError::from).and_then(|()| {
            loop {
                if let Some(end) = wait.end() {
                    return match end {
                        End::Installed(version) => Ok(version),
                        End::Failed(error) => Err(CompileNowError::Compile(error)),
                        End::Superseded => Err(CompileNowError::Superseded(bead)),
                    };
                }
                let state = shared.table.live(bead).map_err(PromoteError::from)?;
                if state.tier >= tier {
                    return Ok(state.version);
                }
                let waited = start.elapsed();
                if waited >= timeout {
                    return Err(CompileNowError::Timeout { bead, waited });
                }
                let helps = shared.drain.workers == 0 || shared.is_worker();
                if !helps || self.run_pending(1) == 0 {
                    std::thread::park_timeout(timeout - waited);
                }
            }
        });
        let _no_fork = shared.gate.enter();
        shared.waits.leave(&wait);
        result
    }

    /// Asks for a compile by `compile` instead of the tier's backend, once. Works on compiled functions too.
    ///
    /// The closure runs on a worker with the tier's lane and limits; its errors and panics are outcomes like a backend's. It is
    /// dropped unused if the request is cancelled.
    ///
    /// # Errors
    /// [`SubmitError`] hands the closure back and says why: the request was refused, or one for this function and tier
    /// waits already.
    pub fn submit<F>(&self, bead: Bead, tier: TierId, compile: F) -> Result<(), SubmitError<F>>
    where
        F: FnOnce(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + 'static,
    {
        let shared = self.shared();
        // Asked for before it is boxed, so that a refusal hands back what was given.
        if let Err(reason) = self.check(bead, tier) {
            return Err(SubmitError { reason, compile });
        }
        let pending = shared.table.live(bead).is_ok_and(|state| {
            state.tier >= tier || (state.pending != crate::state::Pending::None && state.target >= tier)
        });
        if pending {
            return Err(SubmitError { reason: PromoteError::Pending { bead, tier }, compile });
        }
        // Between here and the request somebody else can ask for the same: then the closure serves that request.
        let back = {
            let _no_fork = shared.gate.enter();
            shared.one_shots.put((bead, tier), Box::new(compile))
        };
        let (reason, back) = match back {
            Some(back) => (PromoteError::Pending { bead, tier }, Some(back)),
            None => match self.ask(bead, tier, Reason::Asked) {
                Ok(()) => return Ok(()),
                Err(reason) => {
                    let _no_fork = shared.gate.enter();
                    (reason, shared.one_shots.take((bead, tier)))
                }
            },
        };
        match back.map(|back| back.into_any().downcast::<F>()) {
            Some(Ok(compile)) => Err(SubmitError { reason, compile: *compile }),
            // A worker took it meanwhile.
            _ => Ok(()),
        }
    }

    /// Takes a function down to `tier`, for debugging: code of a higher tier is taken back, and if `tier` is a compiled one,
    /// a compile for it is asked for. Counts start from zero. Nothing happens if it runs no higher.
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn demote(&self, bead: Bead, tier: TierId) -> Result<(), Stale> {
        let (shared, now) = (self.shared(), self.shared().now());
        let (demoted, pushed) = {
            let _no_fork = shared.gate.enter();
            let demoted = shared.table.demote(bead, tier)?;
            let queued = demoted.is_some_and(|demoted| demoted.queued);
            (demoted, queued && shared.push(bead, tier, Reason::Asked, 0, now))
        };
        if pushed {
            shared.wake();
        }
        if demoted.is_some() {
            shared.settle(bead, None, &End::Superseded);
            shared.emit(&Event::Invalidated { bead });
        }
        Ok(())
    }

    /// The highest tier the function may have; [`TierId::MAX`] at first. Code and requests above it are taken back.
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn set_tier_cap(&self, bead: Bead, cap: TierId) -> Result<(), Stale> {
        self.shared().restrict(bead, |state| state.cap = cap)
    }

    /// Keeps a function interpreted for good: its code and requests are taken back, and none is accepted.
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn blacklist(&self, bead: Bead) -> Result<(), Stale> {
        self.shared().restrict(bead, |state| state.blacklisted = true)
    }

    /// Undoes [`blacklist`](Engine::blacklist).
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn unblacklist(&self, bead: Bead) -> Result<(), Stale> {
        self.shared().restrict(bead, |state| state.blacklisted = false)?;
        self.shared().table.budgets.reset(bead.index());
        Ok(())
    }

    /// Promotes every live function of a group, in one call whose cost is proportional to the group; answers those that
    /// were refused, each with its reason. `None` if the group has ended. [`Engine::drain`] waits for the compiles.
    pub fn promote_group(&self, group: Group, tier: TierId) -> Option<Vec<(Bead, PromoteError)>> {
        Some(self.promote_many(self.group_members(group)?, tier))
    }

    /// Promotes many functions; answers those that were refused, each with its reason.
    pub fn promote_many(
        &self,
        beads: impl IntoIterator<Item = Bead>,
        tier: TierId,
    ) -> Vec<(Bead, PromoteError)> {
        beads
            .into_iter()
            .filter_map(|bead| self.promote(bead, tier).err().map(|error| (bead, error)))
            .collect()
    }
}
