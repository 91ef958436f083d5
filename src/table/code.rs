//! Everything that changes a bead's code, always under the publishing bit.

use super::{Demoted, Installed, Invalidated, Ready, Restricted, Table, Unlinked};
use crate::code::CodeWord;
use crate::error::Stale;
use crate::grace;
use crate::id::{Bead, TierId};
use crate::osr::OsrWord;
use crate::owner::OwnerWord;
use crate::pins::Pins;
use crate::state::{Ended, Pending, Publishing, Snapshot, Ticket};
use crate::sync::AtomicUsize;
#[cfg(beadwork_loom)]
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::{Relaxed, Release};

impl Table {
    /// Installs the result of a compile. Not if the ticket was superseded, and nothing changed; and not if its tier is barred
    /// by now, then the claim ends like one without code.
    pub(crate) fn install(&self, ticket: Ticket, code: Ready) -> Result<Installed, Ended> {
        let held =
            self.publishing(ticket.bead, |state| state.is_claimed_by(ticket)).ok_or(Ended::Superseded)?;
        if held.before().bars(ticket.tier).is_some() {
            let new = held.release(|state| {
                state.raise_version();
                state.pending = state.pending.without_compile();
            });
            return Err(Ended::of(&new));
        }
        Ok(self.publish(ticket.bead, held, code, ticket.tier, |state| {
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
        let old = self.write_cells(
            index,
            &held,
            CodeWord::ready(before.tag, code.entry, code.tick),
            code.owner,
            code.osr,
        );
        let queued = stays_queued(&before);
        let new = held.release(|state| {
            state.raise_version();
            state.tier = tier;
            state.pending = if queued { Pending::Queued } else { Pending::None };
        });
        self.retire(old);
        Installed { version: new.version, requeue: queued.then_some(new.target) }
    }

    /// Takes a bead's code back and cancels what is pending. Later dispatches answer cold.
    pub(crate) fn invalidate(&self, bead: Bead) -> Result<Invalidated, Stale> {
        let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
        let index = bead.index();
        let had_code = held.before().tier != TierId::INTERPRETER;
        // Under the bit, so that the index is still this bead's.
        self.start_over(index);
        let old = self.clear_cells(index, &held, held.before().tag);
        let new = held.release(|state| {
            state.raise_version();
            state.tier = TierId::INTERPRETER;
            state.pending = Pending::None;
        });
        self.retire(old);
        Ok(Invalidated { had_code, version: new.version })
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
        let barred = after.pending != Pending::None && after.bars(after.target).is_some();
        // The compile in flight may be for a tier that is still allowed (if not, its install says so), and the request that
        // follows it is lowered to what is.
        let lowered = barred && after.pending == Pending::Followed && after.bars(TierId::BASELINE).is_none();
        let cancelled = barred && !lowered;
        let old = took_code.then(|| self.clear_cells(bead.index(), &held, before.tag));
        let new = held.release(|state| {
            change(state);
            if took_code {
                state.tier = TierId::INTERPRETER;
            }
            if cancelled {
                state.pending = Pending::None;
            }
            if lowered {
                // A compile in flight that goes on keeps its ticket.
                state.target = state.cap;
            } else if cancelled || took_code {
                state.raise_version();
            }
        });
        old.into_iter().for_each(|old| self.retire(old));
        // What came with the request that followed is bound to the next version.
        let over = if lowered { new.raised_version() } else { new.version };
        Ok(Restricted { took_code, cancelled: barred.then_some(over) })
    }

    /// Takes back code above `tier` and, if that is a compiled one and the code is wanted, queues the bead for it. Answers
    /// what to do, or `None` if the bead runs no higher than that.
    pub(crate) fn demote(&self, bead: Bead, tier: TierId, wanted: bool) -> Result<Option<Demoted>, Stale> {
        let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
        if held.before().tier <= tier {
            held.release(|_| ());
            return Ok(None);
        }
        let index = bead.index();
        self.start_over(index);
        let old = self.clear_cells(index, &held, held.before().tag);
        let new = held.release(|state| {
            state.raise_version();
            state.tier = TierId::INTERPRETER;
            state.pending = Pending::None;
            if wanted && tier != TierId::INTERPRETER && state.bars(tier).is_none() {
                // The end of one request and the start of another: two versions, so that they can be told apart.
                state.raise_version();
                (state.pending, state.target) = (Pending::Queued, tier);
            }
        });
        self.retire(old);
        let queued = new.pending == Pending::Queued;
        Ok(Some(Demoted { queued, version: new.version - u32::from(queued) }))
    }

    /// Takes the code out of the cells, under the bit. `tag` is that of the generation that may dispatch from now on.
    pub(super) fn clear_cells(&self, index: u32, held: &Publishing<'_>, tag: u16) -> Unlinked {
        self.write_cells(index, held, CodeWord::cold(tag), OwnerWord::NONE, OsrWord::NONE)
    }

    /// What was unlinked is freed when no mutator can be in it any more. Not under the bit.
    pub(super) fn retire(&self, old: Unlinked) {
        self.grace.retire(old.code);
        self.osr.retire(old.osr, &self.grace);
    }

    /// The cells that go with the code, always together, under the bit.
    fn write_cells(
        &self,
        index: u32,
        held: &Publishing<'_>,
        word: CodeWord,
        owner: OwnerWord,
        osr: OsrWord,
    ) -> Unlinked {
        // Relaxed: these cells are changed only under the bit (edge CLAIM orders holders).
        let old = grace::Unlinked {
            index,
            word: CodeWord(self.code.get(index).load(Relaxed)),
            owner: OwnerWord(self.owner.get(index).load(Relaxed)),
        };
        // Release, edge PUBLISH, partner is the Acquire load of a dispatch: who gets the pointer sees the code.
        self.code.get(index).store(word.0, Release);
        if held.before().slotted {
            // Release, edge PUBLISH: native callers load it with an ordinary load, see `protocol`.
            self.slot.get(index).store(self.slot_value(word), Release);
        }
        if old.owner != owner {
            self.owner.get(index).store(owner.0, Relaxed);
        }
        if word.entry() != 0 {
            self.code_version.get(index).store(held.next_version(), Relaxed);
        }
        Unlinked { code: old, osr: self.osr.publish(index, osr) }
    }

    /// Has dispatches of the code of that version counted or not; `None` means as an install would have them.
    pub(crate) fn count_dispatches(&self, bead: Bead, version: u32, counted: Option<bool>, top: TierId) {
        let Some(held) = self.publishing(bead, |_| true) else { return };
        let (index, before) = (bead.index(), held.before());
        // Relaxed: these change only under the bit.
        let word = CodeWord(self.code.get(index).load(Relaxed));
        if word.entry() != 0 && self.code_version.get(index).load(Relaxed) == version {
            let tick = counted.unwrap_or(before.tier < top);
            // Release, edge PUBLISH: it is the same code, but who reads this word may not have read the one before.
            self.code.get(index).store(CodeWord::ready(before.tag, word.entry(), tick).0, Release);
        }
        held.release(|_| ());
    }

    /// Has a loop's native entry not used for now, or used again.
    pub(crate) fn suppress_loop(&self, bead: Bead, site: u64, suppressed: bool) {
        if let Some(held) = self.publishing(bead, |_| true) {
            self.osr.suppress(bead, site, suppressed);
            held.release(|_| ());
        }
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
}
