//! Quiescent-state reclamation: when may retired code be freed, and a removed index be used again?
//!
//! Every mutator has one padded cell that says at which epoch it last passed a safepoint (0 = offline). Something
//! unlinked and then stamped with a new epoch is out of every mutator's reach once all cells that are online have
//! reached the stamp. Lookups pay nothing for this. Proof in [`crate::protocol`], edges RETIRE and ONLINE.
//!
//! # Rules
//! * **G1** a stamp is taken after the unlink: `epoch.fetch_add(AcqRel)`.
//! * **G2** a safepoint is an Acquire load of the epoch, stored (Release) into the mutator's own cell.
//! * **G3** coming online and scanning both put a SeqCst fence between their store (or unlink) and their loads.

use crate::owner::OwnerWord;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, fence, lock};
use crossbeam_utils::CachePadded;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// A mutator's word, alone on its cache line: the epoch of its last safepoint, 0 while offline.
pub(crate) type MutatorCell = Arc<CachePadded<AtomicU64>>;

/// Retired code, to be freed when every mutator has reached the stamp.
struct Retired {
    stamp: u64,
    owner: OwnerWord,
}

pub(crate) struct Grace {
    /// Starts at 1, so that a cell's 0 means offline.
    epoch: Arc<CachePadded<AtomicU64>>,
    cells: Mutex<Vec<MutatorCell>>,
    /// In order of stamps.
    limbo: Mutex<VecDeque<Retired>>,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
}

impl Grace {
    pub(crate) fn new() -> Grace {
        Grace {
            epoch: Arc::new(CachePadded::new(AtomicU64::new(1))),
            cells: Mutex::new(Vec::new()),
            limbo: Mutex::new(VecDeque::new()),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
        }
    }

    /// The epoch's cell, for mutators to keep.
    pub(crate) fn epoch(&self) -> Arc<CachePadded<AtomicU64>> {
        self.epoch.clone()
    }

    /// A new stamp. Everything unlinked before the call may be freed once [`passed`](Grace::passed) says so.
    pub(crate) fn stamp(&self) -> u64 {
        // AcqRel, edge RETIRE (G1): a safepoint that reads this epoch sees the unlink before it.
        self.epoch.fetch_add(1, AcqRel) + 1
    }

    /// Registers a mutator, online.
    pub(crate) fn enlist(&self) -> (MutatorCell, u64) {
        let cell: MutatorCell = Arc::new(CachePadded::new(AtomicU64::new(0)));
        lock(&self.cells).push(cell.clone());
        let seen = come_online(&self.epoch, &cell);
        (cell, seen)
    }

    /// Forgets a mutator that has gone offline for good.
    pub(crate) fn delist(&self, cell: &MutatorCell) {
        lock(&self.cells).retain(|known| !Arc::ptr_eq(known, cell));
    }

    /// The largest stamp every online mutator has reached.
    pub(crate) fn passed(&self) -> u64 {
        // Read before the cells, and never answered past: what is unlinked and stamped while the cells are read may be
        // in the hands of a mutator that came online after its cell was read as offline. Acquire, edge RETIRE.
        let now = self.epoch.load(Acquire);
        // G3: the unlinks before this, the cells after it.
        fence(SeqCst);
        let cells = lock(&self.cells);
        // Acquire, edge RETIRE, partner is the Release in `pass`: what a mutator did before its safepoint (its last
        // use of the code) happens before the free.
        let online = cells.iter().map(|cell| cell.load(Acquire)).filter(|&at| at != 0).min();
        online.map_or(now, |at| at.min(now))
    }

    /// Forgets all mutators but these.
    pub(crate) fn forget_all_but(&self, survivors: &[&MutatorCell]) {
        lock(&self.cells).retain(|cell| survivors.iter().any(|survivor| Arc::ptr_eq(cell, survivor)));
    }

    /// How many mutators there are, online or not.
    pub(crate) fn mutators(&self) -> usize {
        lock(&self.cells).len()
    }

