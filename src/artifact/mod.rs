//! Artifacts: native code that outlives the process.
//!
//! An artifact is one relocatable object, as a backend made it, and a [`Manifest`] that says of what, by whom and for which machine. Here
//! is what is the same for every backend, and pure: how an artifact is [named](key), [written down and checked](container),
//! and [why one is refused](refusal); and the [stores](store) that keep them. What an object consists of is the backends' business.

mod archive;
mod container;
#[cfg(unix)]
#[allow(unsafe_code)]
mod file;
mod key;
mod refusal;
mod store;
#[cfg(all(test, not(beadwork_loom)))]
mod tests;
mod wire;

pub use archive::{Archive, ArchiveStats, SaveError};
pub use container::{ARTIFACT_FORMAT, Artifact, Manifest};
#[cfg(unix)]
pub use file::FileStore;
#[cfg(unix)]
pub(crate) use file::{map_file, replace_file};
pub use key::{ArtifactKey, ContentKey, Recipe, RecipeKey};
pub use refusal::Refusal;
pub use store::{ArtifactBytes, ArtifactStore, MemoryStore, Put};
