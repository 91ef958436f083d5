//! What the VM wants to hear at a time of its own: installs with the payload that came with the code, and their ends.
//!
//! # Order
//! What is delivered of one function comes in the order in which it happened. A transition that installs code, takes it back or
//! ends the function is made, and noted here, within one hold of the queue's lock ([`Deliveries::order`]). Transitions of one
//! state word are totally ordered (edge CLAIM), and of two that both hold the lock the one that holds it first comes first in
//! both orders; so the queue has the order of versions, and a drain that hands it over from the front, one thread at a time,
//! keeps it. Noting cannot happen under the publishing bit (it allocates), and noting after it without the lock could be
//! overtaken: the install of version 5 would be told after the invalidation that made version 6.
//!
//! The lock is taken before the bit, never under it. Who holds a bit takes no lock, so whoever waits for one here waits for
//! a thread that needs nothing to go on. Other locks (retired code, faults, assumptions) are taken under this one, and
//! never this one under them. All of it is inside a section of the gate, and nothing of it is foreign code.
//!
//! An engine whose delivery is off has no such lock: the order then is nobody's business.

use crate::builder::EngineBuilder;
use crate::engine::Engine;
use crate::gate::Gate;
use crate::id::{Bead, TierId};
use crate::mutator::Mutator;
use crate::shared::Shared;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, ThreadId, current_thread, lock};
use crate::table::Installed;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

/// Something that took effect, for the VM's own tables; see [`Mutator::deliver`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Delivery {
    /// Code was installed, by a backend or by the VM.
    Installed {
        /// The function.
        bead: Bead,
        /// Its tier.
        tier: TierId,
        /// The version of the code; rises from one install of the function to the next.
        version: u32,
        /// What came with the code: [`CompiledCode::payload`](crate::CompiledCode::payload).
        payload: Option<Box<dyn Any + Send>>,
    },
    /// Code was taken back: what was installed last is not answered any more. Threads may still be in it.
    Invalidated {
        /// The function.
        bead: Bead,
    },
    /// Baseline code that was installed before, and held while higher code ran, runs again after a
    /// [bailout](crate::Engine::bailout). Comes after the `Invalidated` of the code that failed.
    Reverted {
        /// The function.
        bead: Bead,
        /// The version it was installed with.
        version: u32,
    },
    /// The function is gone; nothing of it follows.
    Removed {
        /// The function.
        bead: Bead,
    },
    /// More waited than [`EngineBuilder::delivery_limit`](crate::EngineBuilder::delivery_limit) allows, and the oldest were
    /// dropped with their payloads. What the VM's tables say has to be checked against
    /// [`Engine::state`](crate::Engine::state).
    Lost {
        /// How many.
        count: u64,
    },
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Delivery>,
    lost: u64,
    /// The thread that is handing over.
    drained_by: Option<ThreadId>,
}

pub(crate) struct Deliveries {
    /// The most that wait; 0 where nobody wants any.
    limit: usize,
    queue: Mutex<Queue>,
    /// How many wait, so that nobody takes the lock while there is none.
    len: AtomicUsize,
}

/// The right to note what is about to happen, in order.
#[must_use = "hold it from before the transition until it is noted"]
pub(crate) struct Order<'d> {
    deliveries: &'d Deliveries,
    queue: Option<MutexGuard<'d, Queue>>,
}

impl Deliveries {
    pub(crate) fn new(limit: usize) -> Deliveries {
        Deliveries { limit, queue: Mutex::new(Queue::default()), len: AtomicUsize::new(0) }
    }

    /// Take this inside a section, before the publishing bit, and drop it before the section ends. Costs a compare where nobody
    /// wants deliveries.
    pub(crate) fn order(&self) -> Order<'_> {
        Order { deliveries: self, queue: (self.limit > 0).then(|| lock(&self.queue)) }
    }

    /// Runs an install and notes it. Answers what is to be disposed of outside the section.
    pub(crate) fn install<E>(
        &self,
        bead: Bead,
        tier: TierId,
        payload: Option<Box<dyn Any + Send>>,
        install: impl FnOnce() -> Result<Installed, E>,
    ) -> (Result<Installed, E>, Option<Delivery>) {
        if self.limit == 0 && payload.is_none() {
            return (install(), None);
        }
        let mut order = self.order();
        if mutant!("order-noted-late") {
            order.queue = None;
        }
        let installed = install();
        if mutant!("order-noted-late") {
            order = self.order();
        }
        let version = installed.as_ref().map_or(0, |installed| installed.version);
        let delivery = Delivery::Installed { bead, tier, version, payload };
        let dropped = if installed.is_ok() { order.note(delivery) } else { Some(delivery) };
        (installed, dropped)
    }

    fn len(&self) -> usize {
        // Relaxed: what was noted before the caller looks, in any order the caller knows of, is counted.
        self.len.load(Relaxed)
    }

    /// Takes the turn to hand over; answers how many wait.
    fn begin(&self) -> Option<usize> {
        let mut queue = lock(&self.queue);
        if queue.drained_by.is_some() {
            return None;
        }
        queue.drained_by = Some(current_thread());
        Some(queue.waiting.len() + usize::from(queue.lost > 0))
    }

    fn next(&self) -> Option<Delivery> {
        let mut queue = lock(&self.queue);
        let count = std::mem::take(&mut queue.lost);
        if count > 0 {
            // What was dropped is older than what waits.
            return Some(Delivery::Lost { count });
        }
        let next = queue.waiting.pop_front();
        self.len.store(queue.waiting.len(), Relaxed);
        if queue.waiting.is_empty() {
            // A burst must not hold its memory for ever.
            queue.waiting.shrink_to(KEPT);
        }
        next
    }

    /// Takes everything out, at the end of the engine.
    pub(crate) fn take_all(&self) -> VecDeque<Delivery> {
        std::mem::take(&mut lock(&self.queue).waiting)
    }

    fn end(&self) {
        lock(&self.queue).drained_by = None;
    }

    /// In a forked child: the thread that was handing over does not exist, unless it is this one.
    #[cfg(all(unix, not(beadwork_loom)))]
    pub(crate) fn mend_after_fork(&self) {
        let mut queue = lock(&self.queue);
        queue.drained_by = queue.drained_by.filter(|&thread| thread == current_thread());
    }
}

