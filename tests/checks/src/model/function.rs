//! One function of the model, and what it waits for.

use super::TIERS;
use super::loops::Loop;
use beadwork::Bead;
use std::collections::BTreeSet;

/// What a function waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Pending {
    #[default]
    None,
    Queued(u8),
    Compiling(u8),
    /// A compile runs, and another is asked for when it ends.
    Followed(u8),
}

impl Pending {
    pub(crate) fn target(self) -> Option<u8> {
        match self {
            Pending::None => None,
            Pending::Queued(tier) | Pending::Compiling(tier) | Pending::Followed(tier) => Some(tier),
        }
    }

    /// What is left when the compile ends.
    pub(super) fn without_compile(self) -> Pending {
        if let Pending::Followed(tier) = self { Pending::Queued(tier) } else { Pending::None }
    }
}

/// A piece of code.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) version: u32,
    pub(crate) bytes: u64,
    pub(crate) sites: BTreeSet<u64>,
    /// What it relies on, by number.
    pub(crate) assumes: Vec<usize>,
}

/// A function that is live.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) bead: Bead,
    pub(crate) core: usize,
    pub(crate) tier: u8,
    /// The piece that runs, by number.
    pub(crate) code: Option<usize>,
    /// Baseline code that a revert can bring back.
    pub(crate) kept: Option<usize>,
    pub(crate) pending: Pending,
    /// The compile that may install, its tier, and what it relies on.
    pub(crate) claim: Option<u32>,
    pub(crate) compiling: u8,
    pub(crate) listed: Vec<usize>,
    /// A closure that was submitted with the request that is pending.
    pub(crate) shot: Option<usize>,
    pub(crate) cap: u8,
    pub(crate) blacklisted: bool,
    pub(crate) calls: u32,
    /// By tier: failures, and the calls at the last.
    pub(crate) faults: [(u32, u32); TIERS as usize],
    /// In the order in which they were met.
    pub(crate) loops: Vec<Loop>,
    /// Loops whose entries into the code that runs are not to be used for now.
    pub(crate) suppressed: BTreeSet<u64>,
    /// Calls of its code are counted to see whether there are any.
    pub(crate) watched: bool,
    pub(crate) slotted: bool,
    /// It has no callback.
    pub(crate) silent: bool,
    /// Calls until the policies are asked: 1 or less means with the next one.
    pub(crate) ask_in: u32,
    /// The call before which a bailout has no tier asked for.
    pub(crate) paused_until: u32,
    /// The lowest version it can have now.
    pub(crate) version: u32,
}

impl Function {
    pub(crate) fn new(bead: Bead, core: usize) -> Function {
        Function {
            bead,
            core,
            tier: 0,
            code: None,
            kept: None,
            pending: Pending::None,
            claim: None,
            compiling: 0,
            listed: Vec::new(),
            shot: None,
            cap: beadwork::TierId::MAX.get(),
            blacklisted: false,
            calls: 0,
            faults: [(0, 0); TIERS as usize],
            loops: Vec::new(),
            suppressed: BTreeSet::new(),
            watched: false,
            slotted: false,
            silent: false,
            ask_in: 0,
            paused_until: 0,
            version: 0,
        }
    }

    /// The highest tier it may have.
    pub(crate) fn highest(&self) -> u8 {
        if self.blacklisted { 0 } else { self.cap }
    }

    pub(super) fn cancel(&mut self) {
        (self.pending, self.claim, self.shot) = (Pending::None, None, None);
        self.listed.clear();
    }

    /// The claim is over; `pending` is what is left.
    pub(super) fn end_claim(&mut self, pending: Pending) {
        (self.pending, self.claim) = (pending, None);
        self.listed.clear();
    }

    pub(super) fn clear_code(&mut self) -> bool {
        (self.kept, self.tier, self.watched) = (None, 0, false);
        self.code.take().is_some()
    }

    /// Counts from zero, and the next call asks.
    pub(crate) fn start_over(&mut self) {
        (self.calls, self.ask_in) = (0, 0);
    }

    /// Calls until a policy may have the tier asked for after `calls`: it failed there, or bailed out.
    pub(crate) fn pause(&self, tier: u8, calls: u32) -> u32 {
        let (failures, at) = self.faults[usize::from(tier) - 1];
        let since = calls.checked_sub(at).unwrap_or(calls);
        let pause = failures.checked_sub(1).map_or(0, |doublings| beadwork::RETRY_AFTER_CALLS << doublings);
        pause.saturating_sub(since).max(self.paused_until.saturating_sub(calls))
    }
}
