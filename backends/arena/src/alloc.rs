//! Free space of one region: best fit in granules, coalescing, O(log holes) per operation.
//!
//! The untouched tail is a hole like any other. Being the largest, best fit takes it last, so freed space is
//! reused exactly before the region grows into fresh pages.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(crate) struct FreeList {
    by_start: BTreeMap<u32, u32>,
    /// The same holes as (length, start). Invariant: one entry for each of `by_start`.
    by_len: BTreeSet<(u32, u32)>,
}

impl FreeList {
    /// One hole of `len` granules.
    pub(crate) fn new(len: u32) -> Self {
        let mut list = Self { by_start: BTreeMap::new(), by_len: BTreeSet::new() };
        list.insert(0, len);
        list
    }

    /// Takes `len` granules from the smallest hole that fits, at a start where `start + phase` is a multiple of
    /// `align` (all in granules; `align` is a power of two and `phase` the place of granule 0 in the address space).
    pub(crate) fn take(&mut self, len: u32, align: u32, phase: u64) -> Option<u32> {
        let pad = |start: u32| {
            let align = u64::from(align.max(1));
            (u64::from(start) + phase).next_multiple_of(align) - (u64::from(start) + phase)
        };
        let fits = |&(hole, start): &(u32, u32)| u64::from(hole) >= pad(start) + u64::from(len);
        // The smallest hole may be misaligned; a hole with room for any padding cannot be.
        let roomy = len.checked_add(align.max(1) - 1)?;
        let best = self.by_len.range((len, 0)..).next().copied().filter(fits);
        let (hole, start) = best.or_else(|| self.by_len.range((roomy, 0)..).next().copied())?;
        let at = start + u32::try_from(pad(start)).ok()?;
        self.remove(start, hole);
        self.insert(start, at - start);
        self.insert(at + len, start + hole - (at + len));
        Some(at)
    }

    /// Gives granules back and answers the hole they are part of now.
    pub(crate) fn give(&mut self, start: u32, len: u32) -> (u32, u32) {
        let (mut first, mut total) = (start, len);
        if let Some((&before, &before_len)) = self.by_start.range(..start).next_back()
            && before + before_len == start
        {
            self.remove(before, before_len);
            first = before;
            total += before_len;
        }
        if let Some(&after_len) = self.by_start.get(&(start + len)) {
            self.remove(start + len, after_len);
            total += after_len;
        }
        self.insert(first, total);
        (first, total)
    }

    /// All holes as (start, length), ascending.
    pub(crate) fn holes(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.by_start.iter().map(|(&start, &len)| (start, len))
    }

    fn insert(&mut self, start: u32, len: u32) {
        if len > 0 {
            self.by_start.insert(start, len);
            self.by_len.insert((len, start));
        }
    }

    fn remove(&mut self, start: u32, len: u32) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }
}

#[cfg(test)]
mod tests {
    use super::FreeList;

    #[test]
    fn a_freed_hole_is_reused_exactly() {
        let mut list = FreeList::new(100);
        let blocks: Vec<u32> = (0..10).filter_map(|_| list.take(5, 1, 0)).collect();
        assert_eq!(blocks, (0..10).map(|i| i * 5).collect::<Vec<_>>());
        list.give(20, 5);
        list.give(35, 5);
        assert_eq!(list.take(5, 1, 0), Some(20));
        assert_eq!(list.take(4, 1, 0), Some(35));
        assert_eq!(list.take(1, 1, 0), Some(39));
        assert_eq!(list.take(1, 1, 0), Some(50));
    }

    #[test]
    fn neighbours_coalesce_on_both_sides() {
        let mut list = FreeList::new(30);
        assert_eq!(
            [list.take(10, 1, 0), list.take(10, 1, 0), list.take(10, 1, 0)],
            [Some(0), Some(10), Some(20)]
        );
        assert_eq!(list.take(1, 1, 0), None);
        assert_eq!(list.give(0, 10), (0, 10));
        assert_eq!(list.give(20, 10), (20, 10));
        assert_eq!(list.give(10, 10), (0, 30));
        assert_eq!(list.holes().collect::<Vec<_>>(), [(0, 30)]);
    }

    #[test]
    fn alignment_counts_from_the_address_not_the_region() {
        for phase in [0, 1, 3, 7] {
            let mut list = FreeList::new(64);
            assert_eq!(list.take(1, 1, phase), Some(0));
            let at = list.take(8, 8, phase).expect("there is room");
            assert_eq!((u64::from(at) + phase) % 8, 0);
        }
    }

    #[test]
    fn random_use_never_overlaps_and_ends_as_one_hole() {
        let mut list = FreeList::new(512);
        let mut owner = vec![0u32; 512];
        let mut live: Vec<(u32, u32)> = Vec::new();
        let mut random = 12_345u32;
        for round in 1..20_000u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (len, align) = (1 + (random >> 8) % 13, 1 << ((random >> 16) % 4));
            if random >> 31 == 0 {
                if let Some(at) = list.take(len, align, 0) {
                    assert_eq!(at % align, 0);
                    for cell in &mut owner[at as usize..(at + len) as usize] {
                        assert_eq!(std::mem::replace(cell, round), 0);
                    }
                    live.push((at, len));
                }
            } else if !live.is_empty() {
                let (at, len) = live.swap_remove(random as usize % live.len());
                owner[at as usize..(at + len) as usize].fill(0);
                list.give(at, len);
            }
        }
        for (at, len) in live {
            list.give(at, len);
        }
        assert_eq!(list.holes().collect::<Vec<_>>(), [(0, 512)]);
    }
}
