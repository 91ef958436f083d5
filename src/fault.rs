//! Compiles that failed: how often, why, and how long to wait before the next try.

use crate::error::CompileError;
use crate::id::{Bead, TierId};
use crate::sync::{AtomicUsize, Mutex, lock};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

/// Calls to wait after the first failure of a function at a tier; each further failure doubles it.
pub const RETRY_AFTER_CALLS: u32 = 1_000;

/// Doublings after which the wait stays the same.
const MAX_DOUBLINGS: u32 = 20;

/// A function's failures at one tier.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Fault {
    /// Failed compiles since the last success at this tier.
    pub failures: u32,
    /// Why the last one failed.
    pub last: CompileError,
}

/// The failures by bead and tier; functions that never failed are not here.
#[derive(Default)]
pub(crate) struct Faults {
    all: Mutex<HashMap<(Bead, TierId), Fault>>,
    /// How many there are, so that nobody takes the lock while nothing ever failed.
    len: AtomicUsize,
}

impl Faults {
    /// Notes a failure. Answers how many there were, and the calls to wait.
    pub(crate) fn note(&self, bead: Bead, tier: TierId, error: CompileError) -> (u32, u32) {
        let mut all = lock(&self.all);
        let fault = all.entry((bead, tier)).or_insert(Fault { failures: 0, last: error.clone() });
        fault.failures = fault.failures.saturating_add(1);
        fault.last = error;
        let failures = fault.failures;
        self.len.store(all.len(), Relaxed);
        (failures, RETRY_AFTER_CALLS << (failures - 1).min(MAX_DOUBLINGS))
    }

    pub(crate) fn get(&self, bead: Bead, tier: TierId) -> Option<Fault> {
        if self.len.load(Relaxed) == 0 { None } else { lock(&self.all).get(&(bead, tier)).cloned() }
    }

    /// Forgets the failures of a tier that succeeded.
    pub(crate) fn forget(&self, bead: Bead, tier: TierId) {
        if self.len.load(Relaxed) != 0 {
            let mut all = lock(&self.all);
            all.remove(&(bead, tier));
            self.len.store(all.len(), Relaxed);
        }
    }

    /// Forgets the failures of a function that is gone.
    pub(crate) fn forget_all(&self, bead: Bead) {
        (1..=TierId::MAX.get()).filter_map(TierId::new).for_each(|tier| self.forget(bead, tier));
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_with_each_failure_and_starts_over_after_a_success() {
        let (faults, bead) = (Faults::default(), Bead::new(1, 0));
        let fail = || faults.note(bead, TierId::BASELINE, CompileError::Unfinished);
        assert_eq!([fail(), fail(), fail()], [(1, 1_000), (2, 2_000), (3, 4_000)]);
        faults.forget(bead, TierId::BASELINE);
        assert_eq!(faults.get(bead, TierId::BASELINE), None);
        assert_eq!(faults.note(bead, TierId::BASELINE, CompileError::NullEntry), (1, 1_000));
        assert_eq!(faults.get(bead, TierId::BASELINE).unwrap().last, CompileError::NullEntry);
        faults.forget_all(bead);
        assert_eq!(faults.get(bead, TierId::BASELINE), None);
    }

    #[test]
    fn the_wait_is_bounded() {
        let (faults, bead) = (Faults::default(), Bead::new(1, 0));
        let last = (0..100).map(|_| faults.note(bead, TierId::BASELINE, CompileError::Unfinished)).last();
        assert_eq!(last, Some((100, 1_000 << 20)));
    }
}
