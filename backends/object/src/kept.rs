//! Code of a [cache](beadwork::resident) kept across processes.

use crate::keeper::{Begun, Keeper};
use crate::keeps::Keeps;
use beadwork::resident::{ArtifactCounts, Artifacts, CacheKey, Prepared, Unit};
use beadwork::{ArtifactKey, CompileError, CompiledCode, ContentKey, Job, Reason};
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

/// A key that can be written down: what an artifact says of itself, and what preloading reads.
///
/// Different keys give different bytes, the same ones in every process.
pub trait KeptKey: CacheKey {
    /// Its bytes.
    fn to_label(&self) -> Vec<u8>;

    /// The key with these bytes; `None` if there is none.
    fn from_label(label: &[u8]) -> Option<Self>;
}

impl<const N: usize> KeptKey for [u8; N] {
    fn to_label(&self) -> Vec<u8> {
        self.to_vec()
    }
    fn from_label(label: &[u8]) -> Option<Self> {
        label.try_into().ok()
    }
}

impl KeptKey for Vec<u8> {
    fn to_label(&self) -> Vec<u8> {
        self.clone()
    }
    fn from_label(label: &[u8]) -> Option<Self> {
        Some(label.to_vec())
    }
}

impl KeptKey for String {
    fn to_label(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }
    fn from_label(label: &[u8]) -> Option<Self> {
        String::from_utf8(label.to_vec()).ok()
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl KeptKey for $number {
            fn to_label(&self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
            fn from_label(label: &[u8]) -> Option<Self> {
                Some(<$number>::from_le_bytes(label.try_into().ok()?))
            }
        }
    )*};
}

numbers! { u32 u64 u128 }

/// Keeps the code of a [`CodeCache`](beadwork::resident::CodeCache) in the [`Archive`](beadwork::Archive) of its backend: give the
/// same backend to the cache's [tier](beadwork::Tier) and to this, and this to
/// [`CodeCacheBuilder::artifacts`](beadwork::resident::CodeCacheBuilder::artifacts). Whether the archive
/// [saves](beadwork::Archive::set_saving) does not matter: the cache says what is kept.
///
/// The key is the content: code of one key may run wherever the same key is looked up, by the same VM, in any process. What else
/// goes into code (constants of the VM, the meaning of runtime symbols, the type of keys) belongs to the archive's
/// [tag](beadwork::Archive::tagged). Code may refer to runtime symbols by name and to itself. Code that refers to other
/// keys' functions, or relies on assumptions, runs and is not kept. The frontend leaves out its own `content`.
///
/// A clear removes all that is in the archive's store, whoever put it there. `beadwork-cranelift` has an example.
pub struct KeptCode<K, B> {
    backend: Arc<B>,
    keeper: Keeper,
    /// What was in the store when it was opened, and what came and went by this since. No lock, since lookups ask; a forked child asks, too.
    known: Arc<papaya::HashSet<ArtifactKey>>,
    keys: PhantomData<fn() -> K>,
}

/// Why code cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptCodeError {
    /// The backend has no archive.
    #[error("the backend has no archive; give its builder one")]
    NoArchive,
    /// The store cannot be listed.
    #[error("the artifacts cannot be listed: {0}")]
    Store(#[from] io::Error),
}

impl<K: KeptKey, B: Keeps> KeptCode<K, B> {
    /// Keeps what `backend` compiles. Lists the store once, and reads none of it.
    ///
    /// # Errors
    /// [`KeptCodeError`].
    pub fn new(backend: Arc<B>) -> Result<KeptCode<K, B>, KeptCodeError> {
        let keeper = backend.keeper().cloned().ok_or(KeptCodeError::NoArchive)?;
        let known = keeper.archive().keys()?.into_iter().collect();
        Ok(KeptCode { backend, keeper, known: Arc::new(known), keys: PhantomData })
    }

    fn begin(&self, key: &K, job: &Job<'_>) -> Begun {
        let label = key.to_label();
        self.keeper.begin(job, content(&label)).labelled(label)
    }
}

fn content(label: &[u8]) -> ContentKey {
    // Apart from what frontends call the content of functions that are in no cache.
    ContentKey::of([&b"beadwork.resident"[..], label])
}

impl<K: KeptKey, B: Keeps> Artifacts<K> for KeptCode<K, B> {
    fn contains(&self, key: &K) -> bool {
        let known = self.known.pin();
        !known.is_empty()
            && self.keeper.artifact_keys(content(&key.to_label())).iter().any(|key| known.contains(key))
    }

    fn load(&self, key: &K, job: &mut Job<'_>) -> Result<Option<CompiledCode>, CompileError> {
        let begun = self.begin(key, job);
        let loaded = self.backend.load(&begun, job)?;
        let artifact = self.keeper.artifact_key(&begun);
        match &loaded {
            Some(_) => _ = self.known.pin().insert(artifact),
            // There is none, or none of use. (After a bailout it was not looked for.)
            None if job.reason() != Reason::Deopt => _ = self.known.pin().remove(&artifact),
            None => (),
        }
        Ok(loaded)
    }

    fn prepare(&self, unit: &Unit<K>, job: &mut Job<'_>) -> Result<Prepared, CompileError> {
        let begun = self.begin(unit.key(), job);
        let (code, staged) = self.backend.compile_to_keep(job)?;
        let (keeper, known) = (self.keeper.clone(), self.known.clone());
        Ok(Prepared::new(code, move || {
            let put = keeper.save(&begun, &staged).map_err(io::Error::other)?;
            known.pin().insert(keeper.artifact_key(&begun));
            Ok(put)
        }))
    }

    fn keys(&self) -> io::Result<Vec<K>> {
        let ours = [false, true].map(|counts| self.keeper.recipe(counts));
        let mut all = HashSet::new();
        self.keeper.archive().each(|manifest| {
            if ours.contains(&&manifest.recipe)
                && manifest.content == content(&manifest.label)
                && let Some(key) = K::from_label(&manifest.label)
            {
                all.insert(key);
            }
        })?;
        Ok(all.into_iter().collect())
    }

    fn clear(&self) -> io::Result<()> {
        let cleared = self.keeper.archive().clear();
        self.known.pin().clear();
        cleared
    }

    fn counts(&self) -> ArtifactCounts {
        ArtifactCounts::new(self.known.len() as u64, self.keeper.archive().stats().refused())
    }
}

impl<K, B> fmt::Debug for KeptCode<K, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptCode")
            .field("archive", self.keeper.archive())
            .field("known", &self.known.len())
            .finish_non_exhaustive()
    }
}
