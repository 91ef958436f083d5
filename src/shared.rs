//! What all handles of an engine share, and the parts of its work that touch more than one module.
//!
//! Every lock, publish and push happens inside a section of the [gate](crate::gate); every call of foreign code
//! (backend, policy, listener, callback, reclaimer) happens outside, with no lock held.

use crate::assumption::Assumptions;
use crate::backend::Backend;
use crate::builder::Columns;
use crate::clock::Clock;
use crate::contain::contain;
use crate::delivery::Deliveries;
use crate::deopt::Deopts;
use crate::direct::{Attached, OneShot, Waits};
use crate::drain::Drain;
use crate::event::{Event, Invalidation};
use crate::evict::Eviction;
use crate::executor::Executor;
use crate::fault::Faults;
use crate::gate::Gate;
use crate::history::Histories;
#[cfg(all(unix, not(beadwork_loom)))]
use crate::id::Reason;
use crate::id::{Bead, TierId};
use crate::info::{Info, OnInvalidate};
use crate::moving::Moving;
use crate::osr::Loops;
use crate::owner::Owners;
use crate::policy::{HalfLife, Policy};
use crate::reclaim::HandBack;
use crate::snapshot::{self, Snapshots};
#[cfg(all(unix, not(beadwork_loom)))]
use crate::state::Ended;
use crate::stats::Counters;
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, Mutex, Thread, fence, lock, this_thread};
use crate::table::Table;
use crate::tier::Candidate;
use crate::unit::Units;
use crossbeam_utils::CachePadded;
use std::sync::Weak;
#[cfg(all(unix, not(beadwork_loom)))]
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::{Release, SeqCst};
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Which functions a tier takes.
pub(crate) type Filter = Arc<dyn Fn(&Candidate) -> bool + Send + Sync>;

/// A listener for events.
pub(crate) type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// The foreign parts of a compiled tier.
pub(crate) struct TierParts {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) policy: Arc<dyn Policy>,
    /// What the policy said when the engine was built.
    pub(crate) half_life: Option<HalfLife>,
    pub(crate) filter: Option<Filter>,
    pub(crate) timeout: Option<Duration>,
    /// Its code counts its calls itself.
    pub(crate) counts: bool,
    /// How many callees are asked for speculatively.
    pub(crate) callees: usize,
}

/// What the builder was told and never changes.
pub(crate) struct Settings {
    pub(crate) clock: Clock,
    pub(crate) seed: u64,
    pub(crate) code_limit: Option<u64>,
    /// How long code has to be without a call to be evicted; `None` if none is.
    pub(crate) evict_idle: Option<Duration>,
    /// Milliseconds a request may wait without a call before it is dropped.
    pub(crate) cold_after: u32,
    /// Failures of a function at a tier after which the tier is given up for it.
    pub(crate) fault_limit: u32,
    /// Every function is asked for at the baseline when it is registered.
    pub(crate) eager_baseline: bool,
    /// Every how-manieth call is counted.
    pub(crate) sampling: u32,
    /// Compiles run on the thread that asks for them.
    pub(crate) foreground: bool,
    /// Bytes of retired code above which policies do not promote.
    pub(crate) retired_limit: usize,
    pub(crate) hand_back: Option<HandBack>,
    /// Events remembered for each function.
    pub(crate) history: usize,
    /// The most deliveries that wait; 0 where the VM wants none.
    pub(crate) delivery_limit: usize,
    /// Taken out when the engine is put together.
    pub(crate) snapshot: Option<snapshot::Take>,
    /// Callers give snapshots along.
    pub(crate) snapshots_given: bool,
    /// How long the end of the engine waits for compiles in flight.
    pub(crate) close_timeout: Duration,
}

