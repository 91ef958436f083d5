//! An artifact as bytes, and back.
//!
//! ```text
//! magic 8 │ format 4 │ length of the manifest 4 │ length of the object 8 │ digest 32 │ 0 8 │ manifest │ 0 … │ object
//! ```
//! Numbers are little-endian; the object begins at a multiple of 16 bytes. The digest is the SHA-256 of all that comes before it and
//! all that comes after it, so whatever changes is noticed before anything is read.

use super::key::{ArtifactKey, ContentKey, Recipe};
use super::refusal::Refusal;
use super::store::ArtifactBytes;
use super::wire::{Reader, Writer};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// The version of the format of artifacts, and of what their objects may refer to. Others are refused.
pub const ARTIFACT_FORMAT: u32 = 2;

const MAGIC: [u8; 8] = *b"beadart\0";
/// The header up to the digest, the digest, and the header as a whole.
const PLAIN: usize = 24;
const DIGEST: Range<usize> = PLAIN..PLAIN + 32;
const HEADER: usize = 64;
const ALIGN: usize = 16;

/// What an artifact says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Manifest {
    /// What was compiled.
    pub content: ContentKey,
    /// How.
    pub recipe: Recipe,
    /// The function's [key](crate::BeadInfo::key), 0 if it has none.
    pub function: u64,
    /// Its name, for people; may be empty.
    pub name: String,
    /// What the VM knows it by, in bytes of its own, for those who list artifacts; may be empty.
    pub label: Vec<u8>,
    /// Names of all that the object refers to and that is not in it, in no particular order.
    pub symbols: Vec<String>,
    /// Loops the object has native entries for.
    pub sites: Vec<u64>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl Manifest {
    /// Of code just compiled.
    pub fn new(content: ContentKey, recipe: Recipe) -> Manifest {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO);
        Manifest {
            content,
            recipe,
            function: 0,
            name: String::new(),
            label: Vec::new(),
            symbols: Vec::new(),
            sites: Vec::new(),
            created: now.as_secs(),
        }
    }

    /// What the artifact is found by.
    pub fn key(&self) -> ArtifactKey {
        ArtifactKey::new(self.content, &self.recipe)
    }

    /// Whether the code is of use to who compiles by `recipe`.
    pub(super) fn check(&self, recipe: &Recipe) -> Result<(), Refusal> {
        let (expected, found) = (recipe, &self.recipe);
        if found.target != expected.target {
            let (expected, found) = (expected.target.clone(), found.target.clone());
            return Err(Refusal::Target { expected, found });
        }
        if found.features != expected.features {
            let (expected, found) = (expected.features.clone(), found.features.clone());
            return Err(Refusal::Features { expected, found });
        }
        if found != expected {
            let words = |recipe: &Recipe| format!("{} {}", recipe.backend, recipe.options);
            return Err(Refusal::Recipe { expected: words(expected), found: words(found) });
        }
        Ok(())
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.digest(&self.content.to_bytes());
        let Recipe { backend, options, target, features } = &self.recipe;
        [backend, options, target, features, &self.name].into_iter().for_each(|text| out.text(text));
        out.u64(self.function);
        out.u64(self.created);
        out.bytes(&self.label);
        out.list(&self.symbols, |out, symbol| out.text(symbol));
        out.list(&self.sites, |out, &site| out.u64(site));
        out.0
    }

    fn read(bytes: &[u8]) -> Option<Manifest> {
        let mut from = Reader(bytes);
        let content = ContentKey::from_bytes(from.digest()?);
        let recipe = Recipe {
            backend: from.text()?,
            options: from.text()?,
            target: from.text()?,
            features: from.text()?,
        };
        let (name, function, created) = (from.text()?, from.u64()?, from.u64()?);
        let label = from.bytes()?.to_vec();
        let symbols = from.list(Reader::text)?;
        let sites = from.list(Reader::u64)?;
        from.0.is_empty().then_some(Manifest {
            content,
            recipe,
            function,
            name,
            label,
            symbols,
            sites,
            created,
        })
    }
}

