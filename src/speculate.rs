//! Speculative promotion: the callees of a function that was promoted will probably be hot soon.

use crate::id::{Bead, Reason, TierId};
use crate::native::CountingHost;
use crate::shared::Shared;
use crate::state::Requested;

/// The least share of its caller's counted calls a callee needs, as one part of so many. Rare callees wait until they are hot.
const LEAST_SHARE: u64 = 100;

impl Shared {
    /// A policy has promoted a function: asks for its callees too, if the tier wants that. Those were not promoted by a policy, so
    /// this does not go on from them.
    #[inline]
    pub(crate) fn speculate(&self, bead: Bead, tier: TierId, asked: Requested) {
        let most = self.tiers.get(tier.lane()).map_or(0, |parts| parts.callees);
        if most > 0 && matches!(asked, Requested::Queued(_) | Requested::Follows(_)) {
            self.ask_for_callees(bead, tier, most);
        }
    }

    fn ask_for_callees(&self, bead: Bead, tier: TierId, most: usize) {
        let Some(profile) = self.profile(bead) else { return };
        let callees = profile.callees();
        let all = callees.iter().fold(0u64, |sum, &(_, calls)| sum.saturating_add(calls));
        let often = callees.into_iter().filter(|&(callee, calls)| {
            callee != bead && calls.saturating_mul(LEAST_SHARE) >= all && self.table.live(callee).is_ok()
        });
        for (callee, _) in often.take(most) {
            if !self.admits(callee, tier) {
                continue;
            }
            let calls = self.table.budgets.calls(callee.index());
            let pause = {
                let _no_fork = self.gate.enter();
                self.faults.wait(callee, tier, calls).max(self.deopts.wait(callee, tier, calls))
            };
            if pause == 0 {
                // Refused or busy: then its own policy will ask.
                let _ = self.request(callee, tier, Reason::Speculative, calls);
            }
        }
    }
}
