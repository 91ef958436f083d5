//! What becomes of a compile: installed, failed, overdue, cancelled; and who hears of it.

use crate::clock;
use crate::code::CompiledCode;
use crate::contain::contain;
use crate::drain::Crew;
use crate::error::{CompileError, Stale};
use crate::event::{Event, Invalidation};
use crate::id::{Bead, Reason, TierId};
use crate::info::OnInvalidate;
use crate::job::{JobHost, Outcome};
use crate::osr::{OsrEntry, OsrWord};
use crate::shared::Shared;
use crate::state::{Ended, Snapshot, Ticket};
use crate::stats::add;
use crate::sync::Thread;
use crate::table::{Barred, Ready, Restricted};
use std::sync::atomic::Ordering::Relaxed;

impl Shared {
    pub(crate) fn installed(&self, ticket: Ticket, mut code: CompiledCode) -> Outcome {
        let (bead, tier, bytes) = (ticket.bead, ticket.tier, code.bytes);
        let compile_time = code.compile_time.unwrap_or_default();
        let tick = self.ticks(tier);
        let (entry, pieces) = (code.entry, code.pieces());
        let extras = code.take_extras();
        let (owner, installed, requeue, pushed, in_vain, dropped, forgotten, waiting) = {
            let _no_fork = self.gate.enter();
            // Listed before it is published (edge ASSUME).
            let in_vain = self.rely(&extras.assumed, ticket).err();
            let owner = self.owners.intern(code.owner, bytes, extras.embeds, pieces);
            // Counted before it can be retired and subtracted.
            if owner.bytes() > 0 {
                add(&self.counters.code_bytes, owner.bytes() as u64);
            }
            let osr = self.loop_table(bead, extras.osr);
            let mut missing = self.loops.wanted(bead, ticket.version);
            missing.retain(|&site| !self.table.osr.names(osr, site));
            let ready = Ready { entry, tick, owner, osr };
            let install = || match in_vain {
                None => self.table.install(ticket, ready),
                Some(_) => Err(Ended::Superseded),
            };
            let (installed, dropped) = self.deliveries.install(bead, tier, extras.payload, install);
            if installed.is_ok() {
                // Asked for, and did not come: not to be asked for again and again.
                for site in missing {
                    self.loops.fail(bead, site);
                }
                if !osr.is_none() {
                    self.suppress_loops(bead);
                }
                if self.loops.is_in_use() && self.table.live(bead).is_err() {
                    // Removed meanwhile, and then nobody else forgets what was noted.
                    self.loops.forget(bead);
                }
            } else {
                self.table.osr.discard(osr);
            }
            let requeue = match installed {
                Ok(installed) => installed.requeue,
                Err(Ended::Requeue(tier)) => Some(tier),
                Err(Ended::Idle | Ended::Superseded) => None,
            };
            let now = || self.last_now.load(Relaxed);
            let pushed = requeue.is_some_and(|tier| self.push(bead, tier, Reason::Resumed, 0, now()));
            let forgotten = if installed.is_ok() { self.faults.forget(bead, tier) } else { None };
            let waiting = if installed.is_ok() { self.waits.waiting(bead) } else { Vec::new() };
            (owner, installed, requeue, pushed, in_vain, dropped, forgotten, waiting)
        };
        if dropped.is_some() {
            self.dispose(dropped);
        }
        self.resumed(bead, requeue, pushed);
        if !compile_time.is_zero() {
            add(&self.counters.compile_nanos, compile_time.as_nanos() as u64);
        }
        let installed = match installed {
            Ok(installed) => installed,
            Err(ended) => {
                if !mutant!("s1-result-kept") {
                    self.free(&[owner]);
                }
                let in_vain = in_vain.or_else(|| {
                    let _no_fork = self.gate.enter();
                    self.assumptions.first_broken(&extras.assumed)
                });
                if let (Some(assumption), Ended::Superseded) = (in_vain, ended) {
                    return self.withdraw(ticket, Some(assumption));
                }
                self.say_discarded(ticket, None);
                if ended != Ended::Superseded {
                    self.changed(bead);
                }
                return Outcome::Discarded;
            }
        };
        if forgotten.is_some() {
            self.dispose(forgotten);
        }
        add(&self.counters.installed, 1);
        let version = installed.version;
        if !self.snapshots.is_empty() {
            // That of a request that was lowered to this tier while it was compiled, and so is served.
            let purged = {
                let _no_fork = self.gate.enter();
                self.snapshots.purge(bead, tier, 0..=version)
            };
            self.dispose(purged);
        }
        self.emit(&Event::Installed { bead, tier, version, bytes, compile_time });
        if !mutant!("settle-unwoken") {
            waiting.iter().for_each(Thread::unpark);
        }
        Outcome::Installed { version }
    }

    /// Makes the table of a function's native loop entries, inside a section.
    pub(crate) fn loop_table(&self, bead: Bead, entries: Vec<OsrEntry>) -> OsrWord {
        if entries.is_empty() {
            return OsrWord::NONE;
        }
        let suppressed = self.loops.suppressed(bead);
        let made = self.table.osr.make(bead, entries, &self.table.grace, |site| suppressed.contains(&site));
        made.unwrap_or_else(|_| {
            // The code is worth having without.
            add(&self.counters.loop_tables_refused, 1);
            OsrWord::NONE
        })
    }

    /// Loops whose entries failed while the table was being made, inside a section.
    pub(crate) fn suppress_loops(&self, bead: Bead) {
        let suppressed = self.loops.suppressed(bead);
        suppressed.into_iter().for_each(|site| self.table.suppress_loop(bead, site, true));
    }

