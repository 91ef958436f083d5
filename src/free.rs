//! The free list: removed indices on their way to the next use.
//!
//! Removed indices collect in batches. A batch is closed with a stamp, taken after every unlink in it (rule G1), and
//! its indices may be used when every mutator has passed the stamp. The first few removals are batches of one; while
//! those wait, further removals only push to the open batch, so a million of them move the epoch a few hundred times.

use crate::grace::Grace;
use crate::sync::{AtomicUsize, Mutex, lock};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

/// Indices a batch holds at the most, so that no single allocation grows with the number of removals.
const BATCH: usize = if cfg!(beadwork_loom) { 2 } else { 4096 };

/// Closed batches up to which every removal is a batch of its own, and can be reused after one safepoint of every
/// mutator; in a flood of removals it can take two.
const SINGLES: usize = if cfg!(beadwork_loom) { 1 } else { 64 };

#[derive(Default)]
struct Inner {
    open: Vec<u32>,
    /// Closed batches in order of stamps.
    closed: VecDeque<(u64, Vec<u32>)>,
    ready: Vec<u32>,
}

#[derive(Default)]
pub(crate) struct FreeList {
    inner: Mutex<Inner>,
    /// How many indices are in `inner`; lets a registration skip the lock while nothing was ever removed.
    len: AtomicUsize,
}

impl FreeList {
    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Stamps what was removed so far, so that one safepoint of every mutator is enough for it.
    pub(crate) fn close(&self, grace: &Grace) {
        if self.len() > 0 {
            lock(&self.inner).close(grace);
        }
    }

    /// Takes in an index whose cells are cleared and whose generation has moved on.
    pub(crate) fn push(&self, index: u32, grace: &Grace) {
        let mut inner = lock(&self.inner);
        inner.open.push(index);
        if inner.closed.len() < SINGLES || inner.open.len() >= BATCH {
            inner.close(grace);
        }
        self.len.fetch_add(1, Relaxed);
    }

    /// Gives out an index that nobody can be using any more.
    pub(crate) fn pop(&self, grace: &Grace) -> Option<u32> {
        if self.len() == 0 {
            return None;
        }
        let mut inner = lock(&self.inner);
        if inner.ready.is_empty() {
            if inner.closed.is_empty() {
                inner.close(grace);
            }
            let oldest = inner.closed.front()?.0;
            if oldest > grace.passed() && !mutant!("reuse-at-once") {
                return None;
            }
            inner.ready = inner.closed.pop_front()?.1;
        }
        let index = inner.ready.pop()?;
        self.len.fetch_sub(1, Relaxed);
        Some(index)
    }
}

impl Inner {
    fn close(&mut self, grace: &Grace) {
        if !self.open.is_empty() {
            // The lock orders every push, and so every unlink in the batch, before this stamp.
            self.closed.push_back((grace.stamp(), std::mem::take(&mut self.open)));
        }
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::grace::{go_offline, pass};
    use std::sync::atomic::Ordering::Acquire;

    #[test]
    fn an_index_is_given_out_once_and_only_after_the_grace_period() {
        let (grace, free) = (Grace::new(), FreeList::default());
        let (cell, _) = grace.enlist(None);
        free.push(7, &grace);
        assert_eq!(free.pop(&grace), None);
        assert_eq!(free.pop(&grace), None);
        pass(&cell, grace.epoch().load(Acquire));
        assert_eq!(free.pop(&grace), Some(7));
        assert_eq!((free.pop(&grace), free.len()), (None, 0));
    }

    #[test]
    fn a_batch_that_is_not_ready_does_not_hold_back_an_older_one() {
        let (grace, free) = (Grace::new(), FreeList::default());
        let (cell, _) = grace.enlist(None);
        free.push(1, &grace);
        pass(&cell, grace.epoch().load(Acquire));
        free.push(2, &grace);
        assert_eq!((free.pop(&grace), free.pop(&grace)), (Some(1), None));
        go_offline(&cell);
        assert_eq!(free.pop(&grace), Some(2));
    }

    #[test]
    fn a_few_removals_are_reusable_after_one_safepoint() {
        let (grace, free) = (Grace::new(), FreeList::default());
        let (cell, _) = grace.enlist(None);
        (0..SINGLES as u32).for_each(|index| free.push(index, &grace));
        pass(&cell, grace.epoch().load(Acquire));
        assert_eq!(std::iter::from_fn(|| free.pop(&grace)).count(), SINGLES);
    }

    #[test]
    fn every_index_comes_back_also_those_of_a_batch_that_was_never_full() {
        let (grace, free) = (Grace::new(), FreeList::default());
        let all = 0..SINGLES as u32 + BATCH as u32 + 10;
        all.clone().for_each(|index| free.push(index, &grace));
        let mut back: Vec<_> = std::iter::from_fn(|| free.pop(&grace)).collect();
        back.sort_unstable();
        assert!(back.into_iter().eq(all));
    }

    #[test]
    fn many_removals_move_the_epoch_once_per_batch() {
        let (grace, free) = (Grace::new(), FreeList::default());
        let before = grace.epoch().load(Acquire);
        (0..10 * BATCH as u32).for_each(|index| free.push(index, &grace));
        assert!(grace.epoch().load(Acquire) - before <= 10 + SINGLES as u64);
    }
}
