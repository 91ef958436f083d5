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
