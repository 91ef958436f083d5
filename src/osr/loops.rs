//! What is known of each loop: iterations, whether a native entry was asked for, and how often its entry was no good.

use crate::clock;
use crate::id::Bead;
use crate::sync::{AtomicUsize, Mutex, fence, lock};
use std::collections::HashMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Iterations of a loop that count like one call.
///
/// HotSpot compiles a loop at its top tier after 40,000 iterations and a function after 5,000 calls
/// (`Tier4BackEdgeThreshold`, `Tier4InvocationThreshold` in `src/hotspot/share/compiler/compiler_globals.hpp`).
pub const ITERATIONS_PER_CALL: u32 = 8;

/// Iterations to wait after an entry was no good the first time; each further time doubles it.
const RETRY_AFTER: u32 = 1_000 * ITERATIONS_PER_CALL;

/// Doublings after which the wait stays the same.
const MAX_DOUBLINGS: u32 = 16;

/// Iterations told in passing after which the policies are asked all the same: loops that push each other out of a mutator's
/// places, or run a little in each of many mutators, never use up a grant.
const UNASKED: u32 = 64 * ITERATIONS_PER_CALL;

/// The most loops of a function that are kept; the one with the fewest iterations goes first.
const MAX_LOOPS: usize = 256;

/// Records are spread over so many locks, by function.
const SHARDS: usize = 16;

#[derive(Clone, Copy, Default)]
struct Record {
    site: u64,
    iterations: u32,
    failures: u32,
    /// The iteration from which on the entry may be used again.
    not_before: u32,
    /// Iterations told in passing since the last question.
    unasked: u32,
    /// The next count told began before the function last started over.
    stale: bool,
    /// When it last went round in native code, in milliseconds of the engine.
    told: u32,
    /// The function's version when a native entry was asked for; 0 if none was, since a request raises the version.
    wanted: u32,
}

/// How a loop stands after its latest iterations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Iterated so often so far.
    Counting(u32),
    /// Its entry was no good; so many iterations until it may be used again.
    Suppressed(u32),
    /// As `Counting`, and its entry may be used again from now on.
    Allowed(u32),
}

type Shard = Mutex<HashMap<u64, Vec<Record>>>;

pub(crate) struct Loops {
    shards: [Shard; SHARDS],
    /// Functions that have records, so that nobody takes a lock while there is none.
    len: AtomicUsize,
}

impl Loops {
    pub(crate) fn new() -> Loops {
        Loops { shards: std::array::from_fn(|_| Mutex::new(HashMap::new())), len: AtomicUsize::new(0) }
    }

    fn shard(&self, bead: Bead) -> &Shard {
        &self.shards[bead.index() as usize % SHARDS]
    }

    fn with<R>(&self, bead: Bead, site: u64, change: impl FnOnce(&mut Record) -> R) -> R {
        let mut shard = lock(self.shard(bead));
        let records = shard.entry(bead.to_bits()).or_insert_with(|| {
            // Relaxed: ordered by the fence.
            self.len.fetch_add(1, Relaxed);
            // SeqCst, edge FAULT: between this and the caller's look whether the bead lives. Partner is the fence in `forget_all` of
            // `fault`, which who removes the bead passes before it looks at `len`.
            fence(mutant!("fault-loop-noted", SeqCst));
            Vec::new()
        });
        let place = match records.iter().position(|record| record.site == site) {
            Some(place) => place,
            None => {
                if records.len() >= MAX_LOOPS {
                    // One that is suppressed last: nobody would allow its entry again.
                    let coldest = (0..records.len())
                        .min_by_key(|&place| (records[place].not_before > 0, records[place].iterations));
                    coldest.map(|place| records.swap_remove(place));
                }
                records.push(Record { site, ..Record::default() });
                records.len() - 1
            }
        };
        change(&mut records[place])
    }

