//! What can go wrong, one type per operation and audience.

use crate::block::BlockToken;
use crate::mapping::MapError;
use crate::relocate::{RelocationError, RelocationKind};

/// Why the arena could not do what was asked.
///
/// After any of these the arena is as it was before the call: a batch is placed, or a list of tokens freed,
/// wholly or not at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArenaError {
    /// The kernel refuses memory that can be executed (seccomp, `PR_SET_MDWE`, SELinux, a hardened service unit).
    /// Nothing is remembered: the next placement asks again.
    #[error(
        "executable memory was refused: {call} failed with errno {errno}; allow PROT_EXEC for this process \
         (seccomp filter, MemoryDenyWriteExecute, SELinux execmem) or keep interpreting"
    )]
    ExecMemoryDenied {
        /// The system call that was refused.
        call: &'static str,
        /// Its `errno`.
        errno: i32,
    },
    /// `pthread_atfork` failed, so code could not be protected from a fork.
    #[error("fork handlers could not be registered (errno {errno}); free memory and build the arena again")]
    ForkHandlersRefused {
        /// The error number it answered.
        errno: i32,
    },
    /// This platform or mode cannot hold generated code.
    #[error("{what} is not supported on this platform")]
    Unsupported {
        /// What is missing.
        what: &'static str,
    },
    /// Address space could not be reserved, not even for a smaller region.
    #[error(
        "no address space for code: asked for {asked} bytes, down to {smallest} bytes ({call}: errno {errno}); \
         raise `ulimit -v`, vm.max_map_count or vm.overcommit_memory, or set a smaller region_bytes"
    )]
    ReservationRefused {
        /// Bytes of the first attempt.
        asked: usize,
        /// Bytes of the last, smallest attempt.
        smallest: usize,
        /// The system call that failed.
        call: &'static str,
        /// Its `errno`.
        errno: i32,
    },
    /// The batch does not fit into what `max_bytes` leaves.
    #[error(
        "{asked} more bytes of code do not fit: {used} of max_bytes = {max} are taken; free code or raise max_bytes"
    )]
    CapacityExhausted {
        /// Bytes the new region would have needed.
        asked: usize,
        /// Bytes counted against the limit now.
        used: usize,
        /// The limit given to the builder.
        max: usize,
    },
    /// All 2³² granule numbers (128 GiB of code) are taken.
    #[error("the 128 GiB of code that 32-bit block tokens can name are used up")]
    TokensExhausted,
    /// A function without code.
    #[error("function `{function}` has no code; nothing was placed")]
    EmptyCode {
        /// Name of the function.
        function: String,
    },
    /// A group without functions, which would have no place to be named by.
    #[error("group {position} has no functions; nothing was placed")]
    EmptyGroup {
        /// Its position in the list.
        position: usize,
    },
    /// A function of more than 1 GiB.
    #[error("function `{function}` has {bytes} bytes of code; at most 1 GiB can be placed")]
    TooLarge {
        /// Name of the function.
        function: String,
        /// Its code size.
        bytes: usize,
    },
    /// An alignment that is no power of two, or above 1 GiB.
    #[error("function `{function}` asks for alignment {align}; it must be a power of two of at most 1 GiB")]
    BadAlignment {
        /// Name of the function.
        function: String,
        /// The alignment asked for.
        align: usize,
    },
    /// A relocation that cannot be applied.
    #[error("function `{function}`, relocation at offset {offset}: {source}")]
    Relocation {
        /// Name of the function.
        function: String,
        /// Offset of the relocated field in the function's code.
        offset: u32,
        /// What is wrong with it.
        source: RelocationError,
    },
    /// A relocation of another processor.
    #[error(
        "function `{function}` has relocation {kind:?} at offset {offset}, which this processor does not have"
    )]
    ForeignRelocation {
        /// Name of the function.
        function: String,
        /// Offset of the relocated field in the function's code.
        offset: u32,
        /// The kind asked for.
        kind: RelocationKind,
    },
    /// A relocation whose target is not in the batch, or beyond the end of the function it names.
    #[error(
        "function `{function}`, relocation at offset {offset}: target is byte {target_offset} of function {index}, \
         but the batch has {batch} functions and the offset must lie within that function"
    )]
    LocalOutsideBatch {
        /// Name of the function.
        function: String,
        /// Offset of the relocated field in the function's code.
        offset: u32,
        /// Index asked for.
        index: u32,
        /// Offset inside the target asked for.
        target_offset: u32,
        /// Functions in the batch.
        batch: usize,
    },
    /// A token that names no block whose owner gave it up.
    #[error(
        "{token:?} (number {position} of the list) names no released block of this arena; nothing was freed"
    )]
    NotLive {
        /// The token.
        token: BlockToken,
        /// Its position in the list given to `free_many`.
        position: usize,
    },
}

impl From<MapError> for ArenaError {
    /// For calls on memory that is mapped already, where a smaller attempt makes no sense.
    fn from(error: MapError) -> Self {
        match error {
            MapError::Denied { call, errno } | MapError::NoSpace { call, errno } => {
                Self::ExecMemoryDenied { call, errno }
            }
            MapError::Unsupported(what) => Self::Unsupported { what },
        }
    }
}

/// Why bytes are not an unwind description the arena can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnwindError {
    /// The image ends inside a record.
    #[error("the unwind image ends inside the record at byte {at}")]
    Truncated {
        /// Offset of the record.
        at: usize,
    },
    /// The image has more or fewer than one function's description.
    #[error("expected the description of one function, found {found}")]
    NotOneFunction {
        /// How many there are.
        found: usize,
    },
    /// A 64-bit length field; no tool writes one for a function.
    #[error("64-bit DWARF record at byte {at}; write 32-bit records")]
    Dwarf64 {
        /// Offset of the record.
        at: usize,
    },
    /// A description that refers to no common record.
    #[error("the record at byte {at} refers to no CIE of this image")]
    MissingCie {
        /// Offset of the record.
        at: usize,
    },
    /// A CIE version other than 1, 3 and 4.
    #[error("CIE version {version} is not supported; versions 1, 3 and 4 are")]
    CieVersion {
        /// The version found.
        version: u8,
    },
    /// An augmentation the arena cannot carry (personality and language-specific data need addresses of their own).
    #[error("CIE augmentation character `{character}` is not supported; `z`, `R`, `S`, `B` and `G` are")]
    Augmentation {
        /// The character.
        character: char,
    },
    /// A pointer encoding that needs a base the arena does not have.
    #[error(
        "pointer encoding {encoding:#04x} is not supported; use absolute or pc-relative 4- or 8-byte addresses"
    )]
    PointerEncoding {
        /// The `DW_EH_PE_*` value.
        encoding: u8,
    },
    /// A record larger than 64 KiB.
    #[error("an unwind record of {bytes} bytes is larger than 64 KiB")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}
