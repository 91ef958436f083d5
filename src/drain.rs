//! The drain: workers that take requests from the lanes, compile them and end when there is nothing left.
//!
//! A worker serves no lane of its own. It takes the best admissible request, lowest tier first, so a slow optimizing
//! compile never delays baseline compiles while another worker is free. What it takes from a lane goes into its own
//! deque, one for each lane, from which idle workers steal.

use crate::backend::{Job, JobHost};
use crate::contain::contain;
use crate::error::CompileError;
use crate::gate::Inside;
use crate::id::{Bead, TierId};
use crate::queue::{Lane, Lanes, Rank, Request, steal_into};
use crate::state::Ticket;
use crate::sync::deque::{Stealer, Worker};
use crate::sync::{Arc, AtomicUsize, Mutex, RwLock, lock};
use crate::wake::{MAX_WORKERS, Wake};
#[cfg(all(unix, not(beadwork_loom)))]
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::Instant;

/// Requests a worker moves from a lane into its own deque at once; also the most that ranking can be off by.
const CHUNK: usize = 32;

/// What the drain needs from the engine.
pub(crate) trait Crew: JobHost {
    /// Keeps a fork from happening while requests are between a lane and the list of what is being compiled.
    fn no_fork(&self) -> Inside<'_>;
    /// The engine's clock, in milliseconds.
    fn now(&self) -> u32;
    /// How urgent a request is now.
    fn rank(&self, request: &Request, now: u32) -> Rank;
    /// Takes the ticket for a popped token, if the bead still wants it.
    fn claim(&self, request: &mut Request, now: u32) -> Claim;
    /// Takes a request back; answers whose it was if it was still wanted.
    fn unqueue(&self, request: &Request) -> Option<Bead>;
    /// A request was dropped because its function had gone cold.
    fn cooled(&self, bead: Bead, tier: TierId);
    /// Calls the backend of that tier.
    fn compile(&self, tier: TierId, jobs: &mut [Job<'_>]);
    /// There is something for another worker.
    fn signal(&self);
    /// Frees what can be freed. Called between batches.
    fn housekeeping(&self);
    /// The engine is closed: take no more work.
    fn is_closed(&self) -> bool;
    /// Nobody works any more, or on an inline engine, somebody has stopped: wakes whoever waits for that.
    fn idle(&self);
}

/// A worker's place: its own deques, and what it is compiling.
struct Seat {
    deques: Box<[Worker<Request>]>,
    public: Arc<Public>,
}

/// What others see of a seat.
struct Public {
    stealers: Box<[Stealer<Request>]>,
    /// With the time each was claimed, in milliseconds.
    compiling: Mutex<Vec<(Ticket, u32)>>,
}

pub(crate) struct Drain {
    pub(crate) lanes: Lanes,
    pub(crate) wake: Wake,
    /// How many workers may run at once; 0 for an inline engine.
    pub(crate) workers: usize,
    paused: AtomicUsize,
    /// Seats in use.
    busy: AtomicUsize,
    seats: Mutex<Vec<Seat>>,
    publics: RwLock<Vec<Arc<Public>>>,
}

impl Drain {
    pub(crate) fn new(lanes: Lanes, workers: usize) -> Drain {
        let workers = workers.min(MAX_WORKERS);
        let (seats, publics) = (Mutex::new(Vec::new()), RwLock::new(Vec::new()));
        Drain {
            lanes,
            wake: Wake::new(),
            workers,
            paused: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            seats,
            publics,
        }
    }

    /// One worker's life: from a signal that started it until nothing is left to do.
    pub(crate) fn work(&self, crew: &dyn Crew) {
        let left = loop {
            // Read before the scan, see `wake`.
            let seen = self.wake.look();
            if crew.is_closed() {
                break self.wake.quit();
            }
            // The seat is given up before leaving, so that there is one for whoever is started next.
            if self.work_seated(crew, usize::MAX) > 0 {
                continue;
            }
            if let Some(left) = self.wake.leave(seen) {
                break left;
            }
        };
        if left == 0 {
            crew.idle();
        }
    }

    /// Works on the calling thread until nothing is left or `max` requests were taken; answers how many.
    pub(crate) fn work_inline(&self, crew: &dyn Crew, max: usize) -> usize {
        let taken = self.work_seated(crew, max);
        // Without workers, who waits may find a place now that this thread gave one back.
        if taken > 0 && (self.workers == 0 || self.is_idle()) {
            crew.idle();
        }
        taken
    }

    fn work_seated(&self, crew: &dyn Crew, max: usize) -> usize {
        let seated = Seated::new(self, crew);
        let mut taken = 0;
        crew.housekeeping();
        while taken < max && !crew.is_closed() {
            match seated.seat().map_or(0, |seat| self.take_and_compile(seat, crew, max - taken)) {
                0 => break,
                more => taken += more,
            }
            crew.housekeeping();
        }
        taken
    }

    /// Whether nothing waits and nobody works, helpers included.
    pub(crate) fn is_idle(&self) -> bool {
        // Nobody works: who took what was waiting at the first look has finished it. And nothing was put back: a request
        // that follows a compile is pushed before the seat is given up. Acquire, edge WAKE, partner is `Seated::drop`.
        self.queued() == 0 && self.busy.load(Acquire) == 0 && self.queued() == 0
    }

    /// How many threads compile, helpers included.
    pub(crate) fn busy(&self) -> usize {
        self.busy.load(Acquire)
    }

    /// Requests that wait.
    pub(crate) fn queued(&self) -> usize {
        self.lanes.all.iter().map(Lane::len).sum()
    }

    /// What is being compiled now, with the time it was claimed in milliseconds.
    pub(crate) fn compiling(&self) -> Vec<(Ticket, u32)> {
        let publics = self.publics.read().unwrap_or_else(|e| e.into_inner());
        publics.iter().flat_map(|public| lock(&public.compiling).clone()).collect()
    }

    /// In a forked child: no worker exists, and what they were compiling is answered for requeueing.
    #[cfg(all(unix, not(beadwork_loom)))]
    pub(crate) fn forget_workers(&self) -> Vec<Ticket> {
        self.wake.forget_workers();
        self.lanes.forget_workers();
        // Relaxed: the child has one thread.
        self.busy.store(0, Relaxed);
        let publics = self.publics.read().unwrap_or_else(|e| e.into_inner());
        publics
            .iter()
            .flat_map(|public| std::mem::take(&mut *lock(&public.compiling)))
            .map(|(ticket, _)| ticket)
            .collect()
    }

    /// Takes one batch of the lowest admissible tier and compiles it; answers how many requests were taken.
    fn take_and_compile(&self, seat: &Seat, crew: &dyn Crew, max: usize) -> usize {
        if self.is_paused() {
            return 0;
        }
        // The clock is foreign code, so it is read before anything is held.
        let now = crew.now();
        for lane in &self.lanes.all {
            if !self.lanes.enter(lane, self.workers) {
                continue;
            }
            // Gives the place back and ends the claims however this ends.
            let place = Place { drain: self, lane, seat, crew };
            let no_fork = crew.no_fork();
            let batch = self.take(lane, seat, crew, now, max);
            let (claimed, cooled) = self.claim(&batch, seat, crew, now);
            drop(no_fork);
            if !seat.own(lane).is_empty() {
                // What was moved here can be stolen, but whoever looked only at the lane has to look again.
                crew.signal();
            }
            for bead in cooled {
                crew.cooled(bead, lane.tier);
            }
            compile(lane.tier, claimed, crew);
            drop(place);
            if !batch.is_empty() {
                return batch.len();
            }
        }
        0
    }

    fn take(&self, lane: &Lane, seat: &Seat, crew: &dyn Crew, now: u32, max: usize) -> Vec<Request> {
        let (own, most) = (seat.own(lane), lane.batch().min(max).max(1));
        if own.is_empty() {
            // A fair share of what waits, so that the other workers find work too.
            let share = lane.len().div_ceil(self.workers.max(1)).clamp(1, CHUNK.max(most));
            lane.take_into(own, share, |request| crew.rank(request, now));
        }
        let mut batch = Vec::with_capacity(most.min(own.len()));
        if own.is_empty() {
            batch.extend(self.steal(lane, own, most));
        }
        while batch.len() < most
            && let Some(request) = own.pop()
        {
            batch.push(request);
        }
        batch
    }

    fn steal(&self, lane: &Lane, own: &Worker<Request>, limit: usize) -> Option<Request> {
        let publics = self.publics.read().unwrap_or_else(|e| e.into_inner());
        publics
            .iter()
            .map(|public| &public.stealers[lane.tier.lane()])
            .filter(|stealer| !stealer.is_empty())
            .find_map(|stealer| steal_into(stealer, own, limit))
    }

    /// Whether there is something to take for a lane, in workers' deques too.
    fn holds_some(&self, lane: &Lane) -> bool {
        let publics = self.publics.read().unwrap_or_else(|e| e.into_inner());
        lane.holds_some() || publics.iter().any(|public| !public.stealers[lane.tier.lane()].is_empty())
    }

    /// Takes the tickets of what is still wanted; answers what had gone cold as well.
    fn claim(&self, batch: &[Request], seat: &Seat, crew: &dyn Crew, now: u32) -> (Vec<Claimed>, Vec<Bead>) {
        let (mut claimed, mut cooled) = (Vec::with_capacity(batch.len()), Vec::new());
        for &(mut request) in batch {
            // First the token's bit, then the state; see `Lanes::push`.
            self.lanes.pop_token(&request);
            match crew.claim(&mut request, now) {
                Claim::Ticket(ticket) => {
                    lock(&seat.public.compiling).push((ticket, now));
                    claimed.push(Claimed { ticket, request });
                }
                Claim::Cooled(bead) => cooled.push(bead),
                Claim::Unwanted => (),
            }
        }
        (claimed, cooled)
    }

    /// Drops everything that waits; answers whose it was.
    pub(crate) fn drop_queued(&self, crew: &dyn Crew) -> Vec<Bead> {
        let (seated, mut dropped) = (Seated::new(self, crew), Vec::new());
        let Some(seat) = seated.seat() else { return dropped };
        for lane in &self.lanes.all {
            let _no_fork = crew.no_fork();
            let own = seat.own(lane);
            loop {
                lane.take_into(own, usize::MAX, |_| Rank { class: 0, rate: 0 });
                let stolen = self.steal(lane, own, usize::MAX);
                let mut rest = stolen.into_iter().chain(std::iter::from_fn(|| own.pop())).peekable();
                if rest.peek().is_none() {
                    break;
                }
                for request in rest {
                    self.lanes.pop_token(&request);
                    dropped.extend(crew.unqueue(&request));
                }
            }
        }
        dropped
    }

    // ---- pausing

    fn is_paused(&self) -> bool {
        // Acquire, edge PAUSE, partner is `resume`.
        self.paused.load(Acquire) > 0
    }

    /// Takes no more work until as many resumes.
    pub(crate) fn pause(&self) {
        // AcqRel, edge PAUSE.
        self.paused.fetch_add(1, AcqRel);
    }

    /// Undoes one pause. The caller signals.
    pub(crate) fn resume(&self) {
        // AcqRel, edge PAUSE: the signal after it is seen by workers that then see this.
        self.paused.fetch_sub(1, AcqRel);
    }
}

/// A thread on a seat, which goes back however the thread ends its work.
struct Seated<'d> {
    drain: &'d Drain,
    crew: &'d dyn Crew,
    seat: Option<Seat>,
}

impl<'d> Seated<'d> {
    fn new(drain: &'d Drain, crew: &'d dyn Crew) -> Seated<'d> {
        let _no_fork = crew.no_fork();
        // AcqRel, edge WAKE, partner is `is_idle`.
        drain.busy.fetch_add(1, AcqRel);
        let free = lock(&drain.seats).pop();
        let seat = free.unwrap_or_else(|| {
            let deques: Box<[_]> = drain.lanes.all.iter().map(|_| Worker::new_fifo()).collect();
            let stealers = deques.iter().map(Worker::stealer).collect();
            let public = Arc::new(Public { stealers, compiling: Mutex::new(Vec::new()) });
            drain.publics.write().unwrap_or_else(|e| e.into_inner()).push(public.clone());
            Seat { deques, public }
        });
        Seated { drain, crew, seat: Some(seat) }
    }

    fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        let _no_fork = self.crew.no_fork();
        lock(&self.drain.seats).extend(self.seat.take());
        // Saturating: a child forked inside a compile has forgotten all workers. AcqRel, edge WAKE.
        let _ = self.drain.busy.fetch_update(AcqRel, Acquire, |now| now.checked_sub(1));
    }
}

/// A worker's place in a lane.
struct Place<'d> {
    drain: &'d Drain,
    lane: &'d Lane,
    seat: &'d Seat,
    crew: &'d dyn Crew,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        {
            let _no_fork = self.crew.no_fork();
            lock(&self.seat.public.compiling).clear();
        }
        let waited_for = self.drain.lanes.leave(self.lane);
        let waits = {
            let _no_fork = self.crew.no_fork();
            waited_for.iter().any(|lane| self.drain.holds_some(lane))
        };
        if waits {
            self.crew.signal();
        }
    }
}

/// What became of a popped token.
pub(crate) enum Claim {
    Ticket(Ticket),
    /// It had waited long without a call since; it is not queued any more.
    Cooled(Bead),
    /// Cancelled, superseded, or asked for at another tier.
    Unwanted,
}

struct Claimed {
    ticket: Ticket,
    request: Request,
}

impl Seat {
    fn own(&self, lane: &Lane) -> &Worker<Request> {
        &self.deques[lane.tier.lane()]
    }
}

