//! Code that is kept while something outside any mutator needs it.

use crate::engine::bw_engine;
use crate::handle::{bead, borrow, bw_bead, give, handle, take};
use crate::status::{Error, bw_status, guard, guard_or};
use beadwork::Lease;
use std::ffi::c_void;

/// A hold on a function's code: it is not freed before this is, whatever becomes of the function. Used by any thread. Keeps its
/// engine alive.
#[derive(Debug)]
pub struct bw_lease {
    _private: [u8; 0],
}

handle!(bw_lease, Lease, b"leas", "a bw_lease");

/// Leases a function's code; writes NULL, and answers BW_STATUS_OK, if it has none. Counts no call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_lease(
    engine: *const bw_engine,
    function: bw_bead,
    lease: *mut *mut bw_lease,
) -> bw_status {
    guard(|| {
        if lease.is_null() {
            return Err(Error::null("the place for the handle"));
        }
        // SAFETY: the header's contract.
        unsafe { lease.write(std::ptr::null_mut()) };
        // SAFETY: the header's contract.
        let engine = unsafe { borrow(engine) }?;
        let function = bead(function)?;
        if !engine.is_live(function) {
            return Err(beadwork::Stale(function).into());
        }
        match engine.lease(function) {
            // SAFETY: the header's contract.
            Some(leased) => unsafe { give(lease, || Ok(leased)) },
            None => Ok(()),
        }
    })
}

/// The code's entry, to be called while the lease lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_lease_entry(lease: *const bw_lease) -> *const c_void {
    // SAFETY: the header's contract.
    guard_or(std::ptr::null(), || Ok(unsafe { borrow(lease) }?.as_ptr().cast()))
}

/// Whether a dispatch would answer this code now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_lease_is_current(lease: *const bw_lease) -> bool {
    // SAFETY: the header's contract.
    guard_or(false, || Ok(unsafe { borrow(lease) }?.is_current()))
}

/// Ends a lease; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_lease_free(lease: *mut bw_lease) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| unsafe { take(lease) }.map(drop))
}
