//! Code goes: bailouts, invalidation, reloads, assumptions.

use crate::code::{self, bw_code};
use crate::deopt::{bw_bailout, bw_decision, bw_deopt_history, decision};
use crate::engine::bw_engine;
use crate::functions::bw_group;
use crate::handle::{answer, assumption, bead, borrow, bw_bead, group, no_group, options, tier};
use crate::status::{Error, bw_status, guard, guard_or};
use beadwork::Reloaded;
use std::ffi::c_void;

/// A guard of compiled code failed: decides what becomes of that code, and does it before this returns. Unless the decision is
/// BW_DECISION_KEEP or BW_DECISION_OUTDATED, dispatches do not answer that version any more; threads that are in it finish. `value` goes with the
/// decision, see there. Either may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_bailout(
    engine: *const bw_engine,
    function: bw_bead,
    bailout: *const bw_bailout,
    made: *mut bw_decision,
    value: *mut u32,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let bailout = unsafe { options(bailout, "the bailout") }?;
        // SAFETY: the header's contract.
        let taken = unsafe { borrow(engine) }?.bailout(bead(function)?, bailout.into())?;
        let (kind, with) = decision(taken);
        // SAFETY: the header's contract.
        unsafe {
            answer(made, kind);
            answer(value, with);
        }
        Ok(())
    })
}

/// The bailouts of a function so far. False if it never bailed out, or is not live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_deopts(
    engine: *const bw_engine,
    function: bw_bead,
    history: *mut bw_deopt_history,
) -> bool {
    guard_or(false, || {
        // SAFETY: the header's contract.
        let Some(known) = unsafe { borrow(engine) }?.deopts(bead(function)?) else { return Ok(false) };
        // SAFETY: the header's contract.
        unsafe { answer(history, (&known).into()) };
        Ok(true)
    })
}

/// Forgets the bailouts of a function, with the pauses and limits that come of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_forget_deopts(engine: *const bw_engine, function: bw_bead) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let _ = unsafe { borrow(engine) }?.forget_deopts(bead(function)?);
        Ok(())
    })
}

/// States that the native entry into a loop was no good. It is not answered until the loop went round the number of times that is written,
/// which doubles; other loops are untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_osr_failed(
    engine: *const bw_engine,
    function: bw_bead,
    site: u64,
    wait: *mut u32,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let iterations = unsafe { borrow(engine) }?.osr_failed(bead(function)?, site)?;
        // SAFETY: the header's contract.
        unsafe { answer(wait, iterations) };
        Ok(())
    })
}

/// Takes a function's code back and cancels what is pending. Dispatches do not answer it when this has returned; threads that are in it finish. It
/// counts from zero again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_invalidate(engine: *const bw_engine, function: bw_bead) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| Ok(unsafe { borrow(engine) }?.invalidate(bead(function)?)?))
}

/// Invalidates every function; answers how many had code or waited for some.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_invalidate_all(engine: *const bw_engine) -> usize {
    // SAFETY: the header's contract.
    guard_or(0, || Ok(unsafe { borrow(engine) }?.invalidate_all()))
}

/// Invalidates a group's functions; writes how many had code or waited for some.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_invalidate_group(
    engine: *const bw_engine,
    functions: bw_group,
    count: *mut usize,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let invalidated = unsafe { borrow(engine) }?.invalidate_group(group(functions)?);
        // SAFETY: the header's contract.
        unsafe { answer(count, invalidated.ok_or_else(|| no_group(functions))?) };
        Ok(())
    })
}

/// Takes a function's code back because its source changed, and asks for the tier it had or waited for again. Writes that tier; 0 if it had
/// none. Where it may not be compiled again now, the code is gone all the same, and the status says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_reload(
    engine: *const bw_engine,
    function: bw_bead,
    queued: *mut u32,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let tier = match unsafe { borrow(engine) }?.reload(bead(function)?)? {
            Reloaded::Queued(tier) => tier.get().into(),
            Reloaded::Refused(reason) => return Err(reason.into()),
            _ => 0,
        };
        // SAFETY: the header's contract.
        unsafe { answer(queued, tier) };
        Ok(())
    })
}

/// Reloads every function that has code or waits for some; answers how many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_reload_all(engine: *const bw_engine) -> usize {
    // SAFETY: the header's contract.
    guard_or(0, || Ok(unsafe { borrow(engine) }?.reload_all()))
}

/// Reloads a group's functions; writes how many had code or waited for some.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_reload_group(
    engine: *const bw_engine,
    functions: bw_group,
    count: *mut usize,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let reloaded = unsafe { borrow(engine) }?.reload_group(group(functions)?);
        // SAFETY: the header's contract.
        unsafe { answer(count, reloaded.ok_or_else(|| no_group(functions))?) };
        Ok(())
    })
}

/// Makes an assumption (a class without subclasses, a constant), which holds until it is invalidated. A number, never 0 but where `engine` is no
/// engine, and never used again in this process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_assumption(engine: *const bw_engine) -> u64 {
    // SAFETY: the header's contract.
    guard_or(0, || Ok(unsafe { borrow(engine) }?.assumption().get()))
}

/// Whether the assumption is one of this engine's that was not broken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_is_valid(engine: *const bw_engine, asked: u64) -> bool {
    // SAFETY: the header's contract.
    guard_or(false, || Ok(unsafe { borrow(engine) }?.is_valid(assumption(asked)?)))
}

/// Breaks an assumption for good: takes back all code that relied on it, ends compiles that do, and answers how many functions lost
/// something.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_invalidate_assumption(engine: *const bw_engine, broken: u64) -> usize {
    // SAFETY: the header's contract.
    guard_or(0, || Ok(unsafe { borrow(engine) }?.invalidate_assumption(assumption(broken)?)))
}

/// Gives new code for a function: fills `code`, which is all zero, and answers true; or answers false.
pub type bw_swap_fn =
    Option<unsafe extern "C-unwind" fn(data: *mut c_void, function: bw_bead, code: *mut bw_code) -> bool>;

/// Replaces code at once, without a time at which it is interpreted: asks `swap` for every live function first, and then installs at tier `number` what it
/// gives. `superseded` gets how many functions have new code, `refused` how many pieces were not installed; those functions run as before. Each
/// function goes over to its new code by one store, while others run; there is no moment at which all of them do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_swap_matching(
    engine: *const bw_engine,
    number: u32,
    swap: bw_swap_fn,
    data: *mut c_void,
    superseded: *mut usize,
    refused: *mut usize,
) -> bw_status {
    guard(|| {
        let swap = swap.ok_or_else(|| Error::null("the callback that gives code"))?;
        let mut wrong = 0;
        // SAFETY: the header's contract.
        let swapped = unsafe { borrow(engine) }?.swap_matching(tier(number)?, |bead| {
            let mut code = bw_code::NONE;
            // SAFETY: the VM gave both together.
            if !unsafe { swap(data, bead.to_bits(), &mut code) } {
                return None;
            }
            // SAFETY: the header's contract, for what the VM wrote.
            let read = unsafe { code::read(&code) };
            wrong += usize::from(read.is_err());
            read.ok()
        });
        // SAFETY: the header's contract.
        unsafe {
            answer(superseded, swapped.superseded.len());
            answer(refused, swapped.refused.len() + wrong);
        }
        Ok(())
    })
}
