//! The engine's handle: what a VM asks of it outside the hot path.

use crate::backend::{JobHost, Slot};
use crate::builder::EngineBuilder;
use crate::code::CompiledCode;
use crate::error::{DrainTimeout, InstallError, PromoteError, Stale};
use crate::event::{Event, Invalidation};
use crate::fault::Fault;
use crate::grace::MutatorCell;
use crate::id::{Bead, Reason, TierId};
use crate::mutator::Mutator;
use crate::shared::Shared;
use crate::state::{Pending, Requested};
use crate::stats::{Stats, add, read};
use crate::sync::{Arc, Mutex, lock};
use crate::table::Ready;
use std::fmt;
use std::sync::Weak;
use std::time::{Duration, Instant};

/// How long the end of an engine waits for compiles in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A promotion broker: counts functions, has them compiled in the background, publishes and frees their code.
///
/// A handle is a counted reference: clones name the same engine. When the last handle and the last [`Mutator`] are
/// gone, queued work is dropped, compiles in flight are waited for (5 seconds at the most), and all code is freed.
#[derive(Clone)]
pub struct Engine(Arc<Life>);

/// Counts the handles. Workers hold only what is inside, so that the last handle ends the engine.
struct Life {
    shared: Arc<Shared>,
    /// Cells of mutators that [`Engine::pin`] made and nobody uses now; offline.
    parked: Mutex<Vec<MutatorCell>>,
}

