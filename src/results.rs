//! What becomes of a compile: installed, failed, overdue, cancelled; and who hears of it.

use crate::backend::Outcome;
use crate::clock;
use crate::code::CompiledCode;
use crate::contain::contain;
use crate::direct::End;
use crate::drain::Crew;
use crate::error::{CompileError, Stale};
use crate::event::Event;
use crate::id::{Bead, Reason, TierId};
use crate::shared::Shared;
use crate::state::{Ended, Snapshot, Ticket};
use crate::stats::add;
use crate::table::Ready;
use std::thread::Thread;

impl Shared {
    pub(crate) fn installed(&self, ticket: Ticket, code: CompiledCode) -> Outcome {
        let (bead, tier, bytes) = (ticket.bead, ticket.tier, code.bytes);
        let compile_time = code.compile_time.unwrap_or_default();
        let tick = tier < self.drain.lanes.top();
        let (entry, now) = (code.entry, self.now());
        let (owner, installed, requeue, pushed) = {
            let _no_fork = self.gate.enter();
            let owner = self.owners.intern(code.owner, bytes, code.embeds);
            // Counted before it can be retired and subtracted.
            add(&self.counters.code_bytes, owner.bytes() as u64);
            let installed = self.table.install(ticket, Ready { entry, tick, owner });
            let requeue = installed.and_then(|installed| installed.requeue);
            let pushed = requeue.is_some_and(|tier| self.push(bead, tier, Reason::Resumed, 0, now));
            (owner, installed, requeue, pushed)
        };
        self.resumed(bead, requeue, pushed);
        add(&self.counters.compile_nanos, compile_time.as_nanos() as u64);
        let Some(installed) = installed else {
            self.free(&[owner]);
            add(&self.counters.discarded, 1);
            self.emit(&Event::Discarded { bead, tier });
            return Outcome::Discarded;
        };
        let forgotten = {
            let _no_fork = self.gate.enter();
            self.faults.forget(bead, tier)
        };
        self.dispose(forgotten);
        add(&self.counters.installed, 1);
        let version = installed.version;
        self.emit(&Event::Installed { bead, tier, version, bytes, compile_time });
        self.settle(bead, Some(tier), &End::Installed(version));
        Outcome::Installed { version }
    }

    pub(crate) fn failed(&self, ticket: Ticket, error: CompileError) -> Outcome {
        let (bead, tier, now) = (ticket.bead, ticket.tier, self.now());
        let (ended, pushed) = {
            let _no_fork = self.gate.enter();
            let ended = self.table.state(bead.index()).abandon(ticket);
            let pushed = match ended {
                Ended::Requeue(next) => self.push(bead, next, Reason::Resumed, 0, now),
                Ended::Idle | Ended::Superseded => false,
            };
            (ended, pushed)
        };
        let requeue = if let Ended::Requeue(next) = ended { Some(next) } else { None };
        self.resumed(bead, requeue, pushed);
        if ended == Ended::Superseded {
            add(&self.counters.discarded, 1);
            self.emit(&Event::Discarded { bead, tier });
            return Outcome::Discarded;
        }
        let calls = self.table.budgets.calls(bead.index());
        let (noted, gone) = {
            let _no_fork = self.gate.enter();
            let noted = self.faults.note(bead, tier, error.clone(), calls);
            // Removed meanwhile: nobody would forget this any more.
            let gone = self.table.live(bead).is_err().then(|| self.faults.forget_all(bead));
            (noted, gone)
        };
        let (failures, retry_after) = (noted.failures, noted.retry_after);
        self.dispose((noted.replaced, gone));
        add(&self.counters.failed, 1);
        self.emit(&Event::Failed { bead, tier, error: error.clone(), failures, retry_after });
        self.settle(bead, Some(tier), &End::Failed(error.clone()));
        if failures >= self.settings.fault_limit {
            let cap = TierId::from_low_bits(u64::from(tier.get().saturating_sub(1)));
            if self.restrict(bead, |state| state.cap = state.cap.min(cap)).is_ok() {
                self.emit(&Event::GaveUp { bead, tier, error });
            }
        }
        Outcome::Failed
    }

    /// Gives up compiles that have taken longer than their tier allows. Their results are dropped when they come.
    pub(crate) fn give_up_overdue(&self) {
        if self.tiers.iter().all(|parts| parts.timeout.is_none()) {
            return;
        }
        let (now, compiling) = (self.now(), {
            let _no_fork = self.gate.enter();
            self.drain.compiling()
        });
        for (ticket, claimed) in compiling {
            let limit = self.tiers.get(ticket.tier.lane()).and_then(|parts| parts.timeout);
            if let Some(limit) = limit.filter(|&limit| now.wrapping_sub(claimed) > clock::millis(limit)) {
                self.failed(ticket, CompileError::TimedOut { limit });
            }
        }
    }

    /// Drops a foreign value, outside any section; a panic ends here.
    pub(crate) fn dispose<T>(&self, value: T) {
        if let Err(message) = contain(|| drop(value)) {
            tracing::error!(target: "beadwork", message, "dropping a value of the VM's panicked");
        }
    }

    /// Tells whoever waits how a request ended; `tier` is `None` if everything pending was cancelled.
    pub(crate) fn settle(&self, bead: Bead, tier: Option<TierId>, end: &End) {
        let (threads, purged) = {
            let _no_fork = self.gate.enter();
            let purged = if tier.is_none() { self.one_shots.purge(bead) } else { Vec::new() };
            (self.waits.settle(bead, tier, end), purged)
        };
        threads.iter().for_each(Thread::unpark);
        self.dispose(purged);
    }

    /// Changes what a function may be compiled at; code and requests above that are taken back.
    pub(crate) fn restrict(&self, bead: Bead, change: impl Fn(&mut Snapshot)) -> Result<(), Stale> {
        let restricted = {
            let _no_fork = self.gate.enter();
            self.table.restrict(bead, change)?
        };
        if restricted.cancelled {
            self.settle(bead, None, &End::Superseded);
        }
        if restricted.took_code {
            self.emit(&Event::Invalidated { bead });
        }
        Ok(())
    }
}
