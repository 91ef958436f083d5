//! Executable memory for code generators: placed in batches, freed per function, never writable and executable at once.
//!
//! An [`Arena`] takes finished machine code with relocations and unwind information from whoever made it (Cranelift,
//! LLVM, an object file, an assembler) and answers with one [`CodeBlock`] per function. It knows no
//! code generator and no engine.
//!
//! ```
//! # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
//! use beadwork_arena::{Arena, Function};
//!
//! let arena = Arena::builder().build()?;
//! let code = [0x8d, 0x47, 0x01, 0xc3]; // lea eax, [rdi + 1]; ret
//! let function = Function { name: "increment", code: &code, align: 16, relocations: &[], unwind: None };
//! let block = arena.place(&[function])?.remove(0);
//! // SAFETY: the bytes are a C function from i32 to i32, and `block` lives until after the call.
//! let increment: extern "C" fn(i32) -> i32 = unsafe { std::mem::transmute(block.entry()) };
//! assert_eq!(increment(41), 42);
//! assert_eq!(arena.stats().live_blocks, 1);
//! drop(block); // frees the four bytes (and their granule)
//! assert_eq!(arena.stats().live_bytes, 0);
//! # }
//! # Ok::<(), beadwork_arena::ArenaError>(())
//! ```
//!
//! # How memory is organised
//! Code lives in a few large *regions* of reserved, sparse address space (64 MiB by default), so the number of mappings
//! stays flat however many functions there are. A region is a row of 32-byte *granules*; freed granules are poisoned,
//! coalesced and reused by best fit. [`Aliasing`] chooses between two views of the same memory (the default) and
//! memory that is writable first and executable after, without a writable view.
//!
//! # What a caller relies on
//! * A batch is placed wholly or not at all, a list of tokens is freed wholly or not at all, and every refusal is a typed
//!   [`ArenaError`].
//! * A function's bytes never change or move while its block lives, and are reused only after the unwinder has
//!   forgotten it.
//! * After `fork` both processes keep running the code that exists; neither writes to it again.
//! * What `place` returns is ready for every thread that learns of it through a Release store of the caller.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod alloc;
#[allow(unsafe_code)]
mod arena;
mod bitmap;
#[allow(unsafe_code)]
mod block;
mod builder;
mod error;
#[cfg(unix)]
#[allow(unsafe_code)]
mod fork;
#[cfg(all(feature = "gdb", target_os = "linux"))]
#[allow(unsafe_code)]
mod gdb;
#[allow(unsafe_code)]
mod icache;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod jitdump;
mod layout;
#[allow(unsafe_code)]
mod mapping;
mod names;
mod perf;
mod place;
mod region;
pub mod relocate;
mod state;
mod stats;
#[allow(unsafe_code)]
mod unwind;

pub use arena::Arena;
pub use block::{BlockToken, CodeBlock, CodeGroup};
pub use builder::{Aliasing, ArenaBuilder};
pub use error::{ArenaError, UnwindError};
pub use place::{Function, Relocation, Target};
pub use relocate::{RelocationError, RelocationKind};
pub use stats::ArenaStats;
pub use unwind::{FdeRecord, UnwindInfo};
