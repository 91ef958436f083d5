//! What a placed function is to its owner: a [`CodeBlock`], or four bytes.

use std::fmt;
use std::sync::Arc;

use crate::arena::Shared;

/// The 32-bit name of a live block: its granule number over all regions of the arena, counted from 1.
///
/// It is what [`CodeBlock::into_token`] leaves behind when ownership moves to whoever will call
/// [`Arena::free_many`](crate::Arena::free_many). A token is never zero, so 0 can stand for "none". Freed numbers are
/// used again: a token is valid until it is freed, once.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockToken(u32);

impl BlockToken {
    /// The token as bits; never 0.
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The token with these bits. One that names no released block is refused by
    /// [`free_many`](crate::Arena::free_many).
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for BlockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockToken({})", self.0)
    }
}

/// Owner of one placed function, or of a group. Dropping it frees the code.
///
/// The code stays at its address, unchanged and executable, until then; a block keeps its arena alive. Whoever drops
/// it must know that no thread executes the code or will call its entry.
#[must_use = "dropping a code block frees its code"]
pub struct CodeBlock {
    pub(crate) arena: Arc<Shared>,
    pub(crate) entry: *const u8,
    pub(crate) len: usize,
    pub(crate) token: BlockToken,
}

// SAFETY: the block only names memory that is immutable while the block lives; all changes go through the arena's lock.
unsafe impl Send for CodeBlock {}
// SAFETY: as above; `&CodeBlock` allows reading two words.
unsafe impl Sync for CodeBlock {}

impl CodeBlock {
    /// Address of the first instruction, in memory that is executable and not writable.
    pub fn entry(&self) -> *const u8 {
        self.entry
    }

    /// Bytes of code, as they were given; of all functions of a group together.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: functions without code are refused.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives the ownership up: the code stays until the token is passed to
    /// [`Arena::free_many`](crate::Arena::free_many), or until the arena's last handle and last block are gone,
    /// so whoever keeps tokens keeps a handle too. Costs one uncontended lock.
    pub fn into_token(self) -> BlockToken {
        let token = self.token;
        self.arena.release(token);
        // The rest of the block must still be dropped (it counts the arena), only the code must not be freed.
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped or used again, so the handle is moved out exactly once.
        drop(unsafe { std::ptr::read(&raw const this.arena) });
        token
    }
}

impl Drop for CodeBlock {
    fn drop(&mut self) {
        self.arena.free_owned(self.token);
    }
}

/// Functions that were placed together by [`Arena::place_groups`](crate::Arena::place_groups).
#[derive(Debug)]
pub struct CodeGroup {
    /// Owner of the code of all of them; its entry is the first one's.
    pub block: CodeBlock,
    /// The first instruction of each, in order.
    pub entries: Vec<*const u8>,
}

impl fmt::Debug for CodeBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeBlock")
            .field("entry", &self.entry)
            .field("len", &self.len)
            .field("token", &self.token)
            .finish()
    }
}
