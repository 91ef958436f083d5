//! Hits and misses, counted by each thread for itself; and what the cache says of itself.

use crate::sync::lock;
use crossbeam_utils::CachePadded;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// One mutator's counts. Only that writes them, so a count is a load and a store; everybody may read.
#[derive(Default)]
pub(super) struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Counts {
    /// Counts a hit; answers how many lookups there were.
    #[inline]
    pub(super) fn hit(&self) -> u64 {
        let hits = self.hits.load(Relaxed) + 1;
        self.hits.store(hits, Relaxed);
        hits
    }

    pub(super) fn miss(&self) {
        self.misses.store(self.misses.load(Relaxed) + 1, Relaxed);
    }
}

/// The counts of all mutators, those that are gone included.
#[derive(Default)]
pub(super) struct AllCounts(Mutex<Sums>);

#[derive(Default)]
struct Sums {
    live: Vec<Arc<CachePadded<Counts>>>,
    /// Of mutators that are gone.
    hits: u64,
    misses: u64,
}

impl AllCounts {
    pub(super) fn join(&self) -> Arc<CachePadded<Counts>> {
        let counts = Arc::<CachePadded<Counts>>::default();
        lock(&self.0).live.push(counts.clone());
        counts
    }

    pub(super) fn leave(&self, counts: &Arc<CachePadded<Counts>>) {
        let mut sums = lock(&self.0);
        sums.live.retain(|other| !Arc::ptr_eq(other, counts));
        sums.hits += counts.hits.load(Relaxed);
        sums.misses += counts.misses.load(Relaxed);
    }

    pub(super) fn sum(&self) -> (u64, u64) {
        let sums = lock(&self.0);
        sums.live.iter().fold((sums.hits, sums.misses), |(hits, misses), counts| {
            (hits + counts.hits.load(Relaxed), misses + counts.misses.load(Relaxed))
        })
    }
}

/// Counters of slow paths. Relaxed: sums that publish nothing.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) dispatched: AtomicU64,
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) discarded: AtomicU64,
    pub(super) loaded: AtomicU64,
    pub(super) kept: AtomicU64,
    pub(super) not_kept: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) aged_out: AtomicU64,
    pub(super) turned_away: AtomicU64,
}

/// A snapshot of a cache. Each figure is exact once its threads are quiet; together they are not one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CacheStats {
    /// Lookups that found code.
    pub hits: u64,
    /// Lookups that found none, of keys that are eligible and while the cache was enabled. `hits + misses` are all of these.
    pub misses: u64,
    /// Keys whose code was dropped: not used for long, or least recently when the budget was used up.
    pub evicted: u64,
    /// Keys without code that were forgotten to make room for others.
    pub aged_out: u64,
    /// Lookups that were not counted towards a compile, because too many requests were waiting; each next one tries again.
    pub turned_away: u64,
    /// Attempts handed to workers: compiles and loads, of all tiers.
    pub dispatched: u64,
    /// Attempts whose code was installed.
    pub succeeded: u64,
    /// Attempts that gave no code.
    pub failed: u64,
    /// Attempts whose result was not wanted any more. Each attempt ends as one of these three.
    pub discarded: u64,
    /// Of those that succeeded, the ones that linked an artifact.
    pub loaded: u64,
    /// Artifacts written. Not those that another process wrote first.
    pub kept: u64,
    /// Artifacts that could not be written, or were cleared while they were made.
    pub not_kept: u64,
    /// Artifacts there are, as far as is known without asking the store.
    pub persisted: u64,
    /// Artifacts that were found and not used: damaged, or for another machine, compiler or VM. Their keys are compiled.
    pub refused: u64,
    /// Attempts running now.
    pub in_flight: u64,
    /// Requests that wait.
    pub queued: u64,
    /// Keys known, with code or without.
    pub keys: u64,
    /// Keys that have code.
    pub resident: u64,
    /// Bytes of their code and its data, as the backend stated them, each rounded up to 16. Code without an
    /// [owner](crate::CompiledCode::owner) has none: there is nothing to free.
    pub code_bytes: u64,
    /// Bytes of code whose keys are gone and that threads may still be in.
    pub retired_bytes: u64,
    /// Bytes of pages for that, if the backends say so; of pages that others use, too, the part that is this cache's.
    pub held_bytes: Option<u64>,
}

impl fmt::Display for CacheStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CacheStats { hits, misses, keys, resident, code_bytes, .. } = self;
        writeln!(f, "Lookups: {hits} hits, {misses} misses")?;
        write!(f, "Keys: {keys}, {resident} with code, {code_bytes} bytes")?;
        if let Some(held) = self.held_bytes {
            write!(f, " in pages of {held}")?;
        }
        writeln!(f, "; {} evicted, {} aged out", self.evicted, self.aged_out)?;
        write!(
            f,
            "Compiles: {} succeeded ({} loaded), {} failed, {} discarded, {} queued, {} in flight",
            self.succeeded, self.loaded, self.failed, self.discarded, self.queued, self.in_flight
        )?;
        let CacheStats { persisted, kept, refused, .. } = self;
        if [*persisted, *kept, *refused] != [0; 3] {
            write!(f, "\nArtifacts: {persisted} known, {kept} written here, {refused} refused")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c5_counts_of_mutators_that_are_gone_stay_in_the_sum() {
        let all = AllCounts::default();
        let (one, two) = (all.join(), all.join());
        one.hit();
        two.miss();
        two.hit();
        all.leave(&two);
        assert_eq!(all.sum(), (2, 1));
        assert_eq!(one.hit(), 2);
        assert_eq!(all.sum(), (3, 1));
    }
}
