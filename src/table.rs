//! The columns together, and everything that changes a bead's cells.
//!
//! This module and [`crate::state`] are where the protocol lives: the state word arbitrates, and whoever holds its
//! publishing bit changes the cells here. Nothing outside writes a cell.

use crate::column::Column;
use crate::counter::Budgets;
use crate::error::Stale;
use crate::free::FreeList;
use crate::grace::{self, Grace};
use crate::heat::Heat;
use crate::id::{Bead, TierId};
use crate::osr::{OsrWord, Tables};
use crate::owner::OwnerWord;
use crate::pins::Pins;
use crate::profile::Profiles;
use crate::state::{Publishing, RETIRED_TAG, Snapshot, StateCell};
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

mod code;
mod kept;
mod take;

use kept::{Kept, Taking};
pub(crate) use take::Revoked;

/// Code ready to be published: checked, and with its owner interned.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) entry: u64,
    /// Dispatches of this code are counted, because a higher tier wants to know.
    pub(crate) tick: bool,
    pub(crate) owner: OwnerWord,
    pub(crate) osr: OsrWord,
}

/// What was linked before; to be retired after the publishing bit is released.
#[must_use = "what is not retired is never freed"]
#[derive(Clone, Copy)]
struct Unlinked {
    code: grace::Unlinked,
    osr: OsrWord,
}

/// What an install left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Installed {
    pub(crate) version: u32,
    /// The tier it ran at before, and the version of the code it had.
    pub(crate) old_tier: TierId,
    pub(crate) old_version: Option<u32>,
    /// A higher tier was asked for meanwhile: put a token into its lane.
    pub(crate) requeue: Option<TierId>,
}

/// What a restriction took back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Restricted {
    pub(crate) took_code: bool,
    /// The cap until then.
    pub(crate) old_cap: TierId,
    /// What became of what was pending, if that is barred now.
    pub(crate) barred: Option<Barred>,
}

/// A request that may not be served as it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Barred {
    /// It has ended; its last version.
    Cancelled(u32),
    /// It follows a compile, and is for a lower tier now. What comes with it is bound to that version.
    Lowered { from: TierId, to: TierId, version: u32 },
}

/// A bead that was taken down; if it is queued for a lower compiled tier, the caller puts a token into its lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Demoted {
    pub(crate) queued: bool,
    /// The version before that request.
    pub(crate) version: u32,
}

/// Code that was taken back, or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Invalidated {
    pub(crate) had_code: bool,
    /// Something was queued or being compiled.
    pub(crate) was_pending: bool,
    /// The version afterwards.
    pub(crate) version: u32,
}

/// What becomes of a function whose code is taken back because a guard failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// Put baseline code back that is held.
    pub(crate) baseline: bool,
    /// Ask for this tier, if it is above what runs then.
    pub(crate) queue: Option<TierId>,
    /// Enter no tier above this one from now on.
    pub(crate) cap: TierId,
    pub(crate) blacklist: bool,
}

impl Plan {
    /// Interpreted, nothing else.
    pub(crate) const INTERPRET: Plan =
        Plan { baseline: false, queue: None, cap: TierId::MAX, blacklist: false };
}

/// What that came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Deoptimized {
    /// The caller puts a token into this tier's lane.
    pub(crate) queued: Option<TierId>,
    /// Held baseline code runs again.
    pub(crate) reverted: bool,
    /// The version before that request: the last one of what was pending.
    pub(crate) version: u32,
}

pub(crate) struct Table {
    capacity: u32,
    pub(crate) code: Column<AtomicU64>,
    pub(crate) budgets: Budgets,
    pub(crate) heat: Heat,
    state: Column<AtomicU64>,
    core: Column<AtomicUsize>,
    slot: Column<AtomicUsize>,
    owner: Column<AtomicU64>,
    /// The version an install gave its code; what a bailout names.
    code_version: Column<AtomicU32>,
    pub(crate) osr: Tables,
    pub(crate) profiles: Profiles,
    /// Indices ever handed out; the end of the table.
    used: AtomicU32,
    /// Of these, how many are not live: removed, parked behind a pin, or retired.
    not_live: AtomicU32,
    free: FreeList,
    pins: Pins,
    pub(crate) kept: Kept,
    pub(crate) grace: Grace,
    /// What a slot holds while there is no code: the VM's interpreter-entry stub, or 0.
    fallback: u64,
    /// One bit per `CHUNK` indices in which code was ever installed, so that the end of the engine looks there only.
    compiled_chunks: Box<[AtomicU64]>,
}

const CHUNK: u32 = 4096;

/// Room for native loop entries: one for each four beads, but at least and at most so many.
const LEAST_LOOPS: u32 = if cfg!(beadwork_loom) { 16 } else { 1 << 12 };
const MOST_LOOPS: u32 = 1 << 24;

