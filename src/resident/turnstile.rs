//! Keeps artifacts from being written behind a clear's back.

use crate::gate::Gate;
use crate::sync::lock;
use std::sync::Mutex;
use std::thread::Thread;

/// Writers pass with the number they were let in with; who clears turns the number over and waits for those inside. Foreign code runs
/// between, so it is no lock that is held meanwhile.
#[derive(Default)]
pub(super) struct Turnstile(Mutex<State>);

#[derive(Default)]
struct State {
    number: u64,
    inside: usize,
    /// The process those inside are threads of: a forked child has none of them.
    process: u32,
    waiting: Vec<Thread>,
}

impl Turnstile {
    /// Looks at the state, in a section.
    fn look<R>(&self, gate: &Gate, look: impl FnOnce(&mut State) -> R) -> R {
        let process = std::process::id();
        let _no_fork = gate.enter();
        let mut state = lock(&self.0);
        if state.process != process {
            (state.process, state.inside) = (process, 0);
        }
        look(&mut state)
    }

    /// The number now, to be kept with a request.
    pub(super) fn number(&self, gate: &Gate) -> u64 {
        self.look(gate, |state| state.number)
    }

    /// Writes, unless the number has turned over since. `None` if it has.
    pub(super) fn pass<R>(&self, gate: &Gate, number: u64, write: impl FnOnce() -> R) -> Option<R> {
        /// Leaves even if `write` unwinds.
        struct Inside<'t>(&'t Turnstile, &'t Gate);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                let waiting = self.0.look(self.1, |state| {
                    state.inside = state.inside.saturating_sub(1);
                    std::mem::take(&mut state.waiting)
                });
                waiting.iter().for_each(Thread::unpark);
            }
        }
        let passes = self.look(gate, |state| {
            let passes = state.number == number;
            state.inside += usize::from(passes);
            passes
        });
        passes.then(|| {
            let _inside = Inside(self, gate);
            write()
        })
    }

    /// Turns the number over, and waits for those inside.
    pub(super) fn turn_over(&self, gate: &Gate) {
        self.look(gate, |state| state.number += 1);
        let is_empty = |state: &mut State| {
            // Noted before it is looked at again, so that who leaves wakes this thread.
            state.waiting.push(std::thread::current());
            state.inside == 0
        };
        while !self.look(gate, is_empty) {
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_nothing_is_written_with_a_number_from_before_a_clear_and_a_clear_waits_for_what_is_being_written() {
        let (turnstile, gate) = (Turnstile::default(), Gate::new());
        let before = turnstile.number(&gate);
        let written = Mutex::new(false);
        let (begun, begin) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                turnstile.pass(&gate, before, || {
                    begun.send(()).unwrap();
                    while turnstile.number(&gate) == before {
                        std::thread::yield_now();
                    }
                    *written.lock().unwrap() = true;
                })
            });
            begin.recv().unwrap();
            turnstile.turn_over(&gate);
            assert!(*written.lock().unwrap());
        });
        assert_eq!(turnstile.pass(&gate, before, || ()), None);
        assert_eq!(turnstile.pass(&gate, turnstile.number(&gate), || 7), Some(7));
    }

    #[test]
    fn a_write_that_panics_has_left() {
        let (turnstile, gate) = (Turnstile::default(), Gate::new());
        let write = || turnstile.pass(&gate, 0, || panic!("a full disk"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(write)).is_err());
        turnstile.turn_over(&gate);
    }
}
