//! How tiers are described: backend, policy, limits.

use crate::handle::{bw_bead, text};
use crate::job::{CBackend, bw_compile_batch_fn, bw_compile_fn};
use crate::status::{Error, Result};
use crate::user::{UserData, bw_free_fn};
use beadwork::{Activity, Candidate, HalfLife, Manual, Policy, Threshold, Tier, Verdict};
use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;
use std::time::Duration;

/// As a threshold: functions enter the tier only when the VM says so.
pub const BW_MANUAL: u32 = u32::MAX;

/// What a policy sees of a function.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_activity {
    /// The function.
    pub bead: bw_bead,
    /// The tier it runs at now.
    pub tier: u32,
    /// The tier this policy guards.
    pub target: u32,
    /// Calls counted so far, including this one.
    pub calls: u32,
    /// The calls, faded by the half-life if there is one.
    pub heat: u32,
    /// Iterations of the loop for whose sake this is asked; 0 when it is for a call. Eight count like a call.
    pub iterations: u32,
    /// The size given at registration; 0 if unknown.
    pub size: u32,
    /// Requests that wait in the tier's lane.
    pub queued: u32,
    /// Workers that may compile for the tier at once.
    pub workers: u32,
    /// Bytes of code installed or waiting to be freed.
    pub code_bytes: u64,
    /// The engine's limit for them; 0 if there is none.
    pub code_limit: u64,
    /// Uniformly distributed, and the same for the same seed, function and count.
    pub random: u32,
}

/// When is a function worth compiling? 0: now. Any other number: ask again after so many calls. Called where a budget has run out, on the
/// thread that runs the guest program; it must not block.
pub type bw_policy_fn =
    Option<unsafe extern "C-unwind" fn(data: *mut c_void, activity: *const bw_activity) -> u32>;

/// What a filter sees of a function: what was told at registration.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_candidate {
    /// The function.
    pub bead: bw_bead,
    /// The tier it may enter.
    pub tier: u32,
    /// Its size; 0 if unknown.
    pub size: u32,
    /// Its key; 0 if unknown.
    pub key: u64,
    /// Its name; NULL if unknown. Good for the call.
    pub name: *const c_char,
}

/// Whether the tier takes a function.
pub type bw_filter_fn =
    Option<unsafe extern "C-unwind" fn(data: *mut c_void, candidate: *const bw_candidate) -> bool>;

/// One compiled tier. All zero but one of the two compile functions is good.
///
/// `data` is passed to every callback of the tier, on any thread and by several at once; `free_data` is called for it once, when the engine has
/// ended or could not be built.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_tier {
    /// What the backend is called in logs; may be NULL.
    pub name: *const c_char,
    /// Compiles one function. Exactly one of this and `compile_batch` is not NULL.
    pub compile: bw_compile_fn,
    /// Compiles several.
    pub compile_batch: bw_compile_batch_fn,
    /// Passed to the callbacks.
    pub data: *mut c_void,
    /// Lets go of `data`; may be NULL.
    pub free_data: bw_free_fn,

    /// Calls at which a function enters the tier; BW_MANUAL for not by itself. 0 is what the preset says, and without one 1,000.
    pub threshold: u32,
    /// Random variation of the threshold, as a fraction of it; above 1 is 1, and what is not above 0 is what the preset says, or none.
    pub jitter: f64,
    /// What was counted so many milliseconds ago counts half; 0 is for ever.
    pub half_life_ms: u64,
    /// The threshold doubles when so many requests wait for each worker; 0 is never. 5 is right for a baseline and 3 above it.
    pub load_feedback: u32,
    /// From this fraction of bw_engine_options.code_limit on, the threshold rises steeply; what is not between 0 and 1 is never,
    /// 0.5 is right.
    pub code_memory_from: f64,
    /// The threshold is multiplied by a function's size divided by this, from a quarter to four; 0 is not.
    pub size_reference: u32,
    /// Decides instead of the threshold; the other fields above still stretch what it is shown. May be NULL.
    pub policy: bw_policy_fn,

    /// Keeps functions out of the tier; may be NULL.
    pub filter: bw_filter_fn,
    /// The most functions for one call of `compile_batch`; 0 is 32 for the lowest tier and 1 for others.
    pub batch: usize,
    /// The most workers that compile for this tier at once; 0 is what the preset says, and without one all (above the lowest tier, one less of
    /// two or more).
    pub max_parallel: usize,
    /// After so many milliseconds a compile counts as failed; 0 is never.
    pub timeout_ms: u64,
    /// The tier's code counts its calls itself, see bw_job_budget_slot.
    pub counts_itself: bool,
    /// With a function, so many of its most frequent callees are asked for.
    pub speculate_on_callees: usize,
}