impl Engine {
    /// Configures an engine.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    pub(crate) fn start(make: impl FnOnce(&Weak<Shared>) -> Shared) -> Engine {
        let shared = Arc::new_cyclic(make);
        #[cfg(all(unix, not(beadwork_loom)))]
        crate::fork::enlist(&shared);
        Engine(Arc::new(Life { shared, parked: Mutex::new(Vec::new()) }))
    }

    #[inline(always)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    // ---- mutators

    /// A handle for a thread that runs the guest program; one per thread. Costs a lock and an allocation.
    pub fn mutator(&self) -> Mutator {
        let (cell, seen) = {
            let _no_fork = self.shared().gate.enter();
            self.shared().table.grace.enlist()
        };
        Mutator::new(self.clone(), cell, seen)
    }

    /// A mutator for a short stretch of work on a thread that keeps none: it comes online here and goes offline
    /// when it is dropped. Costs two locks and a fence (tens of nanoseconds) each time, where a kept [`Mutator`]
    /// costs nothing; good for a callback or a foreign thread, not for a dispatch loop.
    pub fn pin(&self) -> Pinned {
        let parked = {
            let _no_fork = self.shared().gate.enter();
            lock(&self.0.parked).pop()
        };
        let mutator = match parked {
            Some(cell) => {
                let seen = crate::grace::come_online(&self.shared().table.grace.epoch(), &cell);
                Mutator::new(self.clone(), cell, seen)
            }
            None => self.mutator(),
        };
        Pinned(Some(mutator))
    }

    // ---- looking

    /// Whether the handle names a function that is registered now.
    pub fn is_live(&self, bead: Bead) -> bool {
        self.shared().table.live(bead).is_ok()
    }

    /// Whether this engine has handed the handle out, live or not. False proves a stray; true does not prove the
    /// opposite, since two engines hand out equal handles.
    pub fn owns(&self, bead: Bead) -> bool {
        let table = &self.shared().table;
        bead.index() < table.used() && bead.tag() <= u64::from(table.state(bead.index()).load().tag)
    }

    /// How many beads there is room for.
    pub fn capacity(&self) -> u32 {
        self.shared().table.capacity()
    }

    /// What is going on with a function.
    ///
    /// # Errors
    /// [`Stale`] if it is not live; so for every method that returns it.
    pub fn state(&self, bead: Bead) -> Result<BeadState, Stale> {
        let now = self.shared().table.live(bead)?;
        Ok(BeadState {
            tier: now.tier,
            pending: match now.pending {
                Pending::None => None,
                Pending::Queued => Some(PendingState::Queued(now.target)),
                Pending::Compiling => Some(PendingState::Compiling(now.target)),
                Pending::Followed => Some(PendingState::CompilingThenQueued(now.target)),
            },
            version: now.version,
        })
    }

    /// The tier the function runs at.
    pub fn tier(&self, bead: Bead) -> Result<TierId, Stale> {
        self.shared().table.live(bead).map(|state| state.tier)
    }

    /// The version of the function: raised by everything that starts or ends a compile or takes code back.
    pub fn version(&self, bead: Bead) -> Result<u32, Stale> {
        self.shared().table.live(bead).map(|state| state.version)
    }

    /// Calls counted so far. Calls of code that no higher tier waits for are not counted.
    pub fn invocations(&self, bead: Bead) -> Result<u32, Stale> {
        let calls = self.shared().table.budgets.calls(bead.index());
        self.shared().table.live(bead).map(|_| calls)
    }

    /// The failures of a function at a tier since its last success there.
    pub fn fault(&self, bead: Bead, tier: TierId) -> Option<Fault> {
        let _no_fork = self.shared().gate.enter();
        self.shared().faults.get(bead, tier)
    }

    /// Calls `visit` for every function that is live when it is looked at. Costs a read of one word per index ever
    /// used; runs beside everything else.
    pub fn walk(&self, mut visit: impl FnMut(Bead)) {
        let table = &self.shared().table;
        for index in 0..table.used() {
            let state = table.state(index).load();
            if state.live {
                visit(Bead::new(index, state.tag));
            }
        }
    }

    /// A snapshot of what the engine did and holds. Costs some locks and a look at every page of the columns.
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let _no_fork = shared.gate.enter();
        let (retired, retired_bytes) = shared.table.grace.waiting();
        let counters = &shared.counters;
        Stats {
            beads: shared.table.live_len().into(),
            capacity: shared.table.capacity().into(),
            requested: read(&counters.requested),
            queued: shared.drain.queued() as u64,
            compiling: shared.drain.compiling().len() as u64,
            installed: read(&counters.installed),
            discarded: read(&counters.discarded),
            failed: read(&counters.failed),
            reclaimed: read(&counters.reclaimed),
            retired: retired as u64,
            code_bytes: read(&counters.code_bytes),
            retired_bytes: retired_bytes as u64,
            column_bytes: (shared.table.resident_bytes()
                + shared.info.resident_bytes()
                + shared.drain.lanes.resident_bytes()) as u64,
            compile_time: Duration::from_nanos(read(&counters.compile_nanos)),
            mutators: shared.table.grace.mutators() as u64,
        }
    }

    // ---- promotion

    /// Asks for a compile at `tier`, whatever the policies think. Returns at once.
    ///
    /// Nothing is asked for if the function is at the tier already or waits for it; a higher tier replaces a queued
    /// request and follows a compile in flight.
    ///
    /// # Errors
    /// [`PromoteError`] if the function is not live, has no such tier, or may not be compiled at it.
    pub fn promote(&self, bead: Bead, tier: TierId) -> Result<(), PromoteError> {
        let lanes = &self.shared().drain.lanes;
        if lanes.get(tier).is_none() {
            return Err(PromoteError::NoSuchTier { tier, tiers: lanes.top().get() });
        }
        let mut rounds = 0;
        loop {
            match self.shared().request(
                bead,
                tier,
                Reason::Asked,
                self.shared().table.budgets.calls(bead.index()),
            ) {
                Requested::Queued | Requested::Follows | Requested::Already => return Ok(()),
                Requested::Stale => return Err(Stale(bead).into()),
                Requested::Barred(cap) => return Err(PromoteError::Barred { bead, tier, cap }),
                Requested::Busy => crate::sync::wait_a_little(&mut rounds),
            }
        }
    }

    /// Installs code the VM has compiled itself, in any state of the function. A compile in flight is superseded:
    /// its late result is dropped.
    ///
    /// # Errors
    /// [`InstallError`] if the function is not live, there is no such tier, or the entry is null or wider than 48
    /// bits. The code's owner has been dropped then.
    pub fn install(&self, bead: Bead, tier: TierId, code: CompiledCode) -> Result<u32, InstallError> {
        let shared = self.shared();
        let tiers = shared.drain.lanes.top();
        let checked = if tier == TierId::INTERPRETER || tier > tiers.max(TierId::BASELINE) {
            Err(InstallError::NoSuchTier { tier, tiers: tiers.get() })
        } else {
            code.check().map_err(InstallError::Code)
        };
        let (entry, bytes) = (code.entry, code.bytes);
        let embeds: Vec<_> =
            code.embeds.into_iter().filter(|&callee| shared.pin_slot(callee).is_ok()).collect();
        let (owner, installed, pushed) = {
            let _no_fork = shared.gate.enter();
            let owner = shared.owners.intern(code.owner, bytes, embeds);
            add(&shared.counters.code_bytes, owner.bytes() as u64);
            let ready = Ready { entry, tick: tier < tiers, owner };
            let installed =
                checked.and_then(|()| shared.table.vm_install(bead, tier, ready).ok_or(Stale(bead).into()));
            let requeue = installed.as_ref().ok().and_then(|installed| installed.requeue);
            let pushed = requeue.is_some_and(|tier| shared.push(bead, tier, Reason::Resumed, 0));
            (owner, installed, pushed)
        };
        if pushed {
            shared.wake();
        }
        match installed {
            Ok(installed) => {
                let (version, compile_time) = (installed.version, Duration::ZERO);
                add(&shared.counters.installed, 1);
                shared.emit(&Event::Installed { bead, tier, version, bytes, compile_time });
                Ok(version)
            }
            Err(error) => {
                shared.free(&[owner]);
                Err(error)
            }
        }
    }

    /// Takes the function's code back and cancels what is pending. A dispatch that happens after this returned does
    /// not answer the old code; threads that are in it finish. The function counts from zero again.
    pub fn invalidate(&self, bead: Bead) -> Result<(), Stale> {
        let shared = self.shared();
        let callback = {
            let _no_fork = shared.gate.enter();
            shared.table.invalidate(bead)?;
            shared.info.on_invalidate(bead.index())
        };
        shared.emit(&Event::Invalidated { bead });
        shared.call_back(callback, bead, Invalidation::Invalidated);
        Ok(())
    }

    // ---- slots

    /// The stable address of the function's code pointer, for code the VM writes itself.
    ///
    /// The first call for a function costs a transition, and from then on every install writes the cell too. The
    /// VM now holds the address: the index is not reused until it promises otherwise by
    /// [`release_slot`](Engine::release_slot). Backends use [`Job::slot`](crate::Job::slot), which needs no promise.
    pub fn slot(&self, bead: Bead) -> Result<Slot, Stale> {
        let shared = self.shared();
        let _no_fork = shared.gate.enter();
        // Held before it is looked at: if the function is live now, its index cannot be reused any more.
        shared.table.pins().hold(bead.index());
        shared.table.slot(bead).map(Slot).inspect_err(|_| {
            if shared.table.pins().unhold(bead.index()) {
                shared.table.give_back(bead.index());
            }
        })
    }

    /// Promises that no code and no thread of the VM uses the address [`slot`](Engine::slot) gave for this function
    /// any more, so that its index may be reused once the function is removed.
    ///
    /// # Safety
    /// The promise has to be true: a native caller that kept the address would call another function through it.
    #[allow(unsafe_code)]
    pub unsafe fn release_slot(&self, bead: Bead) {
        let _no_fork = self.shared().gate.enter();
        let table = &self.shared().table;
        let now = table.state(bead.index()).load();
        let removed = !now.live && u64::from(now.tag) == bead.tag() + 1;
        if (now.is(bead) || removed) && table.pins().let_go(bead.index()) {
            table.give_back(bead.index());
        }
    }

    // ---- running

    /// Runs queued compiles on the calling thread, at most `max` of them, and frees what can be freed. This is
    /// where an [inline](EngineBuilder::inline) engine works; others may use it to help. Answers how many requests
    /// were taken.
    pub fn run_pending(&self, max: usize) -> usize {
        let shared = self.shared();
        shared.drain.work_inline(shared, max)
    }

    /// Frees retired code that no mutator can be in any more, on the calling thread; workers do it by themselves.
    /// Answers how many pieces.
    pub fn reclaim(&self) -> usize {
        self.shared().reclaim()
    }

    /// Waits until nothing is queued and nothing is being compiled. An inline engine works meanwhile.
    ///
    /// # Errors
    /// [`DrainTimeout`] after `timeout`; everything goes on as before.
    pub fn drain(&self, timeout: Duration) -> Result<(), DrainTimeout> {
        let (shared, start) = (self.shared(), Instant::now());
        loop {
            if shared.drain.workers == 0 {
                self.run_pending(usize::MAX);
            }
            {
                let _no_fork = shared.gate.enter();
                lock(&shared.waiters).push(std::thread::current());
            }
            let (active, queued) = (shared.drain.wake.active(), {
                let _no_fork = shared.gate.enter();
                shared.drain.queued()
            });
            if active == 0 && queued == 0 {
                return Ok(());
            }
            if active == 0 {
                // Left over from a pool that did not start, or from before a fork.
                shared.wake();
            }
            let waited = start.elapsed();
            if waited >= timeout {
                return Err(DrainTimeout { waited, queued, compiling: active });
            }
            std::thread::park_timeout(timeout - waited);
        }
    }
}

