//! Lanes: one queue of requests per compiled tier.
//!
//! A request is a 16-byte value. A bead has at most one token per lane: its bit in the `queued` column says that a
//! token lies there, so a lane can never hold more tokens than there are beads, and there is no such thing as a full
//! queue. A token is only a hint to look at the bead: the ticket is taken from the state word when the token is
//! popped, so tokens survive cancellation, reload and reuse of the index.
//!
//! Requesters push into an injector, which takes no lock. Drains put its content in order, under a lock that only
//! drains use, and take the best from there. Ranks change while requests wait, so they are put in order anew when half of
//! them have been taken since the last time, and some time has passed.

use crate::column::Column;
use crate::id::{Reason, TierId};
use crate::sync::deque::{Injector, Steal, Stealer, Worker};
use crate::sync::{AtomicBool, AtomicU16, AtomicUsize, Mutex, fence, lock};
use crossbeam_utils::CachePadded;
use order::Order;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

mod order;

pub(crate) use order::Rank;

/// A token in a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// The bead's index; its generation is in the state word.
    pub(crate) index: u32,
    /// Calls counted when it was asked for.
    pub(crate) calls: u32,
    /// When it was asked for, in milliseconds of the engine's clock.
    pub(crate) asked: u32,
    /// [`Snapshot::stamp`](crate::state::Snapshot::stamp) when it was asked for. Tokens outlive their requests, so this
    /// tells whether the rest still describes what the bead waits for.
    pub(crate) stamp: u16,
    pub(crate) tier: TierId,
    pub(crate) reason: Reason,
}

const _: () = assert!(size_of::<Request>() == 16);

/// The most second tokens a lane holds.
const MAX_EXPRESS: usize = 4_096;

/// A token that goes first.
struct Express {
    request: Request,
    /// The bead's first token in this lane. If not, that lies among the others, and this is a second one.
    first: bool,
}

/// The queue of one compiled tier and its limits, which may change while it runs.
pub(crate) struct Lane {
    pub(crate) tier: TierId,
    /// The most functions given to the backend in one call.
    batch: AtomicUsize,
    /// The most workers in this lane at once.
    limit: AtomicUsize,
    enabled: AtomicBool,
    /// Tokens of requests that cannot wait until all are ranked anew.
    express: Injector<Express>,
    injector: Injector<Request>,
    /// Tokens that wait, in the injector, in order and in workers' deques. On a line of its own, as are the injector's ends: what
    /// requesters and workers both write is not beside what only one side reads.
    waiting: CachePadded<AtomicUsize>,
    in_order: CachePadded<Mutex<Order>>,
    /// Requests in `in_order`.
    ranked: AtomicUsize,
    running: AtomicUsize,
}

impl Lane {
    pub(crate) fn new(tier: TierId, batch: usize, limit: usize) -> Lane {
        Lane {
            tier,
            batch: AtomicUsize::new(batch),
            limit: AtomicUsize::new(limit),
            enabled: AtomicBool::new(true),
            express: Injector::new(),
            injector: Injector::new(),
            waiting: CachePadded::new(AtomicUsize::new(0)),
            in_order: CachePadded::new(Mutex::new(Order::default())),
            ranked: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        }
    }

    // Relaxed throughout: limits are advice, looked at anew for each batch; who changes one signals afterwards.

    pub(crate) fn batch(&self) -> usize {
        self.batch.load(Relaxed)
    }

