//! What native code that counts itself calls when its budget is spent, or a loop has gone round often.
#![allow(unsafe_code, reason = "called by native code with the address of the context")]

use crate::native::Context;

/// The symbol for calls: `(ctx, callee_bits)`.
pub(crate) const CALL: &str = "strand_count_call";
/// The symbol for iterations: `(ctx, callee_bits, site, iterations)`.
pub(crate) const ITERATIONS: &str = "strand_count_iterations";

/// What a VM leaves in its context for [`CALL`].
pub(crate) type CountCall = unsafe extern "C" fn(*mut Context<'_>, u64);
/// The same for [`ITERATIONS`].
pub(crate) type CountIterations = unsafe extern "C" fn(*mut Context<'_>, u64, u64, u32);

/// Both, with their addresses.
pub(crate) fn symbols() -> [(&'static str, *const u8); 2] {
    let (call, iterations): (CountCall, CountIterations) = (count_call, count_iterations);
    [(CALL, call as *const u8), (ITERATIONS, iterations as *const u8)]
}

/// # Safety
/// `ctx` is the context native code was called with.
unsafe extern "C" fn count_call(ctx: *mut Context<'_>, callee_bits: u64) {
    // SAFETY: `ctx` is the context of a running VM, which left in it the function for its own type.
    unsafe { ((*ctx).count_call)(ctx, callee_bits) }
}

/// # Safety
/// As for [`count_call`].
unsafe extern "C" fn count_iterations(ctx: *mut Context<'_>, callee_bits: u64, site: u64, iterations: u32) {
    // SAFETY: as in `count_call`.
    unsafe { ((*ctx).count_iterations)(ctx, callee_bits, site, iterations) }
}
