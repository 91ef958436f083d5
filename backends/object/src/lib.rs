//! Relocatable objects, for backends: what they have in common beyond the arena.
//!
//! A [`Part`] is the code of one entry without a place. [`link`](fn@link) makes parts of an ELF object, whoever wrote it; [`emit`](fn@emit) makes an object
//! of parts. [`Placer`] puts parts into an arena and finishes jobs with them. [`Keeper`] keeps objects in an
//! [`Archive`](beadwork::Archive), and has functions run what is kept; with the feature `resident` a code cache's, too (`KeptCode`).
//!
//! What code refers to is either a runtime symbol of the VM or an [`Embed`]: an address or a number of the engine's that is another one in
//! another process, such as a slot. Both have names in the object; an embedded one names functions by their
//! [keys](beadwork::BeadInfo::key).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod dump;
mod elf;
mod embed;
mod emit;
mod frames;
mod keeper;
mod keeps;
#[cfg(feature = "resident")]
mod kept;
mod link;
mod part;
mod place;

pub use dump::{Dump, Dumping};
pub use embed::{Embed, Of};
pub use emit::{EmitError, emit, emit_to_read};
pub use frames::FrameError;
pub use keeper::{Begun, Keeper, Known};
pub use keeps::Keeps;
#[cfg(feature = "resident")]
pub use kept::{KeptCode, KeptCodeError, KeptKey};
pub use link::{Layout, LinkError, Linked, Outside, link};
pub use part::{ITSELF, Part};
pub use place::{ArenaReclaim, PlacementError, Placer, Placing, Staged, memory};
