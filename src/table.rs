//! The columns together, and everything that changes a bead's cells.
//!
//! This module and [`crate::state`] are where the protocol lives: the state word arbitrates, and whoever holds its
//! publishing bit changes the cells here. Nothing outside writes a cell.

use crate::code::CodeWord;
use crate::column::Column;
use crate::counter::Budgets;
use crate::error::Stale;
use crate::free::FreeList;
use crate::grace::Grace;
use crate::heat::Heat;
use crate::id::{Bead, TierId};
use crate::owner::OwnerWord;
use crate::pins::Pins;
use crate::state::{Pending, Publishing, RETIRED_TAG, Snapshot, StateCell, Ticket};
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Code ready to be published: checked, and with its owner interned.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) entry: u64,
    /// Dispatches of this code are counted, because a higher tier wants to know.
    pub(crate) tick: bool,
    pub(crate) owner: OwnerWord,
}

/// What an install left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Installed {
    pub(crate) version: u32,
    /// A higher tier was asked for meanwhile: put a token into its lane.
    pub(crate) requeue: Option<TierId>,
}

/// What a restriction took back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Restricted {
    pub(crate) took_code: bool,
    pub(crate) cancelled: bool,
}

/// A bead that was taken down; if it is queued for a lower compiled tier, the caller puts a token into its lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Demoted {
    pub(crate) queued: bool,
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
    /// Indices ever handed out; the end of the table.
    used: AtomicU32,
    /// Of these, how many are not live: removed, parked behind a pin, or retired.
    not_live: AtomicU32,
    free: FreeList,
    pins: Pins,
    pub(crate) grace: Grace,
    /// What a slot holds while there is no code: the VM's interpreter-entry stub, or 0.
    fallback: u64,
    /// One bit per `CHUNK` indices in which code was ever installed, so that the end of the engine looks there only.
    compiled_chunks: Box<[AtomicU64]>,
}

const CHUNK: u32 = 4096;