    /// Adds iterations. `ask` is set if they are so many without a question that it is time for one.
    pub(crate) fn count(&self, bead: Bead, site: u64, iterations: u32, ask: &mut bool) -> Standing {
        self.with(bead, site, |record| {
            record.unasked = if *ask { 0 } else { record.unasked.saturating_add(iterations) };
            if record.unasked >= UNASKED {
                (record.unasked, *ask) = (0, true);
            }
            // Iterations from before the code was taken back must not pay for what is to be waited since.
            let iterations = if std::mem::take(&mut record.stale) { 0 } else { iterations };
            record.iterations = record.iterations.saturating_add(iterations);
            let wait = record.not_before.saturating_sub(record.iterations);
            if wait > 0 {
                Standing::Suppressed(wait)
            } else if std::mem::take(&mut record.not_before) > 0 {
                Standing::Allowed(record.iterations)
            } else {
                Standing::Counting(record.iterations)
            }
        })
    }

    /// Adds iterations of a native loop, told `now`; answers all there were.
    pub(crate) fn add(&self, bead: Bead, site: u64, iterations: u32, now: u32) -> u32 {
        self.with(bead, site, |record| {
            record.told = now;
            record.iterations = record.iterations.saturating_add(iterations);
            record.iterations
        })
    }

    /// Whether a native loop of the function has told of iterations within the last `span` milliseconds.
    pub(crate) fn ran_within(&self, bead: Bead, span: u32, now: u32) -> bool {
        !self.filtered(bead, |record| clock::since(now, record.told) <= span).is_empty()
    }

    /// Notes that a native entry is asked for, of code newer than `version`.
    /// Answers whether it was not asked for before.
    pub(crate) fn want(&self, bead: Bead, site: u64, version: u32) -> bool {
        self.with(bead, site, |record| {
            let fresh = record.wanted == 0;
            if fresh {
                record.wanted = version;
            }
            fresh
        })
    }

    /// Whether anything is noted of any loop.
    pub(crate) fn is_in_use(&self) -> bool {
        // Relaxed: who noted it for a bead looked after a fence whether that is live, see `forget`.
        self.len.load(Relaxed) != 0
    }

    /// The loops whose entries were asked for before `version`, most iterations first.
    pub(crate) fn wanted(&self, bead: Bead, version: u32) -> Vec<u64> {
        let mut wanted = self.filtered(bead, |record| record.wanted != 0 && record.wanted < version);
        wanted.sort_by_key(|record| std::cmp::Reverse(record.iterations));
        wanted.into_iter().map(|record| record.site).collect()
    }

    /// The loops whose entries are not to be used for now.
    pub(crate) fn suppressed(&self, bead: Bead) -> Vec<u64> {
        let suppressed = self.filtered(bead, |record| record.not_before > record.iterations);
        suppressed.into_iter().map(|record| record.site).collect()
    }

    fn filtered(&self, bead: Bead, accept: impl Fn(&Record) -> bool) -> Vec<Record> {
        if self.len.load(Relaxed) == 0 {
            return Vec::new();
        }
        let shard = lock(self.shard(bead));
        let records = shard.get(&bead.to_bits()).into_iter().flatten();
        records.filter(|record| accept(record)).copied().collect()
    }

    /// An entry was no good, or did not come: the loop has to iterate on, twice as long each time. Answers how long.
    pub(crate) fn fail(&self, bead: Bead, site: u64) -> u32 {
        self.with(bead, site, |record| {
            let wait = RETRY_AFTER << record.failures.min(MAX_DOUBLINGS);
            record.failures = record.failures.saturating_add(1);
            // Native loops get to the end of 32 bits within seconds, and what is to be waited has to fit in.
            record.iterations = record.iterations.min(u32::MAX - wait);
            record.not_before = record.iterations + wait;
            wait
        })
    }

    /// How often the entry of a loop was no good.
    pub(crate) fn failures(&self, bead: Bead, site: u64) -> u32 {
        self.filtered(bead, |record| record.site == site).first().map_or(0, |record| record.failures)
    }

