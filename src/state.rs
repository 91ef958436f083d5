//! The state word: one `AtomicU64` per bead that arbitrates everything but the hot path.
//!
//! Every change is a compare-and-swap of the whole word, except the two whose exclusiveness is stated where they
//! are: a publisher's release (rule S2) and the first registration of an index (rule S3). The diagram of states and
//! the proofs are in [`crate::protocol`].
//!
//! # Rules
//! * **S1 (ticket)** everything that starts or ends a request or a right to install raises the version, so a ticket
//!   (generation and version) matches at most one claim, and a queued request is told from an earlier one. (A request that
//!   follows a compile leaves the version to the compile's ticket.) Versions saturate: a bead at the end of its versions gets
//!   no ticket.
//! * **S2 (publishing)** while the publishing bit is set only the thread that set it changes the word.
//! * **S3 (fresh)** a word that is not live is changed only by the thread that took its index off the free list or
//!   off the end of the table.
//! * **S4 (generation)** the generation moves only in `remove`, under the publishing bit, after the cells were
//!   cleared.
//! * **S5 (untouched)** a word of zeros is that of an index never used while its core is 0, and of one registered with nothing
//!   asked of it since while its core is not; so registering writes the core alone. A word that was touched is never zero again, and who
//!   sets a core to 0 touches the word first.

use crate::id::{Bead, GENERATION_BITS, TierId};
use crate::sync::{AtomicU64, AtomicUsize, wait_a_little};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

mod word;

pub(crate) use word::{Pending, RETIRED_TAG, Snapshot, VERSION_MAX};

/// The right to install the result of one compile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a claimed bead stays `compiling` until its ticket is installed, abandoned or requeued"]
pub(crate) struct Ticket {
    pub(crate) bead: Bead,
    pub(crate) version: u32,
    pub(crate) tier: TierId,
}

impl Ticket {
    /// The version the code gets, if it is installed.
    pub(crate) fn code_version(self) -> u32 {
        self.version.saturating_add(1)
    }
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "`Queued` obliges the caller to put a token into the lane"]
pub(crate) enum Requested {
    /// The bead is now queued for this tier, at this version; the caller puts a token into the tier's lane.
    Queued(u32),
    /// A compile is in flight; the bead is queued, at this version, when that ends.
    Follows(u32),
    /// This tier or a higher one is already asked for or in place.
    Already,
    /// A publisher is at work; nothing changed, ask again at the next call.
    Busy,
    /// Blacklisted, capped below the tier, or out of versions.
    Barred(TierId),
    Stale,
}

/// What a claim that ended without code leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "`Requeue` obliges the caller to put a token into the lane"]
pub(crate) enum Ended {
    /// Nothing is pending any more.
    Idle,
    /// A request had followed the compile: put a token into this tier's lane.
    Requeue(TierId),
    /// The ticket had been superseded; nothing changed.
    Superseded,
}

impl Ended {
    /// What a claim left behind whose end gave this word.
    pub(crate) fn of(new: &Snapshot) -> Ended {
        if new.pending() == Pending::Queued { Ended::Requeue(new.target()) } else { Ended::Idle }
    }
}

/// The state word of one bead, with the cell of its core, which tells what a word of zeros means (S5).
#[derive(Clone, Copy)]
pub(crate) struct StateCell<'a> {
    pub(crate) word: &'a AtomicU64,
    pub(crate) core: &'a AtomicUsize,
}

impl<'a> StateCell<'a> {
    /// Acquire: edge PUBLISH, partner is the release of the publishing bit.
    #[inline(always)]
    pub(crate) fn load(self) -> Snapshot {
        let word = || self.word.load(mutant!("publish-state-load", Acquire));
        match word() {
            // Acquire: edge REGISTER, partner is the Release store of the core: who sees the bead live sees what is known of it.
            0 if self.core.load(mutant!("register-load", Acquire)) != 0 || mutant!("s5-unregistered") => {
                Snapshot::UNTOUCHED
            }
            0 if mutant!("s5-one-look") => Snapshot(0),
            // Once more: if the core was set to 0 between the two looks, that touched the word before (edge CORE).
            0 => Snapshot(word()),
            word => Snapshot(word),
        }
    }

    /// The word if `bead` is live.
    pub(crate) fn live(self, bead: Bead) -> Option<Snapshot> {
        let now = self.load();
        now.is(bead).then_some(now)
    }

