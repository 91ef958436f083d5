//! The dispatch word, and what a compile hands over: entry, owner, what it embeds.

use crate::assumption::{Assumed, Assumption};
use crate::error::CompileError;
use crate::id::Bead;
use crate::osr::{MAX_ENTRIES, OsrEntry};
use crate::owner::{CodeOwner, Piece};
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

const POINTER_BITS: u32 = 48;
const TICK: u64 = 1 << POINTER_BITS;
const TAG_SHIFT: u32 = POINTER_BITS + 1;

/// 64 bits that answer a dispatch: generation tag (15), tick flag (1), code pointer (48).
///
/// All zero means "first generation, no code", so an untouched column is right as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CodeWord(pub(crate) u64);

/// What a dispatch word says to the holder of a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    /// Run the code.
    Ready(u64),
    /// Run the code, and count the call: a higher tier wants to know.
    Counted(u64),
    /// No code; count the call.
    Cold,
    /// Another generation.
    Stale,
}

impl CodeWord {
    pub(crate) fn cold(tag: u16) -> CodeWord {
        CodeWord(u64::from(tag) << TAG_SHIFT)
    }

    /// `entry` was checked by [`CompiledCode::check`].
    pub(crate) fn ready(tag: u16, entry: u64, tick: bool) -> CodeWord {
        debug_assert!(entry != 0 && entry < TICK);
        CodeWord(u64::from(tag) << TAG_SHIFT | if tick { TICK } else { 0 } | entry)
    }

    /// The whole decision of a dispatch: one xor, and one compare on the path that runs code.
    #[inline(always)]
    pub(crate) fn read(self, bead: Bead) -> Reading {
        let rest = self.0 ^ bead.tag() << TAG_SHIFT;
        // A pointer alone: not zero, no tick flag, no differing tag.
        if rest.wrapping_sub(1) < TICK - 1 {
            Reading::Ready(rest)
        } else if rest == 0 {
            Reading::Cold
        } else if rest > TICK && rest < TICK << 1 {
            Reading::Counted(rest & (TICK - 1))
        } else {
            Reading::Stale
        }
    }

    /// The generation's tag.
    pub(crate) fn tag(self) -> u16 {
        (self.0 >> TAG_SHIFT) as u16
    }

    /// The code's address, 0 if there is none.
    pub(crate) fn entry(self) -> u64 {
        self.0 & (TICK - 1)
    }
}

/// The code words of an engine, for a dispatch that is written in another language; see
/// [`Mutator::code_words`](crate::Mutator::code_words).
///
/// The word of a bead is `base[index & mask]`, 64 bits, to be loaded with Acquire (a plain load on x86-64, `ldar` on aarch64). From
/// the top: the bead's generation minus one (15 bits), a flag (1), the entry (48). So with
///
/// ```text
/// rest = word ^ (generation - 1) << 49
/// ```
///
/// there is code, whose calls nobody wants counted, if `0 < rest < 1 << 48`; then `rest` is its entry. For every other value call
/// [`Mutator::dispatch`](crate::Mutator::dispatch), which counts, or finds the handle stale.
///
/// The thread has a mutator that is online, and what holds for a code pointer that `dispatch` answers holds for this one: it is
/// good until that mutator's next safepoint. The words keep their place as long as the engine lives. The layout is part of this
/// crate's public interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CodeWords {
    /// The word of index 0.
    pub base: *const std::sync::atomic::AtomicU64,
    /// Indices are cut to these low bits.
    pub mask: u32,
}

/// A pointer to native code, borrowed from the mutator that answered it.
///
/// The code cannot be freed before that mutator's next safepoint, and
/// [`Mutator::safepoint`](crate::Mutator::safepoint) takes `&mut self`, so the borrow checker refuses a code pointer
/// held across one.
#[derive(Clone, Copy)]
pub struct Code<'m> {
    entry: u64,
    mutator: PhantomData<&'m ()>,
}

impl Code<'_> {
    #[inline(always)]
    pub(crate) fn new(entry: u64) -> Self {
        Code { entry, mutator: PhantomData }
    }

    /// The entry, never null. Calling it is `unsafe` and the VM's business: beadwork never calls code.
    #[inline(always)]
    pub fn as_ptr(self) -> *const u8 {
        std::ptr::with_exposed_provenance(self.entry as usize)
    }

    /// The entry's address.
    #[inline(always)]
    pub fn addr(self) -> u64 {
        self.entry
    }
}

impl fmt::Debug for Code<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({:#x})", self.entry)
    }
}