/// Deliveries the queue keeps room for when fewer wait.
const KEPT: usize = 256;

impl Order<'_> {
    /// Notes what has just taken effect. Answers what is dropped for it, or could not be noted: foreign values, to be disposed of
    /// outside the section.
    #[must_use = "dispose of it outside the section"]
    pub(crate) fn note(&mut self, delivery: Delivery) -> Option<Delivery> {
        let Some(queue) = &mut self.queue else { return Some(delivery) };
        let dropped =
            if queue.waiting.len() >= self.deliveries.limit { queue.waiting.pop_front() } else { None };
        queue.lost += u64::from(dropped.is_some());
        queue.waiting.push_back(delivery);
        self.deliveries.len.store(queue.waiting.len(), Relaxed);
        dropped
    }
}

/// A thread's turn to hand over, given back however it ends.
struct Turn<'s>(&'s Deliveries, &'s Gate);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _no_fork = self.1.enter();
        self.0.end();
    }
}

impl Shared {
    fn deliver(&self, mut take: impl FnMut(Delivery)) -> usize {
        if self.deliveries.len() == 0 {
            return 0;
        }
        let begun = {
            let _no_fork = self.gate.enter();
            self.deliveries.begin()
        };
        let Some(waiting) = begun else { return 0 };
        let _turn = Turn(&self.deliveries, &self.gate);
        let (mut taken, mut handed) = (0, 0);
        // What is told of being lost counts too, or a busy producer could keep this thread for ever.
        while taken < waiting {
            let next = {
                let _no_fork = self.gate.enter();
                self.deliveries.next()
            };
            // Fewer than there were: a limit dropped them meanwhile.
            let Some(next) = next else { break };
            taken += 1;
            handed += usize::from(!matches!(next, Delivery::Lost { .. }));
            take(next);
        }
        handed
    }
}

impl EngineBuilder {
    /// Keeps what happens to code (installs with their [payloads](crate::CompiledCode::payload), their ends) until a thread of the
    /// VM asks for it by [`Mutator::deliver`](crate::Mutator::deliver). Off by default, and then it costs nothing and
    /// payloads are dropped as their code is installed.
    ///
    /// Nothing is left out, so the VM has to ask now and then: what nobody takes stays, about 48 bytes and a payload each
    /// time, unless there is a [`delivery_limit`](EngineBuilder::delivery_limit). Installs, invalidations and removals take a lock
    /// for it. A payload must not hold a handle of the engine: one that nobody takes would keep it alive.
    #[must_use]
    pub fn delivery(mut self, on: bool) -> Self {
        self.delivery = on;
        self
    }

    /// The most deliveries that wait; 0 means 1. When there are more, the oldest are dropped, and the next drain begins with
    /// [`Delivery::Lost`]. No limit by default.
    #[must_use]
    pub fn delivery_limit(mut self, deliveries: usize) -> Self {
        self.delivery_limit = deliveries.max(1);
        self
    }
}

impl Mutator {
    /// Hands over what happened to code since the last time, oldest first, on engines built with
    /// [`delivery`](crate::EngineBuilder::delivery); answers how much. For VMs that keep tables of their own beside the code:
    /// they change them here, where this thread holds no code pointer, instead of in a callback on a compiler's thread.
    ///
    /// Everything is handed over once, to one thread, after it took effect, and what concerns one function in the order
    /// in which it happened; what waited when the call began, no more. While one thread takes deliveries, others that ask
    /// get none and do not wait. If `take` panics, the one it was given is gone and the others wait for the next call.
    ///
    /// Costs one load while nothing waits.
    #[inline]
    pub fn deliver(&mut self, take: impl FnMut(Delivery)) -> usize {
        self.engine().shared().deliver(take)
    }
}

impl Engine {
    /// As [`Mutator::deliver`], for a thread without one.
    pub fn deliver(&self, take: impl FnMut(Delivery)) -> usize {
        self.shared().deliver(take)
    }

    /// How many deliveries wait for [`deliver`](Mutator::deliver).
    pub fn deliveries(&self) -> usize {
        self.shared().deliveries.len()
    }
}
