//! Everything that changes a bead's code, always under the publishing bit.

use super::kept::{KeptCode, Taking};
use super::{Barred, Demoted, Deoptimized, Installed, Invalidated, Plan, Ready, Restricted, Table, Unlinked};
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
        // A ticket is for the tier that runs or one above, so nothing is taken below the baseline here (K1).
        let kept = self.kept.for_install(ticket.tier);
        let held =
            self.publishing(ticket.bead, |state| state.is_claimed_by(ticket)).ok_or(Ended::Superseded)?;
        if held.before().bars(ticket.tier).is_some() {
            let new = held.release(|state| {
                state.raise_version();
                state.set_pending(state.pending().without_compile());
            });
            return Err(Ended::of(&new));
        }
        let version = held.next_version();
        Ok(self.publish(ticket.bead, Taking { kept, held }, code, (ticket.tier, version), |state| {
            state.pending() == Pending::Followed && state.target() > ticket.tier
        }))
    }

    /// Installs code of the VM's own, in any live state, or only on the version `at` and if `holds` says so under the bit. A compile
    /// in flight is superseded; a queued request for a higher tier stays.
    pub(crate) fn vm_install(
        &self,
        bead: Bead,
        tier: TierId,
        code: Ready,
        at: Option<u32>,
        holds: impl FnOnce() -> bool,
    ) -> Option<Installed> {
        let taking = match self.kept.for_install(tier) {
            None => self.publishing_to_take(bead)?,
            kept => Taking { kept, held: self.publishing(bead, |_| true)? },
        };
        if at.is_some_and(|at| taking.held.before().version() != at) || !holds() {
            taking.held.release(|_| ());
            return None;
        }
        let version = taking.held.before().version_for_vm();
        Some(self.publish(bead, taking, code, (tier, version), |state| {
            matches!(state.pending(), Pending::Queued | Pending::Followed) && state.target() > tier
        }))
    }

    fn publish(
        &self,
        bead: Bead,
        Taking { kept, held }: Taking<'_>,
        code: Ready,
        (tier, version): (TierId, u32),
        stays_queued: impl Fn(&Snapshot) -> bool,
    ) -> Installed {
        let (index, before) = (bead.index(), held.before());
        self.mark_compiled(index);
        // Relaxed: code and its version change only under the bit, which is held.
        let superseded = CodeWord(self.code.get(index).load(Relaxed));
        let superseded_version = self.code_version.get(index).load(Relaxed);
        let old = self.write_cells(
            index,
            &held,
            CodeWord::ready(before.tag(), code.entry, code.tick),
            code.owner,
            code.osr,
        );
        // Release, edge ASSUME, partner is the load in `is_gone`: last, so who sees it sees that the code before is unlinked.
        self.code_version.get(index).store(version, mutant!("assume-superseded", Release));
        let queued = stays_queued(&before);
        let new = held.release(|state| {
            state.set_version(version);
            state.set_tier(tier);
            state.set_pending(if queued { Pending::Queued } else { Pending::None });
        });
        let kept = if mutant!("k2-unlocked") && tier > TierId::BASELINE {
            drop(kept);
            self.kept.for_install(tier)
        } else {
            kept
        };
        match kept {
            Some(mut kept) if before.tier() == TierId::BASELINE && tier > TierId::BASELINE => {
                let code = KeptCode { word: superseded, linked: old, version: superseded_version };
                // By K1 there is none.
                if let Some(other) = kept.insert(bead, code) {
                    self.retire(other.linked);
                }
            }
            kept => {
                self.retire(old);
                if tier <= TierId::BASELINE {
                    self.drop_held(kept, bead);
                }
            }
        }
        let requeue = queued.then_some(new.target());
        let old_version = (before.tier() != TierId::INTERPRETER).then_some(superseded_version);
        Installed { version: new.version(), old_tier: before.tier(), old_version, requeue }
    }

    /// Takes a bead's code back and cancels what is pending. Later dispatches answer cold.
    pub(crate) fn invalidate(&self, bead: Bead) -> Result<Invalidated, Stale> {
        let Taking { kept, held } = self.publishing_to_take(bead).ok_or(Stale(bead))?;
        let index = bead.index();
        let had_code = held.before().tier() != TierId::INTERPRETER;
        let was_pending = held.before().pending() != Pending::None;
        // Under the bit, so that the index is still this bead's.
        self.start_over(index);
        let old = self.clear_cells(index, &held, held.before().tag());
        let new = held.release(|state| {
            state.raise_version();
            state.set_tier(TierId::INTERPRETER);
            state.set_pending(Pending::None);
        });
        self.drop_held(kept, bead);
        self.retire(old);
        Ok(Invalidated { had_code, was_pending, version: new.version() })
    }

    /// Counts from zero. Mutators may be counting meanwhile: at worst some of it is undone.
    pub(crate) fn start_over(&self, index: u32) {
        self.budgets.reset(index);
        self.heat.reset(index);
    }

    /// Changes what a bead may be compiled at; code and requests above that are taken back.
    pub(crate) fn restrict(&self, bead: Bead, change: impl Fn(&mut Snapshot)) -> Result<Restricted, Stale> {
        let Taking { kept, held } = self.publishing_to_take(bead).ok_or(Stale(bead))?;
        let before = held.before();
        let mut after = before;
        change(&mut after);
        let took_code = after.tier() != TierId::INTERPRETER && after.bars(after.tier()).is_some();
        let barred = after.pending() != Pending::None && after.bars(after.target()).is_some();
        // The compile in flight may be for a tier that is still allowed (if not, its install says so), and the request that
        // follows it is lowered to what is.
        let lowered =
            barred && after.pending() == Pending::Followed && after.bars(TierId::BASELINE).is_none();
        let cancelled = barred && !lowered;
        let old = took_code.then(|| self.clear_cells(bead.index(), &held, before.tag()));
        let new = held.release(|state| {
            change(state);
            if took_code {
                state.set_tier(TierId::INTERPRETER);
            }
            if cancelled {
                state.set_pending(Pending::None);
            }
            if lowered {
                // A compile in flight that goes on keeps its ticket.
                state.set_target(state.cap());
            } else if cancelled || took_code {
                state.raise_version();
            }
        });
        if took_code {
            self.drop_held(kept, bead);
        }
        old.into_iter().for_each(|old| self.retire(old));
        let barred = if lowered {
            Some(Barred::Lowered { from: before.target(), to: new.target(), version: new.raised_version() })
        } else {
            cancelled.then_some(Barred::Cancelled(new.version()))
        };
        Ok(Restricted { took_code, old_cap: before.cap(), barred })
    }

    /// Takes back code above `tier` and, if that is a compiled one and the code is wanted, queues the bead for it. Answers
    /// what to do, or `None` if the bead runs no higher than that.
    pub(crate) fn demote(&self, bead: Bead, tier: TierId, wanted: bool) -> Result<Option<Demoted>, Stale> {
        let Taking { kept, held } = self.publishing_to_take(bead).ok_or(Stale(bead))?;
        if held.before().tier() <= tier {
            held.release(|_| ());
            return Ok(None);
        }
        let index = bead.index();
        self.start_over(index);
        let old = self.clear_cells(index, &held, held.before().tag());
        let new = held.release(|state| {
            state.raise_version();
            state.set_tier(TierId::INTERPRETER);
            state.set_pending(Pending::None);
            if wanted && tier != TierId::INTERPRETER && state.bars(tier).is_none() {
                // The end of one request and the start of another: two versions, so that they can be told apart.
                state.raise_version();
                state.queue_for(tier);
            }
        });
        self.drop_held(kept, bead);
        self.retire(old);
        let queued = new.pending() == Pending::Queued;
        Ok(Some(Demoted { queued, version: new.version() - u32::from(queued) }))
    }

    /// The tier of the code that runs, if it is of this version.
    pub(crate) fn runs(&self, bead: Bead, version: u32) -> Result<Option<TierId>, Stale> {
        let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
        let tier = self.is_of_version(bead, &held, version).then_some(held.before().tier());
        held.release(|_| ());
        Ok(tier)
    }

    fn is_of_version(&self, bead: Bead, held: &Publishing<'_>, version: u32) -> bool {
        // Relaxed: touched only under the bit. The state's version does not do: it moves with every request that ends.
        let kept = self.code_version.get(bead.index()).load(Relaxed);
        let runs = if mutant!("deopt-version-of-state") { held.before().version() } else { kept };
        held.before().tier() != TierId::INTERPRETER && (runs == version || mutant!("deopt-any-version"))
    }

    /// Takes back the code of a version whose guard failed, cancels what is pending, and counts from zero; `None` if another
    /// version runs, and nothing changed. A compile in flight began before the failure was known, so it ends too.
    pub(crate) fn deoptimize(
        &self,
        bead: Bead,
        version: u32,
        plan: Plan,
    ) -> Result<Option<Deoptimized>, Stale> {
        let Taking { kept, held } = self.publishing_to_take(bead).ok_or(Stale(bead))?;
        if !self.is_of_version(bead, &held, version) {
            held.release(|_| ());
            return Ok(None);
        }
        let (index, before) = (bead.index(), held.before());
        let mut after = before;
        after.set_cap(after.cap().min(plan.cap));
        after.set_blacklisted(after.blacklisted() || plan.blacklist);
        let back = kept.as_ref().filter(|_| plan.baseline).and_then(|kept| kept.get(&bead).copied());
        let back = back.filter(|_| after.bars(TierId::BASELINE).is_none());
        after.set_tier(if back.is_some() { TierId::BASELINE } else { TierId::INTERPRETER });
        let queued = plan.queue.filter(|&tier| tier > after.tier() && after.bars(tier).is_none());
        if !(before.pending() == Pending::Compiling && mutant!("s1-deopt-spares")) {
            after.set_pending(Pending::None);
            after.raise_version();
        }
        let version = after.version();
        if let Some(tier) = queued {
            // The end of one request and the start of another, as in `demote`.
            after.raise_version();
            after.queue_for(tier);
        }
        // Under the bit, so that the index is still this bead's.
        self.start_over(index);
        let old = match back {
            Some(KeptCode { word, linked, version }) => {
                // Which loops' entries were no good may have changed; the caller says what is.
                self.osr.allow_all(linked.osr);
                let old = self.write_cells(index, &held, word, linked.code.owner, linked.osr);
                // Its guards name the version it was first installed with. Release, edge ASSUME, as in `publish`.
                self.code_version.get(index).store(version, Release);
                old
            }
            None => self.clear_cells(index, &held, before.tag()),
        };
        held.release(|state| *state = after);
        match (back, kept) {
            // It is in the columns again.
            (Some(_), Some(_)) if mutant!("k1-left-held") => (),
            (Some(_), Some(mut kept)) => {
                kept.remove(&bead);
            }
            (_, kept) => self.drop_held(kept, bead),
        }
        self.retire(old);
        Ok(Some(Deoptimized { queued, reverted: back.is_some(), version }))
    }

    /// Takes back the code of one version, wherever it is: running, or held for a revert. If it ran, what is pending is
    /// cancelled; answers the state's version afterwards. `None` if it did not run.
    pub(crate) fn invalidate_version(&self, bead: Bead, version: u32) -> Result<Option<u32>, Stale> {
        self.invalidate_version_if(bead, version, |_| true)
    }

    /// The same, but nothing changes if the code runs and `holds` does not say so under the bit.
    pub(crate) fn invalidate_version_if(
        &self,
        bead: Bead,
        version: u32,
        holds: impl FnOnce(&Snapshot) -> bool,
    ) -> Result<Option<u32>, Stale> {
        // Locked throughout, so that the version does not go from one place to the other meanwhile (K1, K2).
        let kept = self.kept.for_install(TierId::MAX).filter(|_| !mutant!("k1-version-unlocked"));
        let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
        if !self.is_of_version(bead, &held, version) {
            held.release(|_| ());
            let names =
                kept.as_ref().and_then(|kept| kept.get(&bead)).is_some_and(|code| code.version == version);
            self.drop_held(kept.filter(|_| names), bead);
            return Ok(None);
        }
        if !holds(&held.before()) {
            held.release(|_| ());
            return Ok(None);
        }
        self.start_over(bead.index());
        let old = self.clear_cells(bead.index(), &held, held.before().tag());
        let new = held.release(|state| {
            state.raise_version();
            state.set_tier(TierId::INTERPRETER);
            state.set_pending(Pending::None);
        });
        self.drop_held(kept, bead);
        self.retire(old);
        Ok(Some(new.version()))
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
        self.code.get(index).store(word.0, mutant!("publish-code", Release));
        if held.before().slotted() {
            // Release, edge PUBLISH: native callers load it with an ordinary load, see `protocol`.
            self.slot.get(index).store(self.slot_value(word), mutant!("publish-slot", Release));
        }
        if old.owner != owner {
            self.owner.get(index).store(owner.0, Relaxed);
        }
        Unlinked { code: old, osr: self.osr.publish(index, osr) }
    }

    /// Has dispatches of the code of that version counted or not; `None` means as an install would have them.
    pub(crate) fn count_dispatches(
        &self,
        bead: Bead,
        version: u32,
        counted: Option<bool>,
        ticks: impl Fn(TierId) -> bool,
    ) {
        let Some(held) = self.publishing(bead, |_| true) else { return };
        let (index, before) = (bead.index(), held.before());
        // Relaxed: these change only under the bit.
        let word = CodeWord(self.code.get(index).load(Relaxed));
        if word.entry() != 0 && self.code_version.get(index).load(Relaxed) == version {
            let tick = counted.unwrap_or_else(|| ticks(before.tier()));
            // Release, edge PUBLISH: it is the same code, but who reads this word may not have read the one before.
            let word = CodeWord::ready(before.tag(), word.entry(), tick);
            self.code.get(index).store(word.0, mutant!("publish-mark", Release));
        }
        held.release(|_| ());
    }

    /// Has a loop's native entry not used for now, or used again.
    pub(crate) fn suppress_loop(&self, bead: Bead, site: u64, suppressed: bool) {
        if mutant!("o2-without-bit") {
            self.osr.suppress(bead, site, suppressed);
        } else if let Some(held) = self.publishing(bead, |_| true) {
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
        if !now.slotted() {
            let held = self.publishing(bead, |_| true).ok_or(Stale(bead))?;
            // Relaxed: code changes only under the bit, which is held.
            let word = CodeWord(self.code.get(bead.index()).load(Relaxed));
            // Release, edge PUBLISH, as in `write_cells`.
            cell.store(self.slot_value(word), Release);
            held.release(|state| state.set_slotted(true));
        }
        Ok((cell as *const AtomicUsize).expose_provenance())
    }

    /// Whether the bead's slot, whose address somebody holds, still means this bead: live, or removed and not reused.
    pub(crate) fn slot_is_of(&self, bead: Bead) -> Result<(), Stale> {
        if bead.index() >= self.capacity {
            return Err(Stale(bead));
        }
        let now = self.state(bead.index()).load();
        let removed = !now.live() && u64::from(now.tag()) == bead.tag() + 1;
        if now.is(bead) || (removed && now.slotted()) { Ok(()) } else { Err(Stale(bead)) }
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