    pub(crate) fn failed(&self, ticket: Ticket, error: CompileError) -> Outcome {
        let (bead, tier, version) = (ticket.bead, ticket.tier, ticket.code_version());
        let now = self.now();
        let (ended, pushed) = {
            let _no_fork = self.gate.enter();
            let ended =
                self.waits.fail(bead, tier, &error, || self.table.state(bead.index()).abandon(ticket));
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
            self.emit(&Event::Discarded { bead, tier, version });
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
        self.emit(&Event::Failed { bead, tier, version, error: error.clone(), failures, retry_after });
        self.changed(bead);
        // Code of that tier that is there already, and was to be compiled anew for a loop, goes on.
        let runs = self.table.live(bead).is_ok_and(|now| now.tier() >= tier);
        if noted.counted.is_some_and(|counted| counted >= self.settings.fault_limit) && !runs {
            let cap = TierId::from_low_bits(u64::from(tier.get().saturating_sub(1)));
            if self.restrict(bead, |state| state.set_cap(state.cap().min(cap))).is_ok() {
                self.emit(&Event::GaveUp { bead, tier, error });
            }
        }
        Outcome::Failed
    }

    /// Gives up compiles that have taken longer than their tier allows. Their results are dropped when they come.
    #[inline]
    pub(crate) fn give_up_overdue(&self) {
        if self.tiers.iter().any(|parts| parts.timeout.is_some()) {
            self.give_up();
        }
    }

    fn give_up(&self) {
        let (now, compiling) = (self.now(), {
            let _no_fork = self.gate.enter();
            self.drain.compiling()
        });
        for (ticket, claimed) in compiling {
            let limit = self.tiers.get(ticket.tier.lane()).and_then(|parts| parts.timeout);
            // What was given up before goes on until its backend returns.
            let limit = limit.filter(|_| self.is_current(ticket));
            if let Some(limit) = limit.filter(|&limit| clock::since(now, claimed) > clock::span(limit)) {
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

    /// The state of a bead has changed: wakes whoever waits for that.
    pub(crate) fn changed(&self, bead: Bead) {
        let threads = {
            let _no_fork = self.gate.enter();
            self.waits.waiting(bead)
        };
        threads.iter().for_each(Thread::unpark);
    }

    /// Requests of a bead up to `tier` that were queued at `version` or before have ended without a compile of theirs.
    pub(crate) fn over(&self, bead: Bead, tier: TierId, version: u32) {
        let (purged, waiting) = {
            let _no_fork = self.gate.enter();
            let any = !self.one_shots.is_empty() || !self.snapshots.is_empty();
            let purge = || {
                (self.one_shots.purge(bead, tier, 0..=version), self.snapshots.purge(bead, tier, 0..=version))
            };
            (any.then(purge), self.waits.waiting(bead))
        };
        if purged.is_some() {
            self.dispose(purged);
        }
        waiting.iter().for_each(Thread::unpark);
    }

    /// The request that follows a compile is for a lower tier now: the compile that came with it was for another, and who waits for that
    /// tier waits in vain. (Its snapshot went along.)
    fn lowered(&self, bead: Bead, version: u32) {
        let (purged, waiting) = {
            let _no_fork = self.gate.enter();
            (self.one_shots.purge(bead, TierId::MAX, version..=version), self.waits.waiting(bead))
        };
        if !purged.is_empty() {
            self.dispose(purged);
        }
        waiting.iter().for_each(Thread::unpark);
    }

    /// A bead's own callback, read before its code is taken back: if the bead is live afterwards, it was this bead's.
    pub(crate) fn callback_of(&self, bead: Bead) -> Option<OnInvalidate> {
        let _no_fork = self.gate.enter();
        self.table.live(bead).ok().and_then(|_| self.info.on_invalidate(bead.index()))
    }

    /// Code of a bead was taken back: tells the log, the listeners and the bead's own callback.
    pub(crate) fn took_code(&self, bead: Bead, callback: Option<OnInvalidate>) {
        {
            let _no_fork = self.gate.enter();
            self.loops.start_over(bead);
        }
        self.reclaim_without_workers();
        // Not of a function that was removed since: nothing is to follow that.
        let callback = callback.filter(|_| self.table.live(bead).is_ok());
        let late = mutant!("reuse-callback-late").then(|| self.info.on_invalidate(bead.index()));
        let callback = late.unwrap_or(callback);
        self.call_back(callback, bead, Invalidation::Invalidated);
        self.emit(&Event::Invalidated { bead });
    }

    /// Changes what a function may be compiled at; code and requests above that are taken back.
    pub(crate) fn restrict(&self, bead: Bead, change: impl Fn(&mut Snapshot)) -> Result<Restricted, Stale> {
        let transition = || {
            let (made, dropped) = self.snapshots.lower(bead, || self.table.restrict(bead, change));
            made.map(|restricted| (restricted, dropped))
        };
        let ((restricted, dropped), taken) =
            self.take_back(bead, transition, |(restricted, _)| restricted.took_code)?;
        if dropped.is_some() {
            self.dispose(dropped);
        }
        match restricted.barred {
            Some(Barred::Cancelled(version)) => self.over(bead, TierId::MAX, version),
            Some(Barred::Lowered { version, .. }) => self.lowered(bead, version),
            None => (),
        }
        self.tell_taken(taken);
        Ok(restricted)
    }
}
