//! What all handles of an engine share, and the parts of its work that touch more than one module.
//!
//! Every lock, publish and push happens inside a section of the [gate](crate::gate); every call of foreign code
//! (backend, policy, listener, callback, reclaimer) happens outside, with no lock held.

use crate::backend::{Backend, Job, JobHost, Outcome, Slot};
use crate::builder::Columns;
use crate::clock::{self, Clock};
use crate::code::CompiledCode;
use crate::drain::{Claim, Crew, Drain};
use crate::error::{CompileError, Stale};
use crate::event::{Event, Invalidation};
use crate::executor::Executor;
use crate::fault::Faults;
use crate::gate::{Gate, Inside};
use crate::id::{Bead, Core, Reason, TierId};
use crate::info::{Info, OnInvalidate};
use crate::owner::{OwnerWord, Owners};
use crate::policy::Policy;
use crate::queue::{Rank, Request};
use crate::state::{Ended, Requested, Ticket};
use crate::stats::{Counters, add, subtract};
use crate::sync::{Arc, AtomicBool, AtomicU32, Mutex, lock};
use crate::table::{Ready, Table};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread::Thread;

/// A listener for events.
pub(crate) type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// The foreign parts of a compiled tier.
pub(crate) struct TierParts {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) policy: Arc<dyn Policy>,
}

/// What the builder was told and never changes.
pub(crate) struct Settings {
    pub(crate) clock: Clock,
    pub(crate) seed: u64,
    pub(crate) code_limit: Option<u64>,
    /// Milliseconds a request may wait without a call before it is dropped.
    pub(crate) cold_after: u32,
}

pub(crate) struct Shared {
    pub(crate) me: Weak<Shared>,
    pub(crate) table: Table,
    pub(crate) drain: Drain,
    /// Lowest tier first, as the lanes.
    pub(crate) tiers: Box<[TierParts]>,
    pub(crate) owners: Owners,
    pub(crate) info: Info,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    pub(crate) listeners: Box<[Listener]>,
    pub(crate) executor: Executor,
    pub(crate) settings: Settings,
    /// Ticks of [`Engine::decay_tick`](crate::Engine::decay_tick).
    pub(crate) ticks: AtomicU32,
    pub(crate) gate: Gate,
    pub(crate) closed: AtomicBool,
    /// Threads that wait for the drain to be idle.
    pub(crate) waiters: Mutex<Vec<Thread>>,
}

impl Shared {
    pub(crate) fn new(
        me: &Weak<Shared>,
        columns: Columns,
        tiers: Box<[TierParts]>,
        listeners: Box<[Listener]>,
        executor: Executor,
        settings: Settings,
    ) -> Shared {
        Shared {
            me: me.clone(),
            table: columns.table,
            drain: Drain::new(columns.lanes, executor.workers()),
            tiers,
            owners: Owners::new(),
            info: columns.info,
            faults: Faults::default(),
            counters: Counters::new(),
            listeners,
            executor,
            settings,
            ticks: AtomicU32::new(0),
            gate: Gate::new(),
            closed: AtomicBool::new(false),
            waiters: Mutex::new(Vec::new()),
        }
    }

    // ---- requests

    /// Asks for a compile; the token is in its lane and a worker is awake when this answers `Queued`.
    pub(crate) fn request(&self, bead: Bead, tier: TierId, reason: Reason, calls: u32) -> Requested {
        if bead.index() >= self.table.capacity() {
            return Requested::Stale;
        }
        let asked = self.now();
        let (answer, pushed) = {
            let _no_fork = self.gate.enter();
            let answer = self.table.state(bead.index()).request(bead, tier);
            (answer, answer == Requested::Queued && self.push(bead, tier, reason, calls, asked))
        };
        if pushed {
            self.wake();
        }
        if answer == Requested::Queued {
            add(&self.counters.requested, 1);
            self.emit(&Event::Queued { bead, tier, reason, calls });
        }
        answer
    }

    /// Puts a token into a lane, inside a section. `asked` is the time, read before the section began.
    pub(crate) fn push(&self, bead: Bead, tier: TierId, reason: Reason, calls: u32, asked: u32) -> bool {
        self.drain.lanes.push(Request { index: bead.index(), calls, asked, tier, reason })
    }

    /// There is work: makes sure that somebody looks.
    pub(crate) fn wake(&self) {
        if !self.drain.wake.signal(self.drain.workers) {
            return;
        }
        let spawned = {
            let _no_fork = self.gate.enter();
            match self.me.upgrade() {
                Some(shared) => self.executor.spawn(move || shared.work()),
                // The engine is being dropped.
                None => Err(String::new()),
            }
        };
        if let Err(error) = spawned {
            self.drain.wake.quit();
            if !error.is_empty() {
                self.emit(&Event::PoolFailed { error });
            }
        }
    }

