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

/// Where a bead's table lies, and how it is searched: generation tag (15 bits), a flag that there is one (1), mask (10), shift (6),
/// offset (32). Zero is "none", in every generation.
///
/// The tag makes the word prove by itself whose table it is, so that a probe needs to look at nothing else. The entry of a site, if
/// it has one, is in the one cell its [`slot`](OsrWord::slot) says: the table was made so that no two share one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OsrWord(pub(crate) u64);

const SHIFT_SHIFT: u32 = 32;
const MASK_SHIFT: u32 = 38;
const THERE_SHIFT: u32 = 48;
const TAG_SHIFT: u32 = 49;
const _: () = assert!(TAG_SHIFT + GENERATION_BITS == 64);

/// The mask of a table that is searched by order instead; its shift is the logarithm of its length.
const SORTED: u32 = (1 << (THERE_SHIFT - MASK_SHIFT)) - 1;

/// How a table is searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// By the bits of a site's hash from `shift` on, as many as `mask` has.
    Hashed { mask: u32, shift: u32 },
    /// In the order of sites.
    Sorted { class: u32 },
}

impl Shape {
    /// The logarithm of the number of cells.
    pub(crate) fn class(self) -> u32 {
        match self {
            Shape::Hashed { mask, .. } => mask.count_ones(),
            Shape::Sorted { class } => class,
        }
    }
}

/// Spreads what tells sites apart over all bits but the lowest: Fibonacci hashing (Knuth, The Art of Computer Programming,
/// volume 3, 6.4).
fn hash(site: u64) -> u64 {
    site.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl OsrWord {
    pub(crate) const NONE: OsrWord = OsrWord(0);

    pub(crate) fn new(bead: Bead, offset: u32, shape: Shape) -> OsrWord {
        let (mask, shift) = match shape {
            Shape::Hashed { mask, shift } => (mask, shift),
            Shape::Sorted { class } => (SORTED, class),
        };
        let shape = u64::from(mask) << MASK_SHIFT | u64::from(shift) << SHIFT_SHIFT;
        OsrWord(bead.tag() << TAG_SHIFT | 1 << THERE_SHIFT | shape | u64::from(offset))
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub(crate) fn is_of(self, bead: Bead) -> bool {
        self.0 >> THERE_SHIFT == bead.tag() << 1 | 1
    }

    #[inline(always)]
    fn mask(self) -> u32 {
        (self.0 >> MASK_SHIFT) as u32 & SORTED
    }

    #[inline(always)]
    fn shift(self) -> u32 {
        (self.0 >> SHIFT_SHIFT) as u32 & 63
    }

    #[inline(always)]
    pub(crate) fn is_sorted(self) -> bool {
        self.mask() == SORTED
    }

    /// The only cell of a hashed table, from its first on, in which a site can be.
    #[inline(always)]
    pub(crate) fn slot(self, site: u64) -> u32 {
        (hash(site) >> self.shift()) as u32 & self.mask()
    }

    pub(crate) fn shape(self) -> Shape {
        match self.is_sorted() {
            true => Shape::Sorted { class: self.shift() },
            false => Shape::Hashed { mask: self.mask(), shift: self.shift() },
        }
    }

    /// Its cells.
    pub(crate) fn run(self) -> std::ops::Range<u32> {
        self.offset()..self.offset() + (1 << self.shape().class())
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
