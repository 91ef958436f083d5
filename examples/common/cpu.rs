//! CPU time, which a machine that is busy with other things adds nothing to.
#![allow(unsafe_code, dead_code, reason = "asks the system; each example uses a part")]

use std::time::Duration;

/// Of all threads of this process so far.
pub(crate) fn of_process() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Of the calling thread so far.
pub(crate) fn of_thread() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the place it is given and keeps nothing.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