    /// A worker's life on a pool thread. Nothing unwinds into the pool, whose answer to a panic is to abort.
    pub(crate) fn work(&self) {
        #[cfg(beadwork_loom)]
        return self.drain.work(self);
        #[cfg(not(beadwork_loom))]
        if catch_unwind(AssertUnwindSafe(|| self.drain.work(self))).is_err() {
            // Not reachable: what is foreign is caught nearer. Keeps the count right all the same.
            self.drain.wake.quit();
        }
    }

    // ---- results

    fn installed(&self, ticket: Ticket, code: CompiledCode) -> Outcome {
        let (bead, tier, bytes) = (ticket.bead, ticket.tier, code.bytes);
        let compile_time = code.compile_time.unwrap_or_default();
        let tick = tier < self.drain.lanes.top();
        let (entry, now) = (code.entry, self.now());
        let (owner, installed, pushed) = {
            let _no_fork = self.gate.enter();
            let owner = self.owners.intern(code.owner, bytes, code.embeds);
            // Counted before it can be retired and subtracted.
            add(&self.counters.code_bytes, owner.bytes() as u64);
            let installed = self.table.install(ticket, Ready { entry, tick, owner });
            let requeue = installed.and_then(|installed| installed.requeue);
            (owner, installed, requeue.is_some_and(|tier| self.push(bead, tier, Reason::Resumed, 0, now)))
        };
        if pushed {
            self.wake();
        }
        add(&self.counters.compile_nanos, compile_time.as_nanos() as u64);
        let Some(installed) = installed else {
            self.free(&[owner]);
            add(&self.counters.discarded, 1);
            self.emit(&Event::Discarded { bead, tier });
            return Outcome::Discarded;
        };
        {
            let _no_fork = self.gate.enter();
            self.faults.forget(bead, tier);
        }
        if tick {
            // The next tier's policy is asked at the next call.
            self.grant(bead, 1);
        }
        add(&self.counters.installed, 1);
        self.emit(&Event::Installed { bead, tier, version: installed.version, bytes, compile_time });
        Outcome::Installed { version: installed.version }
    }

    fn failed(&self, ticket: Ticket, error: CompileError) -> Outcome {
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
        if pushed {
            self.wake();
        }
        if ended == Ended::Superseded {
            add(&self.counters.discarded, 1);
            self.emit(&Event::Discarded { bead, tier });
            return Outcome::Discarded;
        }
        let (failures, retry_after) = {
            let _no_fork = self.gate.enter();
            self.faults.note(bead, tier, error.clone())
        };
        self.grant(bead, retry_after);
        add(&self.counters.failed, 1);
        self.emit(&Event::Failed { bead, tier, error, failures, retry_after });
        Outcome::Failed
    }

    /// Grants further calls until the policies are asked again.
    fn grant(&self, bead: Bead, calls: u32) {
        let so_far = self.table.budgets.calls(bead.index());
        self.table.budgets.grant(bead.index(), so_far, calls);
    }

    // ---- freeing

    /// Frees retired code that every mutator has passed. Answers how many pieces.
    pub(crate) fn reclaim(&self) -> usize {
        let expired = {
            let _no_fork = self.gate.enter();
            self.table.grace.expired()
        };
        self.free(&expired);
        expired.len()
    }

    /// Frees owners that are in nobody's reach.
    pub(crate) fn free(&self, owners: &[OwnerWord]) {
        if owners.iter().all(|owner| owner.is_none()) {
            return;
        }
        let freeing = {
            let _no_fork = self.gate.enter();
            self.owners.release(owners, |callee| self.unpin_one(callee))
        };
        let panics = freeing.free();
        add(&self.counters.reclaimed, owners.len() as u64);
        subtract(&self.counters.code_bytes, owners.iter().map(|owner| owner.bytes() as u64).sum());
        if panics > 0 {
            self.emit(&Event::FreePanicked { count: panics });
        }
    }

    fn unpin_one(&self, callee: Bead) {
        if self.table.pins().remove(callee.index()) {
            self.table.give_back(callee.index());
        }
    }

    // ---- telling

    /// Tells the log and the listeners, whose panics end here.
    pub(crate) fn emit(&self, event: &Event) {
        match event {
            Event::Failed { .. } | Event::PoolFailed { .. } | Event::FreePanicked { .. } => {
                tracing::warn!(target: "beadwork", ?event);
            }
            _ => tracing::debug!(target: "beadwork", ?event),
        }
        for listener in &self.listeners {
            if catch_unwind(AssertUnwindSafe(|| listener(event))).is_err() {
                tracing::error!(target: "beadwork", ?event, "a listener panicked");
            }
        }
    }

