//! Compiled code, as C describes it.

use crate::handle::{array, assumption, bead, bw_bead, options};
use crate::status::Result;
use crate::user::{UserData, bw_free_fn};
use beadwork::{CodeOwner, CompiledCode};
use std::ffi::c_void;
use std::time::Duration;

/// A native entry into a running loop.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_osr_entry {
    /// The VM's own name for the loop, as in bw_mutator_back_edge.
    pub site: u64,
    /// Where to go on. What is passed there is between the VM and its compiler.
    pub entry: *const c_void,
}

/// Compiled code. All zero but `entry` is good: code of unknown size that lives as long as the process.
///
/// Whatever becomes of the call it is passed to, the library has taken `owner` over: `free_owner` is called for it once, when no
/// thread can be in the code any more, or at once where the code is not installed. That is on any thread, but never inside a
/// dispatch or safepoint of an engine with workers. Arrays are copied.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_code {
    /// Where the function begins. Not NULL, and below 2^48.
    pub entry: *const c_void,
    /// The size of the code from `entry` on, in bytes; 0 if unknown. For statistics, limits, and bw_mutator_safepoint_with.
    pub bytes: usize,
    /// What to free with the code; may be NULL.
    pub owner: *mut c_void,
    /// Frees `owner`; NULL if there is nothing to free.
    pub free_owner: bw_free_fn,
    /// Native entries into loops of the function.
    pub osr: *const bw_osr_entry,
    /// How many.
    pub osr_count: usize,
    /// Functions whose slots the code embeds, other than those asked for by bw_job_slot: their indices are not reused while it exists.
    pub embeds: *const bw_bead,
    /// How many.
    pub embeds_count: usize,
    /// What the code takes for granted, other than what was asked for by bw_job_assume.
    pub assumptions: *const u64,
    /// How many.
    pub assumptions_count: usize,
    /// What the compile took, in nanoseconds; 0 has the library measure it.
    pub compile_nanos: u64,
    /// Sent along to bw_engine_deliver (a stack map, a line table): the VM's from there on. May be NULL.
    pub payload: *mut c_void,
    /// Lets go of `payload` where it is not delivered: the code is not installed, or the engine has no deliveries. May be NULL.
    pub free_payload: bw_free_fn,
}

impl bw_code {
    /// All zero.
    pub(crate) const NONE: bw_code = bw_code {
        entry: std::ptr::null(),
        bytes: 0,
        owner: std::ptr::null_mut(),
        free_owner: None,
        osr: std::ptr::null(),
        osr_count: 0,
        embeds: std::ptr::null(),
        embeds_count: 0,
        assumptions: std::ptr::null(),
        assumptions_count: 0,
        compile_nanos: 0,
        payload: std::ptr::null_mut(),
        free_payload: None,
    };
}

/// Reads what C describes; the owner is taken over in any case.
///
/// # Safety
/// `code` is null or good for what its fields say.
pub(crate) unsafe fn read(code: *const bw_code) -> Result<CompiledCode> {
    // SAFETY: by the contract.
    let code = unsafe { options(code, "the code") }?;
    // Before anything can fail.
    let owner = match code.free_owner {
        Some(_) => CodeOwner::boxed(UserData::new(code.owner, code.free_owner)),
        None => CodeOwner::none(),
    };
    let payload = (!code.payload.is_null()).then(|| UserData::new(code.payload, code.free_payload));
    let mut made = CompiledCode::new(code.entry.cast()).owner(owner).with_bytes(code.bytes);
    // SAFETY: by the contract.
    for osr in unsafe { array(code.osr, code.osr_count, "bw_code.osr") }? {
        made = made.osr(osr.site, osr.entry.cast());
    }
    // SAFETY: by the contract.
    for &callee in unsafe { array(code.embeds, code.embeds_count, "bw_code.embeds") }? {
        made = made.embeds(bead(callee)?);
    }
    // SAFETY: by the contract.
    for &assumed in unsafe { array(code.assumptions, code.assumptions_count, "bw_code.assumptions") }? {
        made = made.assumes(assumption(assumed)?);
    }
    if let Some(payload) = payload {
        made = made.payload(payload);
    }
    if code.compile_nanos > 0 {
        made = made.with_compile_time(Duration::from_nanos(code.compile_nanos));
    }
    Ok(made)
}
