//! Collectors that move the VM's objects, and with them the cores of functions.
//!
//! A compile that follows its core into the heap does so inside [`Job::with_core`]; a collector moves objects, and calls
//! [`Engine::set_core`], while it holds a [`GcPause`]. The two exclude each other: many threads inside, or any
//! number of pauses, never both. One lock guards the lists of both; nobody waits under it, or inside a section of the gate.

use crate::engine::Engine;
use crate::error::{CoreError, GcPauseError};
use crate::gate::Gate;
use crate::id::{Bead, Core};
use crate::job::Job;
use crate::sync::{Mutex, Thread, ThreadId, current_thread, lock, park, park_timeout, this_thread};
use std::fmt;
use std::time::{Duration, Instant};

#[derive(Default)]
struct Threads {
    /// Threads that look at cores, once for each time.
    inside: Vec<ThreadId>,
    /// Threads that asked for a pause, from when they begin to wait for it.
    pauses: Vec<ThreadId>,
    /// Who waits for either to end.
    waiting: Vec<Thread>,
}

impl Threads {
    fn take_waiting(&mut self, over: bool) -> Vec<Thread> {
        if over { std::mem::take(&mut self.waiting) } else { Vec::new() }
    }
}

fn remove_one(list: &mut Vec<ThreadId>, thread: ThreadId) {
    if let Some(position) = list.iter().rposition(|&listed| listed == thread) {
        list.swap_remove(position);
    }
}

/// Who is inside, and who keeps others out.
#[derive(Default)]
pub(crate) struct Moving(Mutex<Threads>);

/// A thread that looks at cores, until this is dropped.
pub(crate) struct Inside<'s> {
    moving: &'s Moving,
    gate: &'s Gate,
}

impl Moving {
    /// Waits until no pause is left, and keeps new ones from beginning.
    pub(crate) fn enter<'s>(&'s self, gate: &'s Gate) -> Result<Inside<'s>, CoreError> {
        let me = current_thread();
        loop {
            {
                let _no_fork = gate.enter();
                let mut threads = lock(&self.0);
                // A thread that is inside already goes on: the pause that waits, waits for it.
                if threads.pauses.is_empty() || threads.inside.contains(&me) || mutant!("moving-let-in") {
                    threads.inside.push(me);
                    return Ok(Inside { moving: self, gate });
                }
                if threads.pauses.contains(&me) {
                    return Err(CoreError::Paused);
                }
                threads.waiting.push(this_thread());
            }
            rest(None);
        }
    }

    /// Keeps others out, and waits until nobody is inside.
    fn pause(&self, gate: &Gate, timeout: Option<Duration>) -> Result<ThreadId, GcPauseError> {
        let (me, start) = (current_thread(), Instant::now());
        {
            let _no_fork = gate.enter();
            let mut threads = lock(&self.0);
            if threads.inside.contains(&me) {
                return Err(GcPauseError::Inside);
            }
            threads.pauses.push(me);
        }
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            let inside = {
                let _no_fork = gate.enter();
                let mut threads = lock(&self.0);
                if threads.inside.is_empty() || mutant!("moving-unwaited") {
                    return Ok(me);
                }
                threads.waiting.push(this_thread());
                threads.inside.len()
            };
            if left.is_some_and(|left| left.is_zero()) {
                self.resume(gate, me);
                return Err(GcPauseError::Timeout { waited: start.elapsed(), inside });
            }
            rest(left);
        }
    }

    fn resume(&self, gate: &Gate, thread: ThreadId) {
        let waiting = {
            let _no_fork = gate.enter();
            let mut threads = lock(&self.0);
            remove_one(&mut threads.pauses, thread);
            let over = threads.pauses.is_empty();
            threads.take_waiting(over)
        };
        waiting.iter().for_each(Thread::unpark);
    }

    /// In a forked child: other threads do not exist, so they are not inside and hold no pause.
    #[cfg(all(unix, not(beadwork_loom)))]
    pub(crate) fn mend_after_fork(&self) {
        let (me, mut threads) = (current_thread(), lock(&self.0));
        threads.inside.retain(|&thread| thread == me);
        threads.pauses.retain(|&thread| thread == me);
        threads.waiting.clear();
    }
}

