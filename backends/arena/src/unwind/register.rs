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

/// A registered table. Dropping it deregisters it, then frees the image; see [`Registered::deregister`] for when that is too
/// early.
#[derive(Debug)]
pub(crate) struct Registered {
    image: Image,
    /// The unwinder's bookkeeping, where it lets us own it.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    object: *mut gnu::Object,
    #[cfg_attr(not(unix), expect(dead_code, reason = "nothing is registered"))]
    handle: *const u8,
    registered: bool,
}

// SAFETY: the unwinder locks for itself; the image is immutable.
unsafe impl Send for Registered {}

impl Registered {
    /// Registers `image`; `first` is the offset of its only record if the unwinder takes single records.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    pub(crate) fn new(image: Image, _first: u32) -> Self {
        // A raw pointer from here on: libgcc writes through it for as long as the table is registered.
        let (handle, object) = (image.as_ptr(), Box::into_raw(Box::new(gnu::Object::ZERO)));
        // SAFETY: a well-formed, terminated image (ImageBuilder), which lives and does not change until `deregister`, and
        // zeroed bookkeeping of sufficient size at an address of its own, which is left alone until then.
        unsafe {
            gnu::__register_frame_info(handle, object.cast());
        }
        Self { image, object, handle, registered: true }
    }

    /// Registers `image`; `first` is the offset of its only record if the unwinder takes single records.
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    pub(crate) fn new(image: Image, first: u32) -> Self {
        let handle = image.as_ptr().wrapping_add(first as usize);
        #[cfg(unix)]
        // SAFETY: a well-formed, terminated image (ImageBuilder), which lives and does not change until `deregister`.
        unsafe {
            __register_frame(handle);
        }
        Self { image, handle, registered: true }
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// Takes the table away from the unwinder, and keeps the memory.
    ///
    /// libgcc looks a table up under its lock, and goes on to read the table and its bookkeeping after it has given the lock up.
    /// So the memory of a table that described a live function must not be freed as soon as it is deregistered:
    /// another thread may be unwinding through that function.
    pub(crate) fn deregister(&mut self) {
        if !std::mem::replace(&mut self.registered, false) {
            return;
        }
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: registered in `new` with this very address, and by `registered` not deregistered yet.
        unsafe {
            gnu::__deregister_frame_info(self.handle);
        }
        #[cfg(all(unix, not(all(target_os = "linux", target_env = "gnu"))))]
        // SAFETY: as above.
        unsafe {
            __deregister_frame(self.handle);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.deregister();
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: made by `Box::into_raw` in `new`, freed only here, and libgcc has let go of it.
        drop(unsafe { Box::from_raw(self.object) });
    }
}

#[cfg(all(unix, not(all(target_os = "linux", target_env = "gnu"))))]
unsafe extern "C" {
    fn __register_frame(begin: *const u8);
    fn __deregister_frame(begin: *const u8);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod gnu {
    use std::ffi::c_void;

    unsafe extern "C" {
        pub(super) fn __register_frame_info(begin: *const u8, object: *mut c_void);
        pub(super) fn __deregister_frame_info(begin: *const u8) -> *mut c_void;
    }

    /// What libgcc needs to remember a table: eight words at most in every version. Zeroed, so a link is seen.
    #[derive(Debug)]
    #[repr(C, align(16))]
    pub(super) struct Object([u64; 16]);

    impl Object {
        pub(super) const ZERO: Object = Object([0; 16]);
    }

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
                ([probe(), probe()], [Box::new(Object::ZERO), Box::new(Object::ZERO)]);
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