    /// Tells a bead's own callback, whose panic ends here.
    pub(crate) fn call_back(&self, callback: Option<OnInvalidate>, bead: Bead, what: Invalidation) {
        if let Some(callback) = callback
            && catch_unwind(AssertUnwindSafe(|| callback(bead, what))).is_err()
        {
            tracing::error!(target: "beadwork", %bead, ?what, "an on_invalidate callback panicked");
        }
    }

    // ---- end

    /// Takes no more work. Workers leave after their present batch.
    pub(crate) fn close(&self) {
        // Release, edge CLOSE, partner is the load in `is_closed`.
        self.closed.store(true, Release);
    }

    /// In a forked child, with one thread and no section open: forgets the workers and asks again for what they
    /// were compiling. A worker is started by the next request, since a fork handler must not start threads.
    #[cfg(all(unix, not(beadwork_loom)))]
    pub(crate) fn mend_after_fork(&self) {
        self.executor.forget_threads();
        let now = self.now();
        for ticket in self.drain.forget_workers() {
            if let Ended::Requeue(tier) = self.table.state(ticket.bead.index()).requeue(ticket) {
                self.push(ticket.bead, tier, Reason::Resumed, 0, now);
            }
        }
    }
}

impl JobHost for Shared {
    fn core(&self, bead: Bead) -> Result<Core, Stale> {
        self.table.core(bead).map(Core::new)
    }

    fn name(&self, bead: Bead) -> Option<Arc<str>> {
        let _no_fork = self.gate.enter();
        self.table.live(bead).ok()?;
        self.info.name(bead.index())
    }

    fn is_current(&self, ticket: Ticket) -> bool {
        self.table.live(ticket.bead).is_ok_and(|state| state.is_claimed_by(ticket))
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

    fn unpin(&self, callees: &[Bead]) {
        if !callees.is_empty() {
            let _no_fork = self.gate.enter();
            callees.iter().for_each(|&callee| self.unpin_one(callee));
        }
    }

    fn finish(&self, ticket: Ticket, result: Result<CompiledCode, CompileError>) -> Outcome {
        match result {
            Ok(code) => match code.check() {
                Ok(()) => self.installed(ticket, code),
                Err(error) => {
                    let owner = {
                        let _no_fork = self.gate.enter();
                        self.owners.intern(code.owner, 0, code.embeds)
                    };
                    self.free(&[owner]);
                    self.failed(ticket, error)
                }
            },
            Err(error) => self.failed(ticket, error),
        }
    }
}

impl Crew for Shared {
    fn no_fork(&self) -> Inside<'_> {
        self.gate.enter()
    }

    fn now(&self) -> u32 {
        clock::millis((self.settings.clock)())
    }

    fn rank(&self, request: &Request, now: u32) -> Rank {
        let waited = now.wrapping_sub(request.asked);
        let calls = self.table.budgets.calls(request.index).saturating_sub(request.calls);
        // Calls per second since it was asked for, not arrival: what is called most saves most.
        Rank { class: request.reason.class(), rate: u64::from(calls) * 1000 / (u64::from(waited) + 1) }
    }

    fn claim(&self, request: &Request, now: u32) -> Claim {
        let state = self.table.state(request.index);
        let cold = request.reason == Reason::Hot
            && now.wrapping_sub(request.asked) > self.settings.cold_after
            && self.table.budgets.calls(request.index) <= request.calls;
        if !cold {
            return state.claim(request.index, request.tier).map_or(Claim::Unwanted, Claim::Ticket);
        }
        state.cancel(request.index, request.tier).map_or(Claim::Unwanted, Claim::Cooled)
    }

    fn cooled(&self, bead: Bead, tier: TierId) {
        // It has to earn its threshold anew.
        self.table.budgets.reset(bead.index());
        self.table.heat.reset(bead.index());
        self.emit(&Event::Cooled { bead, tier });
    }

    fn compile(&self, tier: TierId, jobs: &mut [Job<'_>]) {
        if let Some(parts) = self.tiers.get(tier.lane()) {
            let _span =
                tracing::debug_span!(target: "beadwork", "compile", %tier, jobs = jobs.len()).entered();
            parts.backend.compile(jobs);
        }
    }

    fn signal(&self) {
        self.wake();
    }

    fn housekeeping(&self) {
        self.reclaim();
    }

    fn is_closed(&self) -> bool {
        // Acquire, edge CLOSE.
        self.closed.load(Acquire)
    }

    fn idle(&self) {
        let waiters = {
            let _no_fork = self.gate.enter();
            std::mem::take(&mut *lock(&self.waiters))
        };
        waiters.iter().for_each(Thread::unpark);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let owners = self.table.take_owners();
        self.free(&owners);
    }
}
