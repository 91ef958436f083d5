//! The limit: an array of code pointers and an array of counters, and nobody to fill them.
#![allow(unsafe_code, reason = "the limit checks no bounds")]

use super::{Contender, Setup, Who};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

struct Columns {
    code: Box<[AtomicUsize]>,
    counts: Box<[AtomicU32]>,
    cores: Box<[AtomicUsize]>,
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

fn words(n: usize) -> Box<[AtomicUsize]> {
    // Zeroed memory from the system, not touched yet.
    let words = Box::into_raw(vec![0usize; n].into_boxed_slice());
    // SAFETY: `AtomicUsize` has the size, alignment and bit validity of `usize`.
    unsafe { Box::from_raw(words as *mut [AtomicUsize]) }
}

fn counters(n: usize) -> Box<[AtomicU32]> {
    let counters = Box::into_raw(vec![0u32; n].into_boxed_slice());
    // SAFETY: `AtomicU32` has the size, alignment and bit validity of `u32`.
    unsafe { Box::from_raw(counters as *mut [AtomicU32]) }
}

impl Contender for Raw {
    const WHO: Who = Who::Raw;
    /// A place in the arrays; below their length, since only `register` makes one.
    type Handle = Place;
    type Mutator = RawMutator;

    fn new(setup: &Setup) -> Raw {
        let n = setup.functions;
        Raw {
            columns: Arc::new(Columns { code: words(n), counts: counters(n), cores: words(n) }),
            used: AtomicUsize::new(0),
        }
    }

    fn register(&self, core: usize) -> Place {
        let place = self.used.fetch_add(1, Relaxed);
        self.columns.code[place].store(0, Relaxed);
        self.columns.cores[place].store(core + 1, Relaxed);
        Place(place)
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
