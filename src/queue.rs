//! Lanes: one queue of requests per compiled tier.
//!
//! A request is a 16-byte value. A bead has at most one token per lane: its bit in the `queued` column says that a
//! token lies there, so a lane can never hold more tokens than there are beads, and there is no such thing as a full
//! queue. A token is only a hint to look at the bead: the ticket is taken from the state word when the token is
//! popped, so tokens survive cancellation, reload and reuse of the index.

use crate::column::Column;
use crate::id::{Bead, Reason, TierId};
use crate::sync::deque::{Injector, Steal, Stealer, Worker};
use crate::sync::{AtomicU16, AtomicUsize};
#[cfg(all(unix, not(beadwork_loom)))]
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

/// A token in a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) bead: Bead,
    /// Calls counted when it was asked for.
    pub(crate) calls: u32,
    pub(crate) tier: TierId,
    pub(crate) reason: Reason,
}

const _: () = assert!(size_of::<Request>() == 16);

/// The queue of one compiled tier and its limits.
pub(crate) struct Lane {
    pub(crate) tier: TierId,
    /// The most functions given to the backend in one call.
    pub(crate) batch: usize,
    /// The most workers in this lane at once.
    pub(crate) limit: usize,
    injector: Injector<Request>,
    running: AtomicUsize,
}

impl Lane {
    pub(crate) fn new(tier: TierId, batch: usize, limit: usize) -> Lane {
        Lane { tier, batch, limit, injector: Injector::new(), running: AtomicUsize::new(0) }
    }

    /// Takes one of the lane's places for a worker.
    pub(crate) fn enter(&self) -> bool {
        // AcqRel/Acquire, edge WAKE: a worker that finds the lane full and leaves is woken by who frees the place.
        self.running.fetch_update(AcqRel, Acquire, |now| (now < self.limit).then_some(now + 1)).is_ok()
    }

    /// Gives the place back. True if somebody may be waiting for it: the caller signals.
    #[must_use = "true means that the caller signals"]
    pub(crate) fn leave(&self, workers: usize) -> bool {
        self.running.fetch_sub(1, AcqRel);
        self.limit < workers && !self.injector.is_empty()
    }

    /// Moves the oldest requests into a worker's own deque and answers the first.
    pub(crate) fn take_into(&self, own: &Worker<Request>, limit: usize) -> Option<Request> {
        until_settled(|| self.injector.steal_batch_with_limit_and_pop(own, limit))
    }

    pub(crate) fn len(&self) -> usize {
        self.injector.len()
    }

    #[cfg(all(unix, not(beadwork_loom)))]
    pub(crate) fn forget_workers(&self) {
        self.running.store(0, Relaxed);
    }
}

/// Takes some requests from another worker's deque and answers the first.
pub(crate) fn steal_into(from: &Stealer<Request>, own: &Worker<Request>, limit: usize) -> Option<Request> {
    until_settled(|| from.steal_batch_with_limit_and_pop(own, limit))
}

fn until_settled(mut steal: impl FnMut() -> Steal<Request>) -> Option<Request> {
    let mut rounds = 0;
    loop {
        match steal() {
            Steal::Success(request) => return Some(request),
            Steal::Empty => return None,
            Steal::Retry => crate::sync::wait_a_little(&mut rounds),
        }
    }
}

/// All lanes, lowest tier first, and the `queued` column.
pub(crate) struct Lanes {
    pub(crate) all: Box<[Lane]>,
    queued: Column<AtomicU16>,
}

impl Lanes {
    pub(crate) fn new(all: Vec<Lane>, capacity: u32) -> std::io::Result<Lanes> {
        Ok(Lanes { all: all.into(), queued: Column::reserve(capacity)? })
    }

    pub(crate) const BYTES: usize = size_of::<u16>();

    pub(crate) fn get(&self, tier: TierId) -> Option<&Lane> {
        if tier == TierId::INTERPRETER { None } else { self.all.get(tier.lane()) }
    }

    /// The highest compiled tier.
    pub(crate) fn top(&self) -> TierId {
        TierId::from_low_bits(self.all.len() as u64)
    }

    /// Puts a token into the lane unless one is there. The caller has queued the bead in its state word before, and
    /// signals afterwards if this answers true.
    #[must_use = "true means that the caller signals"]
    pub(crate) fn push(&self, request: Request) -> bool {
        let Some(lane) = self.get(request.tier) else { return false };
        let bit = 1 << lane.tier.lane();
        // AcqRel, edge CLAIM, partner is `pop_token`: if the bit was set, the drain that clears it reads the state
        // afterwards and sees this request.
        if self.queued.get(request.bead.index()).fetch_or(bit, AcqRel) & bit != 0 {
            return false;
        }
        lane.injector.push(request);
        true
    }

    /// A token was popped: clears its bit. Read the state only after this.
    pub(crate) fn pop_token(&self, request: &Request) {
        let bit = 1u16 << request.tier.lane();
        // AcqRel, edge CLAIM, partner is `push`.
        self.queued.get(request.bead.index()).fetch_and(!bit, AcqRel);
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        self.queued.resident_bytes()
    }
}
