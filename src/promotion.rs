//! What happens when a budget runs out: the policies are asked, and a request is made or the next budget granted.

use crate::clock;
use crate::contain::contain;
use crate::drain::Crew;
use crate::id::{Bead, Reason, TierId};
use crate::osr::{ITERATIONS_PER_CALL, Spent, Standing};
use crate::policy::{Activity, HalfLife, Scale, Verdict};
use crate::queue::Lane;
use crate::shared::{Filter, Shared};
use crate::snapshot::Given;
use crate::state::{Pending, Requested, Snapshot};
use crate::stats::read;
use crate::tier::Candidate;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::Relaxed;

/// Calls until a function that waits for its compile is looked at again.
pub(crate) const RECHECK_CALLS: u32 = 1_000;

/// Calls until a function is looked at again for which a tier is switched off or barred: that can change.
pub(crate) const RECHECK_BARRED: u32 = 10_000;

/// Calls until a policy that panicked is asked again.
const RECHECK_PANICKED: NonZeroU32 = NonZeroU32::new(RECHECK_BARRED).unwrap();

impl Shared {
    /// A call, which stands for `weight` of them, found its budget spent. What is `given` goes along with a request.
    pub(crate) fn budget_spent(&self, bead: Bead, weight: u32, given: Given<'_>) {
        let Ok(now) = self.table.live(bead) else { return };
        let budgets = &self.table.budgets;
        // The call that takes the slow path is not in the count yet.
        let calls = budgets.calls(bead.index()).saturating_add(weight);
        let stranded = now.pending() != Pending::None && self.drain.wake.active() == 0;
        if stranded || self.wants_sweep() {
            // Queued, and nobody is at work: the pool could not be started, or this is a forked child. Or memory is short, so
            // that perhaps nothing is promoted until a worker has made room.
            self.wake();
        }
        self.give_up_overdue();
        if !self.enabled.load(Relaxed) || self.is_closed() || self.retired_too_much() {
            budgets.grant(bead.index(), calls, RECHECK_CALLS);
            return;
        }
        // Only what is above the tier it runs at, or waits for, is worth asking.
        let above = if now.pending() == Pending::None { now.tier() } else { now.tier().max(now.target()) };
        let (tier, wait) = self.consult(bead, &now, above, calls, 0);
        let wait = if now.pending() == Pending::None { wait } else { wait.min(RECHECK_CALLS) };
        // If it is promoted: until a higher tier is due, or it is looked at again.
        budgets.grant(bead.index(), calls, if tier.is_some() { wait.min(RECHECK_CALLS) } else { wait });
        let Some(tier) = tier else { return };
        let asked = self.request_anew(bead, tier, Reason::Hot, calls, None, given);
        if matches!(asked, Requested::Busy) && !mutant!("budget-busy") {
            // A publisher is at work. The budget is spent again, so the next call asks again.
            budgets.grant(bead.index(), calls.saturating_sub(1), 1);
        }
        self.speculate(bead, tier, asked);
    }

    /// A loop without a native entry went round. Answers after how many further iterations this is to be called again.
    pub(crate) fn loop_spent(&self, spent: Spent) -> u32 {
        const RECHECK: u32 = RECHECK_CALLS * ITERATIONS_PER_CALL;
        let (bead, site) = (spent.bead, spent.site);
        let mut ask = spent.ask;
        let (standing, now) = {
            let _no_fork = self.gate.enter();
            let standing = self.loops.count(bead, site, spent.iterations, &mut ask);
            let now = self.table.live(bead);
            if now.is_err() {
                // Removed, perhaps just now, and then nobody else forgets what was noted.
                self.loops.forget(bead);
            }
            (standing, now)
        };
        let Ok(now) = now else { return u32::MAX };
        let iterations = match standing {
            Standing::Suppressed(wait) => return wait,
            Standing::Counting(iterations) => iterations,
            Standing::Allowed(iterations) => {
                let _no_fork = self.gate.enter();
                self.table.suppress_loop(bead, site, false);
                if self.table.osr.find(bead, site).is_some() {
                    return 1;
                }
                iterations
            }
        };
        if !ask {
            return 0;
        }
        if now.pending() != Pending::None && self.drain.wake.active() == 0 {
            self.wake();
        }
        self.give_up_overdue();
        if !self.enabled.load(Relaxed) || self.is_closed() || self.retired_too_much() {
            return RECHECK;
        }
        // The code it has, if any, lacks the entry: its own tier will do as well as a higher one.
        let calls = self.table.budgets.calls(bead.index());
        let (tier, wait) = self.consult(bead, &now, now.tier().below(), calls, iterations);
        let Some(tier) = tier else { return wait.saturating_mul(ITERATIONS_PER_CALL) };
        let seen = self.table.state(bead.index()).load();
        if self.table.osr.find(bead, site).is_some() {
            // Installed meanwhile.
            return 1;
        }
        let asked = self.request_anew(bead, tier, Reason::Osr, calls, Some(seen.version()), None);
        let now_at = self.now();
        let fresh = {
            let _no_fork = self.gate.enter();
            let fresh = self.loops.want(bead, site, self.table.state(bead.index()).load().version());
            if fresh && matches!(asked, Requested::Already) {
                // It was asked for as merely hot.
                self.hasten(bead, Reason::Osr, calls, now_at);
            }
            if self.table.live(bead).is_err() {
                // Removed meanwhile, and then nobody else forgets what was noted.
                self.loops.forget(bead);
            }
            fresh
        };
        if fresh {
            self.wake();
        }
        if matches!(asked, Requested::Busy) { 1 } else { RECHECK }
    }

