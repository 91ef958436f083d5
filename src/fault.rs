//! Compiles that failed: how often, why, and how long to wait before the next try.

use crate::error::CompileError;
use crate::id::{Bead, TierId};
use crate::sync::{AtomicUsize, Mutex, fence, lock};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Calls to wait after the first failure of a function at a tier; each further failure doubles it.
pub const RETRY_AFTER_CALLS: u32 = 1_000;

/// Doublings after which the wait stays the same.
const MAX_DOUBLINGS: u32 = 20;

/// The same where all that was missing is memory, which may be freed at any time.
const MAX_DOUBLINGS_WITHOUT_ROOM: u32 = 4;

/// A function's failures at one tier.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Fault {
    /// Failed compiles since the last success at this tier.
    pub failures: u32,
    /// Why the last one failed.
    pub last: CompileError,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.failures == 1 { "time" } else { "times" };
        write!(f, "failed {} {times}; the last: {}", self.failures, self.last)
    }
}

struct Entry {
    fault: Fault,
    /// How many of the failures were for want of memory.
    without_room: u32,
    /// Calls to wait since that call. Kept here and not in the budget, which belongs to the mutators.
    pause: u32,
    /// The call at which it failed.
    at: u32,
}

/// The failures by bead and tier; functions that never failed are not here.
#[derive(Default)]
pub(crate) struct Faults {
    all: Mutex<HashMap<(Bead, TierId), Entry>>,
    /// How many there are, so that nobody takes the lock while nothing ever failed.
    len: AtomicUsize,
}

impl Faults {
    /// Notes a failure at a function's `calls`th call. Errors are foreign values: the one that is replaced is answered,
    /// to be dropped outside the lock.
    pub(crate) fn note(&self, bead: Bead, tier: TierId, error: CompileError, calls: u32) -> Noted {
        let mut all = lock(&self.all);
        let entry = all.entry((bead, tier)).or_insert_with(|| Entry {
            fault: Fault { failures: 0, last: CompileError::Unfinished },
            without_room: 0,
            pause: 0,
            at: 0,
        });
        entry.fault.failures = entry.fault.failures.saturating_add(1);
        let failures = entry.fault.failures;
        let without_room = matches!(error, CompileError::NoRoom(_));
        entry.without_room = entry.without_room.saturating_add(u32::from(without_room));
        let counted = failures.saturating_sub(entry.without_room);
        let doublings = match without_room {
            true => entry.without_room.saturating_sub(1).min(MAX_DOUBLINGS_WITHOUT_ROOM),
            false => counted.saturating_sub(1).min(MAX_DOUBLINGS),
        };
        let retry_after = RETRY_AFTER_CALLS << doublings;
        (entry.pause, entry.at) = (retry_after, calls);
        let replaced = std::mem::replace(&mut entry.fault.last, error);
        self.len.store(all.len(), Relaxed);
        // SeqCst, edge FAULT: between this and the caller's look at whether the bead still lives.
        fence(mutant!("fault-noted", SeqCst));
        let counted = if without_room { None } else { Some(counted) };
        Noted { failures, counted, retry_after, replaced }
    }

    /// Whether nothing ever failed.
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    /// Calls a function has to wait until its next try, 0 if it may be tried.
    pub(crate) fn wait(&self, bead: Bead, tier: TierId, calls: u32) -> u32 {
        if self.is_empty() {
            return 0;
        }
        lock(&self.all).get(&(bead, tier)).map_or(0, |entry| {
            // Fewer than then: the function counts from zero since.
            let since = calls.checked_sub(entry.at).unwrap_or(calls);
            entry.pause.saturating_sub(since)
        })
    }

    pub(crate) fn get(&self, bead: Bead, tier: TierId) -> Option<Fault> {
        if self.len.load(Relaxed) == 0 {
            return None;
        }
        lock(&self.all).get(&(bead, tier)).map(|entry| entry.fault.clone())
    }

    /// Forgets the failures of a tier that succeeded; answers them, to be dropped outside the lock.
    #[must_use = "drop it outside the lock and the section"]
    pub(crate) fn forget(&self, bead: Bead, tier: TierId) -> Option<Fault> {
        if self.len.load(Relaxed) == 0 {
            return None;
        }
        let mut all = lock(&self.all);
        let forgotten = all.remove(&(bead, tier));
        self.len.store(all.len(), Relaxed);
        forgotten.map(|entry| entry.fault)
    }

    /// Forgets the failures of a function that is gone; answers them, as [`forget`](Faults::forget) does.
    #[must_use = "drop it outside the lock and the section"]
    pub(crate) fn forget_all(&self, bead: Bead) -> Vec<Fault> {
        // SeqCst, edge FAULT: between the end of the bead and the look at `len`. Partner is the fence in `note`.
        fence(mutant!("fault-forgotten", SeqCst));
        if self.len.load(Relaxed) == 0 {
            return Vec::new();
        }
        (1..=TierId::MAX.get()).filter_map(TierId::new).filter_map(|tier| self.forget(bead, tier)).collect()
    }
}

/// What a failure came to.
pub(crate) struct Noted {
    pub(crate) failures: u32,
    /// How many of them count towards the limit; `None` if this one does not.
    pub(crate) counted: Option<u32>,
    pub(crate) retry_after: u32,
    /// The error before, to be dropped outside the lock.
    pub(crate) replaced: CompileError,
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_how_often_it_failed_and_why_the_last_time() {
        let fault = |failures| Fault { failures, last: CompileError::Unfinished }.to_string();
        let why = CompileError::Unfinished;
        assert_eq!(fault(1), format!("failed 1 time; the last: {why}"));
        assert_eq!(fault(2), format!("failed 2 times; the last: {why}"));
    }

    #[test]
    fn the_wait_doubles_with_each_failure_and_starts_over_after_a_success() {
        let (faults, bead) = (Faults::default(), Bead::new(1, 0));
        let fail = |error| {
            let noted = faults.note(bead, TierId::BASELINE, error, 500);
            (noted.failures, noted.retry_after, faults.wait(bead, TierId::BASELINE, 700))
        };
        let unfinished = || fail(CompileError::Unfinished);
        assert_eq!(
            [unfinished(), unfinished(), unfinished()],
            [(1, 1_000, 800), (2, 2_000, 1_800), (3, 4_000, 3_800)]
        );
        assert_eq!(faults.wait(bead, TierId::BASELINE, 100), 3_900, "counts from zero since");
        assert_eq!(faults.forget(bead, TierId::BASELINE).unwrap().failures, 3);
        assert_eq!(faults.get(bead, TierId::BASELINE), None);
        assert_eq!(fail(CompileError::NullEntry), (1, 1_000, 800));
        assert_eq!(faults.get(bead, TierId::BASELINE).unwrap().last, CompileError::NullEntry);
        assert_eq!(faults.forget_all(bead).len(), 1);
        assert_eq!(faults.get(bead, TierId::BASELINE), None);
    }

    #[test]
    fn the_wait_is_bounded() {
        let (faults, bead) = (Faults::default(), Bead::new(1, 0));
        let fail = |_| faults.note(bead, TierId::BASELINE, CompileError::Unfinished, 0).retry_after;
        assert_eq!((0..100).map(fail).last(), Some(1_000 << 20));
    }
}