/// What a compile hands over: where to enter, and what keeps that memory alive.
///
/// ```
/// use beadwork::{CodeOwner, CompiledCode};
/// extern "C" fn answer() -> i64 { 42 }
/// let code = CompiledCode::new(answer as *const u8).owner(CodeOwner::none());
/// assert_eq!(code.bytes(), 0);
/// ```
#[derive(Debug)]
pub struct CompiledCode {
    pub(crate) entry: u64,
    pub(crate) owner: CodeOwner,
    pub(crate) bytes: usize,
    pub(crate) compile_time: Option<Duration>,
    extras: Option<Box<Extras>>,
}

/// What most code comes without. Kept apart, because code is moved several times on its way from the backend.
#[derive(Default, Debug)]
pub(crate) struct Extras {
    pub(crate) embeds: Vec<Bead>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) assumed: Vec<Assumed>,
    pub(crate) payload: Option<Box<dyn Any + Send>>,
    pub(crate) osr: Vec<OsrEntry>,
}

impl CompiledCode {
    /// Code that starts at `entry` and needs no owner: it lives as long as the process.
    ///
    /// `entry` has to fit 48 bits and not be null; otherwise the install answers
    /// [`CompileError::EntryTooWide`] or [`CompileError::NullEntry`].
    pub fn new(entry: *const u8) -> CompiledCode {
        CompiledCode {
            entry: entry.expose_provenance() as u64,
            owner: CodeOwner::none(),
            bytes: 0,
            compile_time: None,
            extras: None,
        }
    }

    /// Names what keeps the code's memory. It is dropped once: when no thread can be in the code any more, or at
    /// once when the code is not installed.
    #[must_use]
    pub fn owner(mut self, owner: CodeOwner) -> CompiledCode {
        self.owner = owner;
        self
    }

    /// States the size of the code in bytes: for statistics and memory budgets, and to tell which return addresses lie
    /// in it. Code whose size is not stated can only be freed when no mutator is known to be in any code.
    #[must_use]
    pub fn with_bytes(mut self, bytes: usize) -> CompiledCode {
        self.bytes = bytes;
        self
    }

    /// States where the code lies, where that is not `bytes` bytes from the entry on: code whose entry is not its first
    /// byte, or that is in several pieces (call it for each), native entries into loops among them.
    /// [`Mutator::safepoint_with`](crate::Mutator::safepoint_with) goes by it; code with an entry outside of what was stated is
    /// taken to be anywhere. Costs a record in the engine.
    #[must_use]
    pub fn occupies(mut self, start: *const u8, bytes: usize) -> CompiledCode {
        self.extras().pieces.push(Piece { start: start.addr(), bytes });
        self
    }

    /// Names a function whose [slot](crate::Engine::slot) address the code embeds; its index is then not reused
    /// while this code exists. Slots asked for through [`Job::slot`](crate::Job::slot) are recorded by themselves.
    #[must_use]
    pub fn embeds(mut self, callee: Bead) -> CompiledCode {
        self.extras().embeds.push(callee);
        self
    }

    /// Adds a native entry into the loop the VM calls `site`, for [`Mutator::back_edge`](crate::Mutator::back_edge) to answer. What
    /// is passed to it is between the VM and its compiler. The entries are published with the code and go with it; of
    /// several for one site the first counts. Addresses are checked like that of the code itself, and there may be at most
    /// 65,535.
    #[must_use]
    pub fn osr(mut self, site: u64, entry: *const u8) -> CompiledCode {
        self.extras().osr.push(OsrEntry { site, entry: entry.expose_provenance() as u64 });
        self
    }

    /// Names something the code takes for granted. It is installed only if that holds, and taken back when it is
    /// [broken](crate::Engine::invalidate_assumption). A backend that can do it earlier uses
    /// [`Job::assume`](crate::Job::assume), which also ends the compile when the assumption is broken meanwhile.
    #[must_use]
    pub fn assumes(mut self, assumption: Assumption) -> CompiledCode {
        let assumed = &mut self.extras().assumed;
        if assumed.iter().all(|assumed| assumed.on != assumption) {
            assumed.push(Assumed { on: assumption, listed: false });
        }
        self
    }

    /// Sends something along to the VM: what it needs beside the code (a stack map, the inlining tree, a line table).
    /// [`Mutator::deliver`](crate::Mutator::deliver) hands it over when the code is installed. It is dropped where the code is
    /// not installed, and on engines without [`delivery`](crate::EngineBuilder::delivery).
    #[must_use]
    pub fn payload(mut self, payload: impl Any + Send) -> CompiledCode {
        self.extras().payload = Some(Box::new(payload));
        self
    }

    /// States what this function's compile took, where the backend knows better than the clock around it.
    #[must_use]
    pub fn with_compile_time(mut self, time: Duration) -> CompiledCode {
        self.compile_time = Some(time);
        self
    }

