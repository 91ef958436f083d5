//! Calls that give a compile what it needs to know, should they be what makes a function hot.

use super::Mutator;
use crate::code::{Code, Reading};
use crate::counter;
use crate::id::Bead;
use crate::snapshot::{self, Given};
use std::any::Any;

impl Mutator {
    /// As [`dispatch`](Mutator::dispatch); and if this call has a compile asked for, `note` says what the compile is to know
    /// ([`Job::snapshot`](crate::Job::snapshot)), in place of the engine's own [snapshot](crate::EngineBuilder::snapshot). The engine
    /// has to [accept](crate::EngineBuilder::accept_snapshots) that.
    ///
    /// `note` is called within this, on this thread and outside of locks, and not unless a compile is about to be asked for; now
    /// and then more than once, or in vain, if others ask at the same time. A panic in it is contained, and the compile goes
    /// without. Costs what a dispatch costs.
    #[inline]
    pub fn dispatch_with<T: Any + Send>(&self, bead: Bead, note: impl Fn() -> Option<T>) -> Option<Code<'_>> {
        let (code, counts) = match self.read(bead) {
            Reading::Ready(entry) => return Some(Code::new(entry)),
            Reading::Cold => (None, true),
            Reading::Counted(entry) => (Some(Code::new(entry)), true),
            Reading::Stale => (None, false),
        };
        if counts {
            self.count_noting(bead, Some(&|| snapshot::of(note())));
        }
        code
    }

    fn count_noting(&self, bead: Bead, given: Given<'_>) {
        if self.sampling > 1 {
            match self.skip.get() {
                0 => self.draw(),
                skip => return self.skip.set(skip - 1),
            }
        }
        if counter::count(self.hot.second(bead.index()), self.sampling) {
            self.engine().shared().budget_spent(bead, self.sampling, given);
        }
    }
}
