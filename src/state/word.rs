//! The layout of the state word, and a snapshot of it with named fields.

use super::{Requested, Ticket};
use crate::id::{Bead, GENERATION_BITS, TierId};
use std::fmt;

/// A run of bits. Each field is derived from the one before it, so nothing can overlap.
#[derive(Clone, Copy)]
struct Field {
    shift: u32,
    bits: u32,
}

impl Field {
    const fn first(bits: u32) -> Field {
        Field { shift: 0, bits }
    }
    const fn then(self, bits: u32) -> Field {
        Field { shift: self.shift + self.bits, bits }
    }
    #[inline(always)]
    const fn max(self) -> u64 {
        (1 << self.bits) - 1
    }
    #[inline(always)]
    const fn get(self, word: u64) -> u64 {
        word >> self.shift & self.max()
    }
    #[inline(always)]
    const fn put(self, value: u64) -> u64 {
        (value & self.max()) << self.shift
    }
}

const TAG: Field = Field::first(GENERATION_BITS);
const VERSION: Field = TAG.then(31);
const TIER: Field = VERSION.then(4);
const TARGET: Field = TIER.then(4);
const HIGHEST: u64 = TierId::MAX.get() as u64;
/// How far the cap lies below the highest tier, so that zero means no cap.
const CAPPED_BY: Field = TARGET.then(4);
const PENDING: Field = CAPPED_BY.then(2);
const BLACKLISTED: Field = PENDING.then(1);
const PUBLISHING: Field = BLACKLISTED.then(1);
const LIVE: Field = PUBLISHING.then(1);
const SLOTTED: Field = LIVE.then(1);
const _: () = assert!(SLOTTED.shift + SLOTTED.bits == 64);

/// The last version; the word stays there.
pub(crate) const VERSION_MAX: u32 = VERSION.max() as u32;

/// The tag of an index whose generations are used up. No handle has it.
pub(crate) const RETIRED_TAG: u16 = TAG.max() as u16;

/// What a bead waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Pending {
    #[default]
    None,
    /// Asked for at `target`.
    Queued,
    /// A worker compiles it at `target`.
    Compiling,
    /// A worker compiles it, and `target` (higher) is asked for when that ends.
    Followed,
}

impl Pending {
    /// What is left when the compile in flight ends.
    pub(crate) fn without_compile(self) -> Pending {
        if self == Pending::Followed { Pending::Queued } else { Pending::None }
    }

    pub(super) fn from_bits(bits: u64) -> Pending {
        match bits {
            0 => Pending::None,
            1 => Pending::Queued,
            2 => Pending::Compiling,
            _ => Pending::Followed,
        }
    }
}

/// The state word as it was read, or as it is to be. `Default` is the all-zero word of an index never used.
///
/// A word and not a struct, so that a transition costs the bits it changes and not the unpacking and packing of all.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Snapshot(pub(super) u64);

/// A getter and a setter for each field.
macro_rules! fields {
    ($($field:ident: $get:ident, $set:ident, $type:ty, $from:expr, $into:expr;)*) => {
        impl Snapshot {
            $(
                #[inline(always)]
                pub(crate) fn $get(self) -> $type {
                    let from: fn(u64) -> $type = $from;
                    from($field.get(self.0))
                }

                #[inline(always)]
                pub(crate) fn $set(&mut self, value: $type) {
                    let into: fn($type) -> u64 = $into;
                    self.0 = self.0 & !$field.put($field.max()) | $field.put(into(value));
                }
            )*
        }

        impl fmt::Debug for Snapshot {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct("Snapshot")$(.field(stringify!($get), &self.$get()))*.finish()
            }
        }
    };
}

