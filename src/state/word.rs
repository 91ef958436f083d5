//! The layout of the state word, and a snapshot of it with named fields.

use super::{Requested, Ticket};
use crate::id::{Bead, GENERATION_BITS, TierId};

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
    const fn max(self) -> u64 {
        (1 << self.bits) - 1
    }
    const fn get(self, word: u64) -> u64 {
        word >> self.shift & self.max()
    }
    const fn is_set(self, word: u64) -> bool {
        self.get(word) != 0
    }
    const fn put(self, value: u64) -> u64 {
        (value & self.max()) << self.shift
    }
}

const TAG: Field = Field::first(GENERATION_BITS);
const VERSION: Field = TAG.then(31);
const TIER: Field = VERSION.then(4);
const TARGET: Field = TIER.then(4);
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

    const fn from_bits(bits: u64) -> Pending {
        match bits {
            0 => Pending::None,
            1 => Pending::Queued,
            2 => Pending::Compiling,
            _ => Pending::Followed,
        }
    }
}

/// The state word with its fields apart. `Default` is the all-zero word of an index never used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    pub(crate) tag: u16,
    pub(crate) version: u32,
    pub(crate) tier: TierId,
    pub(crate) target: TierId,
    pub(crate) cap: TierId,
    pub(crate) pending: Pending,
    pub(crate) blacklisted: bool,
    pub(crate) publishing: bool,
    pub(crate) live: bool,
    pub(crate) slotted: bool,
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot::unpack(0)
    }
}

impl Snapshot {
    /// Of a bead in its first generation of which nothing was asked yet.
    pub(crate) const UNTOUCHED: Snapshot = Snapshot { live: true, ..Snapshot::unpack(0) };

    pub(crate) const fn unpack(word: u64) -> Snapshot {
        Snapshot {
            tag: TAG.get(word) as u16,
            version: VERSION.get(word) as u32,
            tier: TierId::from_low_bits(TIER.get(word)),
            target: TierId::from_low_bits(TARGET.get(word)),
            cap: TierId::from_low_bits(TierId::MAX.get() as u64 - CAPPED_BY.get(word)),
            pending: Pending::from_bits(PENDING.get(word)),
            blacklisted: BLACKLISTED.is_set(word),
            publishing: PUBLISHING.is_set(word),
            live: LIVE.is_set(word),
            slotted: SLOTTED.is_set(word),
        }
    }

    pub(crate) fn pack(self) -> u64 {
        TAG.put(self.tag.into())
            | VERSION.put(self.version.into())
            | TIER.put(self.tier.get().into())
            | TARGET.put(self.target.get().into())
            | CAPPED_BY.put(u64::from(TierId::MAX.get() - self.cap.get()))
            | PENDING.put(self.pending as u64)
            | BLACKLISTED.put(self.blacklisted.into())
            | PUBLISHING.put(self.publishing.into())
            | LIVE.put(self.live.into())
            | SLOTTED.put(self.slotted.into())
    }

    /// Whether this is the word of a live `bead`.
    pub(crate) fn is(&self, bead: Bead) -> bool {
        self.live && u64::from(self.tag) == bead.tag()
    }

    pub(crate) fn is_claimed_by(&self, ticket: Ticket) -> bool {
        self.is(ticket.bead)
            && (self.version == ticket.version || mutant!("s1-any-version"))
            && matches!(self.pending, Pending::Compiling | Pending::Followed)
    }

    /// The highest tier allowed, if `target` lies above it.
    pub(crate) fn bars(&self, target: TierId) -> Option<TierId> {
        let cap = if self.blacklisted {
            TierId::INTERPRETER
        } else if self.version >= VERSION_MAX - 1 {
            self.tier.min(self.cap)
        } else {
            self.cap
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
        let there = target < self.tier || (target == self.tier && anew != Some(self.version));
        if there || (self.pending != Pending::None && target <= self.target && !mutant!("claim-asked-again"))
        {
            return Some(Requested::Already);
        }
        self.publishing.then_some(Requested::Busy)
    }

    /// The tier it has or waits for, the higher of them.
    pub(crate) fn wanted(&self) -> TierId {
        if self.pending == Pending::None { self.tier } else { self.tier.max(self.target) }
    }

    /// A mark of the generation and version, for requests: tells whether a token speaks of what the bead waits for now. Two
    /// can be the same by chance 65,536 versions apart, which costs a request its rank.
    pub(crate) fn stamp(&self) -> u16 {
        (self.version as u16).wrapping_add(self.tag.wrapping_mul(0x9E37))
    }

    pub(crate) fn raised_version(&self) -> u32 {
        (self.version + 1).min(VERSION_MAX)
    }

    /// The version of code the VM installs now. One is left out where that ends a claim: it is the claim's, whose result may be
    /// listed under it as relying on something (edge ASSUME).
    pub(crate) fn version_for_vm(&self) -> u32 {
        let claimed =
            matches!(self.pending, Pending::Compiling | Pending::Followed) && !mutant!("assume-vm-version");
        (self.version + 1 + u32::from(claimed)).min(VERSION_MAX)
    }

    pub(crate) fn raise_version(&mut self) {
        self.version = self.raised_version();
    }

    /// The word of the index's next use, not live yet.
    pub(crate) fn next_generation(&self) -> Snapshot {
        Snapshot { tag: (self.tag + 1).min(RETIRED_TAG), slotted: self.slotted, ..Snapshot::default() }
    }
}