/// Hands what was claimed to the backend, whose panics end here. Every job is finished afterwards.
fn compile(tier: TierId, claimed: Vec<Claimed>, crew: &dyn Crew) {
    if claimed.is_empty() {
        return;
    }
    let started = Instant::now();
    let job = |claimed: Claimed| Job::new(crew, claimed.ticket, claimed.request, started);
    let mut jobs: Vec<_> = claimed.into_iter().map(job).collect();
    let alone = jobs.len() == 1;
    let panic = contained(tier, crew, &mut jobs);
    for job in jobs.iter_mut().filter(|job| !job.is_finished()) {
        let error = match &panic {
            None => CompileError::Unfinished,
            Some(message) if alone => CompileError::Panicked(message.clone()),
            // Which function of the batch it was is not known: the others are tried alone, and only the culprit
            // pays for the panic.
            Some(_) => match contained(tier, crew, std::slice::from_mut(job)) {
                Some(message) => CompileError::Panicked(message),
                None => CompileError::Unfinished,
            },
        };
        if !job.is_finished() {
            job.finish(Err(error));
        }
    }
}

/// Calls the backend; answers the message of its panic.
fn contained(tier: TierId, crew: &dyn Crew, jobs: &mut [Job<'_>]) -> Option<String> {
    contain(|| crew.compile(tier, jobs)).err()
}