fields! {
    TAG: tag, set_tag, u16, |bits| bits as u16, u64::from;
    VERSION: version, set_version, u32, |bits| bits as u32, u64::from;
    TIER: tier, set_tier, TierId, TierId::from_low_bits, |tier| tier.get().into();
    TARGET: target, set_target, TierId, TierId::from_low_bits, |tier| tier.get().into();
    CAPPED_BY: cap, set_cap, TierId, |bits| TierId::from_low_bits(HIGHEST - bits), |cap| HIGHEST - u64::from(cap.get());
    PENDING: pending, set_pending, Pending, Pending::from_bits, |pending| pending as u64;
    BLACKLISTED: blacklisted, set_blacklisted, bool, |bit| bit != 0, u64::from;
    PUBLISHING: publishing, set_publishing, bool, |bit| bit != 0, u64::from;
    LIVE: live, set_live, bool, |bit| bit != 0, u64::from;
    SLOTTED: slotted, set_slotted, bool, |bit| bit != 0, u64::from;
}

impl Snapshot {
    /// Of a bead in its first generation of which nothing was asked yet.
    pub(crate) const UNTOUCHED: Snapshot = Snapshot(LIVE.put(1));

    /// With a change.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Snapshot)) -> Snapshot {
        change(&mut self);
        self
    }

    /// Makes it wait for a compile at that tier.
    pub(crate) fn queue_for(&mut self, tier: TierId) {
        self.set_pending(Pending::Queued);
        self.set_target(tier);
    }

    /// Whether this is the word of a live `bead`.
    #[inline]
    pub(crate) fn is(&self, bead: Bead) -> bool {
        self.live() && u64::from(self.tag()) == bead.tag()
    }

    pub(crate) fn is_claimed_by(&self, ticket: Ticket) -> bool {
        self.is(ticket.bead)
            && (self.version() == ticket.version || mutant!("s1-any-version"))
            && matches!(self.pending(), Pending::Compiling | Pending::Followed)
    }

    /// The highest tier allowed, if `target` lies above it.
    pub(crate) fn bars(&self, target: TierId) -> Option<TierId> {
        let cap = if self.blacklisted() {
            TierId::INTERPRETER
        } else if self.version() >= VERSION_MAX - 1 {
            self.tier().min(self.cap())
        } else {
            self.cap()
        };
        (target > cap).then_some(cap)
    }

    /// How a request for `target` would be refused now; see [`StateCell::request`](super::StateCell::request).
    pub(crate) fn refuses(&self, bead: Bead, target: TierId, anew: Option<u32>) -> Option<Requested> {
        if !self.is(bead) {
            return Some(Requested::Stale);
        }
        if let Some(cap) = self.bars(target) {
            return Some(Requested::Barred(cap));
        }
        let there = target < self.tier() || (target == self.tier() && anew != Some(self.version()));
        if there
            || (self.pending() != Pending::None && target <= self.target() && !mutant!("claim-asked-again"))
        {
            return Some(Requested::Already);
        }
        self.publishing().then_some(Requested::Busy)
    }

    /// The tier it has or waits for, the higher of them.
    pub(crate) fn wanted(&self) -> TierId {
        if self.pending() == Pending::None { self.tier() } else { self.tier().max(self.target()) }
    }

    /// A mark of the generation and version, for requests: tells whether a token speaks of what the bead waits for now. Two
    /// can be the same by chance 65,536 versions apart, which costs a request its rank.
    pub(crate) fn stamp(&self) -> u16 {
        (self.version() as u16).wrapping_add(self.tag().wrapping_mul(0x9E37))
    }

    pub(crate) fn raised_version(&self) -> u32 {
        (self.version() + 1).min(VERSION_MAX)
    }

    /// The version of code the VM installs now. One is left out where that ends a claim: it is the claim's, whose result may be
    /// listed under it as relying on something (edge ASSUME).
    pub(crate) fn version_for_vm(&self) -> u32 {
        let claimed =
            matches!(self.pending(), Pending::Compiling | Pending::Followed) && !mutant!("assume-vm-version");
        (self.version() + 1 + u32::from(claimed)).min(VERSION_MAX)
    }

    pub(crate) fn raise_version(&mut self) {
        self.set_version(self.raised_version());
    }

    /// The word of the index's next use, not live yet.
    pub(crate) fn next_generation(&self) -> Snapshot {
        Snapshot::default().with(|next| {
            next.set_tag((self.tag() + 1).min(RETIRED_TAG));
            next.set_slotted(self.slotted());
        })
    }
}
