//! What a cache keeps of one key.

use crate::clock;
use crate::id::Bead;
use papaya::Equivalent;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};

/// One key and its function. The two belong together for as long as the bead is live, so an entry that anybody found at any time
/// is right if its bead is.
pub(super) struct Entry<K> {
    pub(super) key: K,
    pub(super) bead: Bead,
    pub(super) hit: Hit,
    marks: AtomicU8,
}

/// What a hit reads and writes beside the code itself. A key has two: in its [`Entry`], for threads that have it [near](super::near), and in its
/// [`Node`], for the others.
pub(super) struct Hit {
    /// The cache's coarse time at the last use, in milliseconds.
    used: AtomicU32,
    /// The code came from an artifact.
    loaded: AtomicBool,
}

impl Hit {
    fn new(now: u32) -> Hit {
        Hit { used: AtomicU32::new(now), loaded: AtomicBool::new(false) }
    }

    /// Notes a use. Writes only if time has moved on, so a hot key's line is shared by its readers.
    #[inline]
    pub(super) fn touch(&self, now: u32) {
        if self.used.load(Relaxed) != now {
            self.used.store(now, Relaxed);
        }
    }

    /// Notes where the code that comes next is from.
    pub(super) fn set_loaded(&self, loaded: bool) {
        self.loaded.store(loaded, Relaxed);
    }

    #[inline]
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.load(Relaxed)
    }

    /// Milliseconds since the last use.
    pub(super) fn idle(&self, now: u32) -> u32 {
        clock::since(now, self.used.load(Relaxed))
    }
}

/// What was noted of an entry. All of it is advice: no protocol depends on it, so everything is Relaxed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u8);

impl Mark {
    /// It was looked for among the artifacts that are known.
    pub(super) const LOOKED_FOR: Mark = Mark(1);
    /// Its last compile failed.
    pub(super) const FAILED: Mark = Mark(2);
    /// Its source was fetched, and is empty or too large.
    pub(super) const INELIGIBLE: Mark = Mark(4);
    /// It is in the ring of cold keys.
    pub(super) const IN_RING: Mark = Mark(8);
    /// It was looked up since the ring's hand passed.
    pub(super) const CALLED: Mark = Mark(16);
    /// Its artifact was asked for, and nothing but that: there may be a request of it without a source.
    pub(super) const PRELOADING: Mark = Mark(32);
    /// It is about to be forgotten, since it was asked for only to be loaded, and cannot be. Changed under the lock of
    /// [wishes](super::wishes).
    pub(super) const DOOMED: Mark = Mark(64);
}

impl<K> Entry<K> {
    pub(super) fn new(key: K, bead: Bead, now: u32) -> Entry<K> {
        Entry { key, bead, hit: Hit::new(now), marks: AtomicU8::new(0) }
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

/// A counted entry.
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

/// A key as the map holds it: equal and hashed by it, and beside it what a hit needs. So a hit goes from the map to the code, and the
/// entry itself, another line of memory, is left alone.
#[repr(C)]
pub(super) struct Node<K> {
    key: K,
    pub(super) bead: Bead,
    pub(super) hit: Hit,
    pub(super) entry: Keyed<K>,
}

impl<K: Clone> Node<K> {
    pub(super) fn new(entry: &Keyed<K>, now: u32) -> Node<K> {
        Node { key: entry.key.clone(), bead: entry.bead, hit: Hit::new(now), entry: entry.clone() }
    }
}

impl<K: PartialEq> PartialEq for Node<K> {
    fn eq(&self, other: &Node<K>) -> bool {
        self.key == other.key
    }
}

impl<K: Eq> Eq for Node<K> {}

impl<K: Hash> Hash for Node<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// A borrowed key, to look a node up by.
#[derive(Hash)]
pub(super) struct ByKey<'a, K>(pub(super) &'a K);

impl<K: Eq> Equivalent<Node<K>> for ByKey<'_, K> {
    #[inline]
    fn equivalent(&self, node: &Node<K>) -> bool {
        *self.0 == node.key
    }
}