/// Room for what native code counts of itself: one counter for each bead, but at least and at most so many.
const LEAST_COUNTERS: u32 = if cfg!(beadwork_loom) { 4 } else { 1 << 12 };
const MOST_COUNTERS: u32 = 1 << 22;

impl Table {
    /// Address space for `capacity` beads, a power of two.
    pub(crate) fn reserve(capacity: u32, fallback: u64) -> std::io::Result<Table> {
        Ok(Table {
            capacity,
            code: Column::reserve_hot(capacity)?,
            budgets: Budgets::reserve(capacity)?,
            heat: Heat::reserve(capacity)?,
            state: Column::reserve_hot(capacity)?,
            core: Column::reserve_hot(capacity)?,
            slot: Column::reserve(capacity)?,
            owner: Column::reserve(capacity)?,
            code_version: Column::reserve(capacity)?,
            osr: Tables::reserve(capacity, (capacity / 4).clamp(LEAST_LOOPS, MOST_LOOPS))?,
            profiles: Profiles::reserve(capacity.clamp(LEAST_COUNTERS, MOST_COUNTERS))?,
            used: AtomicU32::new(0),
            not_live: AtomicU32::new(0),
            free: FreeList::default(),
            pins: Pins::default(),
            kept: Kept::default(),
            grace: Grace::new(),
            fallback,
            compiled_chunks: (0..capacity.div_ceil(CHUNK * 64)).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Bytes of address space the table reserves per bead.
    pub(crate) const BYTES: usize =
        // Owner, state, code and table words; a quarter of an entry of two words.
        4 * size_of::<u64>()
            + size_of::<u64>() / 2
            + 2 * size_of::<usize>()
            + size_of::<u32>()
            // A counter, at the most.
            + size_of::<u64>()
            + Budgets::BYTES
            + Heat::BYTES;

    /// Memory the columns hold now, in bytes, counted in pages.
    pub(crate) fn resident_bytes(&self) -> usize {
        [&self.code, &self.state, &self.owner].iter().map(|column| column.resident_bytes()).sum::<usize>()
            + self.core.resident_bytes()
            + self.slot.resident_bytes()
            + self.code_version.resident_bytes()
            + self.osr.resident_bytes()
            + self.profiles.resident_bytes()
            + self.budgets.resident_bytes()
            + self.heat.resident_bytes()
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Indices ever handed out.
    pub(crate) fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// Removed indices that wait for their next use.
    pub(crate) fn free_len(&self) -> usize {
        self.free.len()
    }

    /// How many beads are live.
    pub(crate) fn live_len(&self) -> u32 {
        self.used().saturating_sub(self.not_live.load(Relaxed))
    }

    pub(crate) fn state(&self, index: u32) -> StateCell<'_> {
        StateCell { word: self.state.get(index), core: self.core.get(index) }
    }

    pub(crate) fn live(&self, bead: Bead) -> Result<Snapshot, Stale> {
        if bead.index() >= self.capacity {
            return Err(Stale(bead));
        }
        self.state(bead.index()).live(bead).ok_or(Stale(bead))
    }

    fn publishing(&self, bead: Bead, accept: impl Fn(&Snapshot) -> bool) -> Option<Publishing<'_>> {
        if bead.index() >= self.capacity {
            return None;
        }
        self.state(bead.index()).publish(bead, accept)
    }

    // ---- registration

    /// Takes `count` indices off the end of the table; answers the first.
    pub(crate) fn take_fresh(&self, count: u32) -> Option<u32> {
        // Relaxed: the number alone is claimed; what the index holds is untouched memory.
        self.used
            .fetch_update(Relaxed, Relaxed, |used| {
                used.checked_add(count).filter(|&end| end <= self.capacity)
            })
            .ok()
    }

    /// Makes a fresh index, taken by [`take_fresh`](Table::take_fresh), live. What else is known of it was noted before.
    pub(crate) fn register_fresh(&self, index: u32, core: usize) -> Bead {
        self.state(index).register_fresh(core);
        Bead::new(index, 0)
    }

    /// The same for a run of them, from `first` on.
    pub(crate) fn register_run(&self, first: u32, cores: &[usize]) {
        for (index, &core) in (first..).zip(cores) {
            self.state(index).register_fresh(core);
        }
    }

    /// Takes a removed index that has passed its grace period and that no native code names.
    pub(crate) fn take_again(&self) -> Option<u32> {
        loop {
            let index = self.free.pop(&self.grace)?;
            if !self.state(index).load().slotted() || !self.pins.park(index) || mutant!("reuse-pinned") {
                return Some(index);
            }
        }
    }

    /// Makes an index taken by [`take_again`](Table::take_again) live.
    pub(crate) fn register_taken(&self, index: u32, core: usize, note: impl FnOnce(u32)) -> Bead {
        if self.state(index).load().slotted() {
            self.slot.get(index).store(0, Relaxed);
        }
        if !mutant!("reuse-old-budget") {
            self.start_over(index);
        }
        note(index);
        self.not_live.fetch_sub(1, Relaxed);
        let free = self.state(index).load();
        if free == Snapshot::default() {
            // It was given back without having been used.
            self.state(index).register_fresh(core);
            return Bead::new(index, 0);
        }
        // Release, edge CORE, partner is the Acquire in `core`: who reads the new core sees the generation that
        // `remove` moved on, and so that its old handle is stale.
        self.core.get(index).store(core, Release);
        Bead::new(index, self.state(index).register_again())
    }

    /// Makes a removed index live again, if one can be used.
    pub(crate) fn register_again(&self, core: usize, note: impl FnOnce(u32)) -> Option<Bead> {
        let index = self.take_again()?;
        Some(self.register_taken(index, core, note))
    }

    /// Gives back a fresh index that was taken but not used.
    pub(crate) fn give_back_fresh(&self, index: u32) {
        self.not_live.fetch_add(1, Relaxed);
        self.give_back(index);
    }

    /// Stamps what was removed so far, see [`FreeList::close`].
    pub(crate) fn close_removals(&self) {
        self.free.close(&self.grace);
    }

    /// Puts a removed index, parked behind a pin that is gone, back onto the free list.
    pub(crate) fn give_back(&self, index: u32) {
        self.free.push(index, &self.grace);
    }

    /// Ends a bead: cells first, then the generation, then (after `forget`, which clears what else is known of the
    /// index) the free list. Answers its core.
    pub(crate) fn remove(&self, bead: Bead, forget: impl FnOnce(u32)) -> Result<usize, Stale> {
        let Taking { kept, held } = self.publishing_to_take(bead).ok_or(Stale(bead))?;
        let index = bead.index();
        let core = self.core.get(index).load(Relaxed);
        let next = held.before().next_generation();
        let tag = if mutant!("reuse-old-tag") { held.before().tag() } else { next.tag() };
        if mutant!("s4-generation-first") {
            held.shows(next);
        }
        let old = self.clear_cells(index, &held, tag);
        if mutant!("s3-free-first") {
            self.free.push(index, &self.grace);
        }
        held.release(|state| *state = next);
        self.drop_held(kept, bead);
        self.retire(old);
        forget(index);
        self.not_live.fetch_add(1, Relaxed);
        if next.tag() != RETIRED_TAG && !mutant!("s3-free-first") {
            self.free.push(index, &self.grace);
        }
        Ok(core)
    }

    /// The version an install gave its code.
    pub(crate) fn code_version(&self, bead: Bead) -> u32 {
        // Relaxed: the caller checks the state, or only wants to know.
        self.code_version.get(bead.index()).load(Relaxed)
    }

    /// The size of the bead's code as its owner states it.
    pub(crate) fn code_bytes(&self, bead: Bead) -> usize {
        // Relaxed: a figure for accounts.
        OwnerWord(self.owner.get(bead.index()).load(Relaxed)).bytes()
    }

    // ---- core

    pub(crate) fn core(&self, bead: Bead) -> Result<usize, Stale> {
        // Acquire, edge CORE: if this is a later generation's core, the check below sees that generation.
        let core = self.core.get(bead.index()).load(mutant!("core-load", Acquire));
        if !mutant!("core-unchecked") {
            self.live(bead)?;
        }
        Ok(core)
    }

    pub(crate) fn set_core(&self, bead: Bead, core: usize) -> Result<(), Stale> {
        let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
        // Release, edge CORE: what the VM wrote into the new object before is seen by who reads the core.
        self.core.get(bead.index()).store(core, mutant!("core-set", Release));
        held.release(|_| ());
        Ok(())
    }

    // ---- end

    fn mark_compiled(&self, index: u32) {
        let chunk = self.code.masked(index) / CHUNK;
        let word = &self.compiled_chunks[(chunk / 64) as usize];
        let bit = 1 << (chunk % 64);
        // Relaxed: read only when no other thread is left.
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    /// Takes every installed and every retired owner out, when nobody else uses the table any more.
    pub(crate) fn take_owners(&self) -> Vec<OwnerWord> {
        let mut owners = self.grace.everything();
        owners.extend(self.kept.take_owners());
        for (position, word) in self.compiled_chunks.iter().enumerate() {
            let word = word.load(Relaxed);
            for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
                let first = (position as u32 * 64 + bit) * CHUNK;
                for index in first..(first + CHUNK).min(self.capacity) {
                    let cell = self.owner.get(index);
                    let owner = OwnerWord(cell.load(Relaxed));
                    if !owner.is_none() {
                        cell.store(0, Relaxed);
                        owners.push(owner);
                    }
                }
            }
        }
        owners
    }
}
