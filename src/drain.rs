//! The drain: workers that take requests from the lanes, compile them and end when there is nothing left.
//!
//! A worker serves no lane of its own. It takes the best admissible request, lowest tier first, so a slow optimizing
//! compile never delays baseline compiles while another worker is free. What it takes from a lane goes into its own
//! deque, one for each lane, from which idle workers steal.

use crate::backend::{Job, JobHost};
use crate::error::CompileError;
use crate::gate::Inside;
use crate::id::{Bead, TierId};
use crate::queue::{Lane, Lanes, Rank, Request, steal_into};
use crate::state::Ticket;
use crate::sync::deque::{Stealer, Worker};
use crate::sync::{Arc, AtomicUsize, Mutex, RwLock, lock};
use crate::wake::{MAX_WORKERS, Wake};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    fn claim(&self, request: &Request, now: u32) -> Claim;
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
    /// The last worker has left.
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
    compiling: Mutex<Vec<Ticket>>,
}

pub(crate) struct Drain {
    pub(crate) lanes: Lanes,
    pub(crate) wake: Wake,
    /// How many workers may run at once; 0 for an inline engine.
    pub(crate) workers: usize,
    paused: AtomicUsize,
    seats: Mutex<Vec<Seat>>,
    publics: RwLock<Vec<Arc<Public>>>,
}

impl Drain {
    pub(crate) fn new(lanes: Lanes, workers: usize) -> Drain {
        let workers = workers.min(MAX_WORKERS);
        let (seats, publics) = (Mutex::new(Vec::new()), RwLock::new(Vec::new()));
        Drain { lanes, wake: Wake::new(), workers, paused: AtomicUsize::new(0), seats, publics }
    }

    /// One worker's life: from a signal that started it until nothing is left to do.
    pub(crate) fn work(&self, crew: &dyn Crew) {
        let mut seat = self.sit_down(crew);
        let left = loop {
            // Read before the scan, see `wake`.
            let seen = self.wake.look();
            if crew.is_closed() {
                self.stand_up(seat, crew);
                break self.wake.quit();
            }
            crew.housekeeping();
            if self.take_and_compile(&seat, crew, usize::MAX) > 0 {
                continue;
            }
            // The seat is given up before leaving, so that there is one for whoever is started next.
            self.stand_up(seat, crew);
            match self.wake.leave(seen) {
                Some(left) => break left,
                None => seat = self.sit_down(crew),
            }
        };
        if left == 0 {
            crew.idle();
        }
    }

    /// Works on the calling thread until nothing is left or `max` requests were taken; answers how many.
    pub(crate) fn work_inline(&self, crew: &dyn Crew, max: usize) -> usize {
        let seat = self.sit_down(crew);
        let mut taken = 0;
        crew.housekeeping();
        while taken < max && !crew.is_closed() {
            match self.take_and_compile(&seat, crew, max - taken) {
                0 => break,
                more => taken += more,
            }
            crew.housekeeping();
        }
        self.stand_up(seat, crew);
        taken
    }

    /// Requests that wait in lanes and in workers' deques. Exact when nothing moves.
    pub(crate) fn queued(&self) -> usize {
        let publics = self.publics.read().unwrap_or_else(|e| e.into_inner());
        let in_deques: usize =
            publics.iter().flat_map(|public| public.stealers.iter()).map(|stealer| stealer.len()).sum();
        self.lanes.all.iter().map(Lane::len).sum::<usize>() + in_deques
    }

    /// What is being compiled now.
    pub(crate) fn compiling(&self) -> Vec<Ticket> {
        let publics = self.publics.read().unwrap_or_else(|e| e.into_inner());
        publics.iter().flat_map(|public| lock(&public.compiling).clone()).collect()
    }

    /// In a forked child: no worker exists, and what they were compiling is answered for requeueing.
    #[cfg(all(unix, not(beadwork_loom)))]
    pub(crate) fn forget_workers(&self) -> Vec<Ticket> {
        self.wake.forget_workers();
        self.lanes.forget_workers();
        let publics = self.publics.read().unwrap_or_else(|e| e.into_inner());
        publics.iter().flat_map(|public| std::mem::take(&mut *lock(&public.compiling))).collect()
    }

    fn sit_down(&self, crew: &dyn Crew) -> Seat {
        let _no_fork = crew.no_fork();
        lock(&self.seats).pop().unwrap_or_else(|| {
            let deques: Box<[_]> = self.lanes.all.iter().map(|_| Worker::new_fifo()).collect();
            let stealers = deques.iter().map(Worker::stealer).collect();
            let public = Arc::new(Public { stealers, compiling: Mutex::new(Vec::new()) });
            self.publics.write().unwrap_or_else(|e| e.into_inner()).push(public.clone());
            Seat { deques, public }
        })
    }

    fn stand_up(&self, seat: Seat, crew: &dyn Crew) {
        let _no_fork = crew.no_fork();
        lock(&self.seats).push(seat);
    }

    /// Takes one batch of the lowest admissible tier and compiles it; answers how many requests were taken.
    fn take_and_compile(&self, seat: &Seat, crew: &dyn Crew, max: usize) -> usize {
        if self.is_paused() {
            return 0;
        }
        for lane in &self.lanes.all {
            if !self.lanes.enter(lane, self.workers) {
                continue;
            }
            // The clock is foreign code, so it is read before the section.
            let now = crew.now();
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
            {
                let _no_fork = crew.no_fork();
                lock(&seat.public.compiling).clear();
            }
            if self.lanes.leave(lane, self.workers) {
                crew.signal();
            }
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

    /// Takes the tickets of what is still wanted; answers what had gone cold as well.
    fn claim(&self, batch: &[Request], seat: &Seat, crew: &dyn Crew, now: u32) -> (Vec<Claimed>, Vec<Bead>) {
        let (mut claimed, mut cooled) = (Vec::with_capacity(batch.len()), Vec::new());
        for &request in batch {
            // First the token's bit, then the state; see `Lanes::push`.
            self.lanes.pop_token(&request);
            match crew.claim(&request, now) {
                Claim::Ticket(ticket) => {
                    lock(&seat.public.compiling).push(ticket);
                    claimed.push(Claimed { ticket, request });
                }
                Claim::Cooled(bead) => cooled.push(bead),
                Claim::Unwanted => (),
            }
        }
        (claimed, cooled)
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
    catch_unwind(AssertUnwindSafe(|| crew.compile(tier, jobs))).err().map(message_of)
}

/// The message of a panic. A payload that is no text is forgotten: its drop is foreign code that could panic again.
pub(crate) fn message_of(payload: Box<dyn Any + Send>) -> String {
    let payload = match payload.downcast::<&str>() {
        Ok(text) => return text.to_string(),
        Err(other) => other,
    };
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => {
            std::mem::forget(other);
            "a payload that is no text".to_string()
        }
    }
}