/// For models: threads stand in for the pool's workers.
#[cfg(beadwork_loom)]
impl Engine {
    /// Is a worker if one was to be started; answers whether.
    pub fn work_if_started(&self) -> bool {
        let started = self.shared().executor.started();
        if started {
            self.shared().work();
        }
        started
    }

    /// What a native caller would load from the slot.
    pub fn slot_value(&self, slot: Slot) -> usize {
        self.shared().table.slot_cell(slot.0)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.shared.close();
        if cfg!(beadwork_loom) {
            // A model joins its threads itself, and has no clock.
            return;
        }
        if self.shared.executor.is_worker() {
            // The last handle went inside a compile: waiting for it would be waiting for ourselves.
            return;
        }
        let start = Instant::now();
        while self.shared.drain.wake.active() > 0 {
            {
                let _no_fork = self.shared.gate.enter();
                lock(&self.shared.waiters).push(std::thread::current());
            }
            let Some(left) = CLOSE_TIMEOUT.checked_sub(start.elapsed()) else {
                tracing::warn!(target: "beadwork", "an engine was dropped while a backend was stuck in a compile");
                return;
            };
            if self.shared.drain.wake.active() > 0 {
                std::thread::park_timeout(left);
            }
        }
        // A worker that has left may be about to let go of its reference: the code is freed here, not there.
        let mut rounds = 0;
        while Arc::strong_count(&self.shared) > 1 && start.elapsed() < CLOSE_TIMEOUT {
            crate::sync::wait_a_little(&mut rounds);
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("capacity", &self.capacity())
            .field("tiers", &self.shared().drain.lanes.top().get())
            .finish_non_exhaustive()
    }
}

/// A [`Mutator`] for a stretch of work; see [`Engine::pin`].
pub struct Pinned(Option<Mutator>);

impl std::ops::Deref for Pinned {
    type Target = Mutator;
    fn deref(&self) -> &Mutator {
        match &self.0 {
            Some(mutator) => mutator,
            None => unreachable!("taken only by drop"),
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(mutator) = self.0.take() {
            let (engine, cell) = mutator.park();
            let _no_fork = engine.shared().gate.enter();
            lock(&engine.0.parked).push(cell);
        }
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pinned")
    }
}

/// What is going on with a function; see [`Engine::state`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BeadState {
    /// The tier it runs at.
    pub tier: TierId,
    /// What it waits for.
    pub pending: Option<PendingState>,
    /// See [`Engine::version`].
    pub version: u32,
}

/// What a function waits for. It runs as before meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PendingState {
    /// Queued for this tier.
    Queued(TierId),
    /// Being compiled for this tier.
    Compiling(TierId),
    /// Being compiled, and asked for at this higher tier when that ends.
    CompilingThenQueued(TierId),
}
