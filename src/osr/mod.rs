//! On-stack replacement: native entries for loops, by function and site.
//!
//! A *site* is the VM's own name for a loop of a function, any 64 bits. Code comes with a table from sites to entries,
//! which is published, replaced and retired together with it. Whether a loop is worth a compile is counted per site: a
//! loop that can not be entered does not hold back another one of the same function.

mod local;
mod loops;
mod tables;

pub(crate) use local::{Local, Spent};
pub use loops::ITERATIONS_PER_CALL;
pub(crate) use loops::{Loops, Standing};
pub(crate) use tables::{MAX_ENTRIES, Probe, Tables};

use crate::id::{Bead, GENERATION_BITS};

/// Where a bead's table lies: generation tag (15 bits), length (16), offset (32). Zero is "none", in every generation.
///
/// The tag makes the word prove by itself whose table it is, so that a probe needs to look at nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OsrWord(pub(crate) u64);

const LEN_SHIFT: u32 = 32;
const TAG_SHIFT: u32 = 48;
const _: () = assert!(TAG_SHIFT + GENERATION_BITS <= 64);

impl OsrWord {
    pub(crate) const NONE: OsrWord = OsrWord(0);

    /// `len` is at least 1.
    pub(crate) fn new(bead: Bead, offset: u32, len: u16) -> OsrWord {
        OsrWord(bead.tag() << TAG_SHIFT | u64::from(len) << LEN_SHIFT | u64::from(offset))
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub(crate) fn is_of(self, bead: Bead) -> bool {
        self.0 >> TAG_SHIFT == bead.tag()
    }

    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        (self.0 >> LEN_SHIFT) as u32 & 0xffff
    }

    #[inline(always)]
    pub(crate) fn offset(self) -> u32 {
        self.0 as u32
    }
}

/// A native entry into a loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OsrEntry {
    pub(crate) site: u64,
    pub(crate) entry: u64,
}
