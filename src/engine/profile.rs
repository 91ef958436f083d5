//! What native code counts of itself: where it stores, and reading it.

use super::Engine;
use crate::error::Stale;
use crate::id::Bead;
use crate::native::{BudgetSlot, CountingHost};
use crate::profile::Profile;

impl Engine {
    /// The stable address of a function's budget, for code the VM writes itself; see [`BudgetSlot`] for what such code does.
    ///
    /// As with [`slot`](Engine::slot), the VM now holds an address: the index is not reused until the VM promises otherwise by
    /// [`release_slot`](Engine::release_slot), which is for both. Backends use
    /// [`Job::budget_slot`](crate::Job::budget_slot), which needs no promise.
    ///
    /// # Errors
    /// [`Stale`] if the function is not live.
    pub fn budget_slot(&self, bead: Bead) -> Result<BudgetSlot, Stale> {
        // Holds the index, and marks it as one whose addresses are out.
        self.slot(bead)?;
        Ok(BudgetSlot(self.shared().budget_address(bead.index())))
    }

    /// What native code has counted of a function so far, block by block and call site by call site; `None` if it has no
    /// counters. Costs a lock and a copy.
    ///
    /// # Errors
    /// [`Stale`] if the function is not live.
    pub fn profile(&self, bead: Bead) -> Result<Option<Profile>, Stale> {
        let profile = self.shared().profile(bead);
        self.shared().table.live(bead).map(|_| profile)
    }

    /// The functions that a function calls natively, with calls counted so far, the most called first; those that are not live any
    /// more are left out. Empty if calls are not counted. Costs as [`profile`](Engine::profile).
    ///
    /// # Errors
    /// [`Stale`] if the function is not live.
    pub fn callees(&self, bead: Bead) -> Result<Vec<(Bead, u64)>, Stale> {
        let callees = self.profile(bead)?.map_or_else(Vec::new, |profile| profile.callees());
        Ok(callees.into_iter().filter(|&(callee, _)| self.is_live(callee)).collect())
    }

    /// Has everything native code counts of a function begin from zero: its program has entered another phase, say.
    /// [`reload`](Engine::reload) does it.
    ///
    /// # Errors
    /// [`Stale`] if the function is not live.
    pub fn reset_profile(&self, bead: Bead) -> Result<(), Stale> {
        let shared = self.shared();
        let _no_fork = shared.gate.enter();
        shared.table.profiles.start_over(bead);
        shared.table.live(bead).map(|_| ())
    }
}

/// Native code in models.
#[cfg(beadwork_loom)]
impl Engine {
    /// Counts a call as code does that embeds the budget of the index, whosever it is by now; answers whether it was spent.
    pub fn count_natively(&self, bead: Bead) -> bool {
        self.shared().table.budgets.count_natively(bead.index())
    }

    /// Leaves so many calls.
    pub fn set_budget(&self, bead: Bead, calls: u32) {
        let budgets = &self.shared().table.budgets;
        budgets.grant(bead.index(), budgets.calls(bead.index()), calls);
    }

    /// What such code would load, if it is positive.
    pub fn budget_left(&self, bead: Bead) -> u32 {
        self.shared().table.budgets.left(bead.index())
    }

    /// Raises the counter with that address as native code would.
    pub fn raise_natively(&self, address: usize) {
        self.shared().table.profiles.raise(address);
    }
}
