//! What happens when a budget runs out: the policies are asked, and a request is made or the next budget granted.

use crate::clock;
use crate::id::{Bead, Reason, TierId};
use crate::policy::{Activity, HalfLife, Verdict};
use crate::queue::Lane;
use crate::shared::Shared;
use crate::state::{Pending, Requested};
use crate::stats::read;
use std::sync::atomic::Ordering::Relaxed;

/// Calls until a function that waits for its compile is looked at again.
const RECHECK_CALLS: u32 = 1_000;

impl Shared {
    /// A call found its budget spent.
    pub(crate) fn budget_spent(&self, bead: Bead) {
        let Ok(now) = self.table.live(bead) else { return };
        let budgets = &self.table.budgets;
        // The call that takes the slow path is not in the count yet.
        let calls = budgets.calls(bead.index()).saturating_add(1);
        if now.pending != Pending::None {
            budgets.grant(bead.index(), calls, RECHECK_CALLS);
            if self.drain.wake.active() == 0 {
                // Queued, and nobody is at work: the pool could not be started, or this is a forked child.
                self.wake();
            }
            return;
        }
        let heat = self.heat(bead, now.tier, calls);
        let mut wait = u32::MAX;
        // The highest tier whose policy says so wins, so a function that is hot enough skips tiers.
        for (lane, parts) in self.drain.lanes.all.iter().zip(&self.tiers).rev() {
            if lane.tier <= now.tier || now.bars(lane.tier).is_some() || !lane.is_enabled() {
                continue;
            }
            let activity = self.activity(bead, now.tier, lane, calls, heat);
            match parts.policy.decide(&activity) {
                Verdict::Wait(calls) => wait = wait.min(calls.get()),
                Verdict::Promote => {
                    // Granted first: if the compile fails at once, its longer pause is the later store.
                    budgets.grant(bead.index(), calls, RECHECK_CALLS);
                    if self.request(bead, lane.tier, Reason::Hot, calls) == Requested::Busy {
                        // A publisher is at work. The budget is spent again, so the next call asks again.
                        budgets.grant(bead.index(), calls.saturating_sub(1), 1);
                    }
                    return;
                }
            }
        }
        budgets.grant(bead.index(), calls, wait);
    }

    /// What a policy is shown.
    fn activity(&self, bead: Bead, tier: TierId, lane: &Lane, calls: u32, heat: u32) -> Activity {
        Activity {
            bead,
            tier,
            target: lane.tier,
            calls,
            heat,
            size: self.info.size(bead.index()),
            queued: u32::try_from(lane.len()).unwrap_or(u32::MAX),
            workers: lane.limit().min(self.drain.workers).max(1) as u32,
            code_bytes: read(&self.counters.code_bytes),
            code_limit: self.settings.code_limit,
            random: clock::random(self.settings.seed, bead.to_bits(), calls.into()),
        }
    }

    /// The calls, faded as the policy of the next tier wants it.
    fn heat(&self, bead: Bead, tier: TierId, calls: u32) -> u32 {
        // Lanes are in order of tiers, so the next tier's lane is the one at this tier's number.
        let half_life = self.tiers.get(usize::from(tier.get())).and_then(|next| next.policy.half_life());
        let heat = &self.table.heat;
        match half_life {
            None => calls,
            Some(HalfLife::Time(time)) => {
                let now = clock::millis((self.settings.clock)());
                heat.update(bead.index(), calls, now, clock::millis(time))
            }
            Some(HalfLife::Ticks(ticks)) => heat.update(bead.index(), calls, self.ticks.load(Relaxed), ticks),
        }
    }
}
