//! Where the threads of an engine's own pool wait until a worker is to be started.
//!
//! They do not wait in the pool. A thread of rayon's that runs out of work yields the processor some 30 times before it sleeps, and
//! a thread that has yielded comes late to its turn when it is woken where mutators keep the processors busy: on Linux 6.18 it was
//! milliseconds from a request to the worker's start that are microseconds here (case `threshold to code` of the benches).

use crate::sync::{Mutex, lock};
use std::collections::VecDeque;
use std::sync::Condvar;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct Lot {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    ended: bool,
}

impl Lot {
    /// Has one of the threads run this.
    pub(super) fn start(&self, job: Job) {
        lock(&self.state).jobs.push_back(job);
        self.came.notify_one();
    }

    /// Takes what no thread has come for yet.
    pub(super) fn take(&self) -> Option<Job> {
        lock(&self.state).jobs.pop_front()
    }

    /// A thread's life, on the pool: runs what is started, until the end.
    pub(super) fn serve(&self) {
        while let Some(job) = self.next() {
            job();
        }
    }

    fn next(&self) -> Option<Job> {
        // What a backend has spawned on this pool itself.
        while rayon::yield_now() == Some(rayon::Yield::Executed) {}
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.ended {
                return None;
            }
            state = self.came.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Lets the threads go, when what was started has run.
    pub(super) fn end(&self) {
        lock(&self.state).ended = true;
        self.came.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn whatever_is_started_is_run_also_as_threads_come_to_rest() {
        const EACH: usize = 2_000;
        let (lot, (ran, runs)) = (Arc::new(Lot::default()), mpsc::channel());
        let served = [(); 2].map(|()| {
            let lot = lot.clone();
            thread::spawn(move || lot.serve())
        });
        for _ in 0..3 {
            let (lot, ran) = (lot.clone(), ran.clone());
            thread::spawn(move || {
                for _ in 0..EACH {
                    let ran = ran.clone();
                    lot.start(Box::new(move || ran.send(()).unwrap()));
                    // Now and then all are at rest.
                    thread::yield_now();
                }
            });
        }
        (0..3 * EACH).for_each(|_| runs.recv_timeout(Duration::from_secs(60)).expect("it is run"));
        lot.end();
        served.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn what_was_started_before_the_end_is_run_before_a_thread_goes() {
        let (lot, runs) = (Lot::default(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..3 {
            let runs = runs.clone();
            lot.start(Box::new(move || _ = runs.fetch_add(1, SeqCst)));
        }
        lot.take().unwrap()();
        lot.end();
        lot.serve();
        assert_eq!(runs.load(SeqCst), 3);
        assert!(lot.take().is_none());
    }
}
