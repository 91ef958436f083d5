//! Keeps artifacts from being written behind a clear's back.

use crate::sync::lock;
use std::sync::{Condvar, Mutex};

/// Writers pass with the number they were let in with; who clears turns the number over and waits for those inside. Foreign code runs
/// between, so it is no lock that is held meanwhile.
#[derive(Default)]
pub(super) struct Turnstile {
    /// The number, and how many are inside.
    state: Mutex<(u64, usize)>,
    left: Condvar,
}

impl Turnstile {
    /// The number now, to be kept with a request.
    pub(super) fn number(&self) -> u64 {
        lock(&self.state).0
    }

    /// Writes, unless the number has turned over since. `None` if it has.
    pub(super) fn pass<R>(&self, number: u64, write: impl FnOnce() -> R) -> Option<R> {
        /// Leaves even if `write` unwinds.
        struct Inside<'t>(&'t Turnstile);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                lock(&self.0.state).1 -= 1;
                self.0.left.notify_all();
            }
        }
        let mut state = lock(&self.state);
        if state.0 != number {
            return None;
        }
        state.1 += 1;
        drop(state);
        let _inside = Inside(self);
        Some(write())
    }

    /// Turns the number over, and waits for those inside.
    pub(super) fn turn_over(&self) {
        let mut state = lock(&self.state);
        state.0 += 1;
        while state.1 > 0 {
            state = self.left.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_nothing_is_written_with_a_number_from_before_a_clear_and_a_clear_waits_for_what_is_being_written() {
        let turnstile = Turnstile::default();
        let before = turnstile.number();
        let written = Mutex::new(false);
        let (begun, begin) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                turnstile.pass(before, || {
                    begun.send(()).unwrap();
                    while turnstile.number() == before {
                        std::thread::yield_now();
                    }
                    *written.lock().unwrap() = true;
                })
            });
            begin.recv().unwrap();
            turnstile.turn_over();
            assert!(*written.lock().unwrap());
        });
        assert_eq!(turnstile.pass(before, || ()), None);
        assert_eq!(turnstile.pass(turnstile.number(), || 7), Some(7));
    }
}
