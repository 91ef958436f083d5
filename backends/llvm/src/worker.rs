//! What a worker thread has of LLVM: a code generator and a context for each backend it compiles for.

use crate::env::Environment;
use crate::error::LlvmError;
use crate::session::Session;
use inkwell::targets::{TargetData, TargetMachine};
use std::cell::Cell;
use std::sync::{Arc, Weak};

/// LLVM's objects for one backend on one thread. None of them is shared, so compiles share no lock.
pub(crate) struct Worker {
    /// Whose it is. The backend may go first; then this goes when its thread compiles the next time, or ends.
    backend: Weak<Environment>,
    pub(crate) machine: TargetMachine,
    pub(crate) data: TargetData,
    pub(crate) session: Session,
}

thread_local! {
    /// This thread's workers, while no compile uses them. A pool behind a lock could be held by a worker that a
    /// forked child does not have.
    static WORKERS: Cell<Vec<Worker>> = const { Cell::new(Vec::new()) };
}

impl Worker {
    /// This thread's worker for a backend.
    pub(crate) fn take(env: &Arc<Environment>) -> Result<Worker, LlvmError> {
        // A thread whose thread-locals are gone makes a worker for the batch.
        let mut all = WORKERS.try_with(Cell::take).unwrap_or_default();
        all.retain(|worker| worker.backend.strong_count() > 0);
        let own = all.iter().position(|worker| std::ptr::eq(worker.backend.as_ptr(), Arc::as_ptr(env)));
        let own = own.map(|at| all.swap_remove(at));
        // Back at once: the frontend may run another backend's compiles on this thread.
        let _ = WORKERS.try_with(|place| place.set(all));
        own.map_or_else(|| Worker::new(env), Ok)
    }

    pub(crate) fn put(self) {
        let _ = WORKERS.try_with(|place| {
            let mut all = place.take();
            all.push(self);
            place.set(all);
        });
    }

    fn new(env: &Arc<Environment>) -> Result<Worker, LlvmError> {
        let machine = env.machine()?;
        let data = machine.get_target_data();
        Ok(Worker { backend: Arc::downgrade(env), machine, data, session: Session::new(&env.contexts) })
    }

    /// Replaces the context if it has compiled its share.
    pub(crate) fn recycle(&mut self, env: &Environment) {
        if self.session.compiled >= env.recycle_after {
            self.session = Session::new(&env.contexts);
        }
    }
}