    #[inline(always)]
    fn swap(self, old: Snapshot, new: Snapshot) -> bool {
        // AcqRel: edge CLAIM, partner is every other transition of this word. Relaxed on failure: who failed loads the word
        // again.
        let swap =
            |old| self.word.compare_exchange(old, new.0, mutant!("claim-swap", AcqRel), Relaxed).is_ok();
        // What is untouched has two forms (S5), of which zeros are the usual one.
        (old == Snapshot::UNTOUCHED && swap(0)) || swap(old.0)
    }

    /// Makes a fresh index live, first generation. The caller alone holds the index (S3).
    #[inline]
    pub(crate) fn register_fresh(self, core: usize) {
        if core == 0 {
            // Release: edge REGISTER, partner is the Acquire load in `load`.
            self.word.store(Snapshot::UNTOUCHED.0, mutant!("register-word", Release));
        } else {
            // Release: edge REGISTER, partner is the Acquire load of the core in `load`.
            self.core.store(core, mutant!("register-store", Release));
        }
    }

    /// Makes a removed index live again in its present generation. The caller alone holds the index (S3).
    pub(crate) fn register_again(self) -> u16 {
        let free = self.load();
        let used = free.with(|state| {
            state.set_live(true);
            state.set_slotted(false);
        });
        // By S3 nobody else changes a word that is not live.
        let swapped = self.swap(free, used);
        debug_assert!(swapped, "a free index was changed by somebody else");
        used.tag()
    }

    /// Asks for `target`. See [`Requested`]; a higher target replaces a queued one and follows a compiling one. `anew` asks for
    /// the tier it has as well, if this is the version still: its code lacks something.
    pub(crate) fn request(self, bead: Bead, target: TierId, anew: Option<u32>) -> Requested {
        loop {
            let now = self.load();
            if let Some(refused) = now.refuses(bead, target, anew) {
                return refused;
            }
            let mut new = now.with(|state| state.set_target(target));
            let answer = match now.pending() {
                Pending::None | Pending::Queued => {
                    // S1: no ticket is out, and what came with an earlier request can be told from what comes with this.
                    new.raise_version();
                    new.set_pending(Pending::Queued);
                    Requested::Queued(new.version())
                }
                Pending::Compiling | Pending::Followed => {
                    new.set_pending(Pending::Followed);
                    // The end of the compile raises it and queues this.
                    Requested::Follows(now.raised_version())
                }
            };
            if self.swap(now, new) {
                return answer;
            }
        }
    }

    /// Makes a queued request one that somebody insists on: its token's stamp does not match any more, so it is not
    /// taken for merely hot, and not dropped as cold. `seen` is the word in which it was queued.
    /// Answers the version afterwards, if it was still that one.
    pub(crate) fn insist(self, bead: Bead, seen: Snapshot) -> Option<u32> {
        // If version or target has changed, so has the request.
        let same = |now: &Snapshot| {
            now.is(bead)
                && now.pending() == Pending::Queued
                && (now.version(), now.target()) == (seen.version(), seen.target())
        };
        while let Some(now) = self.settled(same) {
            let mut new = now;
            new.raise_version();
            // S1: no ticket is out while a bead is queued.
            if self.swap(now, new) {
                return Some(new.version());
            }
        }
        None
    }

    /// Takes the ticket of a bead that is queued for `tier`; `None` if it no longer is.
    pub(crate) fn claim(self, index: u32, tier: TierId) -> Option<Ticket> {
        loop {
            let waits = |now: &Snapshot| {
                now.pending() == Pending::Queued
                    || (now.pending() == Pending::Compiling && mutant!("claim-twice"))
            };
            let now = self.settled(|now| now.live() && waits(now) && now.target() == tier)?;
            let mut new = now;
            // S1: at the end of the versions no further ticket could be told from this one.
            let spent = now.version() >= VERSION_MAX - 1;
            new.set_pending(if spent { Pending::None } else { Pending::Compiling });
            if !spent {
                new.raise_version();
            }
            if self.swap(now, new) {
                let ticket = Ticket { bead: Bead::new(index, new.tag()), version: new.version(), tier };
                return (!spent).then_some(ticket);
            }
        }
    }

