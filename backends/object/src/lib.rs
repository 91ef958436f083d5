//! Relocatable objects, for backends: what they have in common beyond the arena.
//!
//! A [`Part`] is the code of one entry without a place. [`link`](fn@link) makes parts of an ELF object, whoever wrote it; [`emit`](fn@emit) makes an object
//! of parts. [`Keeper`] keeps objects in an [`Archive`](beadwork::Archive), and has functions run what is kept.
//!
//! What code refers to is either a runtime symbol of the VM or an [`Embed`]: an address or a number of the engine's that is another one in
//! another process, such as a slot. Both have names in the object; an embedded one names functions by their
//! [keys](beadwork::BeadInfo::key).

mod elf;
mod embed;
mod emit;
mod frames;
mod keeper;
mod link;
mod part;

pub use embed::Embed;
pub use emit::{EmitError, emit};
pub use frames::FrameError;
pub use keeper::{Begun, Keeper, Known, Loaded};
pub use link::{Layout, LinkError, Linked, link};
pub use part::{ITSELF, Part};