impl Table {
    /// Address space for `capacity` beads, a power of two.
    pub(crate) fn reserve(capacity: u32, fallback: u64) -> std::io::Result<Table> {
        Ok(Table {
            capacity,
            code: Column::reserve(capacity)?,
            budgets: Budgets::reserve(capacity)?,
            heat: Heat::reserve(capacity)?,
            state: Column::reserve(capacity)?,
            core: Column::reserve(capacity)?,
            slot: Column::reserve(capacity)?,
            owner: Column::reserve(capacity)?,
            code_version: Column::reserve(capacity)?,
            used: AtomicU32::new(0),
            not_live: AtomicU32::new(0),
            free: FreeList::default(),
            pins: Pins::default(),
            grace: Grace::new(),
            fallback,
            compiled_chunks: (0..capacity.div_ceil(CHUNK * 64)).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Bytes of address space the table reserves per bead.
    pub(crate) const BYTES: usize =
        3 * size_of::<u64>() + 2 * size_of::<usize>() + size_of::<u32>() + Budgets::BYTES + Heat::BYTES;

    /// Memory the columns hold now, in bytes, counted in pages.
    pub(crate) fn resident_bytes(&self) -> usize {
        [&self.code, &self.state, &self.owner].iter().map(|column| column.resident_bytes()).sum::<usize>()
            + self.core.resident_bytes()
            + self.slot.resident_bytes()
            + self.code_version.resident_bytes()
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
        StateCell(self.state.get(index))
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

    /// Makes a fresh index, taken by [`take_fresh`](Table::take_fresh), live. `note` writes what else is known of it.
    pub(crate) fn register_fresh(&self, index: u32, core: usize, note: impl FnOnce(u32)) -> Bead {
        note(index);
        // Relaxed: ordered by the Release in `register_fresh` (edge REGISTER).
        self.core.get(index).store(core, Relaxed);
        self.state(index).register_fresh();
        Bead::new(index, 0)
    }

    /// Takes a removed index that has passed its grace period and that no native code names.
    pub(crate) fn take_again(&self) -> Option<u32> {
        loop {
            let index = self.free.pop(&self.grace)?;
            if !self.state(index).load().slotted || !self.pins.park(index) {
                return Some(index);
            }
        }
    }

    /// Makes an index taken by [`take_again`](Table::take_again) live.
    pub(crate) fn register_taken(&self, index: u32, core: usize, note: impl FnOnce(u32)) -> Bead {
        if self.state(index).load().slotted {
            self.slot.get(index).store(0, Relaxed);
        }
        self.start_over(index);
        note(index);
        self.not_live.fetch_sub(1, Relaxed);
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
        let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
        let index = bead.index();
        let core = self.core.get(index).load(Relaxed);
        let next = held.before().next_generation();
        let old = self.write_cells(index, &held, CodeWord::cold(next.tag), OwnerWord::NONE);
        held.release(|state| *state = next);
        self.grace.retire(old);
        forget(index);
        self.not_live.fetch_add(1, Relaxed);
        if next.tag != RETIRED_TAG {
            self.free.push(index, &self.grace);
        }
        Ok(core)
    }

    // ---- code

    /// Installs the result of a compile; `None` if the ticket was superseded, and nothing changed.
    pub(crate) fn install(&self, ticket: Ticket, code: Ready) -> Option<Installed> {
        let held = self.publishing(ticket.bead, |state| state.is_claimed_by(ticket))?;
        Some(self.publish(ticket.bead, held, code, ticket.tier, |state| {
            state.pending == Pending::Followed && state.target > ticket.tier
        }))
    }

    /// Installs code of the VM's own, in any live state. A compile in flight is superseded; a queued request for a
    /// higher tier stays.
    pub(crate) fn vm_install(&self, bead: Bead, tier: TierId, code: Ready) -> Option<Installed> {
        let held = self.publishing(bead, |_| true)?;
        Some(self.publish(bead, held, code, tier, |state| {
            matches!(state.pending, Pending::Queued | Pending::Followed) && state.target > tier
        }))
    }

    fn publish(
        &self,
        bead: Bead,
        held: Publishing<'_>,
        code: Ready,
        tier: TierId,
        stays_queued: impl Fn(&Snapshot) -> bool,
    ) -> Installed {
        let (index, before) = (bead.index(), held.before());
        self.mark_compiled(index);
        let old =
            self.write_cells(index, &held, CodeWord::ready(before.tag, code.entry, code.tick), code.owner);
        let queued = stays_queued(&before);
        let new = held.release(|state| {
            state.raise_version();
            state.tier = tier;
            state.pending = if queued { Pending::Queued } else { Pending::None };
        });
        self.grace.retire(old);
        Installed { version: new.version, requeue: queued.then_some(new.target) }
    }

    /// Takes a bead's code back and cancels what is pending. Later dispatches answer cold. Answers whether it had code.
    pub(crate) fn invalidate(&self, bead: Bead) -> Result<bool, Stale> {
        let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
        let index = bead.index();
        let had_code = held.before().tier != TierId::INTERPRETER;
        // Under the bit, so that the index is still this bead's.
        self.start_over(index);
        let old = self.write_cells(index, &held, CodeWord::cold(held.before().tag), OwnerWord::NONE);
        held.release(|state| {
            state.raise_version();
            state.tier = TierId::INTERPRETER;
            state.pending = Pending::None;
        });
        self.grace.retire(old);
        Ok(had_code)
    }

    /// Counts from zero. Mutators may be counting meanwhile: at worst some of it is undone.
    pub(crate) fn start_over(&self, index: u32) {
        self.budgets.reset(index);
        self.heat.reset(index);
    }

    /// Changes what a bead may be compiled at; code and requests above that are taken back.
    pub(crate) fn restrict(&self, bead: Bead, change: impl Fn(&mut Snapshot)) -> Result<Restricted, Stale> {
        let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
        let before = held.before();
        let mut after = before;
        change(&mut after);
        let took_code = after.tier != TierId::INTERPRETER && after.bars(after.tier).is_some();
        let cancelled = after.pending != Pending::None && after.bars(after.target).is_some();
        let old = if took_code {
            self.write_cells(bead.index(), &held, CodeWord::cold(before.tag), OwnerWord::NONE)
        } else {
            OwnerWord::NONE
        };
        held.release(|state| {
            change(state);
            if took_code {
                state.tier = TierId::INTERPRETER;
            }
            if cancelled {
                state.pending = Pending::None;
            }
            if took_code || cancelled {
                state.raise_version();
            }
        });
        self.grace.retire(old);
        Ok(Restricted { took_code, cancelled })
    }

    /// Takes back code above `tier` and, if that is a compiled one, queues the bead for it. Answers what to do, or
    /// `None` if the bead runs no higher than that.
    pub(crate) fn demote(&self, bead: Bead, tier: TierId) -> Result<Option<Demoted>, Stale> {
        let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
        if held.before().tier <= tier {
            held.release(|_| ());
            return Ok(None);
        }
        let index = bead.index();
        self.start_over(index);
        let old = self.write_cells(index, &held, CodeWord::cold(held.before().tag), OwnerWord::NONE);
        let new = held.release(|state| {
            state.raise_version();
            state.tier = TierId::INTERPRETER;
            state.target = tier;
            let again = tier != TierId::INTERPRETER && state.bars(tier).is_none();
            state.pending = if again { Pending::Queued } else { Pending::None };
        });
        self.grace.retire(old);
        Ok(Some(Demoted { queued: new.pending == Pending::Queued }))
    }

    /// The cells that go with the code, always together, under the bit. Answers the unlinked owner, to be retired
    /// after the bit is released.
    fn write_cells(&self, index: u32, held: &Publishing<'_>, word: CodeWord, owner: OwnerWord) -> OwnerWord {
        // Relaxed: owner and version are touched only under the bit (edge CLAIM orders holders).
        let old = self.owner.get(index).load(Relaxed);
        // Release, edge PUBLISH, partner is the Acquire load of a dispatch: who gets the pointer sees the code.
        self.code.get(index).store(word.0, Release);
        if held.before().slotted {
            // Release, edge PUBLISH: native callers load it with an ordinary load, see `protocol`.
            self.slot.get(index).store(self.slot_value(word), Release);
        }
        if old != owner.0 {
            self.owner.get(index).store(owner.0, Relaxed);
        }
        if word.entry() != 0 {
            self.code_version.get(index).store(held.next_version(), Relaxed);
        }
        OwnerWord(old)
    }

    fn slot_value(&self, word: CodeWord) -> usize {
        (if word.entry() == 0 { self.fallback } else { word.entry() }) as usize
    }

    /// The address of the bead's slot, switched on at first use. The caller has pinned the index.
    pub(crate) fn slot(&self, bead: Bead) -> Result<usize, Stale> {
        let now = self.live(bead)?;
        let cell = self.slot.get(bead.index());
        if !now.slotted {
            let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
            // Relaxed: code changes only under the bit, which is held.
            let word = CodeWord(self.code.get(bead.index()).load(Relaxed));
            // Release, edge PUBLISH, as in `write_cells`.
            cell.store(self.slot_value(word), Release);
            held.release(|state| state.slotted = true);
        }
        Ok((cell as *const AtomicUsize).expose_provenance())
    }

    /// Whether the bead's slot, whose address somebody holds, still means this bead: live, or removed and not reused.
    pub(crate) fn slot_is_of(&self, bead: Bead) -> Result<(), Stale> {
        if bead.index() >= self.capacity {
            return Err(Stale(bead));
        }
        let now = self.state(bead.index()).load();
        let removed = !now.live && u64::from(now.tag) == bead.tag() + 1;
        if now.is(bead) || (removed && now.slotted) { Ok(()) } else { Err(Stale(bead)) }
    }

    /// Reads the cell with that address as native code would.
    #[cfg(beadwork_loom)]
    pub(crate) fn slot_cell(&self, address: usize) -> usize {
        let cells = (0..self.capacity).map(|index| self.slot.get(index));
        // Acquire, edge PUBLISH.
        cells
            .filter(|&cell| (cell as *const AtomicUsize).addr() == address)
            .map(|cell| cell.load(Acquire))
            .sum()
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    // ---- core

    pub(crate) fn core(&self, bead: Bead) -> Result<usize, Stale> {
        // Acquire, edge CORE: if this is a later generation's core, the check below sees that generation.
        let core = self.core.get(bead.index()).load(Acquire);
        self.live(bead)?;
        Ok(core)
    }

    pub(crate) fn set_core(&self, bead: Bead, core: usize) -> Result<(), Stale> {
        let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
        // Release, edge CORE: what the VM wrote into the new object before is seen by who reads the core.
        self.core.get(bead.index()).store(core, Release);
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
