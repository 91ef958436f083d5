//! Handing tables to the process's unwinder.
//!
//! There are three kinds of unwinder behind `__register_frame`:
//! * libgcc up to 12 keeps a linked list, sorted by lowest address and searched linearly; it looks **only** into
//!   the first table whose lowest address is not above the pc. So tables must not interleave, and few large ones
//!   are fast. A table may be registered while an older one with the same addresses still is, so replacing one
//!   leaves no moment in which a live function cannot be unwound.
//! * libgcc since 13 keeps a B-tree of disjoint address ranges. Two tables with overlapping ranges corrupt it, so a
//!   table with live functions could only be replaced with a gap in between. One table per function is
//!   never replaced, and the tree finds it in logarithmic time.
//! * LLVM's libunwind (macOS, musl, Android, BSD) takes a single FDE per call.
//!
//! One table per function is right everywhere; shared tables are used where the first kind is positively identified.

use super::image::Image;

/// How tables are to be cut for the unwinder of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwinder {
    /// Nothing is registered.
    None,
    /// A linear list of tables: share them, never let them interleave.
    List,
    /// An index of tables: one per function.
    Index,
}

impl Unwinder {
    /// The unwinder of this process. Takes the unwinder's lock, so it must not run during a fork.
    pub(crate) fn detect() -> Self {
        if !cfg!(unix) || cfg!(target_family = "wasm") {
            return Self::None;
        }
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        {
            use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
            // 0 unknown, 1 list, 2 not. A `Once` would leave a forked child waiting for a thread it does not have.
            static LIST: AtomicU8 = AtomicU8::new(0);
            if LIST.load(Relaxed) == 0 {
                LIST.store(if gnu::keeps_a_list() { 1 } else { 2 }, Relaxed);
            }
            if LIST.load(Relaxed) == 1 {
                return Self::List;
            }
        }
        Self::Index
    }
}

/// A registered table. Dropping it deregisters it, then frees the image.
#[derive(Debug)]
pub(crate) struct Registered {
    image: Image,
    #[cfg_attr(not(unix), expect(dead_code, reason = "nothing is registered"))]
    handle: *const u8,
}

// SAFETY: the unwinder locks for itself; the image is immutable.
unsafe impl Send for Registered {}

impl Registered {
    /// Registers `image`; `first` is the offset of its only record if the unwinder takes single records.
    pub(crate) fn new(image: Image, first: u32) -> Self {
        let handle = if cfg!(all(target_os = "linux", target_env = "gnu")) {
            image.as_ptr()
        } else {
            image.as_ptr().wrapping_add(first as usize)
        };
        #[cfg(unix)]
        // SAFETY: a well-formed, terminated image (ImageBuilder), which lives and does not change until `drop`.
        unsafe {
            __register_frame(handle);
        }
        Self { image, handle }
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        #[cfg(unix)]
        // SAFETY: registered in `new` with this very address, and nowhere else deregistered.
        unsafe {
            __deregister_frame(self.handle);
        }
    }
}

#[cfg(unix)]
unsafe extern "C" {
    fn __register_frame(begin: *const u8);
    fn __deregister_frame(begin: *const u8);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod gnu {
    use std::ffi::c_void;

    unsafe extern "C" {
        fn __register_frame_info(begin: *const u8, object: *mut c_void);
        fn __deregister_frame_info(begin: *const u8) -> *mut c_void;
    }

    /// What libgcc needs to remember a table: eight words at most in every version. Zeroed, so a link is seen.
    #[repr(C, align(16))]
    struct Object([u64; 16]);

    /// A table of one CIE and one FDE for the byte at its own start.
    #[repr(C, align(16))]
    struct Probe([u64; 8]);

    fn probe() -> Box<Probe> {
        let mut probe = Box::new(Probe([0; 8]));
        let here = (&raw const *probe).addr() as u64;
        // CIE: length 12, id 0, version 1, no augmentation, code align 1, data align -8, return register 16, nops.
        // FDE: length 20, CIE pointer 20, pc_begin, pc_range 1. Then the terminator.
        probe.0 = [12, u64::from_le_bytes([1, 0, 1, 0x78, 16, 0, 0, 0]), 20 | 20 << 32, here, 1, 0, 0, 0];
        probe
    }

    /// Registers two tables and looks whether the second one's bookkeeping links to another: only a list does that.
    ///
    /// A concurrent unwind can sort the first table away in between, so a few attempts are made; answering "no"
    /// wrongly costs speed, not correctness.
    pub(super) fn keeps_a_list() -> bool {
        (0..4).any(|_| {
            let (tables, mut objects) =
                ([probe(), probe()], [Box::new(Object([0; 16])), Box::new(Object([0; 16]))]);
            let begins = tables.each_ref().map(|table| (&raw const **table).cast::<u8>());
            let slots = objects.each_mut().map(|object| (&raw mut **object).cast::<u64>());
            let mut linked = false;
            // SAFETY: well-formed tables and zeroed bookkeeping of sufficient size, which outlive their registration
            // and are only read through the pointers given to libgcc until then.
            unsafe {
                __register_frame_info(begins[0], slots[0].cast());
                __register_frame_info(begins[1], slots[1].cast());
                for word in 0..16 {
                    linked |= slots[1].add(word).read_volatile() == slots[0].addr() as u64;
                }
                __deregister_frame_info(begins[1]);
                __deregister_frame_info(begins[0]);
            }
            linked
        })
    }
}
