//! What happens when a budget runs out: the policies are asked, and a request is made or the next budget granted.

use crate::id::{Bead, Reason};
use crate::policy::{Activity, Verdict};
use crate::shared::Shared;
use crate::state::{Pending, Requested};

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
        let mut wait = u32::MAX;
        // The highest tier whose policy says so wins, so a function that is hot enough skips tiers.
        for (lane, parts) in self.drain.lanes.all.iter().zip(&self.tiers).rev() {
            if lane.tier <= now.tier || now.bars(lane.tier).is_some() {
                continue;
            }
            let activity = Activity { bead, tier: now.tier, target: lane.tier, calls };
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
}
