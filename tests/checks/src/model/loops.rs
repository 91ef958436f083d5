//! Loops: when the policies are asked because of one, which entries are asked for, and which are not to be used for now.
//!
//! When a loop is looked at depends on which other loops push it out of a mutator's places, so those are in the model as well.

use super::Model;
use super::requests::{Asked, RECHECK, RECHECK_BARRED};
use beadwork::{Bead, ITERATIONS_PER_CALL, Reason};
use std::collections::BTreeMap;

/// Iterations of a loop that a mutator meets first until the policies are asked.
const FIRST: u32 = 64;

/// Iterations told in passing after which the policies are asked all the same.
const UNASKED: u32 = 64 * ITERATIONS_PER_CALL;

/// Iterations to wait after an entry was no good the first time.
const RETRY_AFTER: u32 = 1_000 * ITERATIONS_PER_CALL;

/// What is known of a loop, whoever ran it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loop {
    pub(crate) site: u64,
    iterations: u32,
    pub(crate) failures: u32,
    /// The iteration from which on its entry may be used again; 0 if nothing was wrong with it.
    not_before: u32,
    unasked: u32,
    /// What is told next was counted before the function started over.
    stale: bool,
    /// An entry was asked for when so many compiles had begun.
    wanted: Option<u32>,
}

impl Loop {
    fn is_suppressed(&self) -> bool {
        self.not_before > self.iterations
    }
}

/// The loops a mutator counts: of those that share a place, the one it met last.
#[derive(Default)]
pub(crate) struct Counts(BTreeMap<u64, Place>);

struct Place {
    bead: Bead,
    site: u64,
    left: u32,
    granted: u32,
}

/// Iterations that are told of.
struct Spent {
    bead: Bead,
    site: u64,
    iterations: u32,
    /// A grant is used up; else the loop was pushed out.
    asks: bool,
}

impl Counts {
    /// Counts iterations; answers what is told: of the loop that was pushed out, and of this one.
    fn count(&mut self, bead: Bead, site: u64, iterations: u32) -> [Option<Spent>; 2] {
        // Which loops share one of the 256 places is the engine's choice: Fibonacci hashing.
        let key = (site ^ bead.to_bits().rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
        let ours = self.0.get(&key).is_some_and(|place| (place.bead, place.site) == (bead, site));
        let fresh = Place { bead, site, left: FIRST, granted: FIRST };
        let lost = if ours { None } else { self.0.insert(key, fresh) };
        let lost = lost.filter(|lost| lost.granted > lost.left).map(|lost| Spent {
            bead: lost.bead,
            site: lost.site,
            iterations: lost.granted - lost.left,
            asks: false,
        });
        let place = self.0.get_mut(&key).expect("it is there now");
        if place.left > iterations {
            place.left -= iterations;
            return [lost, None];
        }
        let iterations = place.granted - place.left + iterations;
        (place.granted, place.left) = (1, 1);
        [lost, Some(Spent { bead, site, iterations, asks: true })]
    }

    fn grant(&mut self, bead: Bead, site: u64, iterations: u32) {
        let place = self.0.values_mut().find(|place| (place.bead, place.site) == (bead, site));
        if let Some(place) = place {
            (place.granted, place.left) = (iterations.max(1), iterations.max(1));
        }
    }
}

impl Model {
    /// The piece whose entry into a loop may be used now.
    pub(crate) fn loop_entry(&mut self, bead: Bead, site: u64) -> Option<usize> {
        let function = self.get(bead)?;
        let piece = function.code.filter(|_| !function.suppressed.contains(&site))?;
        self.pieces[piece].sites.contains(&site).then_some(piece)
    }

    /// A loop of the interpreted function goes round, on one of the mutators; answers the piece with an entry.
    pub(crate) fn back_edge(&mut self, by: usize, bead: Bead, site: u64) -> Option<usize> {
        let entry = self.loop_entry(bead, site);
        if entry.is_none() {
            for spent in self.loops[by].count(bead, site, 1).into_iter().flatten() {
                let next = self.loop_spent(&spent);
                if spent.asks {
                    self.loops[by].grant(bead, site, next);
                }
            }
        }
        entry
    }

    /// Native code tells of iterations.
    pub(crate) fn native_iterations(&mut self, bead: Bead, site: u64, iterations: u32) {
        for spent in self.native_loops.count(bead, site, iterations).into_iter().flatten() {
            let next = self.native_loop_spent(&spent);
            if spent.asks {
                self.native_loops.grant(bead, site, next);
            }
        }
    }

    fn known_loop(&mut self, bead: Bead, site: u64) -> Option<&mut Loop> {
        let loops = &mut self.get(bead)?.loops;
        let at = loops.iter().position(|known| known.site == site).unwrap_or_else(|| {
            loops.push(Loop { site, ..Loop::default() });
            loops.len() - 1
        });
        Some(&mut loops[at])
    }

