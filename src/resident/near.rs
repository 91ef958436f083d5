//! The keys a mutator used last, beside it: a hit there touches nothing that other threads write.
//!
//! What is found is right if its function lives (see [`Entry`](super::entry::Entry)), so nothing has to be taken out when keys go.

use super::entry::Keyed;
use std::cell::{Cell, RefCell};

/// Places; a key has one.
const PLACES: usize = 256;

/// Of so many finds elsewhere, one gets its place here: keys that share a place would otherwise write each other's counts of
/// references all the time.
const ONE_IN: u32 = 8;

type Place<K> = Option<(u64, Keyed<K>)>;

pub(super) struct Near<K> {
    places: RefCell<Box<[Place<K>; PLACES]>>,
    found_elsewhere: Cell<u32>,
}

impl<K: Eq> Near<K> {
    pub(super) fn new() -> Near<K> {
        let places = Box::new([const { None }; PLACES]);
        Near { places: RefCell::new(places), found_elsewhere: Cell::new(0) }
    }

    /// Looks at a key's entry, if it has its place here.
    #[inline]
    pub(super) fn find<R>(&self, hash: u64, key: &K, look: impl FnOnce(&Keyed<K>) -> Option<R>) -> Option<R> {
        // Refused only if a key's comparison looks something up itself.
        let places = self.places.try_borrow().ok()?;
        match &places[place(hash)] {
            Some((of, entry)) if *of == hash && entry.key == *key => look(entry),
            _ => None,
        }
    }

    /// Notes where a key was found, now and then.
    pub(super) fn note(&self, hash: u64, entry: &Keyed<K>) {
        let found = self.found_elsewhere.get();
        self.found_elsewhere.set(found.wrapping_add(1));
        let Ok(mut places) = self.places.try_borrow_mut() else { return };
        let place = &mut places[place(hash)];
        if place.is_none() || found.is_multiple_of(ONE_IN) {
            let before = place.replace((hash, entry.clone()));
            drop(places);
            // A key's drop is foreign.
            drop(before);
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
        let near = Near::new();
        let entry = |n| Keyed::new(Entry::new(n, Bead::new(n, 0), 0));
        let find = |hash, key: u32| near.find(hash, &key, |entry| Some(entry.key));
        let (one, two) = (5, 5 + (PLACES as u64));
        near.note(one, &entry(1));
        assert_eq!((find(one, 1), find(one, 2), find(two, 1)), (Some(1), None, None));
        (0..ONE_IN).for_each(|_| near.note(two, &entry(2)));
        assert_eq!((find(one, 1), find(two, 2)), (None, Some(2)), "they share a place");
    }
}
