//! Code that is kept while something outside any mutator needs it.

use crate::code::{CodeWord, Reading};
use crate::engine::Engine;
use crate::id::Bead;
use crate::sync::Arc;
use std::fmt;
use std::sync::atomic::Ordering::Acquire;

/// A counted hold on a function's code: as long as any clone of it lives, the code is not freed, whatever becomes of the
/// function, and whatever safepoints are passed.
///
/// A [`Code`](crate::Code) borrows its mutator; a lease may be kept in a future across an await, handed to another thread or
/// to C, and called from a thread that has no mutator. What it leases stays code that *was* the function's: dispatch
/// anew where the newest is wanted.
///
/// A clone costs a count. The code is freed, if it was superseded meanwhile, after the last clone is dropped: by a worker, or
/// by the next [`Engine::reclaim`]. A lease keeps its engine alive, so one that is kept in something the engine owns (a
/// backend, a listener) keeps both for ever.
#[derive(Clone)]
pub struct Lease(Arc<Held>);

struct Held {
    engine: Engine,
    bead: Bead,
    entry: u64,
}

impl Lease {
    /// The entry, never null. Calling it is `unsafe` and the VM's business: the lease has to live until the call is over.
    pub fn as_ptr(&self) -> *const u8 {
        std::ptr::with_exposed_provenance(self.0.entry as usize)
    }

    /// The entry's address.
    pub fn addr(&self) -> u64 {
        self.0.entry
    }

    /// The function whose code it was when it was leased.
    pub fn bead(&self) -> Bead {
        self.0.bead
    }

    /// Whether a dispatch would answer this code now.
    pub fn is_current(&self) -> bool {
        self.0.engine.entry(self.0.bead) == Some(self.0.entry)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.engine.shared().end_lease(self.entry);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("bead", &self.0.bead).field("entry", &self.as_ptr()).finish()
    }
}

impl Engine {
    /// Leases the function's code, from any thread; `None` if it has none or was removed. Counts no call. Costs a lock,
    /// a map entry and an allocation.
    pub fn lease(&self, bead: Bead) -> Option<Lease> {
        loop {
            let entry = self.entry(bead)?;
            {
                let _no_fork = self.shared().gate.enter();
                self.shared().table.grace.lease(entry);
            }
            // From here on its drop ends the lease.
            let held = Held { engine: self.clone(), bead, entry };
            // Edge LEASE: entered first, then seen linked, so whoever unlinks it later and scans finds the lease.
            if self.entry(bead) == Some(entry) || mutant!("lease-unlooked") {
                return Some(Lease(Arc::new(held)));
            }
        }
    }

    fn entry(&self, bead: Bead) -> Option<u64> {
        if bead.index() >= self.capacity() {
            return None;
        }
        // Acquire, edge PUBLISH: who gets the pointer sees the code.
        match CodeWord(self.shared().table.code.get(bead.index()).load(mutant!("publish-lease", Acquire)))
            .read(bead)
        {
            Reading::Ready(entry) | Reading::Counted(entry) => Some(entry),
            Reading::Cold | Reading::Stale => None,
        }
    }
}
