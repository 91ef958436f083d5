//! What native code that counts for itself has its mutator called for, out of line.

use super::Mutator;
use crate::counter;
use crate::id::Bead;
use crate::profile::{CallSite, count_target};

impl Mutator {
    /// A call of native code found the function's [budget](crate::BudgetSlot) spent: counts it, asks the policies, and grants the next
    /// budget. For the VM's runtime to call, with the function's bits that the code embeds. Nothing happens if the
    /// function is not live. [Sampling](crate::EngineBuilder::sampling) is for dispatches; native code counts every call.
    ///
    /// A compile may be requested, and on an engine with [`foreground`](crate::EngineBuilder::foreground) it runs in here.
    #[cold]
    pub fn native_call(&self, bead: Bead) {
        // The code has counted the call that came to 0.
        let counted = counter::is_zero(self.hot.second(bead.index()));
        if !counted && mutant!("budget-overdrawn") {
            return;
        }
        self.engine().shared().budget_spent(bead, u32::from(!counted), None);
    }

    /// A loop of native code went round `iterations` times more. For the VM's runtime to call every now and then (after 1,024
    /// iterations, say), so that a loop that runs long gets its function promoted:
    /// [`ITERATIONS_PER_CALL`](crate::ITERATIONS_PER_CALL) iterations count like a call. `site` is the VM's name for the loop, as in
    /// [`back_edge`](Mutator::back_edge).
    ///
    /// Costs a few loads and stores in a table of this mutator's own; a lock where the policies are to be asked. Entries into
    /// loops are not asked for: whether native code can go on in other native code is the VM's business, which finds entries by
    /// [`osr_entry`](Mutator::osr_entry).
    pub fn native_iterations(&self, bead: Bead, site: u64, iterations: u32) {
        for spent in self.native_loops.add(bead, site, iterations).into_iter().flatten() {
            let next = self.engine().shared().native_loop_spent(spent);
            if spent.ask {
                self.native_loops.grant(bead, site, next);
            }
        }
    }

    /// A call site of native code calls `callee`: counts it in the site's record, which
    /// [`Job::call_sites`](crate::Job::call_sites) made. For the VM's runtime to call. Costs a few loads and a store.
    #[inline]
    pub fn native_target(&self, site: CallSite, callee: Bead) {
        count_target(&self.counters, site, callee);
    }
}
