//! Where a worker sits: its own deques, what it is compiling, and its place in a lane. Both go back however its work ends.

use super::{Crew, Drain};
use crate::nest::{self, Here};
use crate::queue::{Lane, Request};
use crate::state::Ticket;
use crate::sync::deque::{Stealer, Worker};
use crate::sync::{Arc, Mutex, lock};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// A worker's place: its own deques, and what it is compiling.
pub(super) struct Seat {
    pub(super) deques: Box<[Worker<Request>]>,
    pub(super) public: Arc<Public>,
}

/// What others see of a seat.
pub(super) struct Public {
    pub(super) stealers: Box<[Stealer<Request>]>,
    pub(super) compiling: Mutex<Batch>,
}

/// What a worker has claimed and handed to a backend.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) tickets: Vec<Ticket>,
    /// When it was claimed, in milliseconds.
    pub(super) since: u32,
    /// Which of the tickets are finished: set by their jobs.
    pub(super) done: Done,
}

/// A flag for each job of a batch. Not the shim's: no protocol depends on it.
pub(super) type Done = Arc<[std::sync::atomic::AtomicBool]>;

impl Batch {
    /// What of it is not finished.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = (Ticket, u32)> {
        // Relaxed: who reads it knows of no order.
        let open = self.tickets.iter().zip(&self.done[..]).filter(|(_, done)| !done.load(Relaxed));
        open.map(|(&ticket, _)| (ticket, self.since))
    }
}

impl Seat {
    pub(super) fn own(&self, lane: &Lane) -> &Worker<Request> {
        &self.deques[lane.tier.lane()]
    }
}

/// A thread on a seat, which goes back however the thread ends its work.
pub(super) struct Seated<'d> {
    drain: &'d Drain,
    crew: &'d dyn Crew,
    seat: Option<Seat>,
    here: Option<Here>,
}

impl<'d> Seated<'d> {
    pub(super) fn new(drain: &'d Drain, crew: &'d dyn Crew) -> Seated<'d> {
        let _no_fork = crew.no_fork();
        let one = usize::from(!mutant!("close-seat-uncounted"));
        // AcqRel, edge WAKE, partner is `is_idle`.
        drain.busy.fetch_add(one, AcqRel);
        let free = lock(&drain.seats).pop();
        let seat = free.unwrap_or_else(|| {
            let deques: Box<[_]> = drain.lanes.all.iter().map(|_| Worker::new_fifo()).collect();
            let stealers = deques.iter().map(Worker::stealer).collect();
            let public = Arc::new(Public { stealers, compiling: Mutex::default() });
            drain.publics.write().unwrap_or_else(|e| e.into_inner()).push(public.clone());
            Seat { deques, public }
        });
        Seated { drain, crew, seat: Some(seat), here: Some(nest::sit_down(drain.address())) }
    }

    pub(super) fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        self.here = None;
        let left_over = self.seat.as_ref().is_some_and(|seat| {
            let _no_fork = self.crew.no_fork();
            // Nobody may sit here for long, and what lies here is stolen last.
            let mut left_over = false;
            for (lane, own) in self.drain.lanes.all.iter().zip(&seat.deques) {
                while let Some(request) = own.pop() {
                    lane.put_back(request);
                    left_over = true;
                }
            }
            left_over
        });
        {
            let _no_fork = self.crew.no_fork();
            lock(&self.drain.seats).extend(self.seat.take());
            // Saturating: a child forked inside a compile has forgotten all workers. AcqRel, edge WAKE.
            let _ = self
                .drain
                .busy
                .fetch_update(mutant!("close-seat-left", AcqRel), Acquire, |now| now.checked_sub(1));
        }
        if left_over && !mutant!("wake-put-back") {
            self.crew.signal();
        }
        if self.crew.is_closed() && !mutant!("close-unwoken") {
            // Who closed the engine waits for seats.
            self.crew.idle();
        }
    }
}

/// A worker's place in a lane.
pub(super) struct Place<'d> {
    pub(super) drain: &'d Drain,
    pub(super) lane: &'d Lane,
    pub(super) seat: &'d Seat,
    pub(super) crew: &'d dyn Crew,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        {
            let _no_fork = self.crew.no_fork();
            lock(&self.seat.public.compiling).tickets.clear();
        }
        let waited_for = self.drain.lanes.leave(self.lane);
        let waits = {
            let _no_fork = self.crew.no_fork();
            // Only where there is a place: a signal for a lane that is full or switched off would have its hearers look in vain, and
            // signal in turn. Whoever leaves it, or switches it on, signals.
            let of_use = |lane: &Lane| self.drain.lanes.has_place(lane, self.drain.workers);
            waited_for.iter().any(|lane| of_use(lane) && self.drain.holds_some(lane))
        };
        if waits && !mutant!("wake-place-unsignalled") {
            self.crew.signal();
        }
    }
}
