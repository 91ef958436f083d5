//! Deopt policies, and what a bailout says and answers.

use crate::handle::{bw_bead, tier};
use crate::status::{Error, Result};
use crate::user::UserData;
use beadwork::{
    AlwaysRecompile, BailoutInfo, DeoptDecision, DeoptHistory, DeoptPolicy, DeoptThreshold, EngineBuilder,
    ExponentialBackoff, Recovery, TieredDeopt, Tolerate,
};
use std::ffi::c_void;
use std::sync::Arc;

/// What becomes of code whose guard failed; bw_engine_options.deopt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum bw_deopt {
    /// As tiered with limits 3 and 1, but no baseline code is held for the way back, since that takes memory.
    Default = 0,
    /// Always recompiles; only the governor ends it.
    AlwaysRecompile = 1,
    /// Recompiles `deopt_limit` times (0 is 3), then blacklists.
    Threshold = 2,
    /// Pauses for `deopt_base` calls (0 is 1,000), doubling, `deopt_limit` times (0 is 4), then blacklists.
    Backoff = 3,
    /// Baseline code is recompiled `deopt_limit` times (0 is 3), then blacklisted; from higher tiers it goes back to baseline code, which was
    /// held, and after `deopt_base` times (0 is 1) stays there.
    Tiered = 4,
    /// Leaves the code in place; only the governor ends it.
    Tolerate = 5,
}

/// What to do about code whose guard failed; a bw_deopt_fn answers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum bw_recovery {
    /// The code stays.
    Keep = 0,
    /// It is compiled again at its tier.
    Recompile = 1,
    /// The function is interpreted for the number of calls that is written.
    Pause = 2,
    /// Back to the baseline.
    Revert = 3,
    /// Back to the baseline, and never above the tier whose number is written.
    Cap = 4,
    /// The function is interpreted for good.
    Blacklist = 5,
}

/// A function's bailouts so far, the last one included.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_deopt_history {
    /// The function.
    pub bead: bw_bead,
    /// The tier of the code that bailed out last.
    pub tier: u32,
    /// The version of that code.
    pub version: u32,
    /// Which guard failed.
    pub guard: u32,
    /// Bailouts.
    pub bailouts: u32,
    /// Where the interpreter goes on.
    pub pc: u64,
    /// How often in a row before, code of this tier was taken back for the same guard at the same pc.
    pub repeats: u32,
    /// Recompiles because of bailouts.
    pub recompiles: u32,
    /// Returns to the baseline.
    pub reverts: u32,
}

impl From<&DeoptHistory> for bw_deopt_history {
    fn from(history: &DeoptHistory) -> bw_deopt_history {
        bw_deopt_history {
            bead: history.bead.to_bits(),
            tier: history.tier.get().into(),
            version: history.last.version,
            guard: history.last.guard,
            bailouts: history.bailouts,
            pc: history.last.pc,
            repeats: history.repeats,
            recompiles: history.recompiles,
            reverts: history.reverts,
        }
    }
}

/// Decides what becomes of code whose guard failed: answers a bw_recovery (anything else is a pause), and writes the calls or the tier that
/// goes with it to `value`. Called on the thread that bails out.
pub type bw_deopt_fn = Option<
    unsafe extern "C-unwind" fn(data: *mut c_void, history: *const bw_deopt_history, value: *mut u32) -> u32,
>;

/// A guard of compiled code that failed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_bailout {
    /// The version the failing code was installed with: bw_job_version, bw_engine_install and the events tell it.
    pub version: u32,
    /// Which guard failed; 0 if the VM does not say.
    pub guard: u32,
    /// Where the interpreter goes on; 0 if the VM does not say.
    pub pc: u64,
    /// Whether the code was entered in the middle of the loop `osr_site`, which then counts as failed.
    pub in_loop: bool,
    /// The loop.
    pub osr_site: u64,
}

impl From<&bw_bailout> for BailoutInfo {
    fn from(bailout: &bw_bailout) -> BailoutInfo {
        let info = BailoutInfo::new(bailout.version).guard(bailout.guard).pc(bailout.pc);
        if bailout.in_loop { info.osr_site(bailout.osr_site) } else { info }
    }
}

/// What bw_engine_bailout did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum bw_decision {
    /// The code stays.
    Keep = 0,
    /// The code was taken back, and the function is queued at its tier.
    Recompile = 1,
    /// The code was taken back, and the function is not asked for until so many calls (the value) were counted.
    Pause = 2,
    /// The code was taken back in favour of the baseline: held code that runs again at once (value 1), or queued (value 0).
    Revert = 3,
    /// The code was taken back, and the function stays at or below a tier (the value).
    Cap = 4,
    /// The code was taken back, and the function is interpreted for good.
    Blacklist = 5,
    /// The version is not the one that runs: it was taken back or replaced before. Nothing was changed.
    Outdated = 6,
}

/// The decision, and the value that goes with it.
pub(crate) fn decision(made: DeoptDecision) -> (bw_decision, u32) {
    match made {
        DeoptDecision::Keep => (bw_decision::Keep, 0),
        DeoptDecision::Recompile => (bw_decision::Recompile, 0),
        DeoptDecision::Pause { calls } => (bw_decision::Pause, calls),
        DeoptDecision::Revert { at_once } => (bw_decision::Revert, at_once.into()),
        DeoptDecision::Cap(tier) => (bw_decision::Cap, tier.get().into()),
        DeoptDecision::Blacklist => (bw_decision::Blacklist, 0),
        _ => (bw_decision::Outdated, 0),
    }
}

/// A policy in C.
struct CDeopt {
    decide: unsafe extern "C-unwind" fn(*mut c_void, *const bw_deopt_history, *mut u32) -> u32,
    data: Arc<UserData>,
}

impl DeoptPolicy for CDeopt {
    fn decide(&self, history: &DeoptHistory) -> Recovery {
        const PAUSE: u32 = beadwork::DEOPT_REENTRY_CALLS;
        let mut value = 0;
        // SAFETY: the VM gave both together; both pointers are good for the call.
        let answer = unsafe { (self.decide)(self.data.get(), &history.into(), &mut value) };
        match answer {
            0 => Recovery::Keep,
            1 => Recovery::Recompile,
            2 => Recovery::Pause { calls: value },
            3 => Recovery::Revert,
            4 => tier(value).map_or(Recovery::Pause { calls: PAUSE }, Recovery::Cap),
            5 => Recovery::Blacklist,
            _ => Recovery::Pause { calls: PAUSE },
        }
    }
}

/// Sets the policy that options name.
pub(crate) fn give(
    builder: EngineBuilder,
    kind: u32,
    (limit, base): (u32, u32),
    decide: bw_deopt_fn,
    data: &Arc<UserData>,
) -> Result<EngineBuilder> {
    let or = |value, otherwise| if value == 0 { otherwise } else { value };
    if let Some(decide) = decide {
        return Ok(builder.deopt(CDeopt { decide, data: data.clone() }));
    }
    Ok(match kind {
        0 => builder,
        1 => builder.deopt(AlwaysRecompile),
        2 => builder.deopt(DeoptThreshold::new(or(limit, 3))),
        3 => builder.deopt(ExponentialBackoff::new(or(base, 1_000), or(limit, 4))),
        4 => builder.deopt(TieredDeopt::new(or(limit, 3), or(base, 1))),
        5 => builder.deopt(Tolerate),
        _ => {
            return Err(Error::argument(format_args!(
                "there is no deopt policy {kind}; use a BW_DEOPT value"
            )));
        }
    })
}
