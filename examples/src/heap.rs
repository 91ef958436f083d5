//! Arrays. This is the one description of their layout; interpreter and native code both rely on it.
//!
//! An array is an address with 8-byte alignment of `1 + length` words of 8 bytes:
//!
//! | offset | content |
//! |---|---|
//! | [`LENGTH_OFFSET`] = 0 | the length in elements, an `i64` that is never negative |
//! | [`DATA_OFFSET`] = 8 | the elements: ints, the bits of floats, bools as 0 or 1, or addresses of arrays |
//!
//! Invariants:
//! * **HEAP-LIVE**: the address of an array is valid until the run that made it ends. Nothing is freed before, and no address
//!   outlives the run: arrays can't be printed or returned to the host.
//! * **HEAP-FIXED**: an array never moves and its length never changes.
//! * **HEAP-TYPED**: a word the program uses as an array is the address of an array of that element type. The checker
//!   guarantees it, as arrays come from `array(…)` only and there are no conversions from or to arrays.
//! * **HEAP-ONE-THREAD**: the arrays of a run are used by the thread that runs it only.
#![allow(unsafe_code, reason = "arrays are addresses, so that native code can use them without a call")]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ptr;

use crate::error::Trap;

/// Where the length is, in bytes from the address.
pub const LENGTH_OFFSET: i32 = 0;
/// Where the elements begin, in bytes from the address.
pub const DATA_OFFSET: i32 = 8;
/// What an array counts against the limit beyond its elements: header and bookkeeping, in bytes.
const OVERHEAD: u64 = 32;

/// The arrays of one run; freed when it is cleared or dropped.
#[derive(Debug)]
pub struct Heap {
    arrays: Vec<(*mut u64, Layout)>,
    used: u64,
    limit: u64,
}

// SAFETY: the pointers own their allocations exclusively, so the heap may move to another thread like a `Vec<Box<[u64]>>`.
unsafe impl Send for Heap {}

impl Heap {
    /// An empty heap for at most `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { arrays: Vec::new(), used: 0, limit }
    }

    /// Bytes counted against the limit now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// A new array of `length` times `init`; answers its address. Costs time proportional to the length.
    ///
    /// # Errors
    /// [`Trap::NegativeLength`], or [`Trap::OutOfMemory`] if the limit or the host's memory is used up.
    pub fn alloc(&mut self, length: i64, init: u64) -> Result<u64, Trap> {
        let Ok(words) = u64::try_from(length) else { return Err(Trap::NegativeLength(length)) };
        let out_of_memory = Trap::OutOfMemory { length, limit: self.limit };
        let used =
            words.checked_mul(8).and_then(|b| b.checked_add(OVERHEAD)).and_then(|b| b.checked_add(self.used));
        let (Some(used), Ok(count)) = (used, usize::try_from(words)) else { return Err(out_of_memory) };
        let Some(layout) = count.checked_add(1).and_then(|n| Layout::array::<u64>(n).ok()) else {
            return Err(out_of_memory);
        };
        if used > self.limit || self.arrays.try_reserve(1).is_err() {
            return Err(out_of_memory);
        }
        // SAFETY: the layout has at least one word. The words written are inside of it.
        let array = unsafe {
            let array = if init == 0 { alloc_zeroed(layout) } else { alloc(layout) }.cast::<u64>();
            if array.is_null() {
                return Err(out_of_memory);
            }
            array.write(words);
            if init != 0 {
                for i in 1..=count {
                    array.add(i).write(init);
                }
            }
            array
        };
        self.arrays.push((array, layout));
        self.used = used;
        Ok(array.expose_provenance() as u64)
    }

    /// Frees all arrays: the end of a run.
    pub fn clear(&mut self) {
        for (array, layout) in self.arrays.drain(..) {
            // SAFETY: allocated with this layout in `alloc`; removed from the list, so freed once.
            unsafe { dealloc(array.cast(), layout) };
        }
        self.used = 0;
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        self.clear();
    }
}

#[inline(always)]
fn pointer(array: u64) -> *mut u64 {
    ptr::with_exposed_provenance_mut(array as usize)
}

/// The length of an array.
///
/// # Safety
/// `array` is the address of a live array (HEAP-LIVE, HEAP-TYPED).
#[inline(always)]
#[must_use]
pub unsafe fn length(array: u64) -> u64 {
    // SAFETY: the first word of a live array is its length.
    unsafe { *pointer(array) }
}

/// The element at `index`, or the length of the array if that is outside.
///
/// # Safety
/// As for [`length`].
#[inline(always)]
pub unsafe fn load(array: u64, index: u64) -> Result<u64, u64> {
    // SAFETY: the caller's; element `index` is inside because it is below the length.
    unsafe {
        let length = length(array);
        if index < length { Ok(*pointer(array).add(1 + index as usize)) } else { Err(length) }
    }
}

/// Sets the element at `index`, or answers the length of the array if that is outside.
///
/// # Safety
/// As for [`length`], and `value` has the element type (HEAP-TYPED).
#[inline(always)]
pub unsafe fn store(array: u64, index: u64, value: u64) -> Result<(), u64> {
    // SAFETY: the caller's; element `index` is inside because it is below the length. HEAP-ONE-THREAD excludes races.
    unsafe {
        let length = length(array);
        if index >= length {
            return Err(length);
        }
        *pointer(array).add(1 + index as usize) = value;
        Ok(())
    }
}
