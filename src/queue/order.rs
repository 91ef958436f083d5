//! Which of the requests that wait goes first.

use super::Request;
use crate::clock;

/// How urgent a request is; more is more urgent. Equals go in order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank {
    /// What cannot wait comes before what is merely hot.
    pub(crate) class: u8,
    /// Calls per second since it was asked for.
    pub(crate) rate: u64,
}

/// A request that has its place.
struct Ranked {
    rank: Rank,
    arrival: u64,
    request: Request,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank).then(other.arrival.cmp(&self.arrival))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Ranked) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

/// Requests a run keeps room for when fewer wait.
const KEPT: usize = 256;

/// Milliseconds in which ranks do not change enough to put all in order anew.
const RANKED_FOR: u32 = 50;

/// Requests in order, in runs, each at most half as long as the one before it was when it came, so that there are few. What
/// arrives together is sorted once and merged with runs of about its length, as in a merge sort; so a burst of requests costs each
/// a few comparisons in a row, where a heap would walk through all its levels for each that is taken.
#[derive(Default)]
pub(super) struct Order {
    /// The best of each last. None is empty.
    runs: Vec<Vec<Ranked>>,
    /// An empty run, for what arrives next: mostly few wait, and then they need no memory of their own.
    spare: Vec<Ranked>,
    arrivals: u64,
    /// Taken since all were ranked, which was at that time, in milliseconds.
    taken: usize,
    ranked_at: u32,
}

impl Order {
    pub(super) fn len(&self) -> usize {
        self.runs.iter().map(Vec::len).sum()
    }

    /// Adds what arrived, in that order.
    pub(super) fn add(&mut self, arrived: impl Iterator<Item = Request>, rank: impl Fn(&Request) -> Rank) {
        let mut run = std::mem::take(&mut self.spare);
        for request in arrived {
            self.arrivals += 1;
            run.push(Ranked { rank: rank(&request), arrival: self.arrivals, request });
        }
        self.merge(run);
    }

    /// Ranks all anew if half of them have been taken since the last time, and some time has passed.
    pub(super) fn renew(&mut self, now: u32, rank: impl Fn(&Request) -> Rank) {
        if self.taken <= self.len() / 2 || clock::since(now, self.ranked_at) < RANKED_FOR {
            return;
        }
        (self.taken, self.ranked_at) = (0, now);
        let mut runs = std::mem::take(&mut self.runs).into_iter();
        let mut all = runs.next().unwrap_or_default();
        runs.for_each(|run| all.extend(run));
        all.iter_mut().for_each(|entry| entry.rank = rank(&entry.request));
        self.merge(all);
    }

    /// Takes the most urgent one.
    pub(super) fn take(&mut self) -> Option<Request> {
        let best = (0..self.runs.len()).max_by_key(|&run| self.runs[run].last())?;
        self.taken += 1;
        let run = &mut self.runs[best];
        let taken = run.pop();
        if run.is_empty() {
            let empty = self.runs.remove(best);
            self.keep(empty);
        } else if run.len() < run.capacity() / 4 && run.capacity() > KEPT {
            // A burst of requests must not hold its memory until the last of it is taken.
            run.shrink_to(2 * run.len());
        }
        taken.map(|best| best.request)
    }

    /// Keeps an empty run, unless a burst of requests has made it long.
    fn keep(&mut self, empty: Vec<Ranked>) {
        if empty.capacity() <= KEPT && empty.capacity() > self.spare.capacity() {
            self.spare = empty;
        }
    }

    fn merge(&mut self, mut run: Vec<Ranked>) {
        if run.is_empty() {
            return self.keep(run);
        }
        run.sort_unstable();
        while let Some(mut longer) = self.runs.pop_if(|last| last.len() < 2 * run.len()) {
            longer.append(&mut run);
            // The stable sort finds the two runs.
            longer.sort();
            run = longer;
        }
        self.runs.push(run);
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::id::{Reason, TierId};

    fn request(index: u32) -> Request {
        Request { index, calls: 0, asked: 0, stamp: 0, tier: TierId::BASELINE, reason: Reason::Hot }
    }

    fn random(index: u32) -> u64 {
        u64::from(crate::clock::random(1, index.into(), 0) % 50)
    }

    fn rank(request: &Request) -> Rank {
        Rank { class: u8::from(request.index.is_multiple_of(100)), rate: random(request.index) }
    }

    #[test]
    fn the_most_urgent_goes_first_and_equals_in_order_of_arrival_however_they_arrived() {
        for group in [1, 3, 64, 5_000] {
            let (mut order, mut waiting, mut arrived) = (Order::default(), Vec::new(), 0..5_000);
            while !arrived.is_empty() || !waiting.is_empty() {
                let more: Vec<_> = arrived.by_ref().take(group).collect();
                order.add(more.iter().map(|&index| request(index)), rank);
                waiting.extend(more);
                // Fewer than came, as long as some come.
                for _ in 0..group.div_ceil(2).max(usize::from(arrived.is_empty()) * 10) {
                    let key = |index: &u32| (rank(&request(*index)), std::cmp::Reverse(*index));
                    let best = waiting.iter().copied().max_by_key(key);
                    waiting.retain(|index| Some(*index) != best);
                    assert_eq!(order.take().map(|request| request.index), best, "in groups of {group}");
                }
                assert_eq!(order.len(), waiting.len());
            }
        }
    }

    #[test]
    fn there_are_few_runs_whatever_comes_and_goes() {
        let (mut order, mut next) = (Order::default(), 0..);
        for round in 0..20_000u32 {
            let group = 1 << (crate::clock::random(2, round.into(), 0) % 8);
            order.add(next.by_ref().take(group).map(request), rank);
            for _ in 0..crate::clock::random(3, round.into(), 0) % 64 {
                order.take();
            }
            assert!(order.runs.len() <= 32, "{} runs of {} requests", order.runs.len(), order.len());
        }
    }

    #[test]
    fn a_burst_gives_its_memory_back_while_it_is_taken() {
        let mut order = Order::default();
        order.add((0..100_000).map(request), rank);
        while order.take().is_some() {
            let room: usize = order.runs.iter().map(Vec::capacity).sum();
            assert!(room <= KEPT.max(4 * (order.len() + 1)) || order.len() > 40_000, "{room}");
        }
        assert!(order.runs.is_empty());
    }

    #[test]
    fn ranks_are_renewed_when_half_is_taken_and_time_has_passed() {
        let mut order = Order::default();
        order.add((0..100).map(request), |_| Rank { class: 0, rate: 0 });
        let later = |request: &Request| Rank { class: 0, rate: request.index.into() };
        let first = |order: &mut Order, now| {
            order.renew(now, later);
            order.take().map(|request| request.index)
        };
        assert_eq!(first(&mut order, RANKED_FOR), Some(0), "none was taken");
        (1..60).for_each(|_| assert!(order.take().is_some()));
        assert_eq!(first(&mut order, RANKED_FOR - 1), Some(60), "no time has passed");
        assert_eq!(first(&mut order, RANKED_FOR), Some(99));
    }
}
