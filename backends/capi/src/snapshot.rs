//! What the VM notes of a function when a compile of it is asked for.

use crate::handle::bw_bead;
use crate::job::{bw_job, with};
use crate::status::guard_or;
use crate::user::{UserData, bw_free_fn};
use beadwork::{Bead, Core, EngineBuilder};
use std::ffi::c_void;
use std::sync::Arc;

/// Notes something of a function (its profile, its inline caches), as it is at the moment at which a compile is asked for. Called on the
/// thread that asks, with no lock held; NULL notes nothing.
pub type bw_snapshot_fn =
    Option<unsafe extern "C-unwind" fn(data: *mut c_void, bead: bw_bead, core: usize) -> *mut c_void>;

/// What C noted.
struct Noted(UserData);

/// An engine that has C take snapshots.
pub(crate) fn take(
    builder: EngineBuilder,
    take: unsafe extern "C-unwind" fn(*mut c_void, bw_bead, usize) -> *mut c_void,
    free: bw_free_fn,
    data: Arc<UserData>,
) -> EngineBuilder {
    builder.snapshot(move |bead: Bead, core: Core| {
        // SAFETY: the VM gave both together.
        let noted = unsafe { take(data.get(), bead.to_bits(), core.get()) };
        (!noted.is_null()).then(|| Noted(UserData::new(noted, free)))
    })
}

/// What bw_engine_options.snapshot noted of the function when this compile was asked for; good until the job's callback returns.
/// NULL if it noted nothing, and now and then where the compile was not asked for as such: one that a forked child takes up again,
/// or that was asked for just as an earlier one ended. So a compiler has to be able to do without.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_snapshot(job: *const bw_job) -> *mut c_void {
    // SAFETY: the header's contract.
    let noted = || unsafe {
        with(job, |job| Ok(job.snapshot::<Noted>().map_or(std::ptr::null_mut(), |Noted(data)| data.get())))
    };
    guard_or(std::ptr::null_mut(), noted)
}
