//! Recovery from failed speculation: bailouts, and what is remembered of them.

use super::Engine;
use crate::delivery::Delivery;
use crate::deopt::{BailoutInfo, DeoptDecision, DeoptHistory, Recovery};
use crate::drain::Crew;
use crate::error::Stale;
use crate::event::{Event, Invalidation};
use crate::id::{Bead, Reason, TierId};
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::stats::add;
use crate::table::{Deoptimized, Plan};
use std::sync::atomic::Ordering::Relaxed;

impl Engine {
    /// A guard of compiled code failed: decides what becomes of that code, and does it before this returns.
    ///
    /// The [policy](crate::EngineBuilder::deopt) proposes, and the governor keeps the proposal from becoming a storm, unless it is
    /// [switched off](crate::EngineBuilder::deopt_governor). Unless the decision is [`Keep`](DeoptDecision::Keep), the
    /// version named is unpublished: a dispatch that happens after this returned does not answer it. Threads that are in it
    /// finish. What is pending for the function is cancelled, since it began before the failure was known, and counts start from
    /// zero. The version is that of the code, whatever was asked for, cancelled or compiled since it was installed; if it is not the
    /// one that runs any more, nothing happens ([`Outdated`](DeoptDecision::Outdated)). So of several threads that bail out of
    /// one version, one takes it back.
    ///
    /// Costs some locks and a call of the policy; a bailout is meant to be rare.
    ///
    /// ```
    /// use beadwork::{BailoutInfo, CompiledCode, DeoptDecision, Engine, TierId};
    /// # use beadwork::{CompileError, FnBackend, Job, Tier};
    /// # let compiler = FnBackend::new(|_: &mut Job<'_>| Err(CompileError::failed("none")));
    /// extern "C" fn speculates() {}
    /// let engine = Engine::builder().inline().tier(Tier::new(compiler)).build()?;
    /// let bead = engine.register(0.into())?;
    /// let code = CompiledCode::new(speculates as *const u8);
    /// let version = engine.install(bead, TierId::BASELINE, code)?;
    ///
    /// let failed = BailoutInfo::new(version).guard(2).pc(0x1c);
    /// assert_eq!(engine.bailout(bead, failed)?, DeoptDecision::Recompile);
    /// assert!(engine.mutator().dispatch(bead).is_none());
    /// assert_eq!(engine.bailout(bead, failed)?, DeoptDecision::Outdated);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Stale`] if the function is not live.
    pub fn bailout(&self, bead: Bead, info: BailoutInfo) -> Result<DeoptDecision, Stale> {
        let shared = self.shared();
        let view = {
            let _no_fork = shared.gate.enter();
            shared.table.runs(bead, info.version)?.map(|tier| shared.deopts.view(bead, tier, info))
        };
        let Some(view) = view else { return Ok(shared.outdated()) };
        // Foreign code, all of it, and so before the section.
        let proposal = shared.deopts.ask(&view);
        let open = Open {
            own: shared.can_queue(bead, view.tier),
            baseline: shared.can_queue(bead, TierId::BASELINE),
        };
        let (now, callback) = (shared.now(), shared.callback_of(bead));
        // Only where a compile is likely to be asked for; if the governor asks for one all the same, it goes without.
        let asks = matches!(proposal, Recovery::Recompile | Recovery::Revert | Recovery::Cap(_));
        let snapshot = if asks { shared.take_snapshot(bead) } else { None };
        let mut notes = Notes { snapshot, ..Notes::default() };
        let done = {
            let _no_fork = shared.gate.enter();
            let mut order = shared.deliveries.order();
            let recover = |ruling| shared.recover(&view, ruling, open, now, &mut notes);
            let done = shared.deopts.settle(&view, proposal, now, recover);
            if let Some((_, Some((done, _)))) = &done {
                notes.told[0] = order.note(Delivery::Invalidated { bead });
                if done.reverted {
                    let version = shared.table.code_version(bead);
                    notes.told[1] = order.note(Delivery::Reverted { bead, version });
                }
            }
            done
        };
        shared.dispose(notes);
        let Some((decision, done)) = done else {
            shared.table.live(bead)?;
            return Ok(shared.outdated());
        };
        let BailoutInfo { guard, pc, version, osr_site, .. } = info;
        if let Some(site) = osr_site {
            // Gone meanwhile, it needs no more care.
            let _ = self.osr_failed(bead, site);
        }
        shared.emit(&Event::Deoptimized { bead, tier: view.tier, guard, pc, version, proposal, decision });
        if let Some((done, pushed)) = done {
            shared.call_back(callback, bead, Invalidation::Invalidated);
            shared.recovered(bead, done, pushed);
        }
        Ok(decision)
    }

    /// The bailouts of a function so far, and with the last of them where its interpreter goes on. `None` if it never bailed out or
    /// is not live.
    pub fn deopts(&self, bead: Bead) -> Option<DeoptHistory> {
        let _no_fork = self.shared().gate.enter();
        self.shared().deopts.history(bead)
    }

    /// Forgets the bailouts of a function, with the pauses and limits that come of them; answers them. A cap or blacklisting
    /// stays. For when the VM knows that what made guards fail is over.
    pub fn forget_deopts(&self, bead: Bead) -> Option<DeoptHistory> {
        let _no_fork = self.shared().gate.enter();
        self.shared().deopts.forget(bead)
    }

