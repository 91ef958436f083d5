//! Names of artifacts: what was compiled, and how.

use super::container::ARTIFACT_FORMAT;
use sha2::{Digest, Sha256};
use std::fmt;

/// What a function's code is made of, as a digest: its source, and whatever else of the VM goes into the code.
///
/// Two compiles with equal content give code of which either may stand in for the other, in this process or in another one. So a
/// frontend that speculates includes what it bets on, and one that embeds constants of the VM includes those.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentKey([u8; 32]);

impl ContentKey {
    /// The digest (SHA-256) of these pieces. Where one ends and the next begins matters.
    pub fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> ContentKey {
        ContentKey(digest(pieces))
    }

    /// A digest the VM has already.
    pub const fn from_bytes(bytes: [u8; 32]) -> ContentKey {
        ContentKey(bytes)
    }

    /// The digest.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

/// What an artifact is found by: a digest of its [`ContentKey`], its [`Recipe`] and the version of the format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArtifactKey([u8; 32]);

impl ArtifactKey {
    /// The key of the artifact of `content`, compiled by `recipe`.
    pub fn new(content: ContentKey, recipe: &Recipe) -> ArtifactKey {
        ArtifactKey::of(content, recipe.key())
    }

    /// The same, for a recipe whose texts were read before: what is left costs as much as reading a hundred bytes.
    pub fn of(content: ContentKey, recipe: RecipeKey) -> ArtifactKey {
        ArtifactKey(digest([&recipe.0[..], &content.0]))
    }

    /// A key that was written down.
    pub const fn from_bytes(bytes: [u8; 32]) -> ArtifactKey {
        ArtifactKey(bytes)
    }

    /// The digest.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

/// How code was compiled, in the words of its backend. Code of another recipe is never run.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Recipe {
    /// The compiler with its version.
    pub backend: String,
    /// Optimization level and all else that was chosen; the calling convention of the VM; the VM's own
    /// [tag](crate::Archive::tag).
    pub options: String,
    /// The target triple.
    pub target: String,
    /// The processor, or its features.
    pub features: String,
}

/// A [`Recipe`] as a digest, with the version of the format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RecipeKey([u8; 32]);

impl Recipe {
    /// Its digest.
    pub fn key(&self) -> RecipeKey {
        let Recipe { backend, options, target, features } = self;
        let format = ARTIFACT_FORMAT.to_le_bytes();
        let texts = [backend, options, target, features].map(|text| text.as_bytes());
        RecipeKey(digest(std::iter::once(&format[..]).chain(texts)))
    }
}

/// Each piece with its length before it, so that none runs into the next.
fn digest<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update((piece.len() as u64).to_le_bytes());
        hash.update(piece);
    }
    hash.finalize().into()
}

/// The one way a digest is printed: 64 hexadecimal digits.
fn hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentKey({self})")
    }
}

impl fmt::Display for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtifactKey({self})")
    }
}
