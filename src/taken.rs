//! Code that was taken back: who hears of it, once.

use crate::delivery::Delivery;
use crate::id::Bead;
use crate::info::OnInvalidate;
use crate::shared::Shared;

/// Code of a function taken back, and not told of yet.
#[must_use = "tell of it, outside any section"]
pub(crate) struct TakenBack {
    bead: Bead,
    callback: Option<OnInvalidate>,
}

impl Shared {
    /// Runs a transition that may take a bead's code back, inside a section. `took` tells whether it did: exactly one
    /// transition takes a piece of code, so each is told of once.
    pub(crate) fn take_back<T, E>(
        &self,
        bead: Bead,
        transition: impl FnOnce() -> Result<T, E>,
        took: impl FnOnce(&T) -> bool,
    ) -> Result<(T, Option<TakenBack>), E> {
        let callback = self.callback_of(bead);
        let no_fork = self.gate.enter();
        let mut order = self.deliveries.order();
        let done = transition()?;
        let took = took(&done);
        let dropped = if took { order.note(Delivery::Invalidated { bead }) } else { None };
        drop((order, no_fork));
        self.dispose(dropped);
        Ok((done, took.then_some(TakenBack { bead, callback })))
    }

    /// Tells the listeners and the bead's own callback, outside any section.
    pub(crate) fn tell_taken(&self, taken: Option<TakenBack>) {
        if let Some(TakenBack { bead, callback }) = taken {
            self.took_code(bead, callback);
        }
    }
}
