//! A profile as it is read.

use super::CALL_TARGETS;
use crate::id::Bead;
use std::collections::HashMap;

/// What a function's native code has counted: executions of its basic blocks, and the callees its call sites have seen. A copy, made
/// when it was asked for.
///
/// Blocks and sites are numbered by the frontend that asked for counters, and mean what it means by them. Counts are those of
/// all code the function has had with the same number of blocks or sites. Callees may have been removed since.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Profile {
    pub(super) blocks: Vec<u64>,
    pub(super) calls: Vec<CallProfile>,
}

impl Profile {
    /// How often each block was executed; empty if blocks are not counted.
    pub fn blocks(&self) -> &[u64] {
        &self.blocks
    }

    /// How often a block was executed; 0 for one that is not counted.
    pub fn block(&self, number: u32) -> u64 {
        self.blocks.get(number as usize).copied().unwrap_or(0)
    }

    /// How likely a branch goes to the block `taken` and not to `other`, from 0 to 1, by their counts; so neither may
    /// have another way in. `None` if neither was executed.
    pub fn bias(&self, taken: u32, other: u32) -> Option<f64> {
        let (taken, other) = (self.block(taken) as f64, self.block(other) as f64);
        let sum = taken + other;
        (sum > 0.0).then(|| taken / sum)
    }

    /// What each call site has seen; empty if calls are not counted.
    pub fn call_sites(&self) -> &[CallProfile] {
        &self.calls
    }

    /// The callees of all sites together, with calls; the most called first. Those that were called never are left out.
    pub fn callees(&self) -> Vec<(Bead, u64)> {
        let mut calls = HashMap::<Bead, u64>::new();
        for (callee, count) in self.calls.iter().flat_map(CallProfile::targets) {
            let sum = calls.entry(callee).or_default();
            *sum = sum.saturating_add(count);
        }
        let mut callees: Vec<_> = calls.into_iter().filter(|&(_, count)| count > 0).collect();
        callees.sort_unstable_by_key(|&(callee, count)| (std::cmp::Reverse(count), callee));
        callees
    }
}

/// What one call site has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallProfile {
    pub(super) targets: [Option<(Bead, u64)>; CALL_TARGETS],
    pub(super) others: u64,
}

impl CallProfile {
    /// The callees the record has room for, with calls; the most called first. Never all callees if the site
    /// [is megamorphic](CallProfile::is_megamorphic).
    pub fn targets(&self) -> impl Iterator<Item = (Bead, u64)> + use<> {
        let mut targets = self.targets;
        targets.sort_by_key(|seen| std::cmp::Reverse(seen.map_or(0, |(_, calls)| calls)));
        targets.into_iter().flatten().filter(|&(_, calls)| calls > 0)
    }

    /// All calls.
    pub fn calls(&self) -> u64 {
        self.targets().fold(self.others, |sum, (_, calls)| sum.saturating_add(calls))
    }

    /// Whether it has seen more than [`CALL_TARGETS`] callees.
    pub fn is_megamorphic(&self) -> bool {
        self.others > 0
    }

    /// The only callee it has seen, and how often: what can be inlined behind a guard.
    pub fn only(&self) -> Option<(Bead, u64)> {
        let mut targets = self.targets();
        let first = targets.next()?;
        (targets.next().is_none() && !self.is_megamorphic()).then_some(first)
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_bias_of_a_branch_is_its_share_and_none_if_it_was_never_reached() {
        let profile = Profile { blocks: vec![100, 25, 75, 0, u64::MAX], calls: vec![] };
        assert_eq!((profile.bias(1, 2), profile.bias(3, 1)), (Some(0.25), Some(0.0)));
        assert_eq!((profile.bias(3, 99), profile.bias(0, 99)), (None, Some(1.0)));
        assert_eq!(profile.bias(4, 4), Some(0.5), "counts that would overflow together");
    }
}
