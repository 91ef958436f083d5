//! One region: a mapping, the blocks in it, and their unwind tables.
//!
//! A region is a row of 32-byte granules. Four bitmaps describe its blocks: `starts`, `ends` (first and last granule of
//! each), `joined` (blocks that belong to the one right before them and are freed with it) and `released` (blocks that only a
//! token names). Granules of no block are in the free list, except in a sealed region, which never hands out anything again, and in a private one, where the free list works in whole
//! page runs (*extents*), one per placement, that come back when their last block is freed.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::Aliasing;
use crate::alloc::FreeList;
use crate::bitmap::Bitmap;
use crate::builder::Config;
use crate::mapping::{MapError, Mapping, page_size};
use crate::unwind::Tables;

/// Bytes of a granule.
pub(crate) const GRANULE: u32 = 32;

/// Fills freed granules and padding: a trap where one byte can be one.
pub(crate) const POISON: u8 = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) { 0xCC } else { 0 };

/// What the region does to memory, counted for [`ArenaStats`](crate::ArenaStats).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub(crate) bytes_written: u64,
    pub(crate) protect_calls: u64,
    pub(crate) unwind_records: u64,
}

/// A run of granules handed to one placement in private mode.
#[derive(Debug)]
struct Extent {
    granules: u32,
    live: u32,
}

#[derive(Debug)]
pub(crate) struct Region {
    /// The first field: tables are deregistered before the memory they describe is unmapped.
    pub(crate) tables: Tables,
    mapping: Mapping,
    /// The token of granule 0; later granules count on.
    first_token: u32,
    granules: u32,
    free: FreeList,
    starts: Bitmap,
    ends: Bitmap,
    joined: Bitmap,
    released: Bitmap,
    live_blocks: u32,
    live_granules: u32,
    /// Pages written since they were last given back.
    touched: Bitmap,
    touched_pages: u32,
    extents: Option<BTreeMap<u32, Extent>>,
    sealed: bool,
    /// Freed pages become inaccessible and are not used again.
    poison_freed: bool,
}

