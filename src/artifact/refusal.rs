//! Why an artifact is not used.

use std::sync::Arc;

/// Why an artifact was refused. Nothing of it was run; the function is compiled as if there were none, and what that comes to
/// [replaces](super::Archive::save) it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The store could not read it.
    #[error("the store cannot read it: {reason}")]
    Unreadable {
        /// What it said.
        reason: Arc<str>,
    },
    /// It is no artifact, or one of another version of the format.
    #[error("it is not an artifact of format {ours}: it starts with {found:02x?}", ours = super::ARTIFACT_FORMAT)]
    Format {
        /// Its first bytes, at most twelve.
        found: Vec<u8>,
    },
    /// It ends too soon.
    #[error("it is truncated: {found} bytes of {expected}")]
    Truncated {
        /// Bytes there should be.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Its bytes are not those that were written: the digest says so, or there are more of them.
    #[error("its bytes are not those that were written")]
    Altered,
    /// It lies where another one belongs.
    #[error("it is the artifact {found}, found in the place of {expected}")]
    Misplaced {
        /// The key it was looked up by.
        expected: super::ArtifactKey,
        /// Its own.
        found: super::ArtifactKey,
    },
    /// It was made by another compiler, or with other options.
    #[error("it was compiled by `{found}`, not by `{expected}`")]
    Recipe {
        /// Compiler and options here.
        expected: String,
        /// Those of the artifact.
        found: String,
    },
    /// It is for another kind of machine.
    #[error("it is for the target `{found}`; this is `{expected}`")]
    Target {
        /// The target here.
        expected: String,
        /// The target of the artifact.
        found: String,
    },
    /// It is for a processor with other features.
    #[error("it is for a processor with `{found}`; this one is used with `{expected}`")]
    Features {
        /// The features used here.
        expected: String,
        /// The features of the artifact.
        found: String,
    },
    /// It refers to something that is not there.
    #[error("it refers to `{symbol}`, which is not there")]
    MissingSymbol {
        /// The name: of a runtime symbol, or of what belongs to a function.
        symbol: String,
    },
    /// It has no native entry into a loop that is wanted.
    #[error("it has no entry into loop {site}")]
    MissingLoop {
        /// The loop.
        site: u64,
    },
    /// The object in it cannot be linked.
    #[error("its object cannot be linked: {reason}")]
    Object {
        /// What the linker said.
        reason: String,
    },
}

impl Refusal {
    /// How many kinds there are.
    pub(crate) const KINDS: usize = 11;

    pub(crate) fn kind(&self) -> usize {
        match self {
            Refusal::Unreadable { .. } => 0,
            Refusal::Format { .. } => 1,
            Refusal::Truncated { .. } => 2,
            Refusal::Altered => 3,
            Refusal::Misplaced { .. } => 4,
            Refusal::Recipe { .. } => 5,
            Refusal::Target { .. } => 6,
            Refusal::Features { .. } => 7,
            Refusal::MissingSymbol { .. } => 8,
            Refusal::MissingLoop { .. } => 9,
            Refusal::Object { .. } => 10,
        }
    }
}
