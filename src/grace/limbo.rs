//! Retired code on its way to be freed.

use super::{Leases, Survey};
use crate::code::CodeWord;
use crate::id::Bead;
use crate::owner::{OwnerWord, Owners};
use std::collections::VecDeque;

/// Code that was taken out of its bead's cells, and not yet retired or freed.
///
/// It is a plain value, as [`OwnerWord`] is; exactly one of the columns, the retired list and a reclaiming thread's
/// hands holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "unlinked code that is not retired leaks"]
pub(crate) struct Unlinked {
    pub(crate) index: u32,
    /// The code word as it was, so that it says whose code this is and where it is entered.
    pub(crate) word: CodeWord,
    pub(crate) owner: OwnerWord,
}

impl Unlinked {
    pub(crate) fn entry(&self) -> u64 {
        self.word.entry()
    }

    /// Whose code it was.
    pub(crate) fn bead(&self) -> Bead {
        Bead::new(self.index, self.word.tag())
    }
}

/// Retired code, to be freed when every mutator has reached the stamp, and no frame or lease is in the way.
#[derive(Debug)]
pub(super) struct Retired {
    pub(super) stamp: u64,
    pub(super) code: Unlinked,
}

/// Pieces for which there is always room: 256 KiB.
const ROOM: usize = (256 << 10) / size_of::<Retired>();

#[derive(Default)]
pub(super) struct Limbo {
    /// In order of stamps.
    queue: VecDeque<Retired>,
    /// Passed by every mutator at some time, but one had frames in it, or a lease of it has just ended.
    kept: Vec<Retired>,
}

impl Limbo {
    pub(super) fn push(&mut self, retired: Retired) {
        self.queue.push_back(retired);
    }

    pub(super) fn keep(&mut self, loose: Vec<Retired>) {
        self.kept.extend(loose);
    }

    /// The newest stamp that some mutator has not passed, as far as is known.
    pub(super) fn newest(&self) -> Option<u64> {
        self.queue.back().map(|retired| retired.stamp)
    }

    pub(super) fn keeps(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Takes out what may be freed. Leased code moves to its lease.
    pub(super) fn expired(&mut self, survey: &Survey, owners: &Owners, leases: &Leases) -> Vec<Unlinked> {
        let ready = self.queue.partition_point(|retired| retired.stamp <= survey.passed);
        if ready == 0 && self.kept.is_empty() {
            return Vec::new();
        }
        self.kept.extend(self.queue.drain(..ready));
        // The stamp of what was kept is compared too: it may have come here by a later survey than this one, and this
        // one's addresses say nothing of it (G4).
        let free = |retired: &mut Retired| {
            (retired.stamp <= survey.passed || mutant!("g4-older-survey"))
                && !owners.any_inside(retired.code.entry(), retired.code.owner, &survey.held)
        };
        let unheld = self.kept.extract_if(.., free);
        let expired = leases.take_in(unheld);
        self.give_room_back();
        expired
    }

    /// After a burst, what was needed for it.
    fn give_room_back(&mut self) {
        if self.queue.capacity() > ROOM.max(4 * self.queue.len()) {
            self.queue.shrink_to(ROOM);
        }
        if self.kept.capacity() > ROOM.max(4 * self.kept.len()) {
            self.kept.shrink_to(ROOM);
        }
    }

    pub(super) fn take(&mut self) -> Vec<Retired> {
        let mut all = std::mem::take(&mut self.kept);
        all.extend(self.queue.drain(..));
        all
    }
}