impl Region {
    /// Maps `granules` granules (whole pages).
    pub(crate) fn new(first_token: u32, granules: u32, config: &Config) -> Result<Self, MapError> {
        let len = granules as usize * GRANULE as usize;
        let (mapping, extents) = match config.aliasing {
            Aliasing::DualMapped => (Mapping::dual(len)?, None),
            Aliasing::Private => (Mapping::private(len)?, Some(BTreeMap::new())),
        };
        let base = mapping.code().addr() as u64;
        Ok(Self {
            mapping,
            first_token,
            granules,
            free: FreeList::new(granules),
            starts: Bitmap::new(granules),
            ends: Bitmap::new(granules),
            joined: Bitmap::new(granules),
            released: Bitmap::new(granules),
            live_blocks: 0,
            live_granules: 0,
            touched: Bitmap::new(granules),
            touched_pages: 0,
            extents,
            tables: Tables::new(config.unwinder, base),
            sealed: false,
            poison_freed: config.poison_freed,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.mapping.len()
    }

    pub(crate) fn granules(&self) -> u32 {
        self.granules
    }

    pub(crate) fn mappings(&self) -> usize {
        self.mapping.count()
    }

    pub(crate) fn first_token(&self) -> u32 {
        self.first_token
    }

    pub(crate) fn live_blocks(&self) -> usize {
        self.live_blocks as usize
    }

    pub(crate) fn live_bytes(&self) -> usize {
        self.live_granules as usize * GRANULE as usize
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        self.touched_pages as usize * page_size()
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    pub(crate) fn is_private(&self) -> bool {
        self.extents.is_some()
    }

    /// Address of a granule in the executable view.
    pub(crate) fn address(&self, granule: u32) -> *const u8 {
        self.mapping.code().wrapping_add(granule as usize * GRANULE as usize)
    }

    /// Takes granules for blocks at an alignment in granules, to be set by [`occupy`](Self::occupy); `None` when nothing
    /// fits or the region is sealed. In private mode the granules must lie in an extent taken before, so this is not for it.
    pub(crate) fn take(&mut self, granules: u32, align: u32) -> Option<u32> {
        if self.sealed {
            return None;
        }
        let phase = self.mapping.code().addr() as u64 / u64::from(GRANULE);
        match self.poison_freed {
            false => self.free.take(granules, align, phase),
            true => {
                let page = page_granules();
                self.free.take(granules.checked_next_multiple_of(page)?, align.max(page), phase)
            }
        }
    }

    /// Private mode: takes whole pages for one placement; its blocks are then set by [`occupy`](Self::occupy).
    pub(crate) fn take_extent(&mut self, granules: u32, align: u32) -> Option<u32> {
        let page = page_granules();
        let granules = granules.checked_next_multiple_of(page)?;
        if self.sealed {
            return None;
        }
        let phase = self.mapping.code().addr() as u64 / u64::from(GRANULE);
        let start = self.free.take(granules, align.max(page), phase)?;
        self.extents.as_mut()?.insert(start, Extent { granules, live: 0 });
        Some(start)
    }

    /// Records a block on granules that were taken. A `joined` one belongs to the block that ends right before it.
    pub(crate) fn occupy(&mut self, start: u32, granules: u32, joined: bool) {
        self.starts.set(start);
        self.ends.set(start + granules - 1);
        if joined {
            self.joined.set(start);
        } else {
            self.live_blocks += 1;
        }
        self.live_granules += granules;
        if let Some((_, extent)) =
            self.extents.as_mut().and_then(|extents| extents.range_mut(..=start).next_back())
        {
            extent.live += 1;
        }
    }

    /// Whether a block starts at the granule.
    pub(crate) fn is_live(&self, granule: u32) -> bool {
        self.starts.get(granule)
    }

    /// Marks a live block as named by its token only; answers whether that is new.
    pub(crate) fn release(&mut self, granule: u32) -> bool {
        self.is_live(granule) && self.released.set(granule)
    }

    /// Undoes [`release`](Self::release); answers whether the block was released.
    pub(crate) fn reclaim(&mut self, granule: u32) -> bool {
        self.released.clear(granule)
    }

    /// The granules with those of the blocks joined to them.
    pub(crate) fn with_joined(&self, granules: &[u32]) -> Vec<u32> {
        let mut all = Vec::with_capacity(granules.len());
        for &granule in granules {
            let mut next = Some(granule);
            while let Some(start) = next {
                all.push(start);
                let after = self.ends.next_set(start).map(|end| end + 1);
                next = after.filter(|&after| self.joined.get(after));
            }
        }
        all
    }

    /// Frees blocks, and not those joined to them: forgets their unwind records first, then hands their granules out again.
    pub(crate) fn free(&mut self, granules: &[u32], work: &mut Work) -> usize {
        // T2: before any of these granules can be reused.
        self.tables.remove(granules);
        work.unwind_records += self.tables.take_written();
        granules.iter().map(|&granule| self.free_block(granule, work)).sum()
    }

    fn free_block(&mut self, start: u32, work: &mut Work) -> usize {
        if !self.starts.clear(start) {
            return 0;
        }
        self.released.clear(start);
        let end = self.ends.next_set(start).unwrap_or(start);
        self.ends.clear(end);
        let granules = end + 1 - start;
        self.live_blocks -= u32::from(!self.joined.clear(start));
        self.live_granules -= granules;
        let bytes = granules as usize * GRANULE as usize;
        if self.sealed {
            return bytes;
        }
        let Some(extents) = &mut self.extents else {
            if self.poison_freed {
                // Blocks that are joined share pages, and go together.
                let page = page_granules();
                let first = start / page * page;
                self.poison(first, (start + granules).next_multiple_of(page) - first);
                return bytes;
            }
            self.write(start, bytes, work, |code| code.fill(POISON));
            self.free.give(start, granules);
            return bytes;
        };
        if let Some((&first, extent)) = extents.range_mut(..=start).next_back() {
            extent.live -= 1;
            if extent.live == 0 {
                self.give_extent(first);
            }
        }
        bytes
    }

    /// Private mode: returns an extent without live blocks. Its pages stay as they are protected, which keeps the
    /// number of mappings flat, but lose their contents.
    pub(crate) fn give_extent(&mut self, first: u32) {
        if let Some(extent) = self.extents.as_mut().and_then(|extents| extents.remove(&first)) {
            if self.poison_freed {
                return self.poison(first, extent.granules);
            }
            self.discard(first, extent.granules);
            self.free.give(first, extent.granules);
        }
    }

    /// Makes whole pages inaccessible for good: they do not go back to the free list.
    fn poison(&mut self, start: u32, granules: u32) {
        self.discard(start, granules);
        let from = start as usize * GRANULE as usize;
        self.mapping.deny(from..from + granules as usize * GRANULE as usize);
    }

    /// The mapping of a region without live blocks, all of it inaccessible.
    pub(crate) fn into_grave(mut self) -> Mapping {
        self.mapping.deny(0..self.mapping.len());
        self.mapping.drop_alias();
        self.mapping
    }

    /// Calls `fill` with the writable view of `bytes` bytes from a granule on.
    pub(crate) fn write<R>(
        &mut self,
        granule: u32,
        bytes: usize,
        work: &mut Work,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        let from = granule as usize * GRANULE as usize;
        let pages = from / page_size()..(from + bytes).div_ceil(page_size());
        for page in pages {
            self.touched_pages += u32::from(self.touched.set(page as u32));
        }
        work.bytes_written += bytes as u64;
        self.mapping.write(from..from + bytes, fill)
    }

    /// Private mode: makes an extent writable.
    pub(crate) fn unprotect(&mut self, first: u32, work: &mut Work) -> Result<(), MapError> {
        work.protect_calls += 1;
        let range = self.extent_bytes(first);
        self.mapping.make_writable(range)
    }

    /// Private mode: makes an extent executable.
    pub(crate) fn protect(&mut self, first: u32, work: &mut Work) -> Result<(), MapError> {
        work.protect_calls += 1;
        let range = self.extent_bytes(first);
        self.mapping.make_executable(range)
    }

    fn extent_bytes(&self, first: u32) -> Range<usize> {
        let granules =
            self.extents.as_ref().and_then(|extents| extents.get(&first)).map_or(0, |extent| extent.granules);
        first as usize * GRANULE as usize..(first as usize + granules as usize) * GRANULE as usize
    }

    /// Where a block at `granule` is written and where it is executed, for cache maintenance.
    pub(crate) fn views(&mut self, granule: u32, bytes: usize) -> (*const u8, *const u8) {
        let from = granule as usize * GRANULE as usize;
        let written = self.mapping.write(from..from + bytes, |code| code.as_ptr());
        let executed = self.address(granule);
        (written.unwrap_or(executed), executed)
    }

    /// Gives all wholly free pages back. A sealed region is shared with another process and left alone.
    pub(crate) fn trim(&mut self) {
        if !self.sealed {
            let holes: Vec<(u32, u32)> = self.free.holes().collect();
            for (start, len) in holes {
                self.discard(start, len);
            }
        }
    }

    /// Gives back the touched pages that lie wholly inside free granules.
    fn discard(&mut self, start: u32, len: u32) {
        let page = page_granules();
        let (first, end) = (start.div_ceil(page), (start + len) / page);
        let Some(first) = self.touched.next_set(first).filter(|&first| first < end) else { return };
        let range = first as usize * page_size()..end as usize * page_size();
        if self.mapping.discard(range) {
            let mut next = Some(first);
            while let Some(at) = next.filter(|&at| at < end) {
                self.touched.clear(at);
                self.touched_pages -= 1;
                next = self.touched.next_set(at + 1);
            }
        }
    }

    /// After a fork the memory of a dual region belongs to two processes: never write it again.
    /// Only a flag and one system call, so it may run in a fork handler. Private memory is copied by the kernel.
    #[cfg(unix)]
    pub(crate) fn seal(&mut self) {
        if !self.is_private() {
            self.sealed = true;
            self.mapping.drop_alias();
        }
    }
}

/// Granules of a page.
pub(crate) fn page_granules() -> u32 {
    u32::try_from(page_size()).unwrap_or(4096) / GRANULE
}
