//! Mutators come and go, and which of them hold freeing back.

use super::Engine;
use crate::grace::{Laggard, MutatorCell};
use crate::mutator::Mutator;
use crate::sync::{Arc, lock};
use std::fmt;

impl Engine {
    /// A handle for a thread that runs the guest program; one per thread. Costs a lock and an allocation.
    ///
    /// Where it holds back freeing, it goes by the name of the calling thread.
    pub fn mutator(&self) -> Mutator {
        self.enlist(None)
    }

    /// As [`mutator`](Engine::mutator), with a name of its own, for [`laggards`](Engine::laggards) and
    /// [`Event::HeldBack`](crate::Event::HeldBack); need not be unique.
    pub fn mutator_named(&self, name: &str) -> Mutator {
        self.enlist(Some(name.into()))
    }

    fn enlist(&self, name: Option<Arc<str>>) -> Mutator {
        let (cell, seen) = {
            let _no_fork = self.shared().gate.enter();
            self.shared().table.grace.enlist(name)
        };
        Mutator::new(self.clone(), cell, seen)
    }

    /// A mutator for a short stretch of work on a thread that keeps none: it comes online here and goes offline
    /// when it is dropped. Costs two locks and a fence (tens of nanoseconds) each time, where a kept [`Mutator`]
    /// costs nothing; good for a callback or a foreign thread, not for a dispatch loop.
    pub fn pin(&self) -> Pinned {
        let parked = {
            let _no_fork = self.shared().gate.enter();
            lock(&self.0.parked).pop().inspect(|cell| cell.moves_here())
        };
        let mutator = match parked {
            Some(cell) => {
                let seen = crate::grace::come_online(&self.shared().table.grace.epoch(), &cell);
                Mutator::new(self.clone(), cell, seen)
            }
            None => self.mutator(),
        };
        Pinned(Some(mutator))
    }

    /// Mutators that have not passed a safepoint since code was last retired, and those that named return addresses at
    /// theirs; the furthest behind first. Costs some locks.
    ///
    /// A mutator that stays in this list runs long without a safepoint, or waits for something without being
    /// [offline](Mutator::offline).
    pub fn laggards(&self) -> Vec<Laggard> {
        let _no_fork = self.shared().gate.enter();
        self.shared().table.grace.laggards()
    }

    /// In a forked child: forgets every mutator but `survivors`, so that threads which do not exist do not hold back freeing and
    /// reuse for ever. Costs a lock.
    ///
    /// # Safety
    /// No other mutator of this engine is used in this process any more, not even dropped later by a thread it was moved to.
    #[allow(unsafe_code)]
    pub unsafe fn forget_other_mutators(&self, survivors: &[&Mutator]) {
        let cells: Vec<&MutatorCell> = survivors.iter().map(|mutator| mutator.cell()).collect();
        let _no_fork = self.shared().gate.enter();
        // Parked cells are forgotten too, so nobody must come online in one of them.
        lock(&self.0.parked).clear();
        self.shared().table.grace.forget_all_but(&cells);
    }
}

/// A [`Mutator`] for a stretch of work; see [`Engine::pin`].
pub struct Pinned(Option<Mutator>);

impl std::ops::Deref for Pinned {
    type Target = Mutator;
    fn deref(&self) -> &Mutator {
        match &self.0 {
            Some(mutator) => mutator,
            None => unreachable!("taken only by drop"),
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(mutator) = self.0.take() {
            let (engine, cell) = mutator.park();
            {
                let _no_fork = engine.shared().gate.enter();
                lock(&engine.0.parked).push(cell);
            }
            engine.shared().passed_by();
        }
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pinned")
    }
}
