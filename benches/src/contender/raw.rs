//! The limit: an array of code pointers and an array of counters, and nobody to fill them. In memory of the kind beadwork's columns
//! have: from the system, not touched yet, huge pages asked for.
#![allow(unsafe_code, reason = "the limit checks no bounds")]

use super::{Contender, Setup, Who};
use memmap2::{Advice, MmapMut};
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

struct Columns {
    code: Array<AtomicUsize>,
    counts: Array<AtomicU32>,
    cores: Array<AtomicUsize>,
}

/// Cells of zeros.
struct Array<T> {
    map: MmapMut,
    cells: PhantomData<T>,
}

impl<T> Array<T> {
    fn new(n: usize) -> Array<T> {
        /// As a column: its beginning keeps small pages.
        const SMALL: usize = 2 << 20;
        let map = MmapMut::map_anon(n.max(1) * size_of::<T>()).expect("there is memory");
        if let Some(rest) = map.len().checked_sub(SMALL).filter(|&rest| rest > 0) {
            // Advice only.
            let _ = map.advise_range(Advice::HugePage, SMALL, rest);
        }
        Array { map, cells: PhantomData }
    }
}

impl<T> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds that many cells and is aligned to pages. It is only used for atomics, to which zeros are valid.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.map.len() / size_of::<T>()) }
    }
}

/// Plain atomics.
pub struct Raw {
    columns: Arc<Columns>,
    used: AtomicUsize,
}

/// The arrays, with their addresses at hand.
pub struct RawMutator {
    code: *const AtomicUsize,
    counts: *const AtomicU32,
    _columns: Arc<Columns>,
}

// SAFETY: the pointers lead into `_columns`, whose cells are atomics.
unsafe impl Send for RawMutator {}

impl Contender for Raw {
    const WHO: Who = Who::Raw;
    /// A place in the arrays; below their length, since only `register` makes one.
    type Handle = Place;
    type Mutator = RawMutator;

    fn new(setup: &Setup) -> Raw {
        let n = setup.functions;
        Raw {
            columns: Arc::new(Columns { code: Array::new(n), counts: Array::new(n), cores: Array::new(n) }),
            used: AtomicUsize::new(0),
        }
    }

    fn register(&self, core: usize) -> Place {
        let place = self.used.fetch_add(1, Relaxed);
        self.columns.cores[place].store(core + 1, Relaxed);
        Place(place)
    }

    fn register_many(&self, cores: Range<usize>, into: &mut Vec<Place>) {
        let first = self.used.fetch_add(cores.len(), Relaxed);
        into.extend(cores.zip(first..).map(|(core, place)| {
            self.columns.cores[place].store(core + 1, Relaxed);
            Place(place)
        }));
    }

    fn install(&self, handle: &Place, entry: *const u8) {
        self.columns.code[handle.0].store(entry.expose_provenance(), Release);
    }

    fn remove(&self, handle: Place) {
        self.columns.code[handle.0].store(0, Release);
    }

    fn mutator(&self) -> RawMutator {
        RawMutator {
            code: self.columns.code.as_ptr(),
            counts: self.columns.counts.as_ptr(),
            _columns: self.columns.clone(),
        }
    }

    #[inline(always)]
    fn dispatch(m: &RawMutator, handle: &Place) -> Option<*const u8> {
        // SAFETY: see `Handle`.
        let code = unsafe { &*m.code.add(handle.0) }.load(Acquire);
        Some(std::ptr::with_exposed_provenance(code))
    }

    #[inline(always)]
    fn count(m: &RawMutator, handle: &Place) -> bool {
        // SAFETY: see `Handle`.
        let count = unsafe { &*m.counts.add(handle.0) };
        count.store(count.load(Relaxed) + 1, Relaxed);
        true
    }
}

/// A place in the arrays, as wide as the pointer a VM would keep.
#[derive(Clone, Copy)]
pub struct Place(usize);
