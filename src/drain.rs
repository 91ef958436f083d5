//! The drain: workers that take requests from the lanes, compile them and end when there is nothing left.
//!
//! A worker serves no lane of its own. It takes the best admissible request, lowest tier first, so a slow optimizing
//! compile never delays baseline compiles while another worker is free. What it takes from a lane goes into its own
//! deque, one for each lane, from which idle workers steal.

mod seat;

use crate::contain::contain;
use crate::error::CompileError;
use crate::gate::Inside;
use crate::id::{Bead, TierId};
use crate::job::{Job, JobHost};
use crate::nest;
use crate::queue::{Lane, Lanes, Rank, Request, steal_into};
use crate::state::Ticket;
use crate::sync::deque::Worker;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, RwLock, fence, lock};
use crate::wake::{MAX_WORKERS, Wake};
use crossbeam_utils::CachePadded;
use seat::{Done, Place, Public, Seat, Seated};
#[cfg(all(unix, not(beadwork_loom)))]
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release, SeqCst};
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
    /// Takes a request back; answers whose it was if it was still wanted, and the version afterwards.
    fn unqueue(&self, request: &Request) -> Option<(Bead, u32)>;
    /// A request was dropped because its function had gone cold; the version afterwards.
    fn cooled(&self, bead: Bead, version: u32, tier: TierId);
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

pub(crate) struct Drain {
    pub(crate) lanes: Lanes,
    /// On a line of its own: requesters write it.
    pub(crate) wake: CachePadded<Wake>,
    /// How many workers may run at once; 0 for an inline engine.
    pub(crate) workers: usize,
    paused: AtomicUsize,
    /// Seats in use.
    busy: AtomicUsize,
    /// Somebody who waits for idleness found a seat in use.
    seen_busy: AtomicBool,
    seats: Mutex<Vec<Seat>>,
    publics: RwLock<Vec<Arc<Public>>>,
}

