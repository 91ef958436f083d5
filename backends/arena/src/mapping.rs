//! One stretch of address space for code, and the system calls behind it.
//!
//! **W^X.** No page is ever mapped writable and executable at once. A *dual* mapping has two views of the same
//! memory: `code`, which is executed and never writable, and `alias`, which is written and never executable. A
//! *private* mapping has one view whose pages are either writable or executable.
//!
//! **Invariants cited by the `SAFETY` comments here and in [`region`](crate::region)**
//! * M1: `code` (and `alias`, unless null) point to `len` bytes mapped by this value and unmapped only by it.
//! * M2: bytes are written only through [`Mapping::write`], by the holder of `&mut Mapping`, in a range that holds
//!   no live block: the region's free list handed it to the batch being placed, or just took it back.

use std::ops::Range;

/// Why a mapping call failed, sorted by what the caller can do about it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MapError {
    /// Executable memory is not allowed.
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no calls to fail"))]
    Denied { call: &'static str, errno: i32 },
    /// There is no room; a smaller mapping may fit.
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no calls to fail"))]
    NoSpace { call: &'static str, errno: i32 },
    /// The platform cannot do it at all.
    #[cfg_attr(any(target_os = "linux", target_os = "android"), expect(dead_code, reason = "it can"))]
    Unsupported(&'static str),
}

#[derive(Debug)]
pub(crate) struct Mapping {
    code: *mut u8,
    alias: *mut u8,
    len: usize,
    dual: bool,
}

// SAFETY: M1: the memory belongs to this value alone; it is written through `&mut` only.
unsafe impl Send for Mapping {}

impl Mapping {
    pub(crate) fn code(&self) -> *const u8 {
        self.code
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Mappings in the process's table that this one accounts for. A private one splits where used pages end.
    pub(crate) fn count(&self) -> usize {
        if self.dual && self.alias.is_null() { 1 } else { 2 }
    }

    /// Calls `fill` with the writable view of `range`.
    ///
    /// Answers `None` without a call when the range is not inside, or when the alias was given up.
    /// For a private mapping the pages of `range` must have been made writable (else the write faults).
    pub(crate) fn write<R>(&mut self, range: Range<usize>, fill: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let base = if self.dual { self.alias } else { self.code };
        if base.is_null() || range.start > range.end || range.end > self.len {
            return None;
        }
        // SAFETY: in bounds by the check above (M1); no other reference to these bytes exists while `&mut self` is
        // held, and no thread executes them because they belong to no live block (M2).
        Some(fill(unsafe { std::slice::from_raw_parts_mut(base.add(range.start), range.len()) }))
    }
}

#[cfg(unix)]
mod unix {
    use super::{MapError, Mapping};
    use std::ops::Range;
    use std::ptr;

    fn errno() -> i32 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }

    /// A call about executable memory failed: out of room, or forbidden?
    fn exec_error(call: &'static str) -> MapError {
        match errno() {
            errno @ (libc::ENOMEM | libc::EAGAIN) => MapError::NoSpace { call, errno },
            errno => MapError::Denied { call, errno },
        }
    }

    pub(crate) fn page_size() -> usize {
        // SAFETY: sysconf has no preconditions.
        usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
    }

    fn reserve(len: usize, protection: i32, sharing: i32) -> Result<*mut u8, MapError> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let sharing = sharing | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, sharing | libc::MAP_ANON, -1, 0) };
        if at == libc::MAP_FAILED {
            Err(MapError::NoSpace { call: "mmap", errno: errno() })
        } else {
            Ok(at.cast())
        }
    }

    impl Mapping {
        /// Shared anonymous memory with a writable and an executable view.
        ///
        /// The second view comes from `mremap` with old size 0, which duplicates a shared mapping: perf gives
        /// such memory (unlike a memfd) the names of its map file.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        pub(crate) fn dual(len: usize) -> Result<Self, MapError> {
            let alias = reserve(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)?;
            // From here on `mapping` unmaps on every way out.
            let mut mapping = Self { code: ptr::null_mut(), alias, len, dual: true };
            // SAFETY: `alias` is the start of our own shared mapping (M1); old size 0 leaves it where it is.
            let code = unsafe { libc::mremap(alias.cast(), 0, len, libc::MREMAP_MAYMOVE) };
            if code == libc::MAP_FAILED {
                return Err(exec_error("mremap"));
            }
            mapping.code = code.cast();
            // SAFETY: the whole of our own second view (M1).
            if unsafe { libc::mprotect(code, len, libc::PROT_READ | libc::PROT_EXEC) } != 0 {
                return Err(exec_error("mprotect"));
            }
            Ok(mapping)
        }

        /// Elsewhere a mapping cannot be duplicated.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        pub(crate) fn dual(_: usize) -> Result<Self, MapError> {
            Err(MapError::Unsupported("a second view of code memory (use Aliasing::Private)"))
        }

        /// Private memory without a second view; nothing is accessible until made writable.
        pub(crate) fn private(len: usize) -> Result<Self, MapError> {
            let code = reserve(len, libc::PROT_NONE, libc::MAP_PRIVATE)?;
            Ok(Self { code, alias: ptr::null_mut(), len, dual: false })
        }

        fn protect(&mut self, range: Range<usize>, protection: i32) -> Result<(), MapError> {
            debug_assert!(!self.dual && range.end <= self.len);
            // SAFETY: the range lies in our own mapping (M1) and holds no live block (M2): losing access harms nobody.
            let failed =
                unsafe { libc::mprotect(self.code.add(range.start).cast(), range.len(), protection) } != 0;
            if failed { Err(exec_error("mprotect")) } else { Ok(()) }
        }

        /// Makes pages of a private mapping writable and not executable.
        pub(crate) fn make_writable(&mut self, range: Range<usize>) -> Result<(), MapError> {
            self.protect(range, libc::PROT_READ | libc::PROT_WRITE)
        }

        /// Makes pages of a private mapping executable and not writable.
        pub(crate) fn make_executable(&mut self, range: Range<usize>) -> Result<(), MapError> {
            self.protect(range, libc::PROT_READ | libc::PROT_EXEC)
        }

        /// Makes whole pages of the executable view inaccessible. Where the system refuses, they stay as they are.
        pub(crate) fn deny(&mut self, range: Range<usize>) {
            if range.start <= range.end && range.end <= self.len {
                // SAFETY: in our own mapping (M1), and no live block lies in these pages (M2).
                unsafe { libc::mprotect(self.code.add(range.start).cast(), range.len(), libc::PROT_NONE) };
            }
        }

        /// Gives whole pages back to the kernel; they read as zeros afterwards. Answers whether it worked.
        pub(crate) fn discard(&mut self, range: Range<usize>) -> bool {
            let (base, advice) = if self.dual {
                #[cfg(any(target_os = "linux", target_os = "android"))]
                let advice = libc::MADV_REMOVE;
                #[cfg(not(any(target_os = "linux", target_os = "android")))]
                let advice = libc::MADV_DONTNEED;
                (self.alias, advice)
            } else {
                (self.code, libc::MADV_DONTNEED)
            };
            if base.is_null() || range.start > range.end || range.end > self.len {
                return false;
            }
            // SAFETY: in our own mapping (M1), and no live block lies in these pages (M2).
            unsafe { libc::madvise(base.add(range.start).cast(), range.len(), advice) == 0 }
        }

        /// Unmaps the writable view for good. One system call, no allocation: allowed in a fork handler.
        pub(crate) fn drop_alias(&mut self) {
            if !self.alias.is_null() {
                // SAFETY: our own view (M1), forgotten right here.
                unsafe { libc::munmap(self.alias.cast(), self.len) };
                self.alias = ptr::null_mut();
            }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            self.drop_alias();
            if !self.code.is_null() {
                // SAFETY: our own view (M1). The owner drops a mapping only when it holds no live block.
                unsafe { libc::munmap(self.code.cast(), self.len) };
            }
        }
    }
}

#[cfg(unix)]
pub(crate) use unix::page_size;

#[cfg(not(unix))]
pub(crate) fn page_size() -> usize {
    4096
}

/// Platforms without `mmap`: there is never a mapping, so the other operations are unreachable but defined.
#[cfg(not(unix))]
impl Mapping {
    pub(crate) fn dual(_: usize) -> Result<Self, MapError> {
        Err(MapError::Unsupported("executable memory"))
    }

    pub(crate) fn private(_: usize) -> Result<Self, MapError> {
        Err(MapError::Unsupported("executable memory"))
    }

    pub(crate) fn make_writable(&mut self, _: Range<usize>) -> Result<(), MapError> {
        Err(MapError::Unsupported("executable memory"))
    }

    pub(crate) fn make_executable(&mut self, _: Range<usize>) -> Result<(), MapError> {
        Err(MapError::Unsupported("executable memory"))
    }

    pub(crate) fn discard(&mut self, _: Range<usize>) -> bool {
        false
    }

    pub(crate) fn deny(&mut self, _: Range<usize>) {}

    pub(crate) fn drop_alias(&mut self) {}
}
