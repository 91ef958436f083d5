//! Counters of deoptimization.

use super::DeoptDecision;
use crate::stats::{add, read};
use std::fmt;
// Not the shim's: sums that no protocol depends on.
use std::sync::atomic::AtomicU64;

/// Relaxed everywhere: sums.
#[derive(Default)]
pub(crate) struct DeoptCounters {
    bailouts: AtomicU64,
    outdated: AtomicU64,
    kept: AtomicU64,
    recompiles: AtomicU64,
    pauses: AtomicU64,
    reverts: AtomicU64,
    reverted_at_once: AtomicU64,
    capped: AtomicU64,
    blacklisted: AtomicU64,
    overruled: AtomicU64,
}

impl DeoptCounters {
    pub(crate) fn count(&self, decision: DeoptDecision, overruled: bool) {
        let counter = match decision {
            DeoptDecision::Outdated => return add(&self.outdated, 1),
            DeoptDecision::Keep => &self.kept,
            DeoptDecision::Recompile => &self.recompiles,
            DeoptDecision::Pause { .. } => &self.pauses,
            DeoptDecision::Revert { at_once } => {
                add(&self.reverted_at_once, at_once.into());
                &self.reverts
            }
            DeoptDecision::Cap(_) => &self.capped,
            DeoptDecision::Blacklist => &self.blacklisted,
        };
        add(&self.bailouts, 1);
        add(counter, 1);
        add(&self.overruled, overruled.into());
    }

    /// `held` is how many pieces of baseline code are held and their bytes.
    pub(crate) fn snapshot(&self, functions: usize, held: (usize, usize)) -> DeoptStats {
        DeoptStats {
            bailouts: read(&self.bailouts),
            outdated: read(&self.outdated),
            kept: read(&self.kept),
            recompiles: read(&self.recompiles),
            pauses: read(&self.pauses),
            reverts: read(&self.reverts),
            reverted_at_once: read(&self.reverted_at_once),
            capped: read(&self.capped),
            blacklisted: read(&self.blacklisted),
            overruled: read(&self.overruled),
            functions: functions as u64,
            held: held.0 as u64,
            held_bytes: held.1 as u64,
        }
    }
}

/// What deoptimization did and holds; see [`Stats::deopts`](crate::Stats::deopts).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DeoptStats {
    /// Bailouts that counted.
    pub bailouts: u64,
    /// Bailouts of versions that were gone already; not among `bailouts`.
    pub outdated: u64,
    /// Of the bailouts, those that left the code in place.
    pub kept: u64,
    /// Those that asked for a recompile.
    pub recompiles: u64,
    /// Those that paused the function.
    pub pauses: u64,
    /// Those that went back to the baseline.
    pub reverts: u64,
    /// Of the reverts, those whose baseline code was still held and ran again at once.
    pub reverted_at_once: u64,
    /// Bailouts that capped the function below the tier that failed.
    pub capped: u64,
    /// Bailouts that blacklisted the function.
    pub blacklisted: u64,
    /// Bailouts in which the governor overruled the policy.
    pub overruled: u64,
    /// Functions whose bailouts are remembered.
    pub functions: u64,
    /// Pieces of baseline code held for functions that run at a higher tier.
    pub held: u64,
    /// Bytes of that, each piece rounded up to 16. Part of [`Stats::code_bytes`](crate::Stats::code_bytes).
    pub held_bytes: u64,
}

impl fmt::Display for DeoptStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Deopts: {} bailouts of {} functions: {} kept, {} recompiled, {} paused, {} reverted ({} at once), {} capped, \
             {} blacklisted, {} overruled; {} too late; {} baselines held ({} bytes)",
            self.bailouts,
            self.functions,
            self.kept,
            self.recompiles,
            self.pauses,
            self.reverts,
            self.reverted_at_once,
            self.capped,
            self.blacklisted,
            self.overruled,
            self.outdated,
            self.held,
            self.held_bytes
        )
    }
}