    pub(crate) fn set_batch(&self, batch: usize) {
        self.batch.store(batch.max(1), Relaxed);
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit.max(1), Relaxed);
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Relaxed)
    }

    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Relaxed);
    }

    /// Holds what a drain holds while it takes a batch.
    #[cfg(all(test, not(beadwork_loom)))]
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        lock(&self.in_order)
    }

    /// Requests that wait for this tier, wherever they lie.
    pub(crate) fn len(&self) -> usize {
        // Acquire, edge WAKE: also tells who waits for the drain that what it counted is over.
        self.waiting.load(mutant!("wake-waiting-look", Acquire))
    }

    /// Whether there is nothing to take for this tier, wherever it might lie. As with every look at what waits, a request that is
    /// not seen here is one whose signal is still to come.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0 && self.express.is_empty()
    }

    /// Whether there is something to take here, workers' deques aside. A request whose push has only begun does not count: its
    /// signal is still to come.
    pub(crate) fn holds_some(&self) -> bool {
        // Acquire, edge WAKE: after the place was given back.
        self.ranked.load(Acquire) > 0 || !self.injector.is_empty() || !self.express.is_empty()
    }

    /// Puts back what a worker had moved into its own deque.
    pub(crate) fn put_back(&self, request: Request) {
        self.injector.push(request);
    }

    /// Takes up to `most` of the most urgent requests: the first `room` into a batch, the rest into a worker's own deque.
    pub(crate) fn take_into(
        &self,
        (batch, room): (&mut Vec<Request>, usize),
        own: &Worker<Request>,
        most: usize,
        now: u32,
        rank: impl Fn(&Request) -> Rank,
    ) {
        let mut order = lock(&self.in_order);
        let arrived = std::iter::from_fn(|| until_settled(|| self.injector.steal()));
        // First, since what arrives now gets the ranks of now.
        order.renew(now, &rank);
        order.add(arrived, &rank);
        for _ in 0..most {
            let Some(best) = order.take() else { break };
            if batch.len() < room { batch.push(best) } else { own.push(best) }
        }
        // Release, edge WAKE, partner is `holds_some`.
        self.ranked.store(order.len(), Release);
    }

    /// So many tokens are not in the lane any more.
    pub(crate) fn taken(&self, count: usize) {
        // AcqRel, edge WAKE, partner is `len`.
        self.waiting.fetch_sub(count, mutant!("wake-taken", AcqRel));
    }
}

/// Takes some requests from another worker's deque and answers the first.
pub(crate) fn steal_into(from: &Stealer<Request>, own: &Worker<Request>, limit: usize) -> Option<Request> {
    until_settled(|| from.steal_batch_with_limit_and_pop(own, limit))
}

fn until_settled<T>(mut steal: impl FnMut() -> Steal<T>) -> Option<T> {
    let mut rounds = 0;
    loop {
        match steal() {
            Steal::Success(token) => return Some(token),
            Steal::Empty => return None,
            Steal::Retry => crate::sync::wait_a_little(&mut rounds),
        }
    }
}

/// All lanes, lowest tier first, and the `queued` column.
pub(crate) struct Lanes {
    pub(crate) all: Box<[Lane]>,
    queued: Column<AtomicU16>,
    /// Workers in lanes above the baseline.
    optimizing: AtomicUsize,
    /// Whose turn it is: the baseline's, or that of what is as urgent.
    turn: AtomicUsize,
}

impl Lanes {
    pub(crate) const BYTES: usize = size_of::<u16>();

    pub(crate) fn new(all: Vec<Lane>, capacity: u32) -> std::io::Result<Lanes> {
        Ok(Lanes {
            all: all.into(),
            queued: Column::reserve(capacity)?,
            optimizing: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
        })
    }

    pub(crate) fn get(&self, tier: TierId) -> Option<&Lane> {
        if tier == TierId::INTERPRETER { None } else { self.all.get(tier.lane()) }
    }

    /// Has a request that waits taken before all others of its lane, and in turn with the baseline's.
    pub(crate) fn hasten(&self, request: Request) {
        // More are not worth their memory: who asks so often while nobody works waits anyway.
        if let Some(lane) = self.get(request.tier).filter(|lane| lane.express.len() < MAX_EXPRESS) {
            lane.express.push(Express { request, first: false });
        }
    }

    /// Takes what cannot wait. Its token has been popped then.
    pub(crate) fn take_express(&self, lane: &Lane) -> Option<Request> {
        let token = until_settled(|| lane.express.steal())?;
        if token.first {
            self.pop_token(&token.request);
            lane.taken(1);
        }
        Some(token.request)
    }

