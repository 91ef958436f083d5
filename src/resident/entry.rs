//! What a cache keeps of one key.

use crate::id::Bead;
use papaya::Equivalent;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

/// One key and its function. The two belong together for as long as the bead is live, so an entry that anybody found at any time
/// is right if its bead is.
pub(super) struct Entry<K> {
    pub(super) key: K,
    pub(super) bead: Bead,
    /// The cache's coarse time at its last use, in milliseconds.
    used: AtomicU32,
    marks: AtomicU8,
}

/// What was noted of an entry. All of it is advice: no protocol depends on it, so everything is Relaxed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u8);

impl Mark {
    /// Its code came from an artifact.
    pub(super) const LOADED: Mark = Mark(1);
    /// Its last compile failed.
    pub(super) const FAILED: Mark = Mark(2);
    /// Its source was fetched, and is empty or too large.
    pub(super) const INELIGIBLE: Mark = Mark(4);
    /// It is in the ring of cold keys.
    pub(super) const IN_RING: Mark = Mark(8);
    /// It was looked up since the ring's hand passed.
    pub(super) const CALLED: Mark = Mark(16);
}

impl<K> Entry<K> {
    pub(super) fn new(key: K, bead: Bead, now: u32) -> Entry<K> {
        Entry { key, bead, used: AtomicU32::new(now), marks: AtomicU8::new(0) }
    }

    /// Notes a use. Writes only if time has moved on, so a hot entry's line is shared by its readers.
    #[inline]
    pub(super) fn touch(&self, now: u32) {
        if self.used.load(Relaxed) != now {
            self.used.store(now, Relaxed);
        }
    }

    pub(super) fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    #[inline]
    pub(super) fn is(&self, mark: Mark) -> bool {
        self.marks.load(Relaxed) & mark.0 != 0
    }

    /// Sets or clears a mark; answers whether it was set before.
    pub(super) fn mark(&self, mark: Mark, on: bool) -> bool {
        if self.is(mark) == on {
            return on;
        }
        let before =
            if on { self.marks.fetch_or(mark.0, Relaxed) } else { self.marks.fetch_and(!mark.0, Relaxed) };
        before & mark.0 != 0
    }
}

/// An entry as the map holds it: equal and hashed by its key.
pub(super) struct Keyed<K>(Arc<Entry<K>>);

impl<K> Keyed<K> {
    pub(super) fn new(entry: Entry<K>) -> Keyed<K> {
        Keyed(Arc::new(entry))
    }

    pub(super) fn is_same(&self, other: &Keyed<K>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<K> Clone for Keyed<K> {
    fn clone(&self) -> Keyed<K> {
        Keyed(self.0.clone())
    }
}

impl<K> Deref for Keyed<K> {
    type Target = Entry<K>;
    #[inline]
    fn deref(&self) -> &Entry<K> {
        &self.0
    }
}

impl<K: PartialEq> PartialEq for Keyed<K> {
    fn eq(&self, other: &Keyed<K>) -> bool {
        self.key == other.key
    }
}

impl<K: Eq> Eq for Keyed<K> {}

impl<K: Hash> Hash for Keyed<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// A borrowed key, to look an entry up by.
#[derive(Hash)]
pub(super) struct ByKey<'a, K>(pub(super) &'a K);

impl<K: Eq> Equivalent<Keyed<K>> for ByKey<'_, K> {
    fn equivalent(&self, entry: &Keyed<K>) -> bool {
        *self.0 == entry.key
    }
}
