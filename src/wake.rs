//! The wake-up word of the drain: one `(seq, active)` pair, so that no wake-up is lost and no worker starts idle.
//!
//! Whoever makes work signals: one compare-and-swap raises `seq`, and `active` too if a worker may start. A worker
//! reads the word **before** it scans for work and leaves by a compare-and-swap of the word it read, so a signal that
//! came after the scan began makes it scan again. A "running" flag, or a counter that is decremented and then looked
//! behind, both lose wake-ups; see [`crate::protocol`], edge WAKE.

use crate::sync::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

const ACTIVE: u64 = 0xffff;
const SEQ: u64 = ACTIVE + 1;

/// The most workers an engine can have. A pool starts all its threads with the first request, which is quick for hundreds and takes
/// seconds for thousands.
pub(crate) const MAX_WORKERS: usize = 256;
const _: () = assert!(MAX_WORKERS as u64 <= ACTIVE);

/// How often a worker that found nothing looks for a signal before it leaves: for a few microseconds. Not in models, where it would
/// only look again.
const LINGER: usize = if cfg!(beadwork_loom) { 0 } else { 200 };

pub(crate) struct Wake(AtomicU64);

/// The word as it was before a scan.
#[derive(Clone, Copy)]
pub(crate) struct Seen(u64);

impl Wake {
    pub(crate) fn new() -> Wake {
        Wake(AtomicU64::new(0))
    }

    /// There is work. True: the caller starts one worker.
    #[must_use = "true means that the caller starts a worker"]
    pub(crate) fn signal(&self, workers: usize) -> bool {
        // Acquire/AcqRel, edge WAKE: the push before this is seen by the scan of whoever reads the new word.
        let mut now = self.0.load(Acquire);
        loop {
            let start = (now & ACTIVE) < workers as u64;
            let next = now.wrapping_add(SEQ) + u64::from(start);
            match self.0.compare_exchange(now, next, AcqRel, Acquire) {
                Ok(_) => return start,
                Err(changed) => now = changed,
            }
        }
    }

    /// Reads the word; then scan, and [`leave`](Wake::leave) if nothing was found.
    pub(crate) fn look(&self) -> Seen {
        // Acquire, edge WAKE, partner is `signal`: a worker that then finds the lanes empty passes nothing else that would order it.
        Seen(self.0.load(mutant!("wake-look", Acquire)))
    }

    /// Waits a moment for a signal; answers whether one came. To start a worker anew costs the pool some microseconds, and who
    /// has just made work often makes more.
    pub(crate) fn changes_soon(&self, seen: Seen) -> bool {
        (0..LINGER).any(|_| {
            std::hint::spin_loop();
            !self.is_still(seen)
        })
    }

    /// Ends this worker unless something was signalled since `seen`. Answers how many workers are left.
    pub(crate) fn leave(&self, seen: Seen) -> Option<usize> {
        // AcqRel, edge WAKE: also orders what this worker did before what the last one to leave reports as idle.
        if seen.0 & ACTIVE == 0 {
            // Either the word was read before the signal that started this worker was visible, so scan again; or this is a child
            // forked inside a compile, where this worker was forgotten already. A read-modify-write sees the latest.
            let forgotten = self.0.fetch_add(0, AcqRel) & ACTIVE == 0;
            return forgotten.then_some(0);
        }
        if mutant!("wake-leave-unseen") {
            return Some(self.quit());
        }
        let left = self.0.compare_exchange(seen.0, seen.0 - 1, AcqRel, Acquire).ok()?;
        Some((left & ACTIVE) as usize - 1)
    }

    /// Ends this worker whatever was signalled: it could not be started, or the engine is closed.
    pub(crate) fn quit(&self) -> usize {
        // AcqRel/Acquire, edge WAKE, as in `leave`. Saturating: a child forked inside a compile has forgotten all workers.
        let one_less = |now: u64| if now & ACTIVE == 0 { None } else { Some(now - 1) };
        let before = self.0.fetch_update(AcqRel, Acquire, one_less).unwrap_or(0);
        (before & ACTIVE).saturating_sub(1) as usize
    }

    /// Whether nothing was signalled since `seen`.
    pub(crate) fn is_still(&self, seen: Seen) -> bool {
        // Acquire, edge WAKE: who signalled has pushed before.
        self.0.load(Acquire) == seen.0
    }

    /// How many workers run.
    pub(crate) fn active(&self) -> usize {
        // Acquire, edge WAKE, partner is `leave`: who sees a worker gone sees what it did.
        (self.0.load(Acquire) & ACTIVE) as usize
    }

    /// A forked child has no workers.
    #[cfg(all(unix, not(beadwork_loom)))]
    pub(crate) fn forget_workers(&self) {
        // AcqRel, edge WAKE, as in `leave`, for symmetry: the child has one thread.
        self.0.fetch_and(!ACTIVE, AcqRel);
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_signal_starts_a_worker_until_all_are_active() {
        let wake = Wake::new();
        assert_eq!([wake.signal(2), wake.signal(2), wake.signal(2)], [true, true, false]);
        assert_eq!(wake.active(), 2);
        assert_eq!(wake.quit(), 1);
        assert!(wake.signal(2));
        assert!(!wake.signal(0), "an inline engine never starts one");
    }

    #[test]
    fn a_worker_leaves_only_if_nothing_was_signalled_since_it_looked() {
        let wake = Wake::new();
        assert!(wake.signal(1));
        let seen = wake.look();
        assert!(!wake.signal(1));
        assert_eq!(wake.leave(seen), None);
        assert_eq!(wake.leave(wake.look()), Some(0));
        assert!(wake.signal(1));
    }
}
