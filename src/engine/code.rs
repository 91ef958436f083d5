//! Code comes and goes: promotion, the VM's own installs, invalidation, slots.

use super::Engine;
use crate::code::CompiledCode;
use crate::drain::Crew;
use crate::error::{CompileError, InstallError, PromoteError, Stale};
use crate::event::Event;
use crate::id::{Bead, Reason, TierId};
use crate::job::{JobHost, Slot};
use crate::snapshot::Given;
use crate::state::Requested;
use crate::stats::add;
use crate::table::{Installed, Ready};
use std::time::Duration;

impl Engine {
    /// Asks for a compile at `tier`, whatever the policies think. Returns at once.
    ///
    /// Nothing is asked for if the function is at the tier already or waits for it; a higher tier replaces a queued
    /// request and follows a compile in flight.
    ///
    /// # Errors
    /// [`PromoteError`] if the function is not live, has no such tier, or may not be compiled at it.
    pub fn promote(&self, bead: Bead, tier: TierId) -> Result<(), PromoteError> {
        self.ask(bead, tier, Reason::Asked, false, None).map(|_| ())
    }

    /// Asks for a compile, also for the tier that runs if it is to be made `anew`.
    pub(super) fn ask(
        &self,
        bead: Bead,
        tier: TierId,
        reason: Reason,
        anew: bool,
        given: Given<'_>,
    ) -> Result<Requested, PromoteError> {
        self.check(bead, tier)?;
        let shared = self.shared();
        let mut rounds = 0;
        loop {
            let anew = if anew { Some(shared.table.live(bead)?.version()) } else { None };
            let calls = shared.table.budgets.calls(bead.index());
            match shared.request_anew(bead, tier, reason, calls, anew, given) {
                // A shutdown that began meanwhile has dropped it again.
                _ if shared.is_closed() => return Err(PromoteError::Closed),
                Requested::Stale => return Err(Stale(bead).into()),
                Requested::Barred(cap) => return Err(PromoteError::Barred { bead, tier, cap }),
                Requested::Busy => crate::sync::wait_a_little(&mut rounds),
                asked => return Ok(asked),
            }
        }
    }

    /// Whether a request would be accepted now.
    pub(super) fn check(&self, bead: Bead, tier: TierId) -> Result<(), PromoteError> {
        let shared = self.shared();
        let lanes = &shared.drain.lanes;
        if lanes.get(tier).is_none() {
            return Err(PromoteError::NoSuchTier { tier, tiers: lanes.top().get() });
        }
        if shared.is_closed() {
            return Err(PromoteError::Closed);
        }
        if !self.is_enabled() {
            return Err(PromoteError::Disabled);
        }
        let state = shared.table.live(bead)?;
        if let Some(cap) = state.bars(tier) {
            return Err(PromoteError::Barred { bead, tier, cap });
        }
        if !shared.admits(bead, tier) {
            return Err(PromoteError::Filtered { bead, tier });
        }
        Ok(())
    }

    /// Installs code the VM has compiled itself, in any state of the function. A compile in flight is superseded:
    /// its late result is dropped. Blacklisting and caps are about compiles: what the VM installs is accepted all the same, and goes
    /// with the next change of them that bars its tier. Native [loop entries](CompiledCode::osr) come with the code, in the same step.
    ///
    /// # Errors
    /// [`InstallError`] if the function is not live, there is no such tier, or the entry is null or wider than 48
    /// bits. The code's owner has been dropped then.
    pub fn install(&self, bead: Bead, tier: TierId, code: CompiledCode) -> Result<u32, InstallError> {
        let changed = |bead| self.shared().changed_meaning(bead);
        self.install_over(bead, tier, code, changed).map(|installed| installed.version)
    }