impl Drain {
    pub(crate) fn new(lanes: Lanes, workers: usize) -> Drain {
        let workers = workers.min(MAX_WORKERS);
        let (seats, publics) = (Mutex::new(Vec::new()), RwLock::new(Vec::new()));
        Drain {
            lanes,
            wake: CachePadded::new(Wake::new()),
            workers,
            paused: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            seen_busy: AtomicBool::new(false),
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
            let seen = if mutant!("wake-late-look") { self.wake.look() } else { seen };
            if self.wake.changes_soon(seen) {
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

    /// Works on the calling thread, which has just made work, until nothing is left that nobody else sees to. Inside of work
    /// for this drain it does nothing: the loop outside goes on with it.
    pub(crate) fn work_in_foreground(&self, crew: &dyn Crew) {
        // Changes the word, so that whoever is about to leave looks again.
        let _ = self.wake.signal(0);
        if nest::seats(self.address()) > 0 {
            return;
        }
        loop {
            let seen = self.wake.look();
            if self.work_inline(crew, usize::MAX) == 0 && self.wake.is_still(seen) {
                return;
            }
        }
    }

    /// Names this drain among others.
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Works on the calling thread until nothing is left or `max` requests were taken; answers how many.
    pub(crate) fn work_inline(&self, crew: &dyn Crew, max: usize) -> usize {
        let taken = self.work_seated(crew, max);
        // SeqCst, edge WAKE: between the seat that was given up and the look at whether somebody saw it in use. Partner is the fence in
        // `is_idle`.
        fence(mutant!("wake-seat-fence", SeqCst));
        // Without workers, who waits may find a place now that this thread gave one back; and who looked meanwhile has seen
        // this thread busy.
        // AcqRel, edge WAKE, partner is the store in `is_idle`.
        let seen = self.seen_busy.swap(false, AcqRel);
        if (taken > 0 && self.workers == 0) || (taken > 0 || seen) && self.is_idle() {
            crew.idle();
        }
        taken
    }

    /// Takes and compiles as much as the largest batch on the calling thread; answers how many requests.
    pub(crate) fn work_once(&self, crew: &dyn Crew) -> usize {
        let batch = self.lanes.all.iter().map(Lane::batch).max().unwrap_or(1);
        self.work_inline(crew, batch)
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

    /// Whether nothing waits and nobody else works, helpers included.
    pub(crate) fn is_idle(&self) -> bool {
        // Nobody works: who took what was waiting at the first look has finished it. And nothing was put back: a request
        // that follows a compile is pushed before the seat is given up. Acquire, edge WAKE, partner is `Seated::drop`.
        if self.queued() > 0 {
            return false;
        }
        if self.others_busy() > 0 {
            // Release and SeqCst, edge WAKE: who is busy without finding anything to do tells it on leaving. If it left before this, a
            // second look sees that. Partners are the swap and the fence in `work_inline`.
            self.seen_busy.store(true, Release);
            fence(mutant!("wake-seen-busy", SeqCst));
            if self.others_busy() > 0 {
                return false;
            }
        }
        self.queued() == 0
    }

    /// How many seats other threads have, helpers included. A thread that asks from inside of a compile does not wait for itself.
    pub(crate) fn others_busy(&self) -> usize {
        // Acquire, edge WAKE, partner is `Seated::drop`.
        self.busy.load(mutant!("wake-busy-look", Acquire)).saturating_sub(nest::seats(self.address()))
    }

    /// Requests that wait.
    pub(crate) fn queued(&self) -> usize {
        self.lanes.all.iter().map(Lane::len).sum()
    }

    /// What is being compiled now, with the time it was claimed in milliseconds.
    pub(crate) fn compiling(&self) -> Vec<(Ticket, u32)> {
        let publics = self.publics.read().unwrap_or_else(|e| e.into_inner());
        publics.iter().flat_map(|public| lock(&public.compiling).unfinished().collect::<Vec<_>>()).collect()
    }

    /// In a forked child: no worker exists, and what they were compiling is answered for requeueing.
    #[cfg(all(unix, not(beadwork_loom)))]
    pub(crate) fn forget_workers(&self) -> Vec<Ticket> {
        self.wake.forget_workers();
        self.lanes.forget_workers();
        // Relaxed: the child has one thread.
        self.busy.store(0, Relaxed);
        self.paused.store(0, Relaxed);
        let publics = self.publics.read().unwrap_or_else(|e| e.into_inner());
        publics.iter().flat_map(|public| std::mem::take(&mut lock(&public.compiling).tickets)).collect()
    }

    /// Takes one batch of the lowest admissible tier and compiles it; answers how many requests were taken.
    fn take_and_compile(&self, seat: &Seat, crew: &dyn Crew, max: usize) -> usize {
        // A worker mostly finds nothing: it looks once more after each batch. That is to be cheap, since who made the last request
        // often makes the next one meanwhile.
        if self.lanes.all.iter().all(Lane::is_empty) {
            return 0;
        }
        // The clock is foreign code, so it is read before anything is held, and before the pause is looked at.
        let now = crew.now();
        if self.is_paused() {
            return 0;
        }
        for lane in self.lanes.in_order().filter(|lane| !lane.is_empty()) {
            // Who helps from inside of a compile waits for what it helps with, so it needs a place in any case.
            let nested = nest::seats(self.address()) > 1;
            if !self.lanes.enter(lane, self.workers, nested) {
                continue;
            }
            // Gives the place back and ends the claims however this ends.
            let place = Place { drain: self, lane, seat, crew };
            let no_fork = crew.no_fork();
            let (batch, popped) = self.take(lane, seat, crew, now, max);
            let (claimed, cooled, done) = self.claim(lane, &batch, popped, seat, crew, now);
            drop(no_fork);
            if !seat.own(lane).is_empty() {
                // What was moved here can be stolen, but whoever looked only at the lane has to look again.
                crew.signal();
            }
            for (bead, version) in cooled {
                crew.cooled(bead, version, lane.tier);
            }
            let here =
                nest::compile(self.address(), claimed.iter().map(|claimed| claimed.ticket.bead).collect());
            compile(lane.tier, claimed, &done, crew);
            drop(here);
            drop(place);
            if !batch.is_empty() {
                return batch.len();
            }
        }
        0
    }

    /// Takes a batch, inside a section; answers whether its tokens are popped already.
    fn take(&self, lane: &Lane, seat: &Seat, crew: &dyn Crew, now: u32, max: usize) -> (Vec<Request>, bool) {
        let (own, most) = (seat.own(lane), lane.batch().min(max).max(1));
        let express: Vec<_> = std::iter::from_fn(|| self.lanes.take_express(lane)).take(most).collect();
        if !express.is_empty() {
            // Alone: what is merely queued must not get ahead of lower tiers together with it.
            return (express, true);
        }
        // A fair share of what waits, so that the other workers find work too.
        let share = lane.len().div_ceil(self.workers.max(1)).clamp(1, CHUNK.max(most)).min(max);
        let mut batch = Vec::with_capacity(most.min(share.max(own.len())));
        if own.is_empty() {
            lane.take_into((&mut batch, most), own, share, now, |request| crew.rank(request, now));
        }
        if batch.is_empty() && own.is_empty() {
            batch.extend(self.steal(lane, own, most));
        }
        while batch.len() < most
            && let Some(request) = own.pop()
        {
            batch.push(request);
        }
        (batch, false)
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

    /// Takes the tickets of what is still wanted, and lists them; answers what had gone cold as well.
    fn claim(
        &self,
        lane: &Lane,
        batch: &[Request],
        popped: bool,
        seat: &Seat,
        crew: &dyn Crew,
        now: u32,
    ) -> (Vec<Claimed>, Vec<(Bead, u32)>, Done) {
        let (mut claimed, mut cooled) = (Vec::with_capacity(batch.len()), Vec::new());
        for &(mut request) in batch {
            // First the token's bit, then the state; see `Lanes::push`.
            if !popped && !mutant!("claim-before-token") {
                self.lanes.pop_token(&request);
            }
            let claim = crew.claim(&mut request, now);
            if !popped && mutant!("claim-before-token") {
                self.lanes.pop_token(&request);
            }
            match claim {
                Claim::Ticket(ticket) => claimed.push(Claimed { ticket, request }),
                Claim::Cooled(bead, version) => cooled.push((bead, version)),
                Claim::Unwanted => (),
            }
        }
        if !popped {
            lane.taken(batch.len());
        }
        let done: Done = claimed.iter().map(|_| false.into()).collect();
        let mut list = lock(&seat.public.compiling);
        list.tickets.extend(claimed.iter().map(|claimed| claimed.ticket));
        (list.since, list.done) = (now, done.clone());
        (claimed, cooled, done)
    }

    /// Drops everything that waits; answers whose it was, and the version afterwards.
    pub(crate) fn drop_queued(&self, crew: &dyn Crew) -> Vec<(Bead, u32)> {
        let (seated, mut dropped) = (Seated::new(self, crew), Vec::new());
        let Some(seat) = seated.seat() else { return dropped };
        for lane in &self.lanes.all {
            let _no_fork = crew.no_fork();
            let own = seat.own(lane);
            loop {
                while let Some(request) = self.lanes.take_express(lane) {
                    dropped.extend(crew.unqueue(&request));
                }
                lane.take_into((&mut Vec::new(), 0), own, usize::MAX, 0, |_| Rank { class: 0, rate: 0 });
                let stolen = self.steal(lane, own, usize::MAX);
                let mut rest = stolen.into_iter().chain(std::iter::from_fn(|| own.pop())).peekable();
                if rest.peek().is_none() {
                    break;
                }
                for request in rest {
                    self.lanes.pop_token(&request);
                    lane.taken(1);
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
        // AcqRel, edge PAUSE: the signal after it is seen by workers that then see this. Saturating: a forked child has forgotten
        // all pauses.
        let _ = self.paused.fetch_update(AcqRel, Acquire, |now| now.checked_sub(1));
    }
}

/// What became of a popped token.
pub(crate) enum Claim {
    Ticket(Ticket),
    /// It had waited long without a call since; it is not queued any more, and this is the version now.
    Cooled(Bead, u32),
    /// Cancelled, superseded, or asked for at another tier.
    Unwanted,
}

struct Claimed {
    ticket: Ticket,
    request: Request,
}

/// Hands what was claimed to the backend, whose panics end here. Every job is finished afterwards.
fn compile(tier: TierId, claimed: Vec<Claimed>, done: &Done, crew: &dyn Crew) {
    if claimed.is_empty() {
        return;
    }
    let started = Instant::now();
    let each = claimed.into_iter().zip(&done[..]);
    let job = |(claimed, done): (Claimed, _)| Job::new(crew, claimed.ticket, claimed.request, started, done);
    let mut jobs: Vec<_> = each.map(job).collect();
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
