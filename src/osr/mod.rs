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

/// Where a bead's table lies, and how it is searched: mask (10 bits), generation (16), shift (6), offset (32). Zero is "none", since
/// generations count from 1.
///
/// The generation makes the word prove by itself whose table it is, so that a probe needs to look at nothing else. The entry of a
/// site, if it has one, is in the one cell its [`first_look`](OsrWord::first_look) says: the table was made so that no two share one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OsrWord(pub(crate) u64);

const SHIFT_SHIFT: u32 = 32;
const GENERATION_SHIFT: u32 = 38;
const MASK_SHIFT: u32 = 54;
const _: () = assert!(GENERATION_BITS <= u16::BITS && GENERATION_SHIFT + u16::BITS == MASK_SHIFT);

/// A table that is searched by order has no mask, and the logarithm of its length for a shift, which lacks the highest bit. So a probe
/// finds the first of its sites where it looks first. A hashed table of one cell has the greatest shift.
const HASHED: u64 = !0 << MASK_SHIFT | 32 << SHIFT_SHIFT;

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
            Shape::Sorted { class } => (0, class),
        };
        let shape = u64::from(mask) << MASK_SHIFT | u64::from(shift) << SHIFT_SHIFT;
        OsrWord(u64::from(bead.generation().get()) << GENERATION_SHIFT | shape | u64::from(offset))
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub(crate) fn is_of(self, bead: Bead) -> bool {
        // No generation has more bits.
        (self.0 >> GENERATION_SHIFT) as u16 == bead.generation().get() as u16
    }

    #[inline(always)]
    fn mask(self) -> u32 {
        (self.0 >> MASK_SHIFT) as u32
    }

    #[inline(always)]
    fn shift(self) -> u32 {
        (self.0 >> SHIFT_SHIFT) as u32 & 63
    }

    #[inline(always)]
    pub(crate) fn is_sorted(self) -> bool {
        self.0 & HASHED == 0
    }

    /// The only cell of a hashed table in which a site can be; the first one of a sorted table.
    #[inline(always)]
    pub(crate) fn first_look(self, site: u64) -> u32 {
        self.offset().wrapping_add((hash(site) >> self.shift()) as u32 & self.mask())
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
