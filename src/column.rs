//! Columns: one array per property, indexed by bead, reserved once and never moved.
//!
//! # Invariants
//! * **C1 (capacity)** `len` is a power of two and the allocation holds `len` cells of `T` from `base` on, for as
//!   long as any clone of the column lives.
//! * **C2 (zero)** every cell was all-zero bytes when the column was made, and all-zero bytes are a valid `T`
//!   ([`Cell`] demands it).
//! * **C3 (masking)** an index is masked by `len - 1` before it is used, so that no handle, however forged, reaches
//!   outside.

use crate::sync::{Arc, Cell};

/// A fixed array of `T` whose cells keep their address. A clone names the same cells.
pub(crate) struct Column<T: Cell> {
    base: *const T,
    mask: u32,
    storage: Arc<Storage<T>>,
}

impl<T: Cell> Clone for Column<T> {
    fn clone(&self) -> Self {
        Column { base: self.base, mask: self.mask, storage: self.storage.clone() }
    }
}

// SAFETY: a column is a shared reference to cells that are `Sync` (`Cell` demands it) and that live as long as the
// reference count in `storage` (C1).
#[allow(unsafe_code)]
unsafe impl<T: Cell> Send for Column<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Cell> Sync for Column<T> {}

impl<T: Cell> Column<T> {
    /// Reserves address space for `len` cells, a power of two. No page is touched.
    pub(crate) fn reserve(len: u32) -> std::io::Result<Column<T>> {
        debug_assert!(len.is_power_of_two());
        let storage = Storage::new(len)?;
        Ok(Column { base: storage.base(), mask: len - 1, storage: Arc::new(storage) })
    }

    /// As [`reserve`](Column::reserve), for a column that every function uses: asks the system for huge pages, but for its
    /// beginning, so that a few functions do not take one.
    pub(crate) fn reserve_hot(len: u32) -> std::io::Result<Column<T>> {
        let column = Column::reserve(len)?;
        column.storage.prefer_huge_pages();
        Ok(column)
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) fn get(&self, index: u32) -> &T {
        // SAFETY: the masked index is below `len` (C3), the allocation holds that many cells and lives as long as
        // `self` (C1), and the cell is initialized (C2).
        unsafe { &*self.base.add((index & self.mask) as usize) }
    }

    /// The cell's number: the index without what the mask takes away.
    #[inline]
    pub(crate) fn masked(&self, index: u32) -> u32 {
        index & self.mask
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        self.storage.resident_bytes()
    }
}

/// Two columns of one length, for a look at both cells of an index: it is masked once, and nothing but the bases is loaded.
pub(crate) struct Pair<A: Cell, B: Cell> {
    bases: (*const A, *const B),
    mask: u32,
    columns: (Column<A>, Column<B>),
}

// SAFETY: as for `Column`.
#[allow(unsafe_code)]
unsafe impl<A: Cell, B: Cell> Send for Pair<A, B> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<A: Cell, B: Cell> Sync for Pair<A, B> {}

impl<A: Cell, B: Cell> Clone for Pair<A, B> {
    fn clone(&self) -> Self {
        Pair { bases: self.bases, mask: self.mask, columns: self.columns.clone() }
    }
}

impl<A: Cell, B: Cell> Pair<A, B> {
    /// The columns share the shorter one's indices.
    pub(crate) fn new(first: Column<A>, second: Column<B>) -> Pair<A, B> {
        debug_assert_eq!(first.mask, second.mask);
        let (bases, mask) = ((first.base, second.base), first.mask.min(second.mask));
        Pair { bases, mask, columns: (first, second) }
    }

    /// Where the first column's cells lie, and the mask of their indices.
    pub(crate) fn first_cells(&self) -> (*const A, u32) {
        (self.bases.0, self.mask)
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) fn first(&self, index: u32) -> &A {
        // SAFETY: as in `Column::get`; the mask is that of the shorter column.
        unsafe { &*self.bases.0.add((index & self.mask) as usize) }
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) fn second(&self, index: u32) -> &B {
        // SAFETY: as in `first`.
        unsafe { &*self.bases.1.add((index & self.mask) as usize) }
    }
}

