//! Direct control over single functions: compile now, compile this way, no higher than that, never.

use super::Engine;
use crate::code::CompiledCode;
use crate::direct::{OneShot, Waiting};
use crate::drain::Crew;
use crate::error::{CompileError, CompileNowError, PromoteError, Stale, SubmitError};
use crate::id::{Bead, Group, Reason, TierId};
use crate::job::Job;
use crate::shared::Shared;
use crate::snapshot::Given;
use crate::state::{Pending, Requested, Snapshot};
use crate::sync::park_timeout;
use std::time::{Duration, Instant};

impl Engine {
    /// Has a function compiled for `tier` before anything that is merely hot, and waits for it. Answers the version of its code.
    ///
    /// On an [inline](crate::EngineBuilder::inline) engine, and on one of the pool's own threads, the calling thread does
    /// the work meanwhile; from inside of a compile that is done beyond the limits of the tier, since the place is held by who
    /// waits. While the engine is [paused](Engine::pause) it waits for the pause to end.
    ///
    /// # Errors
    /// [`CompileNowError`]: the request was refused, the compile failed, something overtook it, or `timeout` passed (the
    /// request stays queued then).
    pub fn compile_now(&self, bead: Bead, tier: TierId, timeout: Duration) -> Result<u32, CompileNowError> {
        self.compile_now_giving(bead, tier, timeout, None)
    }

    pub(super) fn compile_now_giving(
        &self,
        bead: Bead,
        tier: TierId,
        timeout: Duration,
        given: Given<'_>,
    ) -> Result<u32, CompileNowError> {
        let (shared, start) = (self.shared(), Instant::now());
        let wait = Announced::new(shared, bead, tier);
        let there = || shared.table.live(bead).is_ok_and(|now| now.tier() >= tier);
        if crate::nest::is_compiling(shared.drain.address(), bead) && !there() {
            return Err(CompileNowError::Within(bead));
        }
        let _ = self.ask(bead, tier, Reason::Now, false, given)?;
        loop {
            if let Some(answer) = wait.answer(bead, tier)? {
                return Ok(answer);
            }
            let waited = start.elapsed();
            if waited >= timeout {
                return Err(CompileNowError::Timeout { bead, waited });
            }
            // The worker that would notice may be the one that is stuck.
            shared.give_up_overdue();
            let helps = shared.drain.workers == 0 || shared.is_pool_thread();
            if !helps || self.run_pending(1) == 0 {
                let limits = shared.tiers.iter().filter_map(|parts| parts.timeout);
                park_timeout(limits.fold(timeout - waited, Duration::min));
            }
        }
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
        let put = {
            let _no_fork = shared.gate.enter();
            let (number, compile) = (shared.next_number(), Box::new(compile));
            shared.one_shots.put(bead, tier, number, compile)
        };
        let put = match put {
            Ok(put) => put,
            Err(back) => return refused(PromoteError::Pending { bead, tier }, Some(back)),
        };
        // From here on a worker that claims the function for this tier takes it, whoever asked.
        let asked = match self.ask(bead, tier, Reason::Asked, false, None) {
            Ok(Requested::Queued(version) | Requested::Follows(version)) => Ok(version),
            Ok(_) => Err(PromoteError::Pending { bead, tier }),
            Err(reason) => Err(reason),
        };
        let back = {
            let _no_fork = shared.gate.enter();
            if let Ok(version) = asked {
                shared.one_shots.bind(put, version);
            }
            let waits = |state: Snapshot| state.pending() != Pending::None && state.target() == tier;
            // After binding: whoever ended the request before has passed it over.
            let goes_on = asked.is_ok() && shared.table.live(bead).is_ok_and(waits);
            if goes_on { None } else { shared.one_shots.take_back(put) }
        };
        match asked {
            Ok(_) => {
                shared.dispose(back);
                Ok(())
            }
            Err(reason) => refused(reason, back),
        }
    }