    /// Asks the policies of the tiers above `above`, the highest first, so that a function that is hot enough skips tiers.
    /// Answers the tier it is to be promoted to, and the calls after which to ask again.
    pub(crate) fn consult(
        &self,
        bead: Bead,
        now: &Snapshot,
        above: TierId,
        calls: u32,
        iterations: u32,
    ) -> (Option<TierId>, u32) {
        let scale = Scale::ONE.times(f64::from_bits(self.scale.load(Relaxed)));
        let turns = iterations / ITERATIONS_PER_CALL;
        let heat = self.heat(bead, above, calls).saturating_add(turns);
        let calls = calls.saturating_add(turns);
        let mut wait = u32::MAX;
        for (lane, parts) in self.drain.lanes.all.iter().zip(&self.tiers).rev() {
            if lane.tier <= above {
                break;
            }
            if now.bars(lane.tier).is_some() || !lane.is_enabled() {
                wait = wait.min(RECHECK_BARRED);
                continue;
            }
            if !self.admits(bead, lane.tier) {
                continue;
            }
            let pause = if self.faults.is_empty() && self.deopts.len() == 0 {
                0
            } else {
                let _no_fork = self.gate.enter();
                self.faults.wait(bead, lane.tier, calls).max(self.deopts.wait(bead, lane.tier, calls))
            };
            let activity = Activity { iterations, ..self.activity(bead, now.tier(), lane, calls, heat) };
            // A policy is foreign code, and this is a dispatch: a panic there must not end up in the guest program.
            let verdict = contain(|| parts.policy.decide_scaled(&activity, scale)).unwrap_or_else(|message| {
                tracing::error!(target: "beadwork", %bead, tier = %lane.tier, message, "a policy panicked");
                Verdict::Wait(RECHECK_PANICKED)
            });
            match verdict {
                Verdict::Wait(calls) => wait = wait.min(calls.get()),
                // It failed here, or bailed out; its pause is not over.
                Verdict::Promote if pause > 0 => wait = wait.min(pause),
                Verdict::Promote => return (Some(lane.tier), wait),
            }
        }
        (None, wait)
    }

    /// Whether the tier's filter takes the function.
    #[inline]
    pub(crate) fn admits(&self, bead: Bead, tier: TierId) -> bool {
        let filter = self.tiers.get(tier.lane()).and_then(|parts| parts.filter.as_ref());
        filter.is_none_or(|filter| self.passes(filter, bead, tier))
    }

    fn passes(&self, filter: &Filter, bead: Bead, tier: TierId) -> bool {
        let (index, no_fork) = (bead.index(), self.gate.enter());
        let info = &self.info;
        let candidate =
            Candidate { bead, tier, name: info.name(index), key: info.key(index), size: info.size(index) };
        drop(no_fork);
        contain(|| filter(&candidate)).unwrap_or_else(|message| {
            tracing::error!(target: "beadwork", %bead, %tier, message, "a filter panicked; it is taken to refuse");
            false
        })
    }

    /// Something was allowed again: has the function looked at with its next call, if nobody counts at this moment.
    pub(crate) fn ask_soon(&self, bead: Bead) {
        let budgets = &self.table.budgets;
        budgets.grant(bead.index(), budgets.calls(bead.index()), 1);
    }

    /// Has so many calls pass before the policies are asked about a function.
    pub(crate) fn ask_after(&self, bead: Bead, calls: u32) {
        if self.table.live(bead).is_ok() {
            let budgets = &self.table.budgets;
            budgets.grant(bead.index(), budgets.calls(bead.index()), calls);
        }
    }

    /// What a policy is shown.
    fn activity(&self, bead: Bead, tier: TierId, lane: &Lane, calls: u32, heat: u32) -> Activity {
        Activity {
            bead,
            tier,
            target: lane.tier,
            calls,
            heat,
            iterations: 0,
            size: self.info.size(bead.index()),
            queued: u32::try_from(lane.len()).unwrap_or(u32::MAX),
            workers: self.drain.lanes.places(lane, self.drain.workers) as u32,
            code_bytes: read(&self.counters.code_bytes),
            code_limit: self.settings.code_limit,
            random: clock::random(self.settings.seed, bead.to_bits(), calls.into()),
        }
    }

    /// The calls, faded as the policy of the next tier wants it.
    fn heat(&self, bead: Bead, tier: TierId, calls: u32) -> u32 {
        // Lanes are in order of tiers, so the next tier's lane is the one at this tier's number. Where that does not fade and a
        // higher one does, what is noted now says when its counts began.
        let above = self.tiers.get(usize::from(tier.get())..).unwrap_or_default();
        let next = above.first().and_then(|parts| parts.half_life);
        let heat = &self.table.heat;
        let faded = match next
            .or_else(|| if calls <= 1 { above.iter().find_map(|parts| parts.half_life) } else { None })
        {
            None => calls,
            Some(HalfLife::Time(time)) => heat.update(bead.index(), calls, self.now(), clock::span(time)),
            Some(HalfLife::Ticks(ticks)) => heat.update(bead.index(), calls, self.ticks.load(Relaxed), ticks),
        };
        if next.is_some() { faded } else { calls }
    }
}