    pub(crate) fn default_compile_time(mut self, time: Duration) -> CompiledCode {
        self.compile_time.get_or_insert(time);
        self
    }

    /// The stated size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Takes what it came with besides; empty where there is nothing.
    pub(crate) fn take_extras(&mut self) -> Extras {
        self.extras.take().map_or_else(Extras::default, |extras| *extras)
    }

    /// What it came with besides, if anything.
    pub(crate) fn has_extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// Where the code lies, if not in `bytes` bytes from the entry on.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        let Some(extras) = self.has_extras() else { return Vec::new() };
        let whole = [Piece { start: self.entry as usize, bytes: self.bytes }];
        let stated = if extras.pieces.is_empty() { &whole } else { &extras.pieces[..] };
        let inside = |entry| stated.iter().any(|piece| piece.contains(entry));
        if extras.osr.iter().any(|osr| !inside(osr.entry as usize)) {
            return vec![Piece::ANYWHERE];
        }
        extras.pieces.clone()
    }

    /// Whether code words can hold the entries.
    pub(crate) fn check(&self) -> Result<(), CompileError> {
        let check = |entry| match entry {
            0 => Err(CompileError::NullEntry),
            entry if entry >= TICK => Err(CompileError::EntryTooWide { entry }),
            _ => Ok(()),
        };
        check(self.entry)?;
        let Some(extras) = self.has_extras() else { return Ok(()) };
        if extras.osr.len() > MAX_ENTRIES {
            return Err(CompileError::TooManyLoopEntries { given: extras.osr.len() });
        }
        extras.osr.iter().try_for_each(|osr| check(osr.entry))
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    const OTHER: u16 = 0x7ffe;

    #[test]
    fn an_untouched_word_is_cold_for_the_first_generation_and_stale_for_others() {
        assert_eq!(CodeWord(0).read(Bead::new(3, 0)), Reading::Cold);
        assert_eq!(CodeWord(0).read(Bead::new(3, 1)), Reading::Stale);
        assert_eq!(CodeWord::cold(OTHER).read(Bead::new(3, OTHER)), Reading::Cold);
        assert_eq!(CodeWord::cold(OTHER).read(Bead::new(3, 0)), Reading::Stale);
    }

    #[test]
    fn readings_hold_at_both_ends_of_the_pointer_range() {
        for entry in [1, 0x1000, TICK - 1] {
            for tag in [0, 1, 0x3fff, OTHER] {
                let bead = Bead::new(9, tag);
                assert_eq!(CodeWord::ready(tag, entry, false).read(bead), Reading::Ready(entry));
                assert_eq!(CodeWord::ready(tag, entry, true).read(bead), Reading::Counted(entry));
                let stranger = Bead::new(9, tag ^ 1);
                assert_eq!(CodeWord::ready(tag, entry, false).read(stranger), Reading::Stale);
                assert_eq!(CodeWord::ready(tag, entry, true).read(stranger), Reading::Stale);
                assert_eq!(CodeWord::ready(tag, entry, true).entry(), entry);
            }
        }
    }

    #[test]
    fn the_retired_tag_is_stale_for_every_handle() {
        let word = CodeWord::cold(crate::state::RETIRED_TAG);
        for tag in [0, 1, OTHER] {
            assert_eq!(word.read(Bead::new(0, tag)), Reading::Stale);
        }
    }

    #[test]
    fn code_with_a_loop_entry_outside_of_what_was_stated_can_be_anywhere() {
        let at = std::ptr::without_provenance;
        let code = || CompiledCode::new(at(0x1000)).with_bytes(64);
        assert_eq!(code().pieces(), []);
        assert_eq!(code().osr(1, at(0x1020)).pieces(), []);
        assert_eq!(code().osr(1, at(0x1040)).pieces(), [Piece::ANYWHERE]);
        let both = code().osr(1, at(0x2008)).occupies(at(0x1000), 64).occupies(at(0x2000), 16);
        assert_eq!(both.pieces().len(), 2);
        assert!(Piece::ANYWHERE.holds_any(&[0x99]) && !both.pieces()[1].holds_any(&[0x1fff, 0x2011]));
    }

    #[test]
    fn a_null_or_too_wide_entry_is_refused_by_name() {
        assert_eq!(CompiledCode::new(std::ptr::null()).check(), Err(CompileError::NullEntry));
        let wide = std::ptr::without_provenance((1usize << 48) + 5);
        assert_eq!(CompiledCode::new(wide).check(), Err(CompileError::EntryTooWide { entry: (1 << 48) + 5 }));
    }
}
