//! Building an engine.

#[cfg(all(feature = "resident", not(beadwork_loom)))]
use crate::backend::Backend;
use crate::clock::{self, Clock};
use crate::contain::contain;
use crate::counter::MAX_GRANT;
use crate::deopt::{DeoptPolicy, Deopts, TieredDeopt};
use crate::engine::Engine;
use crate::error::BuildError;
use crate::event::Event;
use crate::executor::Executor;
use crate::id::TierId;
use crate::info::Info;
use crate::queue::{Lane, Lanes};
use crate::reclaim::{HandBack, HandedBack};
use crate::shared::{Listener, Settings, Shared, TierParts};
use crate::snapshot;
use crate::sync::Arc;
use crate::table::Table;
use crate::tier::{DEFAULT_BATCH, Tier};
use crate::wake::MAX_WORKERS;
use std::fmt;
use std::time::Duration;

/// The most beads an engine can have: 2^31.
pub const MAX_CAPACITY: usize = 1 << 31;

/// Beads an engine has room for unless it is told: 2^24, about 16.8 million.
pub const DEFAULT_CAPACITY: usize = 1 << 24;

/// How long a request may wait without a further call before it is dropped, unless the engine is told: 10 seconds.
pub const DEFAULT_COLD_AFTER: Duration = Duration::from_secs(10);

/// Failed compiles of a function at a tier after which that tier is given up for it, unless the engine is told.
pub const DEFAULT_FAULT_LIMIT: u32 = 5;

/// Bytes of retired code above which policies promote nothing, unless the engine is told: 64 MiB. That is more than the code of
/// most programs, so it is met only where a thread stopped passing safepoints, and little enough to live with until it does.
pub const DEFAULT_RETIRED_LIMIT: usize = 64 << 20;

/// How long the end of an engine waits for compiles in flight, unless it is told: 5 seconds.
pub const DEFAULT_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The least an engine whose capacity was not given falls back to when address space is refused: 2^16.
const LEAST_CAPACITY: u32 = 1 << 16;

/// Configures an [`Engine`]; made by [`Engine::builder`].
pub struct EngineBuilder {
    capacity: Option<usize>,
    tiers: Vec<Tier>,
    workers: usize,
    thread_names: String,
    #[cfg(not(beadwork_loom))]
    pool: Option<std::sync::Arc<rayon::ThreadPool>>,
    fallback: Option<*const u8>,
    clock: Option<Clock>,
    seed: u64,
    code_limit: Option<u64>,
    evict_idle: Option<Duration>,
    cold_after: Duration,
    fault_limit: u32,
    eager_baseline: bool,
    sampling: u32,
    foreground: bool,
    retired_limit: usize,
    hand_back: Option<HandBack>,
    history: usize,
    deopt: Option<Arc<dyn DeoptPolicy>>,
    deopt_governor: bool,
    pub(crate) delivery: bool,
    pub(crate) delivery_limit: usize,
    pub(crate) snapshot: Option<snapshot::Take>,
    pub(crate) snapshots_given: bool,
    close_timeout: Duration,
    listeners: Vec<Listener>,
}

impl EngineBuilder {
    pub(crate) fn new() -> EngineBuilder {
        EngineBuilder {
            capacity: None,
            tiers: Vec::new(),
            workers: default_workers(),
            thread_names: "beadwork".to_string(),
            #[cfg(not(beadwork_loom))]
            pool: None,
            fallback: None,
            clock: None,
            seed: 0,
            code_limit: None,
            evict_idle: None,
            cold_after: DEFAULT_COLD_AFTER,
            fault_limit: DEFAULT_FAULT_LIMIT,
            eager_baseline: false,
            sampling: 1,
            foreground: false,
            retired_limit: DEFAULT_RETIRED_LIMIT,
            hand_back: None,
            history: 0,
            deopt: None,
            deopt_governor: true,
            delivery: false,
            delivery_limit: usize::MAX,
            snapshot: None,
            snapshots_given: false,
            close_timeout: DEFAULT_CLOSE_TIMEOUT,
            listeners: Vec::new(),
        }
    }

    /// How many beads there can be at once, rounded up to a power of two; [`DEFAULT_CAPACITY`] if not given.
    ///
    /// This reserves address space (about 80 bytes a bead) and touches no memory. If the system refuses it, an
    /// engine whose capacity was given is not built; one whose capacity was not given gets a smaller one.
    #[must_use]
    pub fn capacity(mut self, beads: usize) -> Self {
        self.capacity = Some(beads);
        self
    }

