//! Leases: code that must stay although no mutator is in it.
//!
//! Leases go by entry. Code with a leased entry is set aside here when it could be freed otherwise, and comes back when
//! the last lease ends, so scans do not look at it again and again. Proof in [`crate::protocol`], edge LEASE.

use super::limbo::{Retired, Unlinked};
use crate::sync::{AtomicUsize, Mutex, lock};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

#[derive(Default)]
struct Leased {
    count: usize,
    aside: Vec<Retired>,
}

#[derive(Default)]
pub(super) struct Leases {
    by_entry: Mutex<HashMap<u64, Leased>>,
    /// How much is set aside.
    aside: AtomicUsize,
}

impl Leases {
    pub(super) fn enter(&self, entry: u64) {
        lock(&self.by_entry).entry(entry).or_default().count += 1;
    }

    pub(super) fn aside(&self) -> usize {
        self.aside.load(Relaxed)
    }

    /// Ends one; answers what waited for the last one.
    pub(super) fn leave(&self, entry: u64) -> Vec<Retired> {
        let mut leases = lock(&self.by_entry);
        let Some(leased) = leases.get_mut(&entry) else { return Vec::new() };
        leased.count = leased.count.saturating_sub(1);
        if leased.count > 0 {
            return Vec::new();
        }
        let aside = leases.remove(&entry).map(|leased| leased.aside).unwrap_or_default();
        self.aside.fetch_sub(aside.len(), Relaxed);
        aside
    }

    /// Sets aside what is leased; answers the rest.
    pub(super) fn take_in(&self, unheld: impl Iterator<Item = Retired>) -> Vec<Unlinked> {
        // Taken after every unlink in question: a lease that was entered before is seen here, and one that is entered
        // later finds its code unlinked and gives way.
        let mut leases = lock(&self.by_entry);
        let mut rest = Vec::new();
        for retired in unheld {
            match leases.get_mut(&retired.code.entry()) {
                Some(leased) if !mutant!("lease-unseen") => {
                    leased.aside.push(retired);
                    self.aside.fetch_add(1, Relaxed);
                }
                _ => rest.push(retired.code),
            }
        }
        rest
    }

    /// Takes out all that was set aside.
    pub(super) fn take(&self) -> Vec<Retired> {
        lock(&self.by_entry).values_mut().flat_map(|leased| std::mem::take(&mut leased.aside)).collect()
    }
}
