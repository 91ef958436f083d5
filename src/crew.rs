//! What workers and jobs ask of the engine.

use crate::assumption::{Assumed, Assumption};
use crate::clock;
use crate::code::CompiledCode;
use crate::contain::contain;
use crate::direct::{OneShot, Taken, Whose};
use crate::drain::{Claim, Crew};
use crate::error::{CompileError, CoreError, Stale};
use crate::event::Event;
use crate::gate::Inside;
use crate::id::{Bead, Core, Reason, TierId};
use crate::job::{Job, JobHost, Outcome, Slot};
use crate::moving;
use crate::promotion::RECHECK_CALLS;
use crate::queue::{Rank, Request};
use crate::shared::Shared;
use crate::state::Ticket;
use crate::sync::{Arc, Thread, lock, this_thread};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

impl JobHost for Shared {
    fn core(&self, bead: Bead) -> Result<Core, Stale> {
        self.table.core(bead).map(Core::new)
    }

    fn enter_core(&self) -> Result<moving::Inside<'_>, CoreError> {
        self.moving.enter(&self.gate)
    }

    fn name(&self, bead: Bead) -> Option<Arc<str>> {
        self.known(bead, |info, index| info.name(index))
    }

    fn key(&self, bead: Bead) -> u64 {
        self.known(bead, |info, index| info.key(index)).unwrap_or(0)
    }

    fn is_current(&self, ticket: Ticket) -> bool {
        self.table.live(ticket.bead).is_ok_and(|state| state.is_claimed_by(ticket))
    }

    fn is_closing(&self) -> bool {
        self.is_closed()
    }

    fn osr_sites(&self, ticket: Ticket) -> Vec<u64> {
        let _no_fork = self.gate.enter();
        self.loops.wanted(ticket.bead, ticket.version)
    }

    fn assume(&self, ticket: Ticket, assumption: Assumption) -> bool {
        let _no_fork = self.gate.enter();
        self.rely(&[Assumed { on: assumption, listed: false }], ticket).is_ok()
    }

    fn pin_slot(&self, callee: Bead) -> Result<Slot, Stale> {
        let _no_fork = self.gate.enter();
        // Pinned before it is looked at: if the callee is live now, its index cannot be reused any more.
        self.table.pins().add(callee.index());
        match self.table.slot(callee) {
            Ok(address) => Ok(Slot(address)),
            Err(stale) => {
                self.unpin_one(callee);
                Err(stale)
            }
        }
    }

    fn pin_embedded(&self, callee: Bead) -> Result<(), Stale> {
        let _no_fork = self.gate.enter();
        self.table.pins().add(callee.index());
        self.table.slot_is_of(callee).inspect_err(|_| self.unpin_one(callee))
    }

    fn unpin(&self, callees: &[Bead]) {
        if !callees.is_empty() {
            let _no_fork = self.gate.enter();
            callees.iter().for_each(|&callee| self.unpin_one(callee));
        }
    }

    fn finish(&self, ticket: Ticket, result: Result<CompiledCode, CompileError>) -> Outcome {
        self.give_up_overdue();
        match result {
            Ok(mut code) => match code.check() {
                Ok(()) => self.installed(ticket, code),
                Err(error) => {
                    let extras = code.take_extras();
                    let owner = {
                        let _no_fork = self.gate.enter();
                        self.owners.intern(code.owner, 0, extras.embeds, Vec::new())
                    };
                    self.dispose(extras.payload);
                    self.free(&[owner]);
                    self.failed(ticket, error)
                }
            },
            Err(CompileError::AssumptionBroken(assumption)) => self.withdraw(ticket, Some(assumption)),
            Err(CompileError::Withdrawn(_)) => self.withdraw(ticket, None),
            Err(error) => self.failed(ticket, error),
        }
    }
}

impl Shared {
    /// Whose is what came with a request that was queued at that version, `None` if it is not queued yet.
    pub(crate) fn whose(&self, ticket: Ticket, queued_at: Option<u32>) -> Whose {
        match queued_at {
            // Its request may be made in a moment, or have been made just now: by who made the claimed one, or afterwards.
            None if self.is_current(ticket) => Whose::Mine,
            None => Whose::Later,
            // The claim's version is the next after the request's; if code of the VM's own came between, the one after that.
            Some(version) if version + 1 == ticket.version => Whose::Mine,
            Some(version)
                if version + 2 == ticket.version && self.table.code_version(ticket.bead) == version + 1 =>
            {
                Whose::Mine
            }
            Some(version) if version < ticket.version => Whose::Earlier,
            Some(_) => Whose::Later,
        }
    }

    /// The compile that came with the request of that claim.
    fn one_shot_of(&self, ticket: Ticket) -> Option<Box<dyn OneShot>> {
        if self.one_shots.is_empty() {
            return None;
        }
        let taken = {
            let _no_fork = self.gate.enter();
            self.one_shots.take(ticket.bead, ticket.tier, |queued_at| self.whose(ticket, queued_at))
        };
        match taken {
            Taken::Fitting(compile) => Some(compile),
            Taken::Outlived(compile) => {
                self.dispose(compile);
                None
            }
            Taken::Nothing => None,
        }
    }
}

