//! Keeps artifacts from being written behind a clear's back.

use crate::gate::Gate;
use crate::sync::lock;
use std::sync::Mutex;
use std::thread::{Thread, ThreadId, current};

/// Writers pass with the number they were let in with; who clears turns the number over and waits for those inside, but for himself.
/// Foreign code runs between, so it is no lock that is held meanwhile.
#[derive(Default)]
pub(super) struct Turnstile(Mutex<State>);

#[derive(Default)]
struct State {
    number: u64,
    /// Those inside, with the number they were let in with. Who clears waits for older ones only, so others may pass meanwhile.
    inside: Vec<(u64, ThreadId)>,
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
            (state.process, state.inside) = (process, Vec::new());
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
        struct Inside<'t>(&'t Turnstile, &'t Gate, u64);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                let waiting = self.0.look(self.1, |state| {
                    let own = (self.2, current().id());
                    if let Some(place) = state.inside.iter().position(|inside| *inside == own) {
                        state.inside.swap_remove(place);
                    }
                    std::mem::take(&mut state.waiting)
                });
                waiting.iter().for_each(Thread::unpark);
            }
        }
        let passes = self.look(gate, |state| {
            let passes = state.number == number;
            if passes {
                state.inside.push((number, current().id()));
            }
            passes
        });
        passes.then(|| {
            let _inside = Inside(self, gate, number);
            write()
        })
    }

    /// Turns the number over, and waits for those inside that came in before; not for the calling thread, which may be one of them:
    /// what writes may clear.
    pub(super) fn turn_over(&self, gate: &Gate) {
        let number = self.look(gate, |state| {
            state.number += 1;
            state.number
        });
        let is_past = |state: &mut State| {
            let here = current();
            let is_past = state.inside.iter().all(|&(of, thread)| of >= number || thread == here.id());
            if !is_past {
                // Noted in the same look, so that who leaves wakes this thread.
                state.waiting.push(here);
            }
            is_past
        };
        while !self.look(gate, is_past) {
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
    fn c6_a_clear_waits_for_nobody_who_came_after_it() {
        let (turnstile, gate) = (Turnstile::default(), Gate::new());
        let (later, came_later) = std::sync::mpsc::channel();
        let (begun, begin) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (turnstile, gate) = (&turnstile, &gate);
            scope.spawn(move || {
                turnstile.pass(gate, 0, || {
                    begun.send(()).unwrap();
                    came_later.recv().unwrap();
                })
            });
            begin.recv().unwrap();
            let clear = scope.spawn(|| turnstile.turn_over(gate));
            while turnstile.number(gate) == 0 {
                std::thread::yield_now();
            }
            let start = std::time::Instant::now();
            let ended = turnstile.pass(gate, 1, || {
                later.send(()).unwrap();
                while !clear.is_finished() && start.elapsed().as_secs() < 60 {
                    std::thread::yield_now();
                }
                clear.is_finished()
            });
            assert_eq!(ended, Some(true));
        });
    }

    #[test]
    fn c6_who_writes_may_clear_and_others_that_clear_wait_for_him() {
        let (turnstile, gate) = (Turnstile::default(), Gate::new());
        let written = Mutex::new(false);
        std::thread::scope(|scope| {
            turnstile.pass(&gate, 0, || {
                turnstile.turn_over(&gate);
                scope.spawn(|| {
                    turnstile.turn_over(&gate);
                    assert!(*written.lock().unwrap());
                });
                while turnstile.number(&gate) == 1 {
                    std::thread::yield_now();
                }
                *written.lock().unwrap() = true;
            })
        });
    }

    #[test]
    fn a_write_that_panics_has_left() {
        let (turnstile, gate) = (Turnstile::default(), Gate::new());
        let write = || turnstile.pass(&gate, 0, || panic!("a full disk"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(write)).is_err());
        turnstile.turn_over(&gate);
    }
}