    /// The function's code was taken back: its loops count from zero. What failed is remembered.
    pub(crate) fn start_over(&self, bead: Bead) {
        if self.len.load(Relaxed) == 0 {
            return;
        }
        for record in lock(self.shard(bead)).get_mut(&bead.to_bits()).into_iter().flatten() {
            let wait = record.not_before.saturating_sub(record.iterations);
            *record = Record { not_before: wait, iterations: 0, wanted: 0, stale: true, ..*record };
        }
    }

    /// Forgets a function that is gone.
    pub(crate) fn forget(&self, bead: Bead) {
        if self.len.load(Relaxed) != 0 && lock(self.shard(bead)).remove(&bead.to_bits()).is_some() {
            self.len.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    const B: Bead = Bead::new(5, 0);

    #[test]
    fn a_loop_whose_entry_fails_waits_twice_as_long_each_time_and_others_do_not() {
        let loops = Loops::new();
        let waits: Vec<_> = (0..4).map(|_| loops.fail(B, 1)).collect();
        assert_eq!(waits, [8_000, 16_000, 32_000, 64_000]);
        assert_eq!(loops.count(B, 1, 63_999, &mut true), Standing::Suppressed(1));
        assert_eq!(loops.count(B, 2, 10, &mut true), Standing::Counting(10));
        assert_eq!(loops.suppressed(B), [1]);
        assert_eq!(loops.count(B, 1, 1, &mut true), Standing::Allowed(64_000));
        assert_eq!(loops.count(B, 1, 1, &mut true), Standing::Counting(64_001));
        assert_eq!((loops.failures(B, 1), loops.failures(B, 2)), (4, 0));
    }

    #[test]
    fn a_loop_that_iterated_more_often_than_can_be_counted_waits_like_any_other() {
        let loops = Loops::new();
        for failures in 0..20 {
            assert_eq!(loops.add(B, 1, u32::MAX, 0), u32::MAX);
            let wait = loops.fail(B, 1);
            assert_eq!(loops.suppressed(B), [1], "{failures}");
            assert_eq!(loops.count(B, 1, wait - 1, &mut true), Standing::Suppressed(1));
            assert!(matches!(loops.count(B, 1, 1, &mut true), Standing::Allowed(_)));
            assert!(loops.suppressed(B).is_empty());
        }
    }

    #[test]
    fn what_failed_is_remembered_when_code_is_taken_back_and_forgotten_with_the_function() {
        let loops = Loops::new();
        loops.count(B, 1, 500, &mut true);
        loops.want(B, 1, 1);
        loops.fail(B, 1);
        loops.start_over(B);
        assert_eq!((loops.wanted(B, 9), loops.suppressed(B)), (vec![], vec![1]));
        assert_eq!(loops.count(B, 1, 5_000, &mut true), Standing::Suppressed(8_000), "began before");
        assert_eq!(loops.count(B, 1, 1, &mut true), Standing::Suppressed(7_999));
        loops.forget(B);
        assert_eq!((loops.suppressed(B), loops.len.load(Relaxed)), (vec![], 0));
    }

    #[test]
    fn the_loops_asked_for_come_hottest_first() {
        let loops = Loops::new();
        for (site, iterations) in [(1, 10), (2, 1_000), (3, 100)] {
            loops.count(B, site, iterations, &mut true);
            loops.want(B, site, 7);
        }
        loops.count(B, 4, 1_000_000, &mut true);
        assert_eq!(loops.wanted(B, 8), [2, 3, 1]);
        assert!(loops.wanted(B, 7).is_empty(), "asked for after that compile began");
    }

    #[test]
    fn a_function_with_endless_sites_keeps_the_hottest_and_bounded_memory() {
        let loops = Loops::new();
        loops.count(B, u64::MAX, 1_000, &mut true);
        for site in 0..100_000 {
            loops.count(B, site, 1, &mut true);
        }
        assert_eq!(loops.count(B, u64::MAX, 1, &mut true), Standing::Counting(1_001));
        assert_eq!(loops.filtered(B, |_| true).len(), MAX_LOOPS);
    }
}