/// What a preset says of a tier.
pub(crate) struct Preset {
    pub(crate) threshold: Option<u32>,
    pub(crate) max_parallel: Option<usize>,
    pub(crate) jitter: f64,
}

/// What a tier's callbacks share.
struct Callbacks {
    policy: bw_policy_fn,
    filter: bw_filter_fn,
    data: Arc<UserData>,
}

impl Callbacks {
    fn verdict(&self, activity: &Activity) -> Verdict {
        let Some(policy) = self.policy else { return Verdict::wait(BW_MANUAL) };
        let shown = bw_activity {
            bead: activity.bead.to_bits(),
            tier: activity.tier.get().into(),
            target: activity.target.get().into(),
            calls: activity.calls,
            heat: activity.heat,
            iterations: activity.iterations,
            size: activity.size.unwrap_or(0),
            queued: activity.queued,
            workers: activity.workers,
            code_bytes: activity.code_bytes,
            code_limit: activity.code_limit.unwrap_or(0),
            random: activity.random,
        };
        // SAFETY: the VM gave both together.
        match unsafe { policy(self.data.get(), &shown) } {
            0 => Verdict::Promote,
            calls => Verdict::wait(calls),
        }
    }

    fn takes(&self, candidate: &Candidate) -> bool {
        let Some(filter) = self.filter else { return true };
        let name = candidate.name.as_deref().and_then(|name| CString::new(name).ok());
        let shown = bw_candidate {
            bead: candidate.bead.to_bits(),
            tier: candidate.tier.get().into(),
            size: candidate.size.unwrap_or(0),
            key: candidate.key.unwrap_or(0),
            name: name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()),
        };
        // SAFETY: the VM gave both together.
        unsafe { filter(self.data.get(), &shown) }
    }
}

impl bw_tier {
    /// # Safety
    /// The fields are good for what they say; `data` has been taken over.
    pub(crate) unsafe fn build(&self, data: UserData, preset: &Preset) -> Result<Tier> {
        let data = Arc::new(data);
        if self.compile.is_some() == self.compile_batch.is_some() {
            return Err(Error::argument("a tier needs either compile or compile_batch, not both"));
        }
        // SAFETY: by the contract.
        let name = unsafe { text(self.name) }.map_or_else(|| "C".to_string(), |name| name.into_owned());
        let backend =
            CBackend { name, compile: self.compile, compile_batch: self.compile_batch, data: data.clone() };
        let mut tier = Tier::new(backend)
            .counts_itself(self.counts_itself)
            .speculate_on_callees(self.speculate_on_callees);
        tier = self.give_policy(tier, data.clone(), preset);
        if self.filter.is_some() {
            let callbacks = Callbacks { policy: None, filter: self.filter, data };
            tier = tier.filter(move |candidate| callbacks.takes(candidate));
        }
        if self.batch > 0 {
            tier = tier.batch(self.batch);
        }
        if let Some(workers) = Some(self.max_parallel).filter(|&n| n > 0).or(preset.max_parallel) {
            tier = tier.max_parallel(workers);
        }
        if self.timeout_ms > 0 {
            tier = tier.timeout(Duration::from_millis(self.timeout_ms));
        }
        Ok(tier)
    }

    fn give_policy(&self, tier: Tier, data: Arc<UserData>, preset: &Preset) -> Tier {
        let threshold = match self.threshold {
            0 => preset.threshold.unwrap_or(DEFAULT_THRESHOLD),
            threshold => threshold,
        };
        if self.policy.is_none() && threshold == BW_MANUAL {
            return tier.policy(Manual);
        }
        let mut policy = if self.policy.is_some() {
            let callbacks = Callbacks { policy: self.policy, filter: None, data };
            (move |activity: &Activity| callbacks.verdict(activity)).boxed()
        } else {
            Threshold::new(threshold).boxed()
        };
        if self.load_feedback > 0 {
            policy = policy.scaled_by_load(self.load_feedback).boxed();
        }
        if self.code_memory_from > 0.0 {
            policy = policy.scaled_by_code_memory(self.code_memory_from).boxed();
        }
        if self.size_reference > 0 {
            policy = policy.scaled_by_size(self.size_reference).boxed();
        }
        let jitter = if self.jitter > 0.0 { self.jitter } else { preset.jitter };
        if jitter > 0.0 {
            policy = policy.jitter(jitter).boxed();
        }
        if self.half_life_ms > 0 {
            policy = policy.decay(HalfLife::Time(Duration::from_millis(self.half_life_ms))).boxed();
        }
        tier.policy(policy)
    }
}

/// As [`Threshold::default`].
const DEFAULT_THRESHOLD: u32 = 1_000;