    /// Adds the next compiled tier: the first call configures T1, the second T2, up to T15. Without any, the engine
    /// only counts and serves what the VM installs itself.
    #[must_use]
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tiers.push(tier);
        self
    }

    /// Puts something around the backends of the tiers given so far.
    #[cfg(all(feature = "resident", not(beadwork_loom)))]
    pub(crate) fn around_backends(
        mut self,
        mut around: impl FnMut(Arc<dyn Backend>) -> Arc<dyn Backend>,
    ) -> Self {
        for tier in &mut self.tiers {
            tier.backend = around(tier.backend.clone());
        }
        self
    }

    /// Adds a tier below those given so far.
    #[cfg(all(feature = "resident", not(beadwork_loom)))]
    pub(crate) fn tier_below(mut self, tier: Tier) -> Self {
        self.tiers.insert(0, tier);
        self
    }

    /// How many threads compile, on a pool of the engine's own that starts with the first request. The default is
    /// one less than the machine has cores, at least 1. 0 is the same as [`inline`](EngineBuilder::inline), and more than 256 count as
    /// 256: whoever makes the first request starts them all.
    ///
    /// Between compiles its threads sleep where a request wakes them sooner than rayon would, and where rayon does not find them: a backend's
    /// own parallel iterators run on the thread they are on, and `rayon::broadcast` there would wait for ever. A backend that
    /// is parallel in itself uses another pool for that, or one that is handed [in](EngineBuilder::pool).
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.min(MAX_WORKERS);
        self
    }

    /// What the pool's threads are called; a dash and a number are added. The default is `beadwork`.
    #[must_use]
    pub fn thread_names(mut self, name: impl Into<String>) -> Self {
        self.thread_names = name.into();
        self
    }

    /// Compiles on a pool the VM has already. It is not used before the first request. A forked child has none of
    /// its threads: there, requests stay queued and [`Event::PoolFailed`] says so.
    #[cfg(not(beadwork_loom))]
    #[must_use]
    pub fn pool(mut self, pool: std::sync::Arc<rayon::ThreadPool>) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Starts no threads ever: compiles run inside [`Engine::run_pending`].
    #[must_use]
    pub fn inline(self) -> Self {
        self.workers(0)
    }

    /// What [slots](Engine::slot) hold while there is no code: the address of the VM's interpreter-entry stub, so
    /// that native calls through slots need no check. Without it they hold null.
    ///
    /// One stub serves all functions, so it has to learn its callee: pass the callee's [`Bead::to_bits`](crate::Bead)
    /// as an argument in every call through a slot. The address has to stay valid as long as native code that calls
    /// through slots can run.
    #[must_use]
    pub fn fallback(mut self, stub: *const u8) -> Self {
        self.fallback = Some(stub);
        self
    }

    /// The clock that fading counts, ranking and pauses go by: the time since some start. The default is the time
    /// since the engine was built, to some milliseconds. With a clock of the VM's own, a seed and an [inline](EngineBuilder::inline) engine,
    /// every decision can be repeated.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        self.clock = Some(Box::new(clock));
        self
    }

    /// Seeds what is left to chance: the jitter of policies. 0 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Bytes of code at which policies that mind memory see it as full. No limit by default.
    #[must_use]
    pub fn code_limit(mut self, bytes: u64) -> Self {
        self.code_limit = Some(bytes);
        self
    }

    /// Lets the engine take back code that was not called for `idle`, while more than seven eighths of the
    /// [limit](EngineBuilder::code_limit) are in use. The function is interpreted then, and may be compiled again. Not by
    /// default.
    ///
    /// While memory is short, dispatches of up to 256 functions at a time are counted to find out. Functions that wait for a compile are
    /// left alone, and those whose [slot](Engine::slot) is in use, since calls through slots are not counted.
    #[must_use]
    pub fn evict_after(mut self, idle: Duration) -> Self {
        self.evict_idle = Some(idle);
        self
    }

    /// How long a request that a policy made may wait without a further call of the function, or iterations of a
    /// native loop in it that counts itself, before it is dropped, and the function has to earn its threshold anew; [`DEFAULT_COLD_AFTER`] if not given. HotSpot does the same after 50 ms
    /// (`TieredCompileTaskTimeout`).
    #[must_use]
    pub fn cold_after(mut self, time: Duration) -> Self {
        self.cold_after = time;
        self
    }

    /// Failed compiles of a function at a tier after which that tier is given up for it; [`DEFAULT_FAULT_LIMIT`] if not
    /// given, 0 means 1. Lower tiers go on. Those for want of memory ([`CompileError::NoRoom`](crate::CompileError::NoRoom)) do not
    /// count.
    #[must_use]
    pub fn fault_limit(mut self, failures: u32) -> Self {
        self.fault_limit = failures.max(1);
        self
    }

    /// Asks for a baseline compile of every function as it is registered, instead of starting in the interpreter.
    #[must_use]
    pub fn eager_baseline(mut self, eager: bool) -> Self {
        self.eager_baseline = eager;
        self
    }

    /// Counts one of every `calls` calls, at most 2^30, which stands for all of them; 0 and 1 count all. Which one is drawn anew for each
    /// run of that many calls, so a call pattern cannot hide a function, and counts are right on average and in the sum.
    /// Saves the load and store of a budget for the calls passed over.
    #[must_use]
    pub fn sampling(mut self, calls: u32) -> Self {
        self.sampling = calls.clamp(1, MAX_GRANT);
        self
    }

    /// Starts no threads, and compiles on the thread that asks, before the request returns: the call that makes a function
    /// hot takes as long as its compile, and the next call is native.
    #[must_use]
    pub fn foreground(mut self) -> Self {
        self.foreground = true;
        self.inline()
    }

    /// Bytes of code that may wait to be freed; [`DEFAULT_RETIRED_LIMIT`] if not given. While more waits, because a mutator
    /// passes no safepoint or leases are held, policies promote nothing (functions ask again after 1,000 calls), so that
    /// what waits does not grow without end; [`Event::HeldBack`] names the mutator. What the VM itself asks for or installs
    /// is not refused. Goes on by itself when less waits.
    #[must_use]
    pub fn retired_limit(mut self, bytes: usize) -> Self {
        self.retired_limit = bytes;
        self
    }

    /// Hands code that was superseded, taken back or removed to `closure`, instead of freeing it after a grace period; for
    /// a VM that finds out by itself when no thread runs code any more (a collector that scans stacks, say).
    ///
    /// Each piece is handed over once, as soon as it is unlinked: no dispatch that happens after that answers it, but
    /// threads may be running it, and may have got it from a dispatch and not entered it yet. When to free it is the VM's
    /// business. Safepoints do not hold it back; a [`Lease`](crate::Lease) does. Code without an owner comes too. Results
    /// that were never installed, and what is still installed when the engine ends, are dropped as ever.
    ///
    /// Called on the thread that unlinked the code, or on one that reclaims at the same time, with no lock held. A panic in
    /// it is contained; what it had not taken is then dropped.
    #[must_use]
    pub fn hand_back(mut self, closure: impl Fn(HandedBack) + Send + Sync + 'static) -> Self {
        self.hand_back = Some(Arc::new(closure));
        self
    }

    /// What becomes of code whose guard failed, see [`Engine::bailout`]. [`TieredDeopt`] if none is given, but then no
    /// baseline code is held for its reverts, since that takes memory: they compile the baseline anew. The same goes for an
    /// engine that [hands code back](EngineBuilder::hand_back).
    #[must_use]
    pub fn deopt(mut self, policy: impl DeoptPolicy) -> Self {
        self.deopt = Some(Arc::new(policy));
        self
    }

    /// Whether the governor may overrule that policy; true if not given. It bounds what code that keeps failing costs, by doubling
    /// waits ([`DEOPT_REENTRY_CALLS`](crate::DEOPT_REENTRY_CALLS)), by caps
    /// ([`DEOPT_CYCLE_LIMIT`](crate::DEOPT_CYCLE_LIMIT), [`DEOPT_TIER_LIMIT`](crate::DEOPT_TIER_LIMIT)), and by a limit on how often
    /// failing code may be left in place ([`DEOPT_KEEP_BURST`](crate::DEOPT_KEEP_BURST),
    /// [`DEOPT_KEEP_PER_SECOND`](crate::DEOPT_KEEP_PER_SECOND)). Without it the policy alone decides, storms included.
    #[must_use]
    pub fn deopt_governor(mut self, on: bool) -> Self {
        self.deopt_governor = on;
        self
    }

    /// How long the end of the engine (the drop of its last handle) waits for compiles in flight; [`DEFAULT_CLOSE_TIMEOUT`] if not
    /// given. What is queued is dropped without waiting. A compile that is stuck longer goes on alone, and its result is dropped.
    #[must_use]
    pub fn close_timeout(mut self, time: Duration) -> Self {
        self.close_timeout = time;
        self
    }

    /// Calls `listener` after everything the engine does, on the thread that did it, with no lock held. A panic in
    /// it is contained. More than one can be given.
    #[must_use]
    pub fn on_event(mut self, listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.listeners.push(Arc::new(listener));
        self
    }

    /// Remembers the newest `events` of each function, for [`Engine::history`]. 0 by default: none. Costs a lock and a clone of each
    /// event, and the memory: some hundred bytes an event.
    #[must_use]
    pub fn history(mut self, events: usize) -> Self {
        self.history = events;
        self
    }

    /// Builds the engine. No thread starts and no page is touched.
    ///
    /// # Errors
    /// [`BuildError`] if the capacity is out of range, address space is refused, there are more than 15 tiers, or
    /// the fallback is null.
    pub fn build(self) -> Result<Engine, BuildError> {
        if self.tiers.len() > usize::from(TierId::MAX.get()) {
            return Err(BuildError::TooManyTiers { tiers: self.tiers.len() });
        }
        let fallback = match self.fallback {
            Some(stub) if stub.is_null() => return Err(BuildError::NullFallback),
            Some(stub) => stub.expose_provenance() as u64,
            None => 0,
        };
        let mut columns = self.reserve(fallback)?;
        if self.hand_back.is_some() {
            columns.table.grace.hand_back();
        }
        // Foreign code, asked once. A VM that has named no policy may never bail out, and one that wants superseded code back
        // wants this too.
        let keeps = self.deopt.as_ref().is_some_and(|policy| policy.keeps_baseline());
        columns.table.kept.on = self.tiers.len() > 1 && keeps && self.hand_back.is_none();
        let policy = self.deopt.unwrap_or_else(|| Arc::new(TieredDeopt::default()));
        let deopts = Deopts::new(policy, self.deopt_governor);
        let settings = Settings {
            clock: self.clock.unwrap_or_else(clock::system),
            seed: self.seed,
            code_limit: self.code_limit,
            evict_idle: self.evict_idle,
            cold_after: clock::span(self.cold_after),
            fault_limit: self.fault_limit,
            eager_baseline: self.eager_baseline,
            sampling: self.sampling,
            foreground: self.foreground,
            retired_limit: self.retired_limit,
            hand_back: self.hand_back,
            history: self.history,
            snapshot: self.snapshot,
            snapshots_given: self.snapshots_given,
            close_timeout: self.close_timeout,
            delivery_limit: if self.delivery { self.delivery_limit } else { 0 },
        };
        #[cfg(not(beadwork_loom))]
        let executor = match self.pool {
            Some(pool) => Executor::given(pool),
            None => Executor::own(self.workers, self.thread_names),
        };
        #[cfg(beadwork_loom)]
        let executor = Executor::new(self.workers);
        let parts = self
            .tiers
            .into_iter()
            .map(|tier| TierParts {
                half_life: contain(|| tier.policy.half_life()).unwrap_or_else(|message| {
                    tracing::error!(target: "beadwork", message, "a policy panicked; nothing fades for it");
                    None
                }),
                backend: tier.backend,
                policy: tier.policy,
                filter: tier.filter,
                timeout: tier.timeout,
                counts: tier.counts,
                callees: tier.callees,
            })
            .collect();
        Ok(Engine::start(|me| {
            Shared::new(me, columns, parts, self.listeners.into(), executor, settings, deopts)
        }))
    }

    fn reserve(&self, fallback: u64) -> Result<Columns, BuildError> {
        let wanted = self.capacity.unwrap_or(DEFAULT_CAPACITY);
        if wanted == 0 || wanted > MAX_CAPACITY {
            return Err(BuildError::Capacity { capacity: wanted });
        }
        let mut capacity = (wanted as u32).next_power_of_two();
        loop {
            match self.columns(capacity, fallback) {
                Ok(columns) => return Ok(columns),
                Err(_) if self.capacity.is_none() && capacity > LEAST_CAPACITY => {
                    tracing::warn!(target: "beadwork", capacity, "address space refused, trying half");
                    capacity /= 2;
                }
                Err(source) => {
                    let bytes = Columns::BYTES_PER_BEAD * capacity as usize;
                    return Err(BuildError::Reserve { capacity, bytes, source });
                }
            }
        }
    }

    fn columns(&self, capacity: u32, fallback: u64) -> std::io::Result<Columns> {
        let lanes = self.tiers.iter().zip(1u64..).map(|(tier, number)| {
            let batch = tier.batch.unwrap_or(if number == 1 { DEFAULT_BATCH } else { 1 });
            Lane::new(TierId::from_low_bits(number), batch, tier.max_parallel)
        });
        Ok(Columns {
            table: Table::reserve(capacity, fallback)?,
            info: Info::reserve(capacity)?,
            lanes: Lanes::new(lanes.collect(), capacity)?,
        })
    }
}

/// Everything whose size depends on the capacity.
pub(crate) struct Columns {
    pub(crate) table: Table,
    pub(crate) info: Info,
    pub(crate) lanes: Lanes,
}

impl Columns {
    const BYTES_PER_BEAD: usize = Table::BYTES + Info::BYTES + Lanes::BYTES;
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("capacity", &self.capacity)
            .field("tiers", &self.tiers)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
