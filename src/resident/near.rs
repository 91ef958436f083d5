//! The keys a mutator used last, beside it: a hit there touches nothing that other threads write.
//!
//! What is found is right if its function lives (see [`Entry`](super::entry::Entry)), so nothing has to be taken out when keys go.

use super::entry::Keyed;
use std::cell::{Cell, OnceCell};

/// Places; a key has one.
const PLACES: usize = 256;

/// Of so many finds elsewhere, one gets its place here: keys that share a place would otherwise write each other's counts of
/// references all the time.
const ONE_IN: u32 = 8;

type Place<K> = (u64, Keyed<K>);

pub(super) struct Near<K> {
    /// Written once, and anew only at a safepoint, so that looking at one takes no flag.
    places: Box<[OnceCell<Place<K>>; PLACES]>,
    /// What is to get a place that is taken, at the next safepoint.
    next: Cell<Option<Place<K>>>,
    found_elsewhere: Cell<u32>,
}

impl<K: Eq> Near<K> {
    pub(super) fn new() -> Near<K> {
        let places = Box::new([const { OnceCell::new() }; PLACES]);
        Near { places, next: Cell::new(None), found_elsewhere: Cell::new(0) }
    }

    /// Looks at a key's entry, if it has its place here.
    #[inline(always)]
    pub(super) fn find<R>(&self, hash: u64, key: &K, look: impl FnOnce(&Keyed<K>) -> Option<R>) -> Option<R> {
        match self.places[place(hash)].get() {
            Some((of, entry)) if *of == hash && entry.key == *key => look(entry),
            _ => None,
        }
    }

    /// Notes where a key was found, now and then.
    pub(super) fn note(&self, hash: u64, entry: &Keyed<K>) {
        let place = &self.places[place(hash)];
        if place.get().is_none() {
            let _ = place.set((hash, entry.clone()));
            return;
        }
        let found = self.found_elsewhere.get();
        self.found_elsewhere.set(found.wrapping_add(1));
        if found.is_multiple_of(ONE_IN) {
            self.next.set(Some((hash, entry.clone())));
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
        (0..ONE_IN).for_each(|_| near.note(two, &entry(2)));
        assert_eq!((find(&near, one, 1), find(&near, two, 2)), (Some(1), None), "until the next safepoint");
        near.settle();
        assert_eq!((find(&near, one, 1), find(&near, two, 2)), (None, Some(2)), "they share a place");
    }
}
