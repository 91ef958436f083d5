//! A mutator as a scan sees it: its cell, its name, and where its frames are.

use super::Laggard;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, fence, lock};
use crossbeam_utils::CachePadded;
use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release, SeqCst};
use std::thread::Thread;

/// A mutator's record, kept by the mutator and by the engine's list.
pub(crate) type MutatorCell = Arc<Member>;

pub(crate) struct Member {
    /// The epoch of its last safepoint, 0 while offline. Alone on its cache line.
    at: CachePadded<AtomicU64>,
    /// Whether `details.held` is not empty, so that scans take no lock of a mutator that never used it.
    holds: AtomicBool,
    details: Mutex<Details>,
}

struct Details {
    name: Option<Arc<str>>,
    /// The thread that made it.
    thread: Thread,
    /// Addresses to which its thread returns in code that may have been retired before `at`.
    held: Vec<usize>,
}

impl Member {
    pub(super) fn new(name: Option<Arc<str>>) -> Member {
        let details = Details { name, thread: std::thread::current(), held: Vec::new() };
        Member {
            at: CachePadded::new(AtomicU64::new(0)),
            holds: AtomicBool::new(false),
            details: Mutex::new(details),
        }
    }

    /// The cell. Its own mutator may read it Relaxed, since nobody else writes it.
    #[inline]
    pub(crate) fn at(&self, ordering: Ordering) -> u64 {
        self.at.load(ordering)
    }

    /// Whether its thread named addresses at its last safepoint. For its own mutator.
    #[inline]
    pub(crate) fn holds(&self) -> bool {
        self.holds.load(Relaxed)
    }

    /// Notes in which frames of native code the thread is; by its own mutator, before the epoch goes into the cell (G2).
    pub(crate) fn hold(&self, addresses: &[usize]) {
        let mut details = lock(&self.details);
        details.held.clear();
        details.held.extend_from_slice(addresses);
        drop(details);
        // Release, edge RETIRE, partner is the load in `add_held_to`: who sees that nothing is held any more frees after
        // the last use of what was.
        self.holds.store(!addresses.is_empty(), mutant!("retire-held", Release));
    }

    pub(super) fn add_held_to(&self, held: &mut Vec<usize>) {
        // Acquire, edge RETIRE: see `hold`.
        if self.holds.load(mutant!("retire-scan-held", Acquire)) {
            held.extend_from_slice(&lock(&self.details).held);
        }
    }

    /// Another thread uses it from now on.
    pub(crate) fn moves_here(&self) {
        lock(&self.details).thread = std::thread::current();
    }

    /// What it holds back, seen at an epoch.
    pub(super) fn lags(&self, now: u64) -> Option<Laggard> {
        let epochs = match self.at.load(Relaxed) {
            0 => 0,
            at => now.saturating_sub(at),
        };
        let details = lock(&self.details);
        let addresses = details.held.len();
        (epochs > 0 || addresses > 0).then(|| Laggard { name: details.name(), epochs, addresses })
    }
}

impl Details {
    fn name(&self) -> Arc<str> {
        match (&self.name, self.thread.name()) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) => name.into(),
            (None, None) => format!("{:?}", self.thread.id()).into(),
        }
    }
}

/// Brings a mutator online; answers the epoch it is at.
pub(crate) fn come_online(epoch: &AtomicU64, cell: &Member) -> u64 {
    // Acquire, edges RETIRE and ONLINE: what was unlinked before this epoch is not seen afterwards.
    let now = epoch.load(Acquire);
    // Release, edge ONLINE, partner is the load in `Grace::scan`.
    cell.at.store(now, mutant!("online-cell", Release));
    // SeqCst, edge ONLINE (G3): a scan either sees this cell, or its unlink is seen by every load after this fence.
    fence(mutant!("online-fence", SeqCst));
    now
}

/// Passes a safepoint at `now`, an epoch that was loaded with Acquire (G2).
#[inline]
pub(crate) fn pass(cell: &Member, now: u64) {
    // Release, edge RETIRE, partner is the load in `Grace::scan`: every use of a code pointer came before, and so
    // did the noting of held addresses.
    cell.at.store(now, mutant!("retire-pass", Release));
}

/// Goes offline: nothing is used until [`come_online`].
pub(crate) fn go_offline(cell: &Member) {
    // Release, edge RETIRE, as in `pass`.
    cell.at.store(0, mutant!("retire-offline", Release));
}
