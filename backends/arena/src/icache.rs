//! Making freshly written bytes visible to instruction fetch.
//!
//! The order of a placement, whose steps are one function each, in [`place`](crate::place):
//! 1. **write** the code and apply its relocations,
//! 2. **clean** the data cache to the point of unification and **invalidate** the instruction cache over the range
//!    ([`synchronize`]),
//! 3. **protect**: a private mapping becomes executable,
//! 4. **register** the unwind table,
//! 5. **fence** ([`fence`]): every core refetches, and no earlier write passes the caller's publishing store,
//! 6. return; the **caller publishes** the entry with a Release store, readers load it with Acquire.
//!
//! x86-64 keeps its caches coherent and needs only 1, 3, 4 and 6.

/// Cleans and invalidates so that code written through `written` can be fetched through `executed`.
///
/// Both point to the same `len` bytes (twice the same address in a private mapping).
pub(crate) fn synchronize(written: *const u8, executed: *const u8, len: usize) {
    #[cfg(target_arch = "aarch64")]
    arm::synchronize(written, executed, len);
    #[cfg(all(target_arch = "riscv64", target_os = "linux"))]
    {
        let _ = written;
        // SAFETY: `riscv_flush_icache(start, end, flags)` only flushes; flags 0 means all threads of the process.
        unsafe { libc::syscall(259, executed, executed.wrapping_add(len), 0) };
    }
    #[cfg(not(any(target_arch = "aarch64", all(target_arch = "riscv64", target_os = "linux"))))]
    let _ = (written, executed, len);
}

/// Ends a placement: after it, no thread of the process executes stale instructions at the placed addresses.
///
/// On aarch64 a core may still hold prefetched instructions of a freed function at a reused address;
/// `membarrier(PRIVATE_EXPEDITED_SYNC_CORE)` makes every running thread pass a context synchronisation event.
pub(crate) fn fence() {
    #[cfg(all(target_arch = "aarch64", target_os = "linux"))]
    arm::synchronize_cores();
    // Release, edge PUBLISH of the engine's `protocol`: the caller's Release store is what publishes; this only keeps the steps above in front of it even if
    // the caller hands the address over through a channel the compiler cannot see (another mapping, a register).
    std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::asm;

    pub(super) fn synchronize(written: *const u8, executed: *const u8, len: usize) {
        let cache_type: u64;
        // SAFETY: CTR_EL0 is readable at EL0 on every supported system.
        unsafe { asm!("mrs {}, ctr_el0", out(reg) cache_type, options(nomem, nostack)) };
        let data_line = 4usize << (cache_type >> 16 & 0xf);
        let code_line = 4usize << (cache_type & 0xf);
        let lines =
            |base: *const u8, line: usize| (base.addr() & !(line - 1)..base.addr() + len).step_by(line);
        for at in lines(written, data_line) {
            // SAFETY: cleans a line of memory that is mapped and readable; changes no contents.
            unsafe { asm!("dc cvau, {}", in(reg) at, options(nostack)) };
        }
        // SAFETY: a barrier.
        unsafe { asm!("dsb ish", options(nostack)) };
        for at in lines(executed, code_line) {
            // SAFETY: invalidates an instruction cache line; changes no contents.
            unsafe { asm!("ic ivau, {}", in(reg) at, options(nostack)) };
        }
        // SAFETY: barriers.
        unsafe { asm!("dsb ish", "isb", options(nostack)) };
    }

    #[cfg(target_os = "linux")]
    pub(super) fn synchronize_cores() {
        use std::sync::Once;
        static REGISTERED: Once = Once::new();
        // SAFETY: membarrier has no memory preconditions; a kernel without it answers ENOSYS.
        REGISTERED.call_once(|| unsafe {
            libc::syscall(
                libc::SYS_membarrier,
                libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
                0,
                0,
            );
        });
        // SAFETY: as above.
        unsafe {
            libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0)
        };
    }
}
