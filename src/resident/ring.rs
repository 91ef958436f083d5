//! Cold keys: known, counted, and not compiled. Bounded, and aged out one by one.
//!
//! The order is that of the clock algorithm (Corbató, 1968): the oldest goes, unless it was looked up since its last turn. So keys
//! that come once go by without pushing out those that come again and again.

use super::entry::{Keyed, Mark};
use std::collections::VecDeque;

/// Keys looked at for one that goes, so that a new key costs no more however many wait for their compile. Where more than these stay,
/// the ring outgrows its limit for a while.
const LOOKED_AT: usize = 16;

pub(super) struct Ring<K> {
    keys: VecDeque<Keyed<K>>,
}

/// What the engine says of a key in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Cold,
    /// A compile is asked for or running.
    Pending,
    /// It has code: the budget of bytes is about those.
    Resident,
    /// Its function was removed.
    Gone,
}

impl<K> Ring<K> {
    pub(super) fn new() -> Ring<K> {
        Ring { keys: VecDeque::new() }
    }

    /// Adds a key, unless it is there.
    pub(super) fn add(&mut self, entry: &Keyed<K>) {
        if !entry.mark(Mark::IN_RING, true) {
            self.keys.push_back(entry.clone());
        }
    }

    /// Takes out one key that may be forgotten, if there are more than `limit`. Keys that are not cold any more leave the ring on the
    /// way; those that wait for a compile stay, since they are few.
    pub(super) fn age_out(
        &mut self,
        limit: usize,
        standing: impl Fn(&Keyed<K>) -> Standing,
    ) -> Option<Keyed<K>> {
        for _ in 0..LOOKED_AT {
            if self.keys.len() <= limit {
                return None;
            }
            let entry = self.keys.pop_front()?;
            match standing(&entry) {
                Standing::Resident | Standing::Gone => _ = entry.mark(Mark::IN_RING, false),
                Standing::Cold if !entry.mark(Mark::CALLED, false) => {
                    entry.mark(Mark::IN_RING, false);
                    return Some(entry);
                }
                Standing::Cold | Standing::Pending => self.keys.push_back(entry),
            }
        }
        None
    }

    /// Takes out those that are gone.
    pub(super) fn take_gone(&mut self, gone: impl Fn(&Keyed<K>) -> bool) -> Vec<Keyed<K>> {
        let (out, stay) = std::mem::take(&mut self.keys).into_iter().partition(|entry| gone(entry));
        self.keys = stay;
        VecDeque::into(out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Entry;
    use super::*;
    use crate::id::Bead;

    fn entries(count: u32) -> Vec<Keyed<u32>> {
        (0..count).map(|n| Keyed::new(Entry::new(n, Bead::new(n, 0), 0))).collect()
    }

    fn ring(entries: &[Keyed<u32>]) -> Ring<u32> {
        let mut ring = Ring::new();
        entries.iter().for_each(|entry| ring.add(entry));
        ring
    }

    #[test]
    fn c9_the_oldest_key_that_was_not_looked_up_again_goes_and_only_one() {
        let entries = entries(4);
        let mut ring = ring(&entries);
        entries[0].mark(Mark::CALLED, true);
        assert_eq!(ring.age_out(3, |_| Standing::Cold).unwrap().key, 1);
        assert!(ring.age_out(3, |_| Standing::Cold).is_none());
        assert_eq!(ring.keys.len(), 3);
        assert!(!entries[0].is(Mark::CALLED), "its turn is used up");
    }

    #[test]
    fn c9_a_key_called_in_every_round_outlives_any_flood() {
        let hot = entries(1);
        let mut ring = ring(&hot);
        for n in 1..100_000 {
            ring.add(&Keyed::new(Entry::new(n, Bead::new(n, 0), 0)));
            if n % 7 == 0 {
                hot[0].mark(Mark::CALLED, true);
            }
            if let Some(out) = ring.age_out(8, |_| Standing::Cold) {
                assert_ne!(out.key, 0, "after {n} others");
            }
        }
        assert_eq!(ring.keys.len(), 8);
    }

    #[test]
    fn what_is_compiled_leaves_the_ring_and_what_waits_for_it_stays() {
        let entries = entries(3);
        let mut ring = ring(&entries);
        let standing = |entry: &Keyed<u32>| match entry.key {
            0 => Standing::Resident,
            _ => Standing::Pending,
        };
        assert!(ring.age_out(1, standing).is_none());
        assert_eq!((ring.keys.len(), entries[0].is(Mark::IN_RING)), (2, false));
        ring.add(&entries[1]);
        assert_eq!(ring.keys.len(), 2, "each once");
    }
}