    /// Answers the iterations after which the loop asks again.
    fn loop_spent(&mut self, spent: &Spent) -> u32 {
        let &Spent { bead, site, iterations, mut asks } = spent;
        let Some(known) = self.known_loop(bead, site) else { return u32::MAX };
        known.unasked = if asks { 0 } else { known.unasked + iterations };
        if known.unasked >= UNASKED {
            (known.unasked, asks) = (0, true);
        }
        if !std::mem::take(&mut known.stale) {
            known.iterations = known.iterations.saturating_add(iterations);
        }
        if known.is_suppressed() {
            return known.not_before - known.iterations;
        }
        let iterations = known.iterations;
        if std::mem::take(&mut known.not_before) > 0 {
            self.get(bead).expect("it is live").suppressed.remove(&site);
            if self.loop_entry(bead, site).is_some() {
                return 1;
            }
        }
        if !asks {
            return 0;
        }
        if self.disabled {
            return RECHECK * ITERATIONS_PER_CALL;
        }
        let function = self.get(bead).expect("it is live");
        // The code it has lacks the entry, so its own tier will do.
        let (above, calls) = (function.tier.saturating_sub(1), function.calls);
        let (tier, wait) = self.verdict(bead, above, calls.saturating_add(iterations / ITERATIONS_PER_CALL));
        let Some(tier) = tier else { return wait.saturating_mul(ITERATIONS_PER_CALL) };
        if self.loop_entry(bead, site).is_some() {
            return 1;
        }
        self.request(bead, tier, Reason::Osr);
        let begun = self.claims;
        self.known_loop(bead, site).expect("it is live").wanted.get_or_insert(begun);
        RECHECK * ITERATIONS_PER_CALL
    }

    /// The same of a native loop, for which higher tiers are asked for and no entries.
    fn native_loop_spent(&mut self, spent: &Spent) -> u32 {
        let &Spent { bead, site, iterations, asks } = spent;
        let Some(known) = self.known_loop(bead, site) else { return u32::MAX };
        known.iterations = known.iterations.saturating_add(iterations);
        let iterations = known.iterations;
        if !asks {
            return 0;
        }
        if self.disabled {
            return RECHECK * ITERATIONS_PER_CALL;
        }
        let (above, function) = (self.wanted(bead), self.get(bead).expect("it is live"));
        let calls = function.calls.saturating_add(iterations / ITERATIONS_PER_CALL);
        let (tier, wait) = self.verdict(bead, above, calls);
        let Some(tier) = tier else { return wait.min(RECHECK_BARRED) * ITERATIONS_PER_CALL };
        assert_eq!(self.request(bead, tier, Reason::Hot), Asked::Queued);
        RECHECK * ITERATIONS_PER_CALL
    }

    /// The loops whose entries a compile is asked for, hottest first: what was wanted before it began.
    pub(crate) fn asked_sites(&mut self, bead: Bead, claim: u32) -> Vec<u64> {
        let Some(function) = self.get(bead) else { return Vec::new() };
        let wanted = |known: &&Loop| known.wanted.is_some_and(|begun| begun < claim);
        let mut wanted: Vec<_> = function.loops.iter().filter(wanted).collect();
        wanted.sort_by_key(|known| std::cmp::Reverse(known.iterations));
        wanted.into_iter().map(|known| known.site).collect()
    }

    /// The entry of a loop was no good, or did not come; answers the iterations to wait.
    pub(crate) fn loop_failed(&mut self, bead: Bead, site: u64) -> Option<u32> {
        let known = self.known_loop(bead, site)?;
        let wait = RETRY_AFTER << known.failures.min(16);
        known.failures += 1;
        known.iterations = known.iterations.min(u32::MAX - wait);
        known.not_before = known.iterations + wait;
        self.get(bead)?.suppressed.insert(site);
        Some(wait)
    }

    /// Other code runs, in which the entries are suppressed that have to wait still.
    pub(super) fn suppress_loops(&mut self, bead: Bead) {
        let Some(function) = self.get(bead) else { return };
        let suppressed = function.loops.iter().filter(|known| known.is_suppressed());
        function.suppressed = suppressed.map(|known| known.site).collect();
    }

    /// Code was taken back: loops count from zero, and what failed waits on.
    pub(super) fn loops_start_over(&mut self, bead: Bead) {
        for known in self.get(bead).into_iter().flat_map(|function| &mut function.loops) {
            known.not_before = known.not_before.saturating_sub(known.iterations);
            (known.iterations, known.wanted, known.stale) = (0, None, true);
        }
    }
}
