//! Code that is never run: each piece has an address of its own, and says whose it is and whether it was freed.
//!
//! What a piece says lies in plain memory, written before it is handed to the engine and overwritten when it is freed, as
//! machine code is. So a thread that meets it too early or too late reads something wrong, and ThreadSanitizer sees
//! the race even where nothing wrong was read.

use crate::tally::{Fault, Injected, Tally};
use beadwork::{Bead, CodeOwner, CompiledCode};
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};

/// Bytes of address space a piece takes: its entry, and behind it the entries of its loops.
pub(crate) const BYTES: usize = 16;

/// Loops a piece can have entries for, by their site: 1 to 7.
pub(crate) const SITES: u64 = 8;

/// Where the addresses begin; nothing of this process is there.
const BASE: usize = 1 << 40;

const MADE: u32 = 1;
const FREED: u32 = 2;

/// What stands in a piece.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Content {
    /// The bits of the function it is code of; 0 once it is freed.
    pub(crate) bead: u64,
    /// The version its backend was told, 0 for code the VM installs itself.
    pub(crate) version: u32,
    /// What it relies on, by number; 0 for nothing.
    pub(crate) premise: u32,
}

#[derive(Default)]
struct Piece {
    content: UnsafeCell<Content>,
    state: AtomicU32,
    /// The version it was given when the VM installed it; 0 until that is known.
    installed: AtomicU32,
}

pub(crate) struct Pieces {
    all: Box<[Piece]>,
    next: AtomicUsize,
    freed: AtomicUsize,
}

// SAFETY: a piece's content is written by the thread that makes it, before anybody else knows of it, and by the one that
// frees it, after everybody has forgotten it; that is what the engine promises, and what this harness tests.
#[allow(unsafe_code)]
unsafe impl Sync for Pieces {}

impl Pieces {
    pub(crate) fn new(count: usize) -> Pieces {
        let all = (0..count).map(|_| Piece::default()).collect();
        Pieces { all, next: AtomicUsize::new(0), freed: AtomicUsize::new(0) }
    }

    /// Pieces made so far. A piece made later has a higher number.
    pub(crate) fn made(&self) -> usize {
        self.next.load(Relaxed).min(self.all.len())
    }

    pub(crate) fn freed(&self) -> usize {
        self.freed.load(Relaxed)
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.next.load(Relaxed) >= self.all.len()
    }

    /// Makes a piece; `None` when they are used up.
    #[allow(unsafe_code)]
    pub(crate) fn make(&self, content: Content) -> Option<usize> {
        let number = self.next.fetch_add(1, Relaxed);
        let piece = self.all.get(number)?;
        // SAFETY: the number was handed out once, so nobody else knows the piece.
        unsafe { *piece.content.get() = content };
        piece.state.store(MADE, Relaxed);
        Some(number)
    }

    /// The VM has installed the piece, which got that version.
    pub(crate) fn note_installed(&self, number: usize, version: u32) {
        self.all[number].installed.store(version, Relaxed);
    }

    /// The version of a piece, told its backend or given by an install; `None` while an install is under way.
    pub(crate) fn version(&self, number: usize, content: Content) -> Option<u32> {
        let installed = self.all[number].installed.load(Relaxed);
        [content.version, installed].into_iter().find(|&version| version != 0)
    }

    pub(crate) fn entry(number: usize) -> *const u8 {
        std::ptr::without_provenance(BASE + number * BYTES)
    }

    pub(crate) fn loop_entry(number: usize, site: u64) -> *const u8 {
        std::ptr::without_provenance(BASE + number * BYTES + site as usize)
    }

    /// The piece with this entry, and what stands there; `site` is 0 for the function's own entry. `Err` says what is wrong.
    #[allow(unsafe_code)]
    pub(crate) fn read(&self, entry: u64, site: u64) -> Result<(usize, Content), String> {
        let offset = (entry as usize).wrapping_sub(BASE);
        let (number, at) = (offset / BYTES, (offset % BYTES) as u64);
        let piece = self.all.get(number).filter(|_| at == site).ok_or("an address nobody handed out")?;
        let state = piece.state.load(Relaxed);
        if state != MADE {
            return Err(format!("piece {number} is in state {state}: not made yet, or freed"));
        }
        // SAFETY: the engine answered its entry to this thread, so it was made before and is not freed before this thread's
        // next safepoint.
        Ok((number, unsafe { *piece.content.get() }))
    }

    /// The first piece that was not freed, once no engine is left.
    pub(crate) fn first_left(&self) -> Option<(usize, Content)> {
        let number = self.all.iter().position(|piece| piece.state.load(Relaxed) == MADE)?;
        self.read(Pieces::entry(number).addr() as u64, 0).ok()
    }

    #[allow(unsafe_code)]
    fn free(&self, number: usize, tally: &Tally) {
        let piece = &self.all[number];
        let was = piece.state.swap(FREED, AcqRel);
        tally.expect(was == MADE, || format!("piece {number} was freed twice"));
        // SAFETY: the engine frees it, so no thread reads it any more.
        unsafe { *piece.content.get() = Content::default() };
        self.freed.fetch_add(1, Relaxed);
        tally.freed.fetch_add(1, Relaxed);
    }
}

/// Frees its piece when it is dropped, and panics then if it is to.
struct Owner {
    pieces: Arc<Pieces>,
    tally: Arc<Tally>,
    number: usize,
    panics: bool,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.pieces.free(self.number, &self.tally);
        if self.panics && !std::thread::panicking() {
            self.tally.inject(Fault::OwnerPanic);
            std::panic::panic_any(Injected(Fault::OwnerPanic));
        }
    }
}

/// Code for the function, owned by a new piece, and the piece's number; `None` when pieces are used up.
pub(crate) fn code(
    pieces: &Arc<Pieces>,
    tally: &Arc<Tally>,
    (bead, version, premise): (Bead, u32, u32),
    panics: bool,
) -> Option<(usize, CompiledCode)> {
    let number = pieces.make(Content { bead: bead.to_bits(), version, premise })?;
    let owner = Owner { pieces: pieces.clone(), tally: tally.clone(), number, panics };
    let code = CompiledCode::new(Pieces::entry(number)).with_bytes(BYTES).owner(CodeOwner::boxed(owner));
    Some((number, code))
}
