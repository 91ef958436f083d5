//! The code cache: what a hit does not do. An allocator that counts is the whole process's, so this has a process of its own.
#![allow(unsafe_code)]

mod common;
use beadwork::resident::*;
use common::cache::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all of it is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn c1_hits_allocate_nothing_whether_a_thread_used_the_key_lately_or_not() {
    let seen = Seen::default();
    let cache = inline_cache(&seen);
    let mut m = cache.mutator();
    (0..2_000).for_each(|key| make_hot(&cache, &m, key));
    let sources: Vec<_> = (0..2_000).map(source).collect();
    let mut hits = |keys: std::ops::Range<usize>| {
        for key in keys {
            assert!(matches!(m.lookup(&(key as Key), &sources[key]), Lookup::Compiled { .. }));
            assert!(m.get(&(key as Key)).is_some() && m.get_tracked(&(key as Key)).is_some());
            m.safepoint();
        }
    };
    hits(0..2_000);
    let before = ALLOCATIONS.get();
    (0..20).for_each(|_| hits(0..2_000));
    (0..10_000).for_each(|_| hits(7..8));
    assert_eq!(ALLOCATIONS.get(), before);
}
