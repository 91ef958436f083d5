//! Counters of what happened, and a snapshot of them.

use crate::deopt::DeoptStats;
use crossbeam_utils::CachePadded;
use std::fmt;
// Not the shim's: sums that no protocol depends on would only widen a model's search.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counters raised on slow paths only; by workers, but for the first, which requesters raise, and the second, which they read, and
/// which are on cache lines of their own therefore. Relaxed everywhere: each is a sum, and none publishes anything.
pub(crate) struct Counters {
    pub(crate) requested: CachePadded<AtomicU64>,
    pub(crate) code_bytes: CachePadded<AtomicU64>,
    pub(crate) installed: AtomicU64,
    pub(crate) discarded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) loop_tables_refused: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) reclaimed: AtomicU64,
    pub(crate) compile_nanos: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> Counters {
        let zero = || AtomicU64::new(0);
        Counters {
            requested: CachePadded::new(zero()),
            code_bytes: CachePadded::new(zero()),
            installed: zero(),
            discarded: zero(),
            failed: zero(),
            loop_tables_refused: zero(),
            evicted: zero(),
            reclaimed: zero(),
            compile_nanos: zero(),
        }
    }
}

/// Raises a counter.
pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}

/// Lowers a counter.
pub(crate) fn subtract(counter: &AtomicU64, by: u64) {
    counter.fetch_sub(by, Relaxed);
}

/// Reads a counter.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

/// A snapshot of the engine. Each figure is exact once the engine is quiet; together they are not one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Functions registered and not removed.
    pub beads: u64,
    /// Functions the engine has room for.
    pub capacity: u64,
    /// Compiles asked for.
    pub requested: u64,
    /// Functions whose code was taken back to make room.
    pub evicted: u64,
    /// Installs whose native loop entries found no room, and that went without them.
    pub loop_tables_refused: u64,
    /// Requests that wait. Cancelled ones count until a worker comes to their place in the queue.
    pub queued: u64,
    /// Functions being compiled.
    pub compiling: u64,
    /// Code installed, by backends and by the VM.
    pub installed: u64,
    /// Results that came too late.
    pub discarded: u64,
    /// Compiles that gave no code.
    pub failed: u64,
    /// Pieces of code freed after their grace period, or handed back.
    pub reclaimed: u64,
    /// Pieces of code that wait: for their grace period, for a frame that is in them, or for the end of a lease.
    pub retired: u64,
    /// Bytes of code installed or waiting to be freed, each piece rounded up to 16.
    pub code_bytes: u64,
    /// Bytes of that which wait to be freed.
    pub retired_bytes: u64,
    /// Memory the columns hold, in bytes, counted in pages.
    pub column_bytes: u64,
    /// Time spent compiling, summed over workers.
    pub compile_time: Duration,
    /// Mutators, online or not.
    pub mutators: u64,
    /// Bailouts and what became of them.
    pub deopts: DeoptStats,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Beads: {} of {}, columns {} bytes", self.beads, self.capacity, self.column_bytes)?;
        writeln!(f, "Queue: {} waiting, {} optimizing", self.queued, self.compiling)?;
        writeln!(
            f,
            "Code: {} installed, {} failed, {} too late, {} freed, {} bytes ({} retired) in {:?}",
            self.installed,
            self.failed,
            self.discarded,
            self.reclaimed,
            self.code_bytes,
            self.retired_bytes,
            self.compile_time
        )?;
        write!(f, "{}", self.deopts)
    }
}