    /// Retires unlinked code.
    pub(crate) fn retire(&self, owner: OwnerWord) {
        if owner.is_none() {
            return;
        }
        let mut limbo = lock(&self.limbo);
        // Counted before it is visible in the list, so that the count never falls below what is there.
        self.waiting.fetch_add(1, Relaxed);
        self.waiting_bytes.fetch_add(owner.bytes(), Relaxed);
        limbo.push_back(Retired { stamp: self.stamp(), owner });
    }

    /// Code retired and not yet handed out by [`expired`](Grace::expired): how much, and its bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.waiting.load(Relaxed), self.waiting_bytes.load(Relaxed))
    }

    /// Takes out what every mutator has passed. The caller frees it.
    pub(crate) fn expired(&self) -> Vec<OwnerWord> {
        if self.waiting.load(Relaxed) == 0 {
            return Vec::new();
        }
        let passed = self.passed();
        let mut limbo = lock(&self.limbo);
        let ready = limbo.partition_point(|retired| retired.stamp <= passed);
        let expired: Vec<_> = limbo.drain(..ready).map(|retired| retired.owner).collect();
        self.waiting.fetch_sub(expired.len(), Relaxed);
        self.waiting_bytes.fetch_sub(expired.iter().map(|owner| owner.bytes()).sum(), Relaxed);
        expired
    }

    /// Takes out everything, at the end of the engine, when there is no mutator.
    pub(crate) fn everything(&self) -> Vec<OwnerWord> {
        lock(&self.limbo).drain(..).map(|retired| retired.owner).collect()
    }
}

/// Brings a cell online; answers the epoch it is at.
pub(crate) fn come_online(epoch: &AtomicU64, cell: &AtomicU64) -> u64 {
    // Acquire, edge RETIRE: what was unlinked before this epoch is not seen afterwards.
    let now = epoch.load(Acquire);
    // Release, edge ONLINE, partner is the load in `Grace::passed`.
    cell.store(now, Release);
    // G3: a scan either sees this cell, or its unlink is seen by every load after this fence.
    fence(SeqCst);
    now
}

/// Passes a safepoint at `now`, an epoch that was loaded with Acquire (G2).
#[inline]
pub(crate) fn pass(cell: &AtomicU64, now: u64) {
    // Release, edge RETIRE, partner is the load in `Grace::passed`: every use of a code pointer came before.
    cell.store(now, Release);
}

/// Goes offline: nothing is used until [`come_online`].
pub(crate) fn go_offline(cell: &AtomicU64) {
    // Release, edge RETIRE, as in `pass`.
    cell.store(0, Release);
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    fn owner(token: u64) -> OwnerWord {
        OwnerWord(2 << 56 | 1 << 32 | token)
    }

    #[test]
    fn retired_code_waits_for_every_online_mutator() {
        let grace = Grace::new();
        let (a, _) = grace.enlist();
        let (b, _) = grace.enlist();
        grace.retire(owner(1));
        assert_eq!(grace.waiting(), (1, 16));
        assert!(grace.expired().is_empty());
        pass(&a, grace.epoch.load(Acquire));
        assert!(grace.expired().is_empty(), "b has not passed");
        grace.retire(owner(2));
        pass(&b, grace.epoch.load(Acquire));
        assert_eq!(grace.expired(), [owner(1)], "a has not passed the second");
        go_offline(&a);
        assert_eq!(grace.expired(), [owner(2)]);
        assert_eq!(grace.waiting(), (0, 0));
    }

    #[test]
    fn nothing_waits_when_no_mutator_is_online() {
        let grace = Grace::new();
        let (cell, _) = grace.enlist();
        go_offline(&cell);
        grace.retire(owner(1));
        assert_eq!(grace.expired(), [owner(1)]);
        grace.delist(&cell);
        assert_eq!(grace.mutators(), 0);
    }

    #[test]
    fn a_mutator_that_comes_online_later_does_not_hold_back_what_was_retired_before() {
        let grace = Grace::new();
        grace.retire(owner(1));
        let (_late, _) = grace.enlist();
        assert_eq!(grace.expired(), [owner(1)]);
    }
}
