//! Profiles: what native code counts of itself, block by block and call site by call site, for the next tier to read.
//!
//! Counters are runs of cells in one column, so that code can embed their addresses; a function has no heap object for
//! them. Counting is a plain load, addition and store, in native code and here: threads can lose a count to each other,
//! which a profile does not mind.

mod cells;
mod read;
mod records;

pub use read::{CallProfile, Profile};
pub(crate) use records::{Profiles, Which, count_target};

use crate::id::Bead;

/// Callees one call site's record tells apart; calls of further ones are only counted. HotSpot's records hold 2
/// (`TypeProfileWidth`), V8's inline caches 4 (`max_valid_polymorphic_map_count`), and inlining more does not pay.
pub const CALL_TARGETS: usize = 4;

/// Cells of one call site: target and count in turn, then the count of all others.
const SITE_CELLS: u32 = 2 * CALL_TARGETS as u32 + 1;

/// A run of cells: blocks or call sites of one function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// The first cell.
    offset: u32,
    /// Cells in use.
    len: u32,
    /// The run is 2 to the power of this cells long.
    class: u8,
}

impl Run {
    /// The number of the first cell.
    pub(crate) fn first(self) -> u32 {
        self.offset
    }

    /// The cells in use.
    fn cells(self) -> std::ops::Range<u32> {
        self.offset..self.offset + self.len
    }
}

/// The counters of a function's basic blocks, for the native code of a [`Job`](crate::Job) to raise by itself.
///
/// A counter is 64 bits, 8-byte aligned, and zero at first; native code loads, adds and stores it. The addresses are
/// constant as long as the code of the job exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockCounters {
    pub(crate) addr: usize,
    pub(crate) len: u32,
}

impl BlockCounters {
    /// How many counters there are.
    pub fn len(self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The address of a block's counter; `None` behind the last one.
    pub fn addr(self, block: u32) -> Option<usize> {
        (block < self.len).then(|| self.addr + block as usize * size_of::<u64>())
    }
}

/// The records of a function's call sites, for the native code of a [`Job`](crate::Job).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallSites {
    pub(crate) first: u32,
    pub(crate) len: u32,
}

impl CallSites {
    /// How many sites there are.
    pub fn len(self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// One site's record; `None` behind the last one.
    pub fn site(self, number: u32) -> Option<CallSite> {
        (number < self.len).then(|| CallSite(self.first + number * SITE_CELLS))
    }
}

/// The record of one call site, as native code passes it to the VM's runtime and that to
/// [`Mutator::native_target`](crate::Mutator::native_target). Good as long as the code it was made for exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallSite(pub(crate) u32);

impl CallSite {
    /// The record as a number, to be embedded in code.
    pub fn to_bits(self) -> u32 {
        self.0
    }

    /// The inverse of [`to_bits`](CallSite::to_bits). Untrusted: a number that is no site's spoils counts of some profile, and
    /// nothing else.
    pub fn from_bits(bits: u32) -> CallSite {
        CallSite(bits)
    }
}

/// What the cell of a target holds for a callee: its bits, which are never 0.
fn target(bits: u64) -> Option<Bead> {
    Bead::from_bits(bits)
}