    /// Takes a queued request back; answers whose it was, and the version afterwards.
    pub(crate) fn cancel(self, index: u32, tier: TierId) -> Option<(Bead, u32)> {
        loop {
            let now =
                self.settled(|now| now.live() && now.pending() == Pending::Queued && now.target() == tier)?;
            let mut new = now.with(|state| state.set_pending(Pending::None));
            new.raise_version();
            if self.swap(now, new) {
                return Some((Bead::new(index, new.tag()), new.version()));
            }
        }
    }

    /// Ends a claim without code. A request that followed the compile is queued now.
    pub(crate) fn abandon(self, ticket: Ticket) -> Ended {
        self.end(ticket, |new| {
            // A request that follows was for a higher tier; if a cap lowered it to this one, it has just been served.
            let served = new.target() == ticket.tier;
            new.set_pending(if served { Pending::None } else { new.pending().without_compile() });
        })
    }

    /// Gives a claimed bead back to its lane, or to that of the higher tier asked for meanwhile.
    #[cfg_attr(any(not(unix), beadwork_loom), allow(dead_code))] // only a forked child does this
    pub(crate) fn requeue(self, ticket: Ticket) -> Ended {
        self.end(ticket, |new| new.set_pending(Pending::Queued))
    }

    fn end(self, ticket: Ticket, change: impl Fn(&mut Snapshot)) -> Ended {
        loop {
            let Some(now) = self.settled(|now| now.is_claimed_by(ticket)) else { return Ended::Superseded };
            let mut new = now;
            change(&mut new);
            new.raise_version();
            if self.swap(now, new) {
                return Ended::of(&new);
            }
        }
    }

    /// The word once no publisher is at work, as long as it is `wanted`.
    #[inline(always)]
    fn settled(self, wanted: impl Fn(&Snapshot) -> bool) -> Option<Snapshot> {
        let mut rounds = 0;
        loop {
            let now = self.load();
            if !wanted(&now) {
                return None;
            }
            if !now.publishing() || mutant!("s2-two-publishers") {
                return Some(now);
            }
            wait_a_little(&mut rounds);
        }
    }

    /// Takes the publishing bit if the bead is live and `accept` agrees, waiting for another publisher.
    pub(crate) fn publish(self, bead: Bead, accept: impl Fn(&Snapshot) -> bool) -> Option<Publishing<'a>> {
        loop {
            let now = self.settled(|now| now.is(bead) && accept(now))?;
            if self.swap(now, now.with(|state| state.set_publishing(true))) {
                return Some(Publishing { cell: self, before: now, released: false });
            }
        }
    }
}

/// The publishing bit, held. Under it there is no allocation, no foreign code, no free and nothing that panics.
#[must_use = "the publishing bit stays set until `release`"]
pub(crate) struct Publishing<'a> {
    cell: StateCell<'a>,
    before: Snapshot,
    released: bool,
}

impl Publishing<'_> {
    /// The word as it was when the bit was taken; by S2 it has not changed since.
    pub(crate) fn before(&self) -> Snapshot {
        self.before
    }

    /// The version the word has after a release that raises it.
    pub(crate) fn next_version(&self) -> u32 {
        self.before.raised_version()
    }

    /// Gives the bit back together with `change`; answers the new word.
    pub(crate) fn release(mut self, change: impl FnOnce(&mut Snapshot)) -> Snapshot {
        let mut new = self.before;
        change(&mut new);
        self.finish(new);
        new
    }

    /// Shows another word before the cells say the same, which no release does. For a mutant.
    pub(crate) fn shows(&self, early: Snapshot) {
        // Relaxed: it is a fault in any order.
        self.cell.word.store(early.with(|state| state.set_publishing(true)).0, Relaxed);
    }

    fn finish(&mut self, new: Snapshot) {
        self.released = true;
        // By S2 nobody else changed the word, so a swap cannot lose an update. It is a read-modify-write so that
        // release sequences headed by earlier transitions go on. AcqRel: edge PUBLISH, partner is `load`.
        let old = self.cell.word.swap(new.0, mutant!("publish-finish", AcqRel));
        let held = self.before.with(|state| state.set_publishing(true));
        debug_assert_eq!(old, held.0, "S2 broken");
    }
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        if !self.released {
            self.finish(self.before);
        }
    }
}

const _: () = assert!(GENERATION_BITS == 15);

#[cfg(all(test, not(beadwork_loom)))]
mod tests;
