//! Budgets: how many more calls until the policies are asked.
//!
//! A budget counts down. The call that reads 1 or less takes the slow path and stores nothing, so a promotion that cannot be asked
//! for right now (a publisher is at work) is asked for by the next call.
//!
//! Budgets are signed. Native code, which would need a further block to store nothing, stores what it has counted down to and then
//! takes the slow path if that is 0 or less. A budget below zero is a spent one to everybody, and whoever makes it so
//! goes on to the slow path, which grants another; so none is stuck (edge BUDGET).
//!
//! Zero is the initial state of the column: the first call of a function asks the policy for its first budget.
//!
//! Counting is a Relaxed load and store: two threads that count the same function at once can lose a count to each
//! other, which a threshold does not mind and which is 3 times faster than a read-modify-write.

use crate::column::Column;
use crate::sync::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// The most granted at once, so that the sum of what was granted stays far from saturating.
pub(crate) const MAX_GRANT: u32 = 1 << 30;

/// The two counting columns: what is left, and what was granted in all.
#[derive(Clone)]
pub(crate) struct Budgets {
    left: Column<AtomicU32>,
    granted: Column<AtomicU32>,
}

/// Counts one call, or as many as a sampled one stands for, [`MAX_GRANT`] at the most; true when the budget is spent and the
/// policies are to be asked.
#[inline(always)]
pub(crate) fn count(left: &AtomicU32, calls: u32) -> bool {
    // Relaxed: a count is a hint; it publishes nothing.
    let now = left.load(Relaxed);
    if now.cast_signed() <= calls.cast_signed() && !(mutant!("budget-unsigned") && now > calls) {
        return true;
    }
    left.store(now - calls, Relaxed);
    false
}

/// Whether a budget was counted down to the end and not overdrawn.
pub(crate) fn is_zero(left: &AtomicU32) -> bool {
    left.load(Relaxed) == 0
}

impl Budgets {
    pub(crate) const BYTES: usize = 8;

    pub(crate) fn reserve(len: u32) -> std::io::Result<Budgets> {
        Ok(Budgets { left: Column::reserve_hot(len)?, granted: Column::reserve(len)? })
    }

    /// What is left, for mutators to [`count`] in.
    pub(crate) fn column(&self) -> Column<AtomicU32> {
        self.left.clone()
    }

    /// Calls so far, exact for one thread: all that was granted less what is left.
    pub(crate) fn calls(&self, index: u32) -> u32 {
        let granted = self.granted.get(index).load(Relaxed);
        granted.saturating_sub(self.left(index))
    }

    /// Grants `calls` more until the next question, after `so_far` calls.
    pub(crate) fn grant(&self, index: u32, so_far: u32, calls: u32) {
        let calls = calls.clamp(1, MAX_GRANT);
        self.granted.get(index).store(so_far.saturating_add(calls), Relaxed);
        self.left.get(index).store(calls, Relaxed);
    }

    /// A reused index starts cold. Called at reuse, after the grace period: a late store by a thread that still
    /// counted for the removed function would undo an earlier reset.
    pub(crate) fn reset(&self, index: u32) {
        for column in [&self.left, &self.granted] {
            let cell = column.get(index);
            // An untouched page stays untouched.
            if cell.load(Relaxed) != 0 {
                cell.store(0, Relaxed);
            }
        }
    }

    /// The address of what is left, for native code to count down.
    pub(crate) fn address(&self, index: u32) -> usize {
        std::ptr::from_ref(self.left.get(index)).expose_provenance()
    }

    /// Calls that are left; 0 if the budget is overdrawn.
    pub(crate) fn left(&self, index: u32) -> u32 {
        self.left.get(index).load(Relaxed).cast_signed().max(0).cast_unsigned()
    }

    /// Counts a call as native code does.
    #[cfg(any(test, beadwork_loom))]
    pub(crate) fn count_natively(&self, index: u32) -> bool {
        let left = self.left.get(index);
        let now = left.load(Relaxed).wrapping_sub(1);
        left.store(now, Relaxed);
        now.cast_signed() <= 0
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        self.left.resident_bytes() + self.granted.resident_bytes()
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_budget_of_n_asks_at_the_nth_call_and_again_until_regranted() {
        let budgets = Budgets::reserve(16).unwrap();
        assert!(count(budgets.left.get(3), 1), "the first call asks for the first budget");
        budgets.grant(3, 1, 4);
        assert_eq!(
            (0..4).map(|_| count(budgets.left.get(3), 1)).collect::<Vec<_>>(),
            [false, false, false, true]
        );
        assert!(count(budgets.left.get(3), 1), "nothing was stored");
        assert_eq!(budgets.calls(3), 4);
    }

    #[test]
    fn a_budget_that_native_code_overdrew_is_spent_to_everybody_and_counts_as_used_up() {
        let budgets = Budgets::reserve(16).unwrap();
        budgets.grant(3, 1, 4);
        assert_eq!([0; 4].map(|_| budgets.count_natively(3)), [false, false, false, true]);
        assert!(budgets.count_natively(3), "nobody has granted another yet");
        assert_eq!((budgets.calls(3), budgets.left(3)), (5, 0));
        assert!(count(budgets.left.get(3), 1) && count(budgets.left.get(3), MAX_GRANT));
        budgets.grant(3, 5, MAX_GRANT);
        assert!(!budgets.count_natively(3));
    }

    #[test]
    fn a_reset_budget_asks_at_its_first_call() {
        let budgets = Budgets::reserve(16).unwrap();
        budgets.grant(3, 1, 1_000_000);
        budgets.reset(3);
        assert_eq!(budgets.calls(3), 0);
        assert!(count(budgets.left.get(3), 1));
    }

    #[test]
    fn counts_saturate_instead_of_starting_over() {
        let budgets = Budgets::reserve(16).unwrap();
        budgets.grant(3, u32::MAX - 1, 100);
        assert!(budgets.calls(3) >= u32::MAX - 100);
    }
}
