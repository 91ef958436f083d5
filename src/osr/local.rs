//! A mutator's own counts of loop iterations: a small cache, so that a back edge shares nothing with other threads.

use crate::id::Bead;
use std::cell::{Cell, OnceCell};

/// Loops a mutator counts at once; where more run alternately, they push each other's counts into the shared records.
const PLACES: usize = 256;

/// Iterations of a loop that a thread meets first until the policies are asked: shorter loops never ask.
const FIRST_GRANT: u32 = 64;

#[derive(Default)]
struct Place {
    /// The bits of the bead, 0 if the place is empty: no bead has those.
    bead: Cell<u64>,
    site: Cell<u64>,
    left: Cell<u32>,
    granted: Cell<u32>,
}

/// Iterations of a loop that are to be told to the shared records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spent {
    pub(crate) bead: Bead,
    pub(crate) site: u64,
    pub(crate) iterations: u32,
    /// Whether the policies are to be asked; else the loop has only lost its place.
    pub(crate) ask: bool,
}

/// Allocated by the first back edge.
#[derive(Default)]
pub(crate) struct Local(OnceCell<Box<[Place; PLACES]>>);

impl Local {
    fn place(&self, bead: Bead, site: u64) -> &Place {
        let places = self.0.get_or_init(|| Box::new(std::array::from_fn(|_| Place::default())));
        // Fibonacci hashing (Knuth, TAOCP 6.4): neighbouring sites and beads go to different places.
        let mixed = (site ^ bead.to_bits().rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &places[(mixed >> 56) as usize]
    }

    /// Counts one iteration; answers what is to be told.
    #[inline]
    pub(crate) fn count(&self, bead: Bead, site: u64) -> Option<Spent> {
        let place = self.place(bead, site);
        if place.bead.get() != bead.to_bits() || place.site.get() != site {
            let lost = place.take();
            place.bead.set(bead.to_bits());
            place.site.set(site);
            place.grant(FIRST_GRANT);
            place.left.set(FIRST_GRANT - 1);
            return lost;
        }
        let left = place.left.get();
        place.left.set(left.saturating_sub(1));
        if left > 1 {
            return None;
        }
        let iterations = place.granted.get();
        place.grant(1);
        Some(Spent { bead, site, iterations, ask: true })
    }

    /// Counts many iterations; answers what is to be told: of a loop that lost its place, and of this one.
    pub(crate) fn add(&self, bead: Bead, site: u64, iterations: u32) -> [Option<Spent>; 2] {
        let place = self.place(bead, site);
        let mut lost = None;
        if place.bead.get() != bead.to_bits() || place.site.get() != site {
            lost = place.take();
            place.bead.set(bead.to_bits());
            place.site.set(site);
            place.grant(FIRST_GRANT);
        }
        let left = place.left.get();
        if left > iterations {
            place.left.set(left - iterations);
            return [lost, None];
        }
        let counted = place.granted.get().saturating_sub(left).saturating_add(iterations);
        place.grant(1);
        [lost, Some(Spent { bead, site, iterations: counted, ask: true })]
    }

    /// Grants a loop that asked so many iterations until it asks again.
    pub(crate) fn grant(&self, bead: Bead, site: u64, iterations: u32) {
        let place = self.place(bead, site);
        if place.bead.get() == bead.to_bits() && place.site.get() == site {
            place.grant(iterations.max(1));
        }
    }

    /// Takes out all counts, at the mutator's end.
    pub(crate) fn flush(&self) -> impl Iterator<Item = Spent> + '_ {
        self.0.get().into_iter().flat_map(|places| places.iter().filter_map(Place::take))
    }
}

impl Place {
    fn grant(&self, iterations: u32) {
        self.granted.set(iterations);
        self.left.set(iterations);
    }

    /// Empties the place.
    fn take(&self) -> Option<Spent> {
        let bead = Bead::from_bits(self.bead.replace(0))?;
        let iterations = self.granted.get().saturating_sub(self.left.get());
        (iterations > 0).then_some(Spent { bead, site: self.site.get(), iterations, ask: false })
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    const B: Bead = Bead::new(3, 0);

    #[test]
    fn a_loop_asks_after_its_first_grant_and_then_after_each_grant() {
        let local = Local::default();
        let asks = |count: u32| (0..count).filter_map(|_| local.count(B, 7)).collect::<Vec<_>>();
        assert_eq!(asks(FIRST_GRANT - 1), []);
        let spent = |iterations| Spent { bead: B, site: 7, iterations, ask: true };
        assert_eq!(asks(1), [spent(FIRST_GRANT)]);
        local.grant(B, 7, 1_000);
        assert_eq!(asks(999), []);
        assert_eq!(asks(1), [spent(1_000)]);
    }

    #[test]
    fn iterations_counted_many_at_a_time_ask_like_those_counted_one_by_one_and_none_is_lost() {
        let local = Local::default();
        let spent = |iterations| Some(Spent { bead: B, site: 7, iterations, ask: true });
        assert_eq!(local.add(B, 7, FIRST_GRANT - 1), [None, None]);
        assert_eq!(local.add(B, 7, 1_000), [None, spent(FIRST_GRANT + 999)]);
        local.grant(B, 7, 5_000);
        assert_eq!(local.add(B, 7, 4_999), [None, None]);
        assert_eq!(local.count(B, 7), spent(5_000));
        let (mut told, loops, rounds) = (0, 5_000u64, 40u64);
        let sum = |told: [Option<Spent>; 2]| {
            told.iter().flatten().map(|spent| u64::from(spent.iterations)).sum::<u64>()
        };
        local.flush().count();
        (0..rounds).for_each(|_| (0..loops).for_each(|site| told += sum(local.add(B, site, 3))));
        told += local.flush().map(|spent| u64::from(spent.iterations)).sum::<u64>();
        assert_eq!(told, 3 * loops * rounds);
    }

    #[test]
    fn no_loop_is_told_the_iterations_of_another_that_shares_its_place() {
        let (local, loops, rounds) = (Local::default(), 3_000u64, 10u64);
        let mut told = vec![0; loops as usize];
        let mut note = |spent: Spent| told[spent.site as usize] += u64::from(spent.iterations);
        for _ in 0..rounds {
            (0..loops).for_each(|site| local.count(B, site).into_iter().for_each(&mut note));
            (0..loops).for_each(|site| local.add(B, site, 2).into_iter().flatten().for_each(&mut note));
        }
        local.flush().for_each(&mut note);
        assert!(told.iter().all(|&told| told == 3 * rounds), "{told:?}");
    }

    #[test]
    fn no_iteration_is_lost_when_loops_push_each_other_out() {
        let (local, loops, rounds) = (Local::default(), 5_000u64, 40u64);
        let mut told = 0;
        for _ in 0..rounds {
            for site in 0..loops {
                told += local.count(B, site).map_or(0, |spent| u64::from(spent.iterations));
            }
        }
        told += local.flush().map(|spent| u64::from(spent.iterations)).sum::<u64>();
        assert_eq!(told, loops * rounds);
        assert_eq!(local.flush().count(), 0);
    }
}
