//! The engine's handle: mutators, running, and the end. What else a VM asks is in [`look`], [`code`] and
//! [`crate::register`].

use crate::builder::EngineBuilder;
use crate::drain::Crew;
use crate::error::DrainTimeout;
use crate::grace::MutatorCell;
#[cfg(beadwork_loom)]
use crate::job::Slot;
use crate::shared::Shared;
use crate::sync::{Arc, Mutex, park_timeout};
use std::fmt;
use std::sync::Weak;
use std::time::{Duration, Instant};

mod assumption;
mod census;
mod code;
mod control;
mod direct;
mod grace;
mod look;
mod noting;
mod osr;
mod profile;
mod recovery;
mod reload;

pub use census::{Census, HeatLimits, HotFunction, Report};
pub use control::PauseGuard;
pub use grace::Pinned;
pub use look::{BeadState, PendingState};
pub use reload::{Reloaded, Superseded, Swapped};

/// A promotion broker: counts functions, has them compiled in the background, publishes and frees their code.
///
/// A handle is a counted reference: clones name the same engine. When the last handle and the last [`Mutator`](crate::Mutator) are
/// gone, queued work is dropped, compiles in flight are waited for ([5 seconds](EngineBuilder::close_timeout) at the most), and all
/// code is freed. If the wait was long enough, the engine's threads have ended then, too (unless it is one of them that lets go of
/// the last handle).
#[derive(Clone)]
pub struct Engine(Arc<Life>);

/// Counts the handles. Workers hold only what is inside, so that the last handle ends the engine.
struct Life {
    shared: Arc<Shared>,
    /// Cells of mutators that [`Engine::pin`] made and nobody uses now; offline.
    parked: Mutex<Vec<MutatorCell>>,
}

impl Engine {
    /// Configures an engine.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    pub(crate) fn start(make: impl FnOnce(&Weak<Shared>) -> Shared) -> Engine {
        let shared = Arc::new_cyclic(make);
        #[cfg(all(unix, not(beadwork_loom)))]
        crate::fork::enlist(&shared);
        Engine(Arc::new(Life { shared, parked: Mutex::new(Vec::new()) }))
    }

    #[inline(always)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Runs queued compiles on the calling thread, at most `max` of them, and frees what can be freed. This is
    /// where an [inline](EngineBuilder::inline) engine works; others may use it to help. Answers how many requests
    /// were taken.
    pub fn run_pending(&self, max: usize) -> usize {
        let shared = self.shared();
        let taken = shared.drain.work_inline(shared, max);
        if shared.settings.foreground && shared.drain.queued() > 0 {
            // Somebody may have found this thread in the place that was needed.
            shared.wake();
        }
        taken
    }

    /// Frees retired code that no mutator can be in any more, on the calling thread. Answers how many pieces.
    ///
    /// Workers do it by themselves. An engine that was never asked for a compile has none: there, installs and
    /// invalidations free what earlier ones retired, and this frees the rest.
    pub fn reclaim(&self) -> usize {
        self.shared().reclaim()
    }

    /// Moves the clock of policies whose counts fade with [ticks](crate::HalfLife::Ticks): the VM calls this at each
    /// collection, say.
    pub fn decay_tick(&self) {
        // Relaxed: a hint.
        self.shared().ticks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Waits until nothing is queued and nothing is being compiled; work that the calling thread is itself inside of does not
    /// count. On an inline engine, and on one of the pool's own threads, the calling thread works meanwhile.
    ///
    /// # Errors
    /// [`DrainTimeout`] after `timeout`; everything goes on as before.
    pub fn drain(&self, timeout: Duration) -> Result<(), DrainTimeout> {
        let (shared, start) = (self.shared(), Instant::now());
        shared.announce_waiter();
        // Perhaps the only one there is.
        let pool_thread = shared.is_pool_thread();
        let mut woken = false;
        let result = loop {
            // Announced anew before each round, since who is woken is struck off the list; and before working, since what wakes
            // may come while this thread finds nothing to do.
            shared.announce_waiter();
            if shared.is_closed() {
                // Nobody takes it any more. Who closed the engine, or asked as it closed, drops it; but not in a forked child.
                shared.drop_queued();
            }
            if shared.drain.workers == 0 || pool_thread {
                // Batch by batch, so that the time is looked at in between.
                while start.elapsed() < timeout && shared.drain.work_once(shared) > 0 {}
            }
            if shared.drain.is_idle() {
                break Ok(());
            }
            if shared.drain.wake.active() == 0 && !std::mem::replace(&mut woken, true) {
                // Left over from a pool that did not start, or from before a fork.
                shared.wake();
                if shared.settings.foreground {
                    // That was the work.
                    continue;
                }
            }
            let waited = start.elapsed();
            if waited >= timeout {
                break Err(DrainTimeout {
                    waited,
                    queued: shared.drain.queued(),
                    compiling: shared.drain.others_busy(),
                });
            }
            park_timeout(timeout - waited);
        };
        shared.withdraw_waiter();
        result
    }
}

/// For models: threads stand in for the pool's workers.
#[cfg(beadwork_loom)]
impl Engine {
    /// Is a worker if one was to be started; answers whether.
    pub fn work_if_started(&self) -> bool {
        let started = self.shared().executor.started();
        if started {
            self.shared().work();
        }
        started
    }

    /// Whether anything is noted of any loop.
    pub fn notes_loops(&self) -> bool {
        self.shared().loops.is_in_use()
    }

    /// What a native caller would load from the slot.
    pub fn slot_value(&self, slot: Slot) -> usize {
        self.shared().table.slot_cell(slot.0)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.shared.close();
        if cfg!(beadwork_loom) {
            // A model joins its threads itself, and has no clock.
            return;
        }
        if crate::nest::seats(self.shared.drain.address()) > 0 {
            // The last handle went inside a compile: waiting for it would be waiting for ourselves.
            return;
        }
        let (start, timeout) = (Instant::now(), self.shared.settings.close_timeout);
        while self.shared.drain.wake.active() > 0 {
            if self.shared.executor.do_other_work() {
                // On a thread of the pool, where a worker that waits to be started waits for us.
                continue;
            }
            self.shared.announce_waiter();
            let Some(left) = timeout.checked_sub(start.elapsed()) else {
                tracing::warn!(target: "beadwork", "an engine was dropped while a backend was stuck in a compile");
                return;
            };
            if self.shared.drain.wake.active() > 0 {
                park_timeout(left);
            }
        }
        // Relaxed: set before this thread was the only one.
        if self.shared.forked.load(std::sync::atomic::Ordering::Relaxed) {
            // Stacks of threads that do not exist hold references for ever; nobody uses them.
            self.shared.free_everything();
            return;
        }
        // A worker that has left may be about to let go of its reference: the code is freed here, not there.
        let mut rounds = 0;
        while Arc::strong_count(&self.shared) > 1 && start.elapsed() < timeout {
            crate::sync::wait_a_little(&mut rounds);
        }
        #[cfg(not(beadwork_loom))]
        self.shared.executor.join_threads();
        #[cfg(all(unix, not(beadwork_loom)))]
        crate::fork::delist(&self.shared);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("capacity", &self.capacity())
            .field("tiers", &self.shared().drain.lanes.top().get())
            .finish_non_exhaustive()
    }
}