/// Waits until somebody wakes this thread, or a little; the caller looks again.
fn rest(left: Option<Duration>) {
    match left {
        Some(left) => park_timeout(left),
        None => park(),
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let waiting = {
            let _no_fork = self.gate.enter();
            let mut threads = lock(&self.moving.0);
            remove_one(&mut threads.inside, current_thread());
            let over = threads.inside.is_empty();
            threads.take_waiting(over)
        };
        waiting.iter().for_each(Thread::unpark);
    }
}

impl Job<'_> {
    /// Runs `look` with the VM's handle for the function, while no collector moves objects: it waits until no
    /// [`GcPause`] is left, and new ones wait until `look` returns. So a core that is a pointer may be followed here, and
    /// what it points at stays where it is, if the VM's collector moves functions only under a pause.
    ///
    /// Keep it short, and copy out what the compile needs: the collector waits meanwhile. It may be used inside itself. Never
    /// wait in it for the collector, as an allocation in the VM's heap may do: each would wait for the other. Costs two
    /// locks.
    ///
    /// # Errors
    /// [`CoreError`]: the function was removed, or this thread itself holds a pause (an inline engine that works while its
    /// collector runs). Either turns into a [`CompileError`](crate::CompileError) by `?`.
    pub fn with_core<R>(&self, look: impl FnOnce(Core) -> R) -> Result<R, CoreError> {
        self.with_core_of(self.bead(), look)
    }

    /// The same for another function, whose body is to be [included](Job::include) in this one's code.
    ///
    /// # Errors
    /// As [`with_core`](Job::with_core), with [`CoreError`] about that function.
    pub fn with_core_of<R>(&self, bead: Bead, look: impl FnOnce(Core) -> R) -> Result<R, CoreError> {
        let _inside = self.host().enter_core()?;
        // Read inside: it cannot be moved away any more.
        let core = self.core_of(bead)?;
        Ok(look(core))
    }
}

impl Engine {
    /// Waits until no job is inside [`Job::with_core`], and keeps new ones out until the guard is dropped. A moving collector
    /// holds it while it moves objects and tells the new cores by [`set_core`](Engine::set_core).
    ///
    /// Compiles that need no core go on. Pauses nest, and several threads may hold one; they do not exclude each other.
    /// While holding one, do not wait for compiles ([`compile_now`](Engine::compile_now), [`drain`](Engine::drain),
    /// [`shutdown`](Engine::shutdown)): they may be waiting for its end, so the wait runs into its timeout.
    ///
    /// # Errors
    /// [`GcPauseError::Inside`] if this thread is inside `with_core` itself, which it would wait for.
    pub fn gc_pause(&self) -> Result<GcPause, GcPauseError> {
        self.begin_pause(None)
    }

    /// As [`gc_pause`](Engine::gc_pause), but waits no longer than `timeout`; new jobs are kept out while it waits.
    ///
    /// # Errors
    /// [`GcPauseError::Timeout`] too; everything goes on as before then.
    pub fn try_gc_pause(&self, timeout: Duration) -> Result<GcPause, GcPauseError> {
        self.begin_pause(Some(timeout))
    }

    fn begin_pause(&self, timeout: Option<Duration>) -> Result<GcPause, GcPauseError> {
        let shared = self.shared();
        let thread = shared.moving.pause(&shared.gate, timeout)?;
        Ok(GcPause { engine: self.clone(), thread })
    }
}

/// Keeps jobs from looking at cores; see [`Engine::gc_pause`].
///
/// It goes by the thread that asked for it. A thread it is moved to must not compile meanwhile: on an inline engine it would
/// wait for itself.
#[must_use = "jobs look at cores again when this is dropped"]
pub struct GcPause {
    engine: Engine,
    /// Who asked for it.
    thread: ThreadId,
}

impl Drop for GcPause {
    fn drop(&mut self) {
        let shared = self.engine.shared();
        shared.moving.resume(&shared.gate, self.thread);
    }
}

impl fmt::Debug for GcPause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GcPause")
    }
}
