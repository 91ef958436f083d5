//! Relocatable objects, for backends: what they have in common beyond the arena.
//!
//! A [`Part`] is the code of one entry without a place. [`link`](fn@link) makes parts of an ELF object, whoever wrote it; [`emit`](fn@emit) makes an object
//! of parts. A [`Driver`] is the backend of a [`Compiler`] that makes parts of functions: it places them in an arena, finishes the jobs with
//! them, and counts. [`Keeper`] keeps objects in an [`Archive`](beadwork::Archive), and has functions run what is kept; with the feature
//! `resident` a code cache's, too (`KeptCode`).
//!
//! What code refers to is either a runtime symbol of the VM or an [`Embed`]: an address or a number of the engine's that is another one in
//! another process, such as a slot. Both have names in the object; an embedded one names functions by their
//! [keys](beadwork::BeadInfo::key).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod driver;
mod dump;
mod elf;
mod embed;
mod emit;
mod frames;
mod frontend;
mod install;
mod keeper;
mod keeps;
#[cfg(feature = "resident")]
mod kept;
mod link;
mod part;
mod place;
mod stats;
mod symbols;

pub use driver::{Compiler, Driver, Hears, function_name, panic_message};
pub use dump::{Dump, Dumping};
pub use embed::{Embed, Of};
pub use emit::{EmitError, emit, emit_to_read};
pub use frames::FrameError;
pub use frontend::{Entry, ITERATIONS_PER_REPORT};
pub use install::PlacementError;
pub use keeper::{Begun, Keeper, Known};
pub use keeps::Keeps;
#[cfg(feature = "resident")]
pub use kept::{KeptCode, KeptCodeError, KeptKey};
pub use link::{Layout, LinkError, Linked, Outside, link};
pub use part::{ITSELF, Part};
pub use place::{ArenaReclaim, Staged};
pub use stats::BackendStats;
pub use symbols::{NullSymbol, Symbols};
