//! The keys a mutator used last, beside it: a hit there touches nothing that other threads write.
//!
//! What is found is right if its function lives (see [`Entry`](super::entry::Entry)), so nothing has to be taken out when keys go.

use super::entry::Keyed;
use std::cell::{Cell, OnceCell};

/// Places; a key has one.
const PLACES: usize = 256;

/// A key whose place is taken gets it if it is found elsewhere twice among so many finds. Keys that share a place would otherwise write each
/// other's counts of references all the time; and where a thread uses more keys than there are places, each would push out another to no use,
/// at the cost of two lines of memory.
const ONE_IN: u32 = 8;

type Place<K> = (u64, Keyed<K>);

pub(super) struct Near<K> {
    /// Written once, and anew only at a safepoint, so that looking at one takes no flag.
    places: Box<[OnceCell<Place<K>>; PLACES]>,
    /// What is to get a place that is taken, at the next safepoint.
    next: Cell<Option<Place<K>>>,
    /// Finds elsewhere, and the hash of the last one of each [`ONE_IN`].
    found_elsewhere: Cell<u32>,
    candidate: Cell<u64>,
}

impl<K: Eq> Near<K> {
    pub(super) fn new() -> Near<K> {
        let places = Box::new([const { OnceCell::new() }; PLACES]);
        Near { places, next: Cell::new(None), found_elsewhere: Cell::new(0), candidate: Cell::new(0) }
    }

    /// Looks at a key's entry, if it has its place here.
    #[inline(always)]
    pub(super) fn find<R>(&self, hash: u64, key: &K, look: impl FnOnce(&Keyed<K>) -> Option<R>) -> Option<R> {
        match self.places[place(hash)].get() {
            Some((of, entry)) if *of == hash && entry.key == *key => look(entry),
            _ => None,
        }
    }

    /// Notes where a key was found, if that seems to be worth it.
    pub(super) fn note(&self, hash: u64, entry: &Keyed<K>) {
        let place = &self.places[place(hash)];
        if place.get().is_none() {
            let _ = place.set((hash, entry.clone()));
            return;
        }
        let found = self.found_elsewhere.get();
        self.found_elsewhere.set(found.wrapping_add(1));
        if found.is_multiple_of(ONE_IN) {
            self.candidate.set(hash);
        } else if self.candidate.get() == hash {
            self.next.set(Some((hash, entry.clone())));
            // Once is enough.
            self.candidate.set(!hash);
        }
    }

    /// Gives the key noted last its place, at a safepoint.
    #[inline]
    pub(super) fn settle(&mut self) {
        if self.next.get_mut().is_some() {
            self.replace();
        }
    }

    #[cold]
    fn replace(&mut self) {
        if let Some(next) = self.next.take() {
            let place = place(next.0);
            self.places[place] = OnceCell::from(next);
        }
    }
}

/// By the low bits, with some others mixed in, should a key's own hash leave those alike.
#[inline]
fn place(hash: u64) -> usize {
    (hash ^ hash >> 32) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::super::entry::Entry;
    use super::*;
    use crate::id::Bead;

    #[test]
    fn a_key_is_found_at_its_place_only_by_its_own_name() {
        let mut near = Near::new();
        let entry = |n| Keyed::new(Entry::new(n, Bead::new(n, 0), 0));
        let find = |near: &Near<u32>, hash, key: u32| near.find(hash, &key, |entry| Some(entry.key));
        let (one, two) = (5, 5 + (PLACES as u64));
        near.note(one, &entry(1));
        assert_eq!((find(&near, one, 1), find(&near, one, 2), find(&near, two, 1)), (Some(1), None, None));
        near.note(two, &entry(2));
        near.settle();
        assert_eq!(find(&near, one, 1), Some(1), "once is no reason");
        near.note(two, &entry(2));
        assert_eq!((find(&near, one, 1), find(&near, two, 2)), (Some(1), None), "until the next safepoint");
        near.settle();
        assert_eq!((find(&near, one, 1), find(&near, two, 2)), (None, Some(2)), "they share a place");
    }

    #[test]
    fn keys_that_come_once_in_a_long_while_leave_the_places_alone() {
        let mut near = Near::new();
        let entries: Vec<_> =
            (0..50 * PLACES as u32).map(|n| Keyed::new(Entry::new(n, Bead::new(n, 0), 0))).collect();
        for _ in 0..3 {
            for (hash, entry) in (0..).zip(&entries) {
                near.note(hash, entry);
                near.settle();
            }
        }
        let stay = (0..PLACES as u64).all(|hash| near.find(hash, &(hash as u32), |_| Some(())).is_some());
        assert!(stay, "the first of each place");
    }
}
