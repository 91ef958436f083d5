//! What a bailout says, what is remembered of it, and what can be done about it.

use crate::id::{Bead, TierId};

/// A guard of compiled code that failed; told to [`Engine::bailout`](crate::Engine::bailout).
///
/// What the numbers mean is the VM's business; the engine compares them.
///
/// ```
/// use beadwork::BailoutInfo;
/// let info = BailoutInfo::new(3).guard(7).pc(0x40);
/// assert_eq!((info.version, info.guard, info.pc, info.osr_site), (3, 7, 0x40, None));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct BailoutInfo {
    /// The version the failing code was installed with: [`Event::Installed`](crate::Event::Installed) and
    /// [`Engine::install`](crate::Engine::install) tell it, and [`Job::version`](crate::Job::version) tells it to the
    /// compiler beforehand, so that it can be a constant in the code.
    pub version: u32,
    /// Which guard failed; 0 if the VM does not say.
    pub guard: u32,
    /// Where the interpreter goes on; 0 if the VM does not say.
    pub pc: u64,
    /// The site at which the code was entered, if it was entered in the middle of a loop.
    pub osr_site: Option<u64>,
}

impl BailoutInfo {
    /// A bailout of the code that was installed with this version.
    pub const fn new(version: u32) -> BailoutInfo {
        BailoutInfo { version, guard: 0, pc: 0, osr_site: None }
    }

    /// Says which guard failed.
    #[must_use]
    pub const fn guard(mut self, guard: u32) -> BailoutInfo {
        self.guard = guard;
        self
    }

    /// Says where the interpreter goes on.
    #[must_use]
    pub const fn pc(mut self, pc: u64) -> BailoutInfo {
        self.pc = pc;
        self
    }

    /// Says at which site the code was entered in the middle of a loop. The site is counted as failed, and is retried after
    /// a distance that doubles.
    #[must_use]
    pub const fn osr_site(mut self, site: u64) -> BailoutInfo {
        self.osr_site = Some(site);
        self
    }
}

/// What a [`DeoptPolicy`](crate::DeoptPolicy) proposes to do about code whose guard failed.
///
/// Everything but [`Keep`](Recovery::Keep) takes the code back; calls of it that run finish.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Recovery {
    /// The code stays: the guard fails so rarely that leaving the code now and then is cheaper than a compile.
    Keep,
    /// The function is asked for at its tier again at once, before whatever is merely hot. Meanwhile it is interpreted,
    /// or runs its baseline code if that is still held.
    Recompile,
    /// The function is interpreted, and not asked for again until so many calls of it were counted.
    Pause {
        /// Calls to let pass.
        calls: u32,
    },
    /// The function's baseline code runs again at once if it is still held (see
    /// [`DeoptPolicy::keeps_baseline`](crate::DeoptPolicy::keeps_baseline)), and is otherwise compiled before whatever is merely
    /// hot. If it is the baseline code that failed, the same as [`Recompile`](Recovery::Recompile).
    Revert,
    /// As [`Revert`](Recovery::Revert), and no tier above this one is entered any more
    /// ([`Engine::set_tier_cap`](crate::Engine::set_tier_cap) lifts it). The cap is at most the tier below the failing one;
    /// [`TierId::INTERPRETER`] leaves the function interpreted.
    Cap(TierId),
    /// The function is interpreted for good ([`Engine::unblacklist`](crate::Engine::unblacklist) lifts it).
    Blacklist,
}

/// What [`Engine::bailout`](crate::Engine::bailout) did. Where the governor overruled the policy, or something was not
/// possible, this differs from what was [proposed](Recovery).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DeoptDecision {
    /// The code stays.
    Keep,
    /// The code was taken back, and the function is queued at its tier.
    Recompile,
    /// The code was taken back, and the function is not asked for until so many calls of it were counted. 0 where it may be
    /// asked for, but could not be now: promotion or the tier is switched off, or the tier has no backend or refuses it.
    Pause {
        /// Calls to let pass.
        calls: u32,
    },
    /// The code was taken back in favour of the baseline.
    Revert {
        /// The baseline code was still held and runs again. False: the function is queued for the baseline.
        at_once: bool,
    },
    /// The code was taken back, and the function is capped at this tier. It runs its baseline code again, or is queued for
    /// the baseline, unless the cap is the interpreter.
    Cap(TierId),
    /// The code was taken back, and the function is interpreted for good.
    Blacklist,
    /// The version is not the one that runs: it was taken back or replaced before. Nothing was changed or recorded.
    Outdated,
}

impl DeoptDecision {
    /// Whether this bailout took the code back.
    pub const fn took_code(self) -> bool {
        !matches!(self, DeoptDecision::Keep | DeoptDecision::Outdated)
    }
}

/// Tiers that can have code.
const TIERS: usize = TierId::MAX.get() as usize;

/// A function's bailouts so far; what a policy decides by, and what [`Engine::deopts`](crate::Engine::deopts) answers. Gone
/// with the function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DeoptHistory {
    /// The function.
    pub bead: Bead,
    /// The tier of the code that bailed out last.
    pub tier: TierId,
    /// The last bailout: guard, version, and the pc at which the interpreter goes on.
    pub last: BailoutInfo,
    /// Bailouts that counted, the last one included.
    pub bailouts: u32,
    /// How often in a row, before the last bailout, code of this tier was taken back for the same guard at the same pc: the
    /// compiles in between have not learned.
    pub repeats: u32,
    /// Recompiles asked for because of a bailout.
    pub recompiles: u32,
    /// How often the function went back to its baseline code.
    pub reverts: u32,
    by_tier: [u32; TIERS],
}

impl DeoptHistory {
    /// No bailout yet; `info` is about to be the first.
    pub(crate) fn new(bead: Bead, tier: TierId, last: BailoutInfo) -> DeoptHistory {
        let by_tier = [0; TIERS];
        DeoptHistory { bead, tier, last, bailouts: 0, repeats: 0, recompiles: 0, reverts: 0, by_tier }
    }

    /// This history and one more bailout.
    pub(crate) fn after(mut self, tier: TierId, last: BailoutInfo, repeats: u32) -> DeoptHistory {
        (self.tier, self.last, self.repeats) = (tier, last, repeats);
        self.bailouts = self.bailouts.saturating_add(1);
        if let Some(count) = self.by_tier.get_mut(tier.lane()) {
            *count = count.saturating_add(1);
        }
        self
    }

    pub(crate) fn note(&mut self, decision: DeoptDecision) {
        match decision {
            DeoptDecision::Recompile => self.recompiles = self.recompiles.saturating_add(1),
            DeoptDecision::Revert { .. } => self.reverts = self.reverts.saturating_add(1),
            _ => (),
        }
    }

    /// Bailouts of code of one tier.
    pub fn bailouts_of(&self, tier: TierId) -> u32 {
        self.bailouts_in(|number| number == tier)
    }

    /// Bailouts of code of all tiers above one.
    pub fn bailouts_above(&self, tier: TierId) -> u32 {
        self.bailouts_in(|number| number > tier)
    }

    fn bailouts_in(&self, wanted: impl Fn(TierId) -> bool) -> u32 {
        let tiers = (1..).map(TierId::from_low_bits).zip(self.by_tier);
        tiers.filter(|&(tier, _)| wanted(tier)).fold(0, |sum: u32, (_, count)| sum.saturating_add(count))
    }
}