impl Crew for Shared {
    fn no_fork(&self) -> Inside<'_> {
        self.gate.enter()
    }

    fn now(&self) -> u32 {
        // Relaxed: only where it last stood.
        match contain(|| clock::millis((self.settings.clock)())) {
            Ok(now) => {
                // Every request reads the clock, and mostly it has not moved.
                if self.last_now.load(Relaxed) != now {
                    self.last_now.store(now, Relaxed);
                }
                now
            }
            // A clock that panics stands still.
            Err(message) => {
                tracing::error!(target: "beadwork", message, "the engine's clock panicked");
                self.last_now.load(Relaxed)
            }
        }
    }

    fn rank(&self, request: &Request, now: u32) -> Rank {
        let waited = clock::since(now, request.asked);
        let speaks = self.table.state(request.index).load().stamp() == request.stamp;
        let calls = self.table.budgets.calls(request.index).saturating_sub(request.calls);
        let class = if self.waits.wants(request.index) {
            Reason::Now.class()
        } else if speaks && request.reason == Reason::Speculative && calls >= RECHECK_CALLS {
            // It would be hot by now, but its policy does not ask for what is asked for already.
            Reason::Hot.class()
        } else if speaks {
            request.reason.class()
        } else {
            Reason::Resumed.class()
        };
        // Calls per second since it was asked for, not arrival: what is called most saves most.
        Rank { class, rate: u64::from(calls) * 1000 / (u64::from(waited) + 1) }
    }

    fn claim(&self, request: &mut Request, now: u32) -> Claim {
        let state = self.table.state(request.index);
        let seen = state.load();
        if seen.stamp() != request.stamp {
            // The token was put there by an earlier request, perhaps of an earlier function.
            (request.reason, request.calls) = (Reason::Resumed, 0);
        }
        let cold = request.reason.is_a_guess()
            && clock::since(now, request.asked) > self.settings.cold_after
            && self.table.budgets.calls(request.index) <= request.calls
            && !self.loops.ran_within(Bead::new(request.index, seen.tag()), self.settings.cold_after, now);
        if !cold {
            return state.claim(request.index, request.tier).map_or(Claim::Unwanted, Claim::Ticket);
        }
        let cancelled = state.cancel(request.index, request.tier);
        cancelled.map_or(Claim::Unwanted, |(bead, version)| Claim::Cooled(bead, version))
    }

    fn unqueue(&self, request: &Request) -> Option<(Bead, u32)> {
        self.table.state(request.index).cancel(request.index, request.tier)
    }

    fn cooled(&self, bead: Bead, version: u32, tier: TierId) {
        // It has to earn its threshold anew.
        self.table.budgets.reset(bead.index());
        self.table.heat.reset(bead.index());
        self.emit(&Event::Cooled { bead, tier });
        self.over(bead, tier, version);
    }

    fn compile(&self, tier: TierId, jobs: &mut [Job<'_>]) {
        let Some(parts) = self.tiers.get(tier.lane()) else { return };
        let _span = tracing::debug_span!(target: "beadwork", "compile", %tier, jobs = jobs.len()).entered();
        let mut rest = 0;
        for position in 0..jobs.len() {
            let job = &mut jobs[position];
            // Not if it is tried again after its batch panicked.
            if self.snapshots.is_on() && !job.has_snapshot() {
                job.give_snapshot(self.snapshot_of(job.ticket()));
            }
            let done = match self.one_shot_of(job.ticket()) {
                Some(compile) => {
                    let result = contain(|| compile.compile(job));
                    job.finish(result.unwrap_or_else(|message| Err(CompileError::Panicked(message))));
                    true
                }
                // Superseded already, perhaps together with what came with the request: not worth a compile. What was begun
                // as the engine closes is still somebody's.
                None if !self.is_current(job.ticket()) => {
                    job.finish(Err(CompileError::Unfinished));
                    true
                }
                None => false,
            };
            if done {
                jobs.swap(rest, position);
                rest += 1;
            }
        }
        if rest < jobs.len() {
            parts.backend.compile(&mut jobs[rest..]);
        }
    }

    fn signal(&self) {
        self.wake();
    }

    fn housekeeping(&self) {
        self.give_up_overdue();
        self.sweep();
        self.reclaim();
    }

    fn is_closed(&self) -> bool {
        // Acquire, edge CLOSE.
        self.closed.load(Acquire)
    }

    fn idle(&self) {
        let waiters = {
            let _no_fork = self.gate.enter();
            let here = this_thread().id();
            // Who works while it waits looks again by itself, and goes on waiting.
            let mut waiters: Vec<_> =
                lock(&self.waiters).extract_if(.., |waiter| waiter.id() != here).collect();
            if self.drain.workers == 0 {
                waiters.extend(self.waits.everybody());
            }
            waiters
        };
        waiters.iter().for_each(Thread::unpark);
    }
}