    /// Answers what was installed over, too. `changed` sees to it, now or later, that code with the function's body
    /// [goes](crate::shared::Shared::changed_meaning).
    pub(super) fn install_over(
        &self,
        bead: Bead,
        tier: TierId,
        mut code: CompiledCode,
        changed: impl FnOnce(Bead),
    ) -> Result<Installed, InstallError> {
        let shared = self.shared();
        let tiers = shared.drain.lanes.top();
        let checked = if tier == TierId::INTERPRETER || tier > tiers.max(TierId::BASELINE) {
            Err(InstallError::NoSuchTier { tier, tiers: tiers.get() })
        } else {
            code.check().map_err(InstallError::Code)
        };
        let (entry, bytes, now) = (code.entry, code.bytes, shared.now());
        let pieces = code.pieces();
        let extras = code.take_extras();
        let mut embeds = Vec::new();
        let pinned = extras.embeds.iter().try_for_each(|&callee| {
            shared.pin_embedded(callee).map(|()| embeds.push(callee)).map_err(CompileError::from)
        });
        let checked = checked.and(pinned.map_err(InstallError::from));
        let (owner, installed, pushed, dropped) = {
            let _no_fork = shared.gate.enter();
            let owner = shared.owners.intern(code.owner, bytes, embeds, pieces);
            add(&shared.counters.code_bytes, owner.bytes() as u64);
            let (installed, dropped) = shared.deliveries.install(bead, tier, extras.payload, || {
                checked?;
                let osr = shared.loop_table(bead, extras.osr);
                let ready = Ready { entry, tick: shared.ticks(tier), owner, osr };
                shared
                    .vm_install(bead, tier, ready, &extras.assumed)
                    .inspect_err(|_| shared.table.osr.discard(osr))
            });
            if installed.is_ok() {
                shared.suppress_loops(bead);
            }
            let requeue = installed.as_ref().ok().and_then(|installed| installed.requeue);
            let pushed = requeue.is_some_and(|tier| shared.push(bead, tier, Reason::Resumed, 0, now));
            (owner, installed, pushed, dropped)
        };
        shared.dispose(dropped);
        shared.resumed(bead, installed.as_ref().ok().and_then(|installed| installed.requeue), pushed);
        shared.reclaim_without_workers();
        match installed {
            Ok(installed) => {
                changed(bead);
                let (version, compile_time) = (installed.version, Duration::ZERO);
                add(&shared.counters.installed, 1);
                shared.emit(&Event::Installed { bead, tier, version, bytes, compile_time });
                // Requests up to this tier are over; one for a higher tier goes on.
                let over = if installed.requeue.is_some() { tier } else { TierId::MAX };
                {
                    let _no_fork = shared.gate.enter();
                    shared.one_shots.bind_again(bead, tier.above(), version);
                    shared.snapshots.bind_again(bead, tier.above(), version);
                }
                shared.over(bead, over, version);
                Ok(installed)
            }
            Err(error) => {
                shared.free(&[owner]);
                Err(error)
            }
        }
    }

    /// Takes the function's code back and cancels what is pending. A dispatch that happens after this returned does
    /// not answer the old code; threads that are in it finish. The function counts from zero again.
    pub fn invalidate(&self, bead: Bead) -> Result<(), Stale> {
        self.invalidate_one(bead, |bead| self.shared().changed_meaning(bead)).map(|_| ())
    }

    /// Answers whether there was code or a request. `changed` is as in [`install_over`](Engine::install_over).
    pub(super) fn invalidate_one(&self, bead: Bead, changed: impl FnOnce(Bead)) -> Result<bool, Stale> {
        let shared = self.shared();
        let invalidate = || shared.table.invalidate(bead);
        let (invalidated, taken) = shared.take_back(bead, invalidate, |invalidated| invalidated.had_code)?;
        changed(bead);
        shared.over(bead, TierId::MAX, invalidated.version);
        shared.tell_taken(taken);
        Ok(invalidated.had_code || invalidated.was_pending)
    }

    /// The stable address of the function's code pointer, for code the VM writes itself.
    ///
    /// The first call for a function costs a transition, and from then on every install writes the cell too. The
    /// VM now holds the address: the index is not reused until it promises otherwise by
    /// [`release_slot`](Engine::release_slot). Backends use [`Job::slot`](crate::Job::slot), which needs no promise.
    pub fn slot(&self, bead: Bead) -> Result<Slot, Stale> {
        let shared = self.shared();
        let _no_fork = shared.gate.enter();
        // Held before it is looked at: if the function is live now, its index cannot be reused any more.
        shared.table.pins().hold(bead.index());
        shared.table.slot(bead).map(Slot).inspect_err(|_| {
            if shared.table.pins().unhold(bead.index()) {
                shared.table.give_back(bead.index());
            }
        })
    }

    /// Promises that no code and no thread of the VM uses the addresses [`slot`](Engine::slot) and
    /// [`budget_slot`](Engine::budget_slot) gave for this function any more, so that its index may be reused once the function is removed.
    ///
    /// # Safety
    /// The promise has to be true: a native caller that kept the address would call another function through it.
    #[allow(unsafe_code)]
    pub unsafe fn release_slot(&self, bead: Bead) {
        let _no_fork = self.shared().gate.enter();
        let table = &self.shared().table;
        let now = table.state(bead.index()).load();
        let removed = !now.live() && u64::from(now.tag()) == bead.tag() + 1;
        if (now.is(bead) || removed) && table.pins().let_go(bead.index()) {
            table.give_back(bead.index());
        }
    }
}
