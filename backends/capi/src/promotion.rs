//! Code comes: promotion, the VM's own installs, caps, slots.

use crate::code::{self, bw_code};
use crate::engine::bw_engine;
use crate::functions::bw_group;
use crate::handle::{answer, array, bead, borrow, bw_bead, group, no_group, tier};
use crate::job::{bw_compile_fn, compile_one};
use crate::status::{Error, bw_status, guard};
use crate::user::{UserData, bw_free_fn};
use beadwork::{CompileError, Job};
use std::ffi::c_void;
use std::time::Duration;

/// Asks for a compile at a tier, whatever the policies think. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_promote(
    engine: *const bw_engine,
    function: bw_bead,
    to: u32,
) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| Ok(unsafe { borrow(engine) }?.promote(bead(function)?, tier(to)?)?))
}

/// Asks for compiles of `count` functions; writes how many were accepted. Those that were not say why by bw_engine_promote.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_promote_many(
    engine: *const bw_engine,
    functions: *const bw_bead,
    count: usize,
    to: u32,
    accepted: *mut usize,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let functions = unsafe { array(functions, count, "the array of beads") }?;
        let beads = functions.iter().map(|&bits| bead(bits)).collect::<Result<Vec<_>, Error>>()?;
        // SAFETY: the header's contract.
        let refused = unsafe { borrow(engine) }?.promote_many(beads, tier(to)?);
        // SAFETY: the header's contract.
        unsafe { answer(accepted, count - refused.len()) };
        Ok(())
    })
}

/// Asks for compiles of a group's functions; writes how many were refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_promote_group(
    engine: *const bw_engine,
    functions: bw_group,
    to: u32,
    refused: *mut usize,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let answers = unsafe { borrow(engine) }?.promote_group(group(functions)?, tier(to)?);
        // SAFETY: the header's contract.
        unsafe { answer(refused, answers.ok_or_else(|| no_group(functions))?.len()) };
        Ok(())
    })
}

/// Has a function compiled for a tier before anything that is merely hot, and waits for it, `timeout_ms` milliseconds at the most. Writes
/// the version of its code. On an inline engine the calling thread does the work.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_compile_now(
    engine: *const bw_engine,
    function: bw_bead,
    to: u32,
    timeout_ms: u64,
    version: *mut u32,
) -> bw_status {
    guard(|| {
        let timeout = Duration::from_millis(timeout_ms);
        // SAFETY: the header's contract.
        let now = unsafe { borrow(engine) }?.compile_now(bead(function)?, tier(to)?, timeout)?;
        // SAFETY: the header's contract.
        unsafe { answer(version, now) };
        Ok(())
    })
}

/// Has a function compiled for a tier once by `compile` instead of the tier's backend. `data` is passed to it, and `free_data` called for that
/// once, whatever becomes of the request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_submit(
    engine: *const bw_engine,
    function: bw_bead,
    to: u32,
    compile: bw_compile_fn,
    data: *mut c_void,
    free_data: bw_free_fn,
) -> bw_status {
    guard(|| {
        let data = UserData::new(data, free_data);
        let compile = compile.ok_or_else(|| Error::null("the function that compiles"))?;
        let once = move |job: &mut Job<'_>| {
            // SAFETY: the caller gave both together.
            unsafe { compile_one(compile, data.get(), job) };
            // Counts only if the job was not finished in there.
            Err(CompileError::Unfinished)
        };
        // SAFETY: the header's contract.
        let submitted = unsafe { borrow(engine) }?.submit(bead(function)?, tier(to)?, once);
        submitted.map_err(|refused| refused.reason.into())
    })
}

/// Installs code the VM has compiled itself, in any state of the function; a compile in flight is superseded. Writes its version. If it is not
/// installed it was freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_install(
    engine: *const bw_engine,
    function: bw_bead,
    at: u32,
    code: *const bw_code,
    version: *mut u32,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract. First, so that the owner is taken over in any case.
        let code = unsafe { code::read(code) }?;
        // SAFETY: the header's contract.
        let now = unsafe { borrow(engine) }?.install(bead(function)?, tier(at)?, code)?;
        // SAFETY: the header's contract.
        unsafe { answer(version, now) };
        Ok(())
    })
}

/// Takes a function down to a tier, which is compiled if it has no code for it; 0 is the interpreter. For debugging.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_demote(engine: *const bw_engine, function: bw_bead, to: u32) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| Ok(unsafe { borrow(engine) }?.demote(bead(function)?, tier(to)?)?))
}

/// The highest tier a function may have; code above it is taken back. 15 lifts the cap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_set_tier_cap(
    engine: *const bw_engine,
    function: bw_bead,
    cap: u32,
) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| Ok(unsafe { borrow(engine) }?.set_tier_cap(bead(function)?, tier(cap)?)?))
}

/// Keeps a function in the interpreter (its code is taken back), or lets it out again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_blacklist(
    engine: *const bw_engine,
    function: bw_bead,
    blacklisted: bool,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let (engine, function) = (unsafe { borrow(engine) }?, bead(function)?);
        Ok(if blacklisted { engine.blacklist(function) } else { engine.unblacklist(function) }?)
    })
}

/// The stable address of a function's code pointer, for code the VM writes itself: it loads the pointer and calls, and the next install
/// retargets it. While there is no code the cell holds bw_engine_options.fallback. The index is not reused until
/// bw_engine_release_slot. Backends use bw_job_slot, which needs no release.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_slot(
    engine: *const bw_engine,
    function: bw_bead,
    slot: *mut *const *const c_void,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let address = unsafe { borrow(engine) }?.slot(bead(function)?)?.addr();
        // SAFETY: the header's contract.
        unsafe { answer(slot, std::ptr::with_exposed_provenance(address)) };
        Ok(())
    })
}

/// The stable address of a function's budget, see bw_job_budget_slot; until bw_engine_release_slot, as bw_engine_slot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_budget_slot(
    engine: *const bw_engine,
    function: bw_bead,
    slot: *mut *mut i32,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let address = unsafe { borrow(engine) }?.budget_slot(bead(function)?)?.addr();
        // SAFETY: the header's contract.
        unsafe { answer(slot, std::ptr::with_exposed_provenance_mut(address)) };
        Ok(())
    })
}

/// Promises that no code and no thread of the VM uses the addresses bw_engine_slot and bw_engine_budget_slot gave for this function any
/// more. If that is not true, native code calls another function one day.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_release_slot(engine: *const bw_engine, function: bw_bead) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract, and the caller's promise.
        unsafe { borrow(engine)?.release_slot(bead(function)?) };
        Ok(())
    })
}