#[cfg(not(beadwork_loom))]
use mapping::Storage;

#[cfg(not(beadwork_loom))]
mod mapping {
    use super::Cell;
    use memmap2::{MmapMut, MmapOptions};
    use std::marker::PhantomData;

    /// A private anonymous mapping: page aligned (so 64-byte aligned), zero, and not yet backed by memory.
    pub(super) struct Storage<T> {
        map: MmapMut,
        cells: PhantomData<T>,
    }

    impl<T: Cell> Storage<T> {
        pub(super) fn new(len: u32) -> std::io::Result<Storage<T>> {
            const { assert!(align_of::<T>() <= 64 && size_of::<T>() > 0) };
            // Without swap reservation the kernel accepts more address space than there is memory.
            let map = MmapOptions::new().len(len as usize * size_of::<T>()).no_reserve_swap().map_anon()?;
            Ok(Storage { map, cells: PhantomData })
        }

        pub(super) fn base(&self) -> *const T {
            self.map.as_ptr().cast()
        }

        /// Advice that a system may ignore, or not know.
        pub(super) fn prefer_huge_pages(&self) {
            /// The size of a huge page on x86-64, and on aarch64 with pages of 4 KiB.
            #[cfg(target_os = "linux")]
            const HUGE: usize = 2 << 20;
            #[cfg(target_os = "linux")]
            if let Some(rest) = self.map.len().checked_sub(HUGE).filter(|&rest| rest > 0) {
                let _ = self.map.advise_range(memmap2::Advice::HugePage, HUGE, rest);
            }
        }

        #[cfg(unix)]
        #[allow(unsafe_code)]
        pub(super) fn resident_bytes(&self) -> usize {
            // SAFETY: `sysconf` only reads a constant of the system.
            let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
            let mut pages = vec![0u8; self.map.len().div_ceil(page)];
            // SAFETY: the range is exactly the mapping, which lives as long as `self` (C1), and `pages` has one
            // byte for each page of it.
            let failed = unsafe {
                libc::mincore(self.map.as_ptr().cast_mut().cast(), self.map.len(), pages.as_mut_ptr().cast())
            };
            if failed != 0 { 0 } else { pages.iter().filter(|&&byte| byte & 1 == 1).count() * page }
        }

        #[cfg(not(unix))]
        pub(super) fn resident_bytes(&self) -> usize {
            0
        }
    }
}

#[cfg(beadwork_loom)]
struct Storage<T>(Box<[T]>);

#[cfg(beadwork_loom)]
impl<T: Cell> Storage<T> {
    fn new(len: u32) -> std::io::Result<Storage<T>> {
        Ok(Storage((0..len).map(|_| T::default()).collect()))
    }

    fn base(&self) -> *const T {
        self.0.as_ptr()
    }

    fn prefer_huge_pages(&self) {}

    fn resident_bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    #[test]
    fn cells_start_zero_aligned_and_keep_their_address() {
        let column = Column::<AtomicU64>::reserve(1 << 20).unwrap();
        let cell = column.get(7) as *const AtomicU64;
        assert_eq!(column.get(7).load(Relaxed), 0);
        assert_eq!(column.get(0) as *const AtomicU64 as usize % 64, 0);
        column.clone().get(7).store(5, Relaxed);
        assert_eq!(column.get(7).load(Relaxed), 5);
        assert_eq!(column.get(7) as *const AtomicU64, cell);
    }

    #[test]
    fn an_index_outside_is_masked_and_never_reaches_outside() {
        let column = Column::<AtomicU64>::reserve(16).unwrap();
        column.get(u32::MAX).store(9, Relaxed);
        assert_eq!(column.get(15).load(Relaxed), 9);
    }

    #[test]
    fn a_reservation_touches_no_memory() {
        let column = Column::<AtomicU64>::reserve(1 << 24).unwrap();
        assert_eq!(column.resident_bytes(), 0);
        column.get(0).store(1, Relaxed);
        assert!(column.resident_bytes() >= 8);
    }
}