pub(crate) struct Shared {
    pub(crate) me: Weak<Shared>,
    pub(crate) table: Table,
    pub(crate) drain: Drain,
    /// Lowest tier first, as the lanes.
    pub(crate) tiers: Box<[TierParts]>,
    pub(crate) owners: Owners,
    pub(crate) info: Info,
    pub(crate) loops: Loops,
    pub(crate) eviction: Eviction,
    pub(crate) faults: Faults,
    pub(crate) deopts: Deopts,
    pub(crate) assumptions: Assumptions,
    pub(crate) units: Units,
    pub(crate) deliveries: Deliveries,
    pub(crate) moving: Moving,
    pub(crate) snapshots: Snapshots,
    pub(crate) counters: CachePadded<Counters>,
    pub(crate) histories: Histories,
    pub(crate) listeners: Box<[Listener]>,
    pub(crate) executor: Executor,
    pub(crate) settings: Settings,
    /// Ticks of [`Engine::decay_tick`](crate::Engine::decay_tick).
    pub(crate) ticks: AtomicU32,
    /// What the clock last said. Not the shim's: no protocol depends on it.
    pub(crate) last_now: std::sync::atomic::AtomicU32,
    /// Numbers given to mutators and to what comes with requests. Not the shim's: no protocol depends on it.
    pub(crate) numbers: std::sync::atomic::AtomicU64,
    /// The bits of the factor on all thresholds.
    pub(crate) scale: AtomicU64,
    pub(crate) gate: Gate,
    pub(crate) closed: AtomicBool,
    /// This is a forked child, where stacks of threads that do not exist hold references for ever.
    pub(crate) forked: AtomicBool,
    /// Whether policies may promote.
    pub(crate) enabled: AtomicBool,
    pub(crate) waits: Waits,
    pub(crate) one_shots: Attached<Box<dyn OneShot>>,
    /// Whether more retired code waits than the limit allows. Not the shim's: no protocol depends on it.
    pub(crate) over_limit: std::sync::atomic::AtomicBool,
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
        mut settings: Settings,
        deopts: Deopts,
    ) -> Shared {
        Shared {
            me: me.clone(),
            table: columns.table,
            drain: Drain::new(columns.lanes, executor.workers()),
            tiers,
            owners: Owners::new(),
            info: columns.info,
            loops: Loops::new(),
            eviction: Eviction::new(settings.evict_idle),
            faults: Faults::default(),
            deopts,
            assumptions: Assumptions::new(),
            units: Units::default(),
            deliveries: Deliveries::new(settings.delivery_limit),
            moving: Moving::default(),
            snapshots: Snapshots::new(settings.snapshot.take(), settings.snapshots_given),
            counters: CachePadded::new(Counters::new()),
            histories: Histories::new(settings.history),
            listeners,
            executor,
            settings,
            ticks: AtomicU32::new(0),
            last_now: std::sync::atomic::AtomicU32::new(0),
            numbers: std::sync::atomic::AtomicU64::new(0),
            scale: AtomicU64::new(1f64.to_bits()),
            gate: Gate::new(),
            closed: AtomicBool::new(false),
            forked: AtomicBool::new(false),
            enabled: AtomicBool::new(true),
            waits: Waits::default(),
            one_shots: Attached::default(),
            over_limit: std::sync::atomic::AtomicBool::new(false),
            waiters: Mutex::new(Vec::new()),
        }
    }

    // ---- telling

    /// Tells the log and the listeners, whose panics end here.
    #[inline]
    pub(crate) fn emit(&self, event: &Event) {
        // How `.ci/unobserved` finds out what events cost where nobody hears them.
        if cfg!(beadwork_unobserved) && self.settings.hand_back.is_none() {
            return;
        }
        let heard =
            self.settings.hand_back.is_some() || self.histories.is_kept() || !self.listeners.is_empty();
        if heard || LevelFilter::current() != LevelFilter::OFF {
            self.tell(event);
        }
    }

    #[cold]
    fn tell(&self, event: &Event) {
        self.hand_back_before(event);
        self.remember(event);
        if self.listeners.is_empty() && LevelFilter::current() == LevelFilter::OFF {
            return;
        }
        // The log is foreign code too, and so is the `Debug` of a backend's error.
        let logged = contain(|| match event {
            Event::Failed { .. }
            | Event::PoolFailed { .. }
            | Event::FreePanicked { .. }
            | Event::HeldBack { .. } => {
                tracing::warn!(target: "beadwork", ?event);
            }
            _ => tracing::debug!(target: "beadwork", ?event),
        });
        let told = self.listeners.iter().map(|listener| contain(|| listener(event)));
        for message in told.chain([logged]).filter_map(Result::err) {
            let _ = contain(|| tracing::error!(target: "beadwork", message, "a listener panicked"));
        }
    }

    /// Tells a bead's own callback, whose panic ends here.
    pub(crate) fn call_back(&self, callback: Option<OnInvalidate>, bead: Bead, what: Invalidation) {
        if let Some(Err(message)) = callback.map(|callback| contain(move || callback(bead, what))) {
            tracing::error!(target: "beadwork", %bead, ?what, message, "an on_invalidate callback panicked");
        }
    }

    /// What is known of a live bead, never of the index's next one.
    pub(crate) fn known<T>(&self, bead: Bead, look: impl FnOnce(&Info, u32) -> Option<T>) -> Option<T> {
        let _no_fork = self.gate.enter();
        self.table.live(bead).ok()?;
        let known = look(&self.info, bead.index());
        // Removed meanwhile: what was read may be a later function's. Ordered by the Acquire loads of `info`.
        if mutant!("reuse-known-unchecked") { known } else { self.table.live(bead).ok().and(known) }
    }

    // ---- end

    /// Has the calling thread woken when the drain is idle, until it [withdraws](Shared::withdraw_waiter).
    pub(crate) fn announce_waiter(&self) {
        let _no_fork = self.gate.enter();
        let (thread, mut waiters) = (this_thread(), lock(&self.waiters));
        if waiters.iter().all(|waiter| waiter.id() != thread.id()) {
            waiters.push(thread);
        }
    }

    pub(crate) fn withdraw_waiter(&self) {
        let _no_fork = self.gate.enter();
        lock(&self.waiters).retain(|waiter| waiter.id() != this_thread().id());
    }

    /// Whether the calling thread is one of the pool's, so that nobody may be left to do the work it would wait for.
    pub(crate) fn is_pool_thread(&self) -> bool {
        let _no_fork = self.gate.enter();
        self.executor.is_pool_thread()
    }

    /// Frees all code there is, and what was not delivered, when nobody uses the engine any more.
    pub(crate) fn free_everything(&self) {
        if self.settings.hand_back.is_some() {
            // What was unlinked last goes where the rest went.
            self.reclaim();
        }
        self.deliveries.take_all().into_iter().for_each(|delivery| self.dispose(delivery));
        let owners = self.table.take_owners();
        self.free(&owners);
    }

    /// Drops what is queued, and tells whoever waits for it.
    pub(crate) fn drop_queued(&self) {
        for (bead, version) in self.drain.drop_queued(self) {
            self.over(bead, TierId::MAX, version);
        }
    }

    /// Takes no more work. Workers leave after their present batch.
    pub(crate) fn close(&self) {
        // Release, edge CLOSE, partner is the load in `is_closed`.
        self.closed.store(true, Release);
        // SeqCst, edge CLOSE: between this and dropping what is queued. Partner is the fence in `wake`.
        fence(mutant!("close-fence", SeqCst));
    }

    /// In a forked child, with one thread and no section open: forgets the workers and asks again for what they
    /// were compiling. A worker is started by the next request, since a fork handler must not start threads.
    #[cfg(all(unix, not(beadwork_loom)))]
    pub(crate) fn mend_after_fork(&self) {
        self.executor.forget_threads();
        self.deliveries.mend_after_fork();
        self.moving.mend_after_fork();
        // Relaxed: the child has one thread.
        self.forked.store(true, Relaxed);
        // Not read from the clock, which is foreign code that may need what a thread of the parent's held.
        let now = 0;
        for ticket in self.drain.forget_workers() {
            if let Ended::Requeue(tier) = self.table.state(ticket.bead.index()).requeue(ticket) {
                self.push(ticket.bead, tier, Reason::Resumed, 0, now);
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.dispose(self.one_shots.take_all());
        self.snapshots.take_all().into_iter().for_each(|snapshot| self.dispose(snapshot));
        self.free_everything();
    }
}
