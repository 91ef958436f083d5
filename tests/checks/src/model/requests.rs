//! What is asked for: by the VM, and by the policies when a budget is spent.

use super::{Function, Model, Pending, TIERS};
use beadwork::{Bead, Reason};

/// Calls at which each tier is entered.
pub(crate) const THRESHOLDS: [u32; TIERS as usize] = [6, 30, 120];

/// Calls until a function is looked at again that waits for its compile, or while nothing is promoted.
pub(super) const RECHECK: u32 = 1_000;

/// The same where a tier it is hot enough for is switched off or barred.
pub(super) const RECHECK_BARRED: u32 = 10_000;

/// What a request came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    NoSuchTier,
    Disabled,
    Barred(u8),
    Already,
    Queued,
}

/// A compile was queued, and everybody hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) bead: Bead,
    pub(crate) tier: u8,
    pub(crate) reason: Reason,
    pub(crate) calls: u32,
}

impl Model {
    /// Whether a request would be refused.
    pub(crate) fn check(&mut self, bead: Bead, tier: u8) -> Option<Result<(), Asked>> {
        let disabled = self.disabled;
        let highest = self.get(bead)?.highest();
        Some(match tier {
            _ if tier == 0 || tier > TIERS => Err(Asked::NoSuchTier),
            _ if disabled => Err(Asked::Disabled),
            _ if tier > highest => Err(Asked::Barred(highest)),
            _ => Ok(()),
        })
    }

    /// The VM asks for a compile; `None` if the function is not live.
    pub(crate) fn ask(&mut self, bead: Bead, tier: u8, reason: Reason) -> Option<Asked> {
        if let Err(refused) = self.check(bead, tier)? {
            return Some(refused);
        }
        let function = self.get(bead)?;
        if tier <= function.tier {
            return Some(Asked::Already);
        }
        Some(self.request(bead, tier, reason))
    }

    /// Asks for a compile that nothing bars, perhaps of the tier that runs: its code lacks something.
    pub(super) fn request(&mut self, bead: Bead, tier: u8, reason: Reason) -> Asked {
        let function = self.get(bead).expect("only what is live is asked for");
        if function.pending.target().is_some_and(|target| tier <= target) {
            return Asked::Already;
        }
        function.shot = None;
        if matches!(function.pending, Pending::Compiling(_) | Pending::Followed(_)) {
            function.pending = Pending::Followed(tier);
        } else {
            let calls = function.calls;
            self.queue(bead, tier, reason, calls);
        }
        Asked::Queued
    }

    /// Queues a function, and says so.
    pub(super) fn queue(&mut self, bead: Bead, tier: u8, reason: Reason, calls: u32) {
        self.get(bead).expect("it is live").pending = Pending::Queued(tier);
        self.requested += 1;
        self.for_loops += u64::from(reason == Reason::Osr);
        self.requests.push(Request { bead, tier, reason, calls });
    }

    /// A claim ends, and what followed it, if anything, is queued.
    pub(super) fn end_claim(&mut self, bead: Bead, pending: Pending) {
        self.get(bead).expect("it is live").end_claim(pending);
        if let Pending::Queued(tier) = pending {
            self.queue(bead, tier, Reason::Resumed, 0);
        }
    }

    /// A claim ends without code of the tier.
    pub(super) fn abandon(&mut self, bead: Bead, tier: u8) {
        let pending = self.get(bead).expect("it is live").pending;
        let served = pending == Pending::Followed(tier);
        self.end_claim(bead, if served { Pending::None } else { pending.without_compile() });
    }

    /// A dispatch: counted where a higher tier can come or the code is watched, and at the end of a budget the policies are asked.
    pub(crate) fn call(&mut self, bead: Bead) {
        let Some(function) = self.get(bead) else { return };
        if function.tier >= TIERS && !function.watched {
            return;
        }
        function.calls += 1;
        if function.ask_in > 1 {
            function.ask_in -= 1;
        } else {
            self.consult(bead);
        }
    }

    /// A budget is spent: the policies are asked.
    pub(crate) fn consult(&mut self, bead: Bead) {
        let disabled = self.disabled;
        let Some(function) = self.get(bead) else { return };
        if disabled {
            function.ask_in = RECHECK;
            return;
        }
        let (waits, calls) = (function.pending != Pending::None, function.calls);
        let above = function.tier.max(function.pending.target().unwrap_or(0));
        let (tier, wait) = self.verdict(bead, above, calls);
        let function = self.get(bead).expect("it is live");
        function.ask_in = if waits || tier.is_some() { wait.min(RECHECK) } else { wait };
        if let Some(tier) = tier {
            assert_eq!(self.request(bead, tier, Reason::Hot), Asked::Queued);
        }
    }

    /// The highest tier above `above` that is allowed, hot after so many calls and not paused; and the calls after which to ask
    /// again about the tiers that were passed over.
    pub(super) fn verdict(&mut self, bead: Bead, above: u8, calls: u32) -> (Option<u8>, u32) {
        let (off, mut wait) = (self.tiers_off, u32::MAX);
        let function: &Function = self.get(bead).expect("it is live");
        for tier in (above + 1..=TIERS).rev() {
            let missing = THRESHOLDS[usize::from(tier) - 1].saturating_sub(calls);
            let pause = function.pause(tier, calls);
            if tier > function.highest() || off[usize::from(tier) - 1] {
                wait = wait.min(RECHECK_BARRED);
            } else if missing > 0 || pause > 0 {
                wait = wait.min(if missing > 0 { missing } else { pause });
            } else {
                return (Some(tier), wait);
            }
        }
        (None, wait)
    }
}
