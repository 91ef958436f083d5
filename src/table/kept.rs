//! Baseline code that is held while its function runs at a higher tier, so that a revert can bring it back at once.
//!
//! # Rules
//! * **K1** a function has code held here only while it is live and runs above the baseline: whatever takes it below that, or
//!   ends it, takes the lock first, then the publishing bit, and takes the held code out before it lets go of the lock.
//! * **K2** code is put here by the install that supersedes it, under the lock, which that install took before the bit.
//!
//! So a revert that finds held code finds what ran before the present code and was not taken back since; none is lost and none
//! comes back after an invalidation. Whoever holds a bit never waits for the lock, so lock then bit cannot deadlock.

use super::{Publishing, Snapshot, Table, Unlinked};
use crate::code::CodeWord;
use crate::id::{Bead, TierId};
use crate::owner::OwnerWord;
use crate::sync::{Mutex, MutexGuard, lock};
use std::collections::HashMap;

/// Code as it was when it was superseded: everything it takes to publish it again.
#[derive(Clone, Copy)]
pub(super) struct KeptCode {
    pub(super) word: CodeWord,
    pub(super) linked: Unlinked,
    /// What its guards name.
    pub(super) version: u32,
}

/// The held code, locked; `None` where nothing is ever held, or the function cannot have any.
pub(super) type Held<'t> = Option<MutexGuard<'t, HashMap<Bead, KeptCode>>>;

/// Held code by function.
#[derive(Default)]
pub(crate) struct Kept {
    /// Whether anything is ever held. Set before the table is shared.
    pub(crate) on: bool,
    all: Mutex<HashMap<Bead, KeptCode>>,
}

impl Kept {
    /// For an install that may supersede baseline code (K2).
    pub(super) fn for_install(&self, tier: TierId) -> Held<'_> {
        (self.on && tier > TierId::BASELINE).then(|| lock(&self.all))
    }

    /// How many pieces are held, and their bytes.
    pub(crate) fn holds(&self) -> (usize, usize) {
        if !self.on {
            return (0, 0);
        }
        let all = lock(&self.all);
        (all.len(), all.values().map(|code| code.linked.code.owner.bytes()).sum())
    }

    /// Takes everything out.
    fn take_all(&self) -> Vec<Unlinked> {
        lock(&self.all).drain().map(|(_, code)| code.linked).collect()
    }

    /// Takes all owners out, at the end of the engine.
    pub(super) fn take_owners(&self) -> impl Iterator<Item = OwnerWord> {
        self.take_all().into_iter().map(|linked| linked.code.owner)
    }
}

/// The publishing bit, taken in the order of K1.
pub(super) struct Taking<'t> {
    pub(super) kept: Held<'t>,
    pub(super) held: Publishing<'t>,
}

impl Table {
    /// Takes the publishing bit for a change that may take code back, and before it the lock of held code if there can be any
    /// (K1). `None` if the bead is not live.
    pub(super) fn publishing_to_take(&self, bead: Bead) -> Option<Taking<'_>> {
        loop {
            let above = |state: &Snapshot| state.tier() > TierId::BASELINE;
            let on = self.kept.on && !mutant!("k1-unlocked");
            let kept = if on && above(&self.live(bead).ok()?) { Some(lock(&self.kept.all)) } else { None };
            let covered = kept.is_some() || !on;
            if let Some(held) = self.publishing(bead, |state| covered || !above(state)) {
                return Some(Taking { kept, held });
            }
            // Ended, or tiered up meanwhile: look again.
            self.live(bead).ok()?;
        }
    }

    /// Retires what was held for a function that has no use for it any more; lets go of the lock.
    pub(super) fn drop_held(&self, kept: Held<'_>, bead: Bead) {
        if let Some(code) = kept.and_then(|mut all| all.remove(&bead)) {
            self.retire(code.linked);
        }
    }

    /// Retires the baseline code that is held for a function, whatever the function runs; answers whether there was any. For
    /// memory pressure, and for whoever learns that this code must not run again.
    pub(crate) fn drop_kept(&self, bead: Bead) -> bool {
        let code = if self.kept.on { lock(&self.kept.all).remove(&bead) } else { None };
        code.inspect(|code| self.retire(code.linked)).is_some()
    }

    /// Retires all baseline code that is held; answers how many pieces.
    pub(crate) fn drop_all_kept(&self) -> usize {
        let all = self.kept.take_all();
        all.iter().for_each(|&linked| self.retire(linked));
        all.len()
    }
}