    /// Takes back the code of one version, whether it runs or is held for a [revert](crate::Recovery::Revert). If it ran,
    /// what is pending is cancelled, and the function counts from zero, as by [`invalidate`](Engine::invalidate). Answers
    /// whether it ran; nothing happens if the version is gone.
    ///
    /// # Errors
    /// [`Stale`] if the function is not live.
    pub fn invalidate_version(&self, bead: Bead, version: u32) -> Result<bool, Stale> {
        let shared = self.shared();
        let take = || shared.table.invalidate_version(bead, version);
        let (taken, told) = shared.take_back(bead, take, Option::is_some)?;
        match taken {
            Some(over) => {
                shared.over(bead, TierId::MAX, over);
                shared.tell_taken(told);
            }
            // What was held may have gone.
            None => shared.reclaim_without_workers(),
        }
        Ok(taken.is_some())
    }

    /// Gives up the baseline code that is held for a [revert](crate::Recovery::Revert) of this function; answers whether there
    /// was any. A revert then compiles the baseline anew.
    pub fn drop_kept(&self, bead: Bead) -> bool {
        let dropped = {
            let _no_fork = self.shared().gate.enter();
            self.shared().table.drop_kept(bead)
        };
        self.shared().reclaim_without_workers();
        dropped
    }

    /// Gives up all baseline code that is held, for when memory is short; answers how many pieces. Functions that tier up
    /// later have theirs held again.
    pub fn drop_all_kept(&self) -> usize {
        let dropped = {
            let _no_fork = self.shared().gate.enter();
            self.shared().table.drop_all_kept()
        };
        self.shared().reclaim_without_workers();
        dropped
    }
}

/// What a bailout leaves to be dropped, outside the section.
#[derive(Default)]
struct Notes {
    /// Taken for the compile that follows, if one does.
    snapshot: Option<Snapshot>,
    dropped: Option<Snapshot>,
    told: [Option<Delivery>; 2],
}

/// Which tiers can be asked for now.
#[derive(Clone, Copy)]
struct Open {
    own: bool,
    baseline: bool,
}

impl Open {
    /// What a ruling on code of `tier` means.
    fn plan(self, tier: TierId, ruling: Recovery) -> Plan {
        let baseline = self.baseline.then_some(TierId::BASELINE);
        match ruling {
            Recovery::Recompile => {
                Plan { baseline: true, queue: self.own.then_some(tier), ..Plan::INTERPRET }
            }
            Recovery::Revert => Plan { baseline: true, queue: baseline, ..Plan::INTERPRET },
            Recovery::Cap(cap) => Plan { baseline: true, queue: baseline, cap, ..Plan::INTERPRET },
            Recovery::Blacklist => Plan { blacklist: true, ..Plan::INTERPRET },
            Recovery::Pause { .. } | Recovery::Keep => Plan::INTERPRET,
        }
    }
}

/// What a ruling on code came to.
fn decision(ruling: Recovery, done: Deoptimized) -> DeoptDecision {
    let Deoptimized { queued, reverted, .. } = done;
    match ruling {
        Recovery::Keep => DeoptDecision::Keep,
        Recovery::Recompile if queued.is_some() => DeoptDecision::Recompile,
        Recovery::Recompile | Recovery::Revert if reverted || queued.is_some() => {
            DeoptDecision::Revert { at_once: reverted }
        }
        Recovery::Recompile | Recovery::Revert => DeoptDecision::Pause { calls: 0 },
        Recovery::Pause { calls } => DeoptDecision::Pause { calls },
        Recovery::Cap(cap) => DeoptDecision::Cap(cap),
        Recovery::Blacklist => DeoptDecision::Blacklist,
    }
}

impl Shared {
    fn outdated(&self) -> DeoptDecision {
        self.deopts.counters.count(DeoptDecision::Outdated, false);
        DeoptDecision::Outdated
    }

    /// Whether a compile for the tier may be asked for: it has a backend, and nothing is switched off or against it.
    fn can_queue(&self, bead: Bead, tier: TierId) -> bool {
        self.drain.lanes.get(tier).is_some_and(|lane| lane.is_enabled())
            // Relaxed: advice.
            && self.enabled.load(Relaxed)
            && !self.is_closed()
            && self.admits(bead, tier)
    }

    /// Does what was ruled, inside a section; `None` if the version is gone. Answers what was done, and whether to wake a worker;
    /// nothing of that if the code stays.
    fn recover(
        &self,
        view: &DeoptHistory,
        ruling: Recovery,
        open: Open,
        now: u32,
        notes: &mut Notes,
    ) -> Option<(DeoptDecision, Option<(Deoptimized, bool)>)> {
        let (bead, tier, version) = (view.bead, view.tier, view.last.version);
        if ruling == Recovery::Keep {
            return self.table.runs(bead, version).ok()?.map(|_| (DeoptDecision::Keep, None));
        }
        let (done, dropped) = self.snapshots.attach(
            bead,
            notes.snapshot.take(),
            || self.table.deoptimize(bead, version, open.plan(tier, ruling)).ok().flatten(),
            |done| done.and_then(|done| Some((done.queued?, done.version + 1))),
        );
        notes.dropped = dropped;
        let done = done?;
        self.loops.start_over(bead);
        if done.reverted {
            self.suppress_loops(bead);
        }
        let pushed = done.queued.is_some_and(|tier| self.push(bead, tier, Reason::Deopt, 0, now));
        Some((decision(ruling, done), Some((done, pushed))))
    }

    /// What follows once the code was taken back, outside any section.
    fn recovered(&self, bead: Bead, done: Deoptimized, pushed: bool) {
        self.over(bead, TierId::MAX, done.version);
        if let Some(tier) = done.queued {
            add(&self.counters.requested, 1);
            self.emit(&Event::Queued { bead, tier, reason: Reason::Deopt, calls: 0 });
        }
        if pushed {
            self.wake();
        }
        self.reclaim_without_workers();
    }
}