    /// Takes a function down to `tier`, for debugging: code of a higher tier is taken back, and if `tier` is a compiled one,
    /// a compile for it is asked for, unless it would be refused. Counts start from zero. If it runs no higher, nothing happens
    /// to it; code that [contains](crate::Job::include) its body is taken back all the same.
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn demote(&self, bead: Bead, tier: TierId) -> Result<(), Stale> {
        let (shared, now) = (self.shared(), self.shared().now());
        let wanted = tier != TierId::INTERPRETER && self.check(bead, tier).is_ok();
        let snapshot = if wanted { shared.take_snapshot(bead) } else { None };
        let mut dropped = None;
        let demote = || {
            let (demoted, rest) = shared.snapshots.attach(
                bead,
                snapshot,
                || shared.table.demote(bead, tier, wanted),
                |demoted| (*demoted).ok().flatten().filter(|to| to.queued).map(|to| (tier, to.version + 1)),
            );
            dropped = rest;
            let demoted = demoted?;
            let queued = demoted.is_some_and(|demoted| demoted.queued);
            Ok((demoted, queued && shared.push(bead, tier, Reason::Asked, 0, now)))
        };
        let ((demoted, pushed), taken) = shared.take_back(bead, demote, |(demoted, _)| demoted.is_some())?;
        shared.dispose(dropped);
        if pushed {
            shared.wake();
        }
        shared.changed_meaning(bead);
        if let Some(demoted) = demoted {
            shared.over(bead, TierId::MAX, demoted.version);
            if demoted.queued {
                shared.say_queued(bead, tier, Reason::Asked, 0);
            }
        }
        shared.tell_taken(taken);
        Ok(())
    }

    /// The highest tier the function may have; [`TierId::MAX`] at first. Code and requests above it are taken back, and if it is lower
    /// than before, code that [contains](crate::Job::include) the function's body, too.
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn set_tier_cap(&self, bead: Bead, cap: TierId) -> Result<(), Stale> {
        let shared = self.shared();
        let restricted = shared.restrict(bead, |state| state.set_cap(cap))?;
        if cap < restricted.old_cap {
            shared.changed_meaning(bead);
        }
        shared.ask_soon(bead);
        Ok(())
    }

    /// Keeps a function interpreted for good: its code and requests are taken back, and none is accepted.
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn blacklist(&self, bead: Bead) -> Result<(), Stale> {
        self.shared().restrict(bead, |state| state.set_blacklisted(true))?;
        self.shared().changed_meaning(bead);
        Ok(())
    }

    /// Undoes [`blacklist`](Engine::blacklist).
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn unblacklist(&self, bead: Bead) -> Result<(), Stale> {
        self.shared().restrict(bead, |state| state.set_blacklisted(false))?;
        self.shared().ask_soon(bead);
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

/// Hands a refused compile back as what it was.
fn refused<F: 'static>(reason: PromoteError, back: Option<Box<dyn OneShot>>) -> Result<(), SubmitError<F>> {
    match back.map(|back| back.into_any().downcast::<F>()) {
        Some(Ok(compile)) => Err(SubmitError { reason, compile: *compile }),
        // A worker took it meanwhile, for a request of somebody else's.
        _ => Ok(()),
    }
}

/// A thread that waits for a compile, until this is dropped.
struct Announced<'e> {
    shared: &'e Shared,
    waiting: Waiting,
}

impl<'e> Announced<'e> {
    fn new(shared: &'e Shared, bead: Bead, tier: TierId) -> Announced<'e> {
        let _no_fork = shared.gate.enter();
        Announced { shared, waiting: shared.waits.join(bead, tier) }
    }

    /// How it ended, if it did: the version of the code, or why there is none.
    fn answer(&self, bead: Bead, tier: TierId) -> Result<Option<u32>, CompileNowError> {
        let table = &self.shared.table;
        let now = table.live(bead).map_err(PromoteError::from)?;
        if now.tier() >= tier {
            return Ok(Some(table.code_version(bead)));
        }
        if now.pending() != Pending::None && now.target() >= tier {
            return Ok(None);
        }
        // Nothing that would serve is asked for any more.
        let error = {
            let _no_fork = self.shared.gate.enter();
            self.waiting.error(&self.shared.waits)
        };
        Err(match (error, now.bars(tier)) {
            (Some(error), _) => CompileNowError::Compile(error),
            (None, Some(cap)) => PromoteError::Barred { bead, tier, cap }.into(),
            (None, None) if self.shared.is_closed() => PromoteError::Closed.into(),
            (None, None) => CompileNowError::Superseded(bead),
        })
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        let _no_fork = self.shared.gate.enter();
        self.shared.waits.leave(&self.waiting);
    }
}