    /// The lanes in the order in which a worker looks at them: lowest first; but every other time one with something urgent
    /// before all others.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Lane> {
        let urgent = self.all.iter().skip(1).find(|lane| !lane.express.is_empty());
        // Relaxed: it decides who goes first, not whether.
        let first = urgent.filter(|_| self.turn.fetch_add(1, Relaxed).is_multiple_of(2));
        first.into_iter().chain(self.all.iter())
    }

    /// The highest compiled tier.
    pub(crate) fn top(&self) -> TierId {
        TierId::from_low_bits(self.all.len() as u64)
    }

    /// Takes one of a lane's places for a worker. Tiers above the baseline leave one of two or more workers to it.
    /// A `nested` thread holds a place already and waits for what it wants this one for: limits would have it wait for ever.
    pub(crate) fn enter(&self, lane: &Lane, workers: usize, nested: bool) -> bool {
        if !lane.is_enabled() {
            return false;
        }
        let optimizing = self.optimizes(lane);
        // SeqCst, edge WAKE: between the push that brought a worker here and its look for a place. Partner is the fence in
        // `leave`: of a worker that finds no place and whoever gives one back, one sees the other's.
        fence(SeqCst);
        // AcqRel/Acquire, edge WAKE: a worker that finds no place and leaves is woken by who frees one.
        let take = |count: &AtomicUsize, limit: usize| {
            count.fetch_update(AcqRel, Acquire, |now| (now < limit || nested).then_some(now + 1)).is_ok()
        };
        if optimizing && !take(&self.optimizing, reserved(workers)) {
            return false;
        }
        let entered = take(&lane.running, lane.limit());
        if optimizing && !entered {
            self.optimizing.fetch_sub(1, AcqRel);
        }
        entered
    }

    /// Whether a worker that looked now would get a place, so that telling it of work is of use.
    pub(crate) fn has_place(&self, lane: &Lane, workers: usize) -> bool {
        // Acquire, edge WAKE: after the caller gave its own place back.
        let room = !self.optimizes(lane) || self.optimizing.load(Acquire) < reserved(workers);
        room && lane.is_enabled() && lane.running.load(Acquire) < lane.limit()
    }

    /// How many workers may be in a lane at once.
    pub(crate) fn places(&self, lane: &Lane, workers: usize) -> usize {
        let most = if self.optimizes(lane) { reserved(workers) } else { workers.max(1) };
        lane.limit().min(most).max(1)
    }

    /// Gives the place back; answers the lanes in which somebody, a worker or a helper, may have found none meanwhile.
    pub(crate) fn leave(&self, lane: &Lane) -> &[Lane] {
        // AcqRel/Acquire, edge WAKE, partner is `enter`. Saturating: a child forked inside a compile has forgotten all places.
        let give = |count: &AtomicUsize| {
            let _ = count.fetch_update(AcqRel, Acquire, |now| now.checked_sub(1));
        };
        give(&lane.running);
        let lanes = if self.optimizes(lane) {
            give(&self.optimizing);
            &self.all[1..]
        } else {
            &self.all[..1]
        };
        // SeqCst, edge WAKE: between the place and the look at what waits for it.
        fence(mutant!("wake-place-given-back", SeqCst));
        lanes
    }

    fn optimizes(&self, lane: &Lane) -> bool {
        lane.tier > TierId::BASELINE
    }

    /// Puts a token into the lane unless one is there, or a second one if it is urgent. The caller has queued the bead in its state word before, and
    /// signals afterwards if this answers true.
    #[must_use = "true means that the caller signals"]
    pub(crate) fn push(&self, request: Request) -> bool {
        let Some(lane) = self.get(request.tier) else { return false };
        let bit = 1 << lane.tier.lane();
        // Counted before it can be popped. AcqRel, edge WAKE.
        lane.waiting.fetch_add(1, AcqRel);
        // AcqRel, edge CLAIM, partner is `pop_token`: if the bit was set, the drain that clears it reads the state
        // afterwards and sees this request.
        if self.queued.get(request.index).fetch_or(bit, mutant!("claim-token", AcqRel)) & bit != 0 {
            lane.taken(1);
            if request.reason.is_urgent() {
                self.hasten(request);
            }
            return request.reason.is_urgent();
        }
        if request.reason.is_urgent() {
            lane.express.push(Express { request, first: true });
        } else {
            lane.injector.push(request);
        }
        true
    }

    /// A token was popped: clears its bit. Read the state only after this, and then tell its [lane](Lane::taken).
    pub(crate) fn pop_token(&self, request: &Request) {
        let bit = if mutant!("claim-bit-kept") { 0 } else { 1u16 << request.tier.lane() };
        // AcqRel, edge CLAIM, partner is `push`.
        self.queued.get(request.index).fetch_and(!bit, mutant!("claim-token-popped", AcqRel));
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        self.queued.resident_bytes()
    }

    /// A forked child has no workers.
    #[cfg(all(unix, not(beadwork_loom)))]
    pub(crate) fn forget_workers(&self) {
        self.all.iter().for_each(|lane| lane.running.store(0, Relaxed));
        self.optimizing.store(0, Relaxed);
    }
}

/// How many of the workers may be in lanes above the baseline: all but one of two or more.
fn reserved(workers: usize) -> usize {
    if workers >= 2 { workers - 1 } else { 1 }
}