/// An artifact whose bytes are those that were written.
///
/// That says nothing about who wrote them: artifacts are not signed. Whoever can write into a store can have any code run; keep it
/// where only the VM's own user can write.
#[derive(Clone, Debug)]
pub struct Artifact {
    manifest: Manifest,
    bytes: ArtifactBytes,
    object: Range<usize>,
}

impl Artifact {
    /// The bytes a store keeps. They depend on nothing but the arguments.
    ///
    /// # Errors
    /// [`Refusal::Object`] if the manifest does not fit 4 GiB.
    pub fn pack(manifest: &Manifest, object: &[u8]) -> Result<Vec<u8>, Refusal> {
        let words = manifest.write();
        let Ok(words_len) = u32::try_from(words.len()) else {
            return Err(Refusal::Object { reason: "its manifest does not fit 4 GiB".to_owned() });
        };
        let mut bytes = Vec::with_capacity(HEADER + words.len() + ALIGN + object.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&ARTIFACT_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&words_len.to_le_bytes());
        bytes.extend_from_slice(&(object.len() as u64).to_le_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend_from_slice(&words);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        bytes.extend_from_slice(object);
        let digest = digest(&bytes);
        bytes[DIGEST].copy_from_slice(&digest);
        Ok(bytes)
    }

    /// Checks bytes of a store: that they are whole, unaltered, and of this version of the format. Reads each byte once.
    ///
    /// # Errors
    /// [`Refusal`] if they are not.
    pub fn open(bytes: ArtifactBytes) -> Result<Artifact, Refusal> {
        let (manifest, object) = open(&bytes)?;
        Ok(Artifact { manifest, bytes, object })
    }

    /// As [`open`](Artifact::open), and checks that it is the one looked for, compiled by this recipe.
    ///
    /// # Errors
    /// [`Refusal`] if it is not.
    pub fn open_as(bytes: ArtifactBytes, key: ArtifactKey, recipe: &Recipe) -> Result<Artifact, Refusal> {
        let artifact = Artifact::open(bytes)?;
        artifact.manifest.check(recipe)?;
        let found = artifact.manifest.key();
        if found != key {
            return Err(Refusal::Misplaced { expected: key, found });
        }
        Ok(artifact)
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The relocatable object.
    pub fn object(&self) -> &[u8] {
        self.bytes.get(self.object.clone()).unwrap_or_default()
    }
}

/// The digest of everything but the digest.
fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&bytes[..DIGEST.start]);
    hash.update(&bytes[DIGEST.end..]);
    hash.finalize().into()
}

fn open(bytes: &[u8]) -> Result<(Manifest, Range<usize>), Refusal> {
    let magic = bytes.len().min(MAGIC.len());
    let found = || bytes[..bytes.len().min(12)].to_vec();
    if bytes[..magic] != MAGIC[..magic] {
        return Err(Refusal::Format { found: found() });
    }
    let truncated = |expected| Refusal::Truncated { expected, found: bytes.len() as u64 };
    let mut header = Reader(bytes.get(MAGIC.len()..HEADER).ok_or_else(|| truncated(HEADER as u64))?);
    let (versions, object) = (header.u64().unwrap_or(0), header.u64().unwrap_or(0));
    // Two fields of 32 bits, the first in the low half.
    let (format, words) = (versions as u32, versions >> 32);
    if format != ARTIFACT_FORMAT {
        return Err(Refusal::Format { found: found() });
    }
    let start = (HEADER as u64 + words).next_multiple_of(ALIGN as u64);
    // A length that is itself damaged makes the whole look truncated, which it is as far as anybody can tell.
    let expected = start.saturating_add(object);
    if (bytes.len() as u64) < expected {
        return Err(truncated(expected));
    }
    if bytes.len() as u64 > expected || bytes[DIGEST] != digest(bytes) {
        return Err(Refusal::Altered);
    }
    let manifest = Manifest::read(&bytes[HEADER..HEADER + words as usize]).ok_or(Refusal::Altered)?;
    Ok((manifest, start as usize..bytes.len()))
}
