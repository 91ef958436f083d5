//! The plain values everything speaks in: [`Bead`], [`Core`], [`TierId`], [`Group`], [`Reason`].

use std::fmt;
use std::num::NonZeroU32;

/// Bits of a generation, and so of the tag in a code word and in the state word.
pub(crate) const GENERATION_BITS: u32 = 15;

/// The largest generation a bead can have; an index whose generations are used up is never handed out again.
pub const MAX_GENERATION: u32 = (1 << GENERATION_BITS) - 1;

/// The handle of one function: a dense index plus the generation of that index's use.
///
/// A bead is `Copy`, 8 bytes (as is `Option<Bead>`), and prints as `7v3`: index 7, third use. When the function
/// is [removed](crate::Engine::remove) and its index is used again, the generation differs, so a kept handle
/// answers `None` or [`Stale`](crate::Stale) instead of naming another function. An index is used at most
/// [`MAX_GENERATION`] times and then retired for good, so this is a guarantee and not a probability.
///
/// A bead belongs to the engine that registered it. Presenting it to another engine is memory safe and answers
/// for whatever function that engine has under the same index and generation; [`Engine::owns`](crate::Engine::owns)
/// tells whether an engine could have handed it out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Bead {
    index: u32,
    generation: NonZeroU32,
}

impl Bead {
    /// `tag` is the generation minus one, as the code word and the state word store it.
    #[inline]
    pub(crate) const fn new(index: u32, tag: u16) -> Bead {
        match NonZeroU32::new(tag as u32 + 1) {
            Some(generation) => Bead { index, generation },
            None => unreachable!(),
        }
    }

    /// The position in the engine's columns.
    #[inline]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Which use of the index this is, counted from 1 to [`MAX_GENERATION`].
    #[inline]
    pub const fn generation(self) -> NonZeroU32 {
        self.generation
    }

    /// The generation counted from zero, so that untouched memory is the state of a first generation.
    #[inline]
    pub(crate) const fn tag(self) -> u64 {
        (self.generation.get() - 1) as u64
    }

    /// The handle as one number, for embedding in bytecode, in native code or in C.
    ///
    /// The index is the low half, so the number of a first-generation bead is `index | 1 << 32`; it is never zero.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        (self.generation.get() as u64) << 32 | self.index as u64
    }

    /// The inverse of [`to_bits`](Bead::to_bits); `None` if the generation is outside `1..=`[`MAX_GENERATION`].
    ///
    /// The result is untrusted: it may name a function that never existed. Every call of the engine accepts it and
    /// answers as for a removed function. A mutator's hot path masks the index instead of checking it, so a forged index
    /// beyond the capacity can answer for another function of the same generation: memory safe, and
    /// [`Engine::owns`](crate::Engine::owns) tells it apart.
    #[inline]
    pub const fn from_bits(bits: u64) -> Option<Bead> {
        match NonZeroU32::new((bits >> 32) as u32) {
            Some(generation) if generation.get() <= MAX_GENERATION => {
                Some(Bead { index: bits as u32, generation })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Bead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}v{}", self.index, self.generation)
    }
}

impl fmt::Debug for Bead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of a tier: 0 is the interpreter, 1 to 15 are compiled, higher means more optimized. Prints as `T1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TierId(u8);

impl TierId {
    /// The next higher tier; the highest's is itself.
    pub(crate) const fn above(self) -> TierId {
        if self.0 < TierId::MAX.0 { TierId(self.0 + 1) } else { TierId::MAX }
    }

    /// The next lower tier; the interpreter's is itself.
    pub(crate) const fn below(self) -> TierId {
        TierId(self.0.saturating_sub(1))
    }

    /// Tier 0: no native code, the VM interprets.
    pub const INTERPRETER: TierId = TierId(0);
    /// Tier 1, the first compiled tier.
    pub const BASELINE: TierId = TierId(1);
    /// The highest tier number an engine can have.
    pub const MAX: TierId = TierId(15);

    /// The tier with this number, `None` above 15.
    pub const fn new(number: u8) -> Option<TierId> {
        if number <= TierId::MAX.0 { Some(TierId(number)) } else { None }
    }

    /// The number, 0 to 15.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Only the low four bits count, which is what the state word stores.
    pub(crate) const fn from_low_bits(bits: u64) -> TierId {
        TierId((bits & 0xf) as u8)
    }

    /// The position of a compiled tier's lane; meaningless for the interpreter.
    pub(crate) const fn lane(self) -> usize {
        (self.0 as usize).saturating_sub(1)
    }
}

impl fmt::Display for TierId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}", self.0)
    }
}

impl fmt::Debug for TierId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of beads that live and die together: a loaded module, a class, a script.
///
/// Made by [`Engine::group`](crate::Engine::group), named at registration by
/// [`BeadInfo::group`](crate::BeadInfo::group), ended by [`Engine::remove_group`](crate::Engine::remove_group).
/// Numbers of ended groups are not used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Group(pub(crate) NonZeroU32);

impl Group {
    /// The group as a number, never 0; for C, say.
    pub const fn to_bits(self) -> u32 {
        self.0.get()
    }

    /// The inverse of [`to_bits`](Group::to_bits); `None` for 0. A number nobody was given names no group.
    pub const fn from_bits(bits: u32) -> Option<Group> {
        match NonZeroU32::new(bits) {
            Some(number) => Some(Group(number)),
            None => None,
        }
    }
}

/// The VM's opaque, pointer-sized handle for a function: stored, handed back, never dereferenced.
///
/// A pointer, an index or a tagged value; a moving collector may change it by
/// [`Engine::set_core`](crate::Engine::set_core).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Core(usize);

impl Core {
    /// The number 0.
    pub const ZERO: Core = Core(0);

    /// A handle that is a number.
    pub const fn new(value: usize) -> Core {
        Core(value)
    }

    /// A handle that is a pointer. Its provenance is exposed, so [`as_ptr`](Core::as_ptr) gives a usable one back.
    pub fn from_ptr<T>(pointer: *const T) -> Core {
        Core(pointer.expose_provenance())
    }

    /// The number.
    pub const fn get(self) -> usize {
        self.0
    }

    /// The pointer.
    pub fn as_ptr<T>(self) -> *const T {
        std::ptr::with_exposed_provenance(self.0)
    }
}

/// As [`Bead::to_bits`].
#[cfg(feature = "serde")]
impl serde::Serialize for Bead {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.to_bits())
    }
}

/// As its number.
#[cfg(feature = "serde")]
impl serde::Serialize for TierId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl From<usize> for Core {
    fn from(value: usize) -> Core {
        Core(value)
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Core({:#x})", self.0)
    }
}

/// Why a compile was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum Reason {
    /// A policy said so when a budget ran out.
    Hot,
    /// A function that calls it was promoted: see [`Tier::speculate_on_callees`](crate::Tier::speculate_on_callees).
    Speculative,
    /// [`Engine::promote`](crate::Engine::promote).
    Asked,
    /// [`Engine::compile_now`](crate::Engine::compile_now): somebody waits for it.
    Now,
    /// A loop of it goes round and round: a native entry into the running loop is wanted.
    Osr,
    /// The code it had failed: see [`Engine::bailout`](crate::Engine::bailout).
    Deopt,
    /// [`Engine::reload`](crate::Engine::reload): its source changed.
    Reload,
    /// It was asked for while a lower tier was being compiled, or its compile was interrupted by a fork.
    Resumed,
}

impl Reason {
    /// Whether a request is taken before all that wait in its lane. Its token is a second one.
    pub(crate) fn is_urgent(self) -> bool {
        matches!(self, Reason::Now | Reason::Osr)
    }

    /// What cannot wait comes before what is merely hot.
    pub(crate) fn class(self) -> u8 {
        match self {
            Reason::Speculative => 0,
            Reason::Hot | Reason::Asked => 1,
            Reason::Resumed | Reason::Osr | Reason::Reload => 2,
            Reason::Deopt => 3,
            Reason::Now => 4,
        }
    }

    /// Nobody insists on it, so it may be dropped when the function has gone cold.
    pub(crate) fn is_a_guess(self) -> bool {
        matches!(self, Reason::Hot | Reason::Speculative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_and_its_option_are_eight_bytes() {
        assert_eq!(size_of::<Bead>(), 8);
        assert_eq!(size_of::<Option<Bead>>(), 8);
    }

    #[test]
    fn bits_round_trip_for_every_generation() {
        for tag in [0u16, 1, 2, 0x1234, (MAX_GENERATION - 1) as u16] {
            for index in [0, 1, 7, u32::MAX] {
                let bead = Bead::new(index, tag);
                assert_eq!(Bead::from_bits(bead.to_bits()), Some(bead));
            }
        }
    }

    #[test]
    fn bits_outside_the_generation_range_are_refused() {
        assert_eq!(Bead::from_bits(0), None);
        assert_eq!(Bead::from_bits(u64::from(u32::MAX)), None);
        assert_eq!(Bead::from_bits(u64::from(MAX_GENERATION + 1) << 32), None);
        assert_eq!(Bead::from_bits(u64::MAX), None);
    }

    #[test]
    fn a_handle_prints_as_index_v_generation() {
        assert_eq!(Bead::new(7, 2).to_string(), "7v3");
        assert_eq!(format!("{:?}", Bead::new(0, 0)), "0v1");
    }

    #[test]
    fn tiers_above_fifteen_do_not_exist() {
        assert_eq!(TierId::new(15), Some(TierId::MAX));
        assert_eq!(TierId::new(16), None);
        assert_eq!(TierId::BASELINE.to_string(), "T1");
    }
}
