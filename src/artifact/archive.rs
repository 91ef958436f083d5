//! A store in use: finding, saving, and counting what came of it.

use super::container::{Artifact, Manifest};
use super::key::{ArtifactKey, ContentKey, Recipe};
use super::refusal::Refusal;
use super::store::{ArtifactStore, Put};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Artifacts for the backends of an engine: a [store](ArtifactStore), whether compiles are saved to it, and counts. A clone shares everything.
///
/// Backends that are given one look for an artifact before they compile, and use it only if all of it is as it was written, for
/// this machine, by this compiler with these options. While [saving](Archive::set_saving) is on (it is off at first), what they
/// compile is saved.
///
/// **Artifacts are not signed.** Digests find damage, not malice: whoever can write into the store can have any code run in processes
/// that use it.
#[derive(Clone)]
pub struct Archive(Arc<Inner>);

struct Inner {
    store: Box<dyn ArtifactStore>,
    tag: String,
    saving: AtomicBool,
    /// How often it was cleared.
    cleared: AtomicU64,
    refused: Refused,
    counters: Counters,
}

/// Artifacts that were refused lately: the compile that follows is to replace them. A few bits of each, in places that others may take: a
/// refusal and the compile that follows it are close together, and what is forgotten is refused again. No lock, which a forked
/// child might find held.
struct Refused([AtomicU64; 256]);

impl Refused {
    fn place(&self, key: ArtifactKey) -> (&AtomicU64, u64) {
        let bytes = key.to_bytes();
        let mark = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) | 1;
        (&self.0[usize::from(bytes[31])], mark)
    }

    // Relaxed, all three: advice, written and read by the thread that compiles.
    fn note(&self, key: ArtifactKey) {
        let (place, mark) = self.place(key);
        place.store(mark, Relaxed);
    }

    fn has(&self, key: ArtifactKey) -> bool {
        let (place, mark) = self.place(key);
        place.load(Relaxed) == mark
    }

    fn forget(&self, key: ArtifactKey) {
        let (place, mark) = self.place(key);
        let _ = place.compare_exchange(mark, 0, Relaxed, Relaxed);
    }
}

/// Relaxed everywhere: each is a sum.
#[derive(Default)]
struct Counters {
    loaded: AtomicU64,
    missing: AtomicU64,
    refused: [AtomicU64; Refusal::KINDS],
    saved: AtomicU64,
    kept: AtomicU64,
    unsavable: AtomicU64,
}

/// What became of artifacts; each figure is exact once nothing is compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ArchiveStats {
    /// Functions whose code came from an artifact.
    pub loaded: u64,
    /// Functions that were looked for and had none.
    pub missing: u64,
    /// Artifacts that could not be read.
    pub unreadable: u64,
    /// Artifacts that were no artifacts, or of another format.
    pub format: u64,
    /// Artifacts that ended too soon.
    pub truncated: u64,
    /// Artifacts whose bytes were not those that were written.
    pub altered: u64,
    /// Artifacts in the place of another one.
    pub misplaced: u64,
    /// Artifacts of another compiler, or other options.
    pub recipe: u64,
    /// Artifacts for another kind of machine.
    pub target: u64,
    /// Artifacts for a processor with other features.
    pub features: u64,
    /// Artifacts that refer to something that is not there.
    pub missing_symbol: u64,
    /// Artifacts without an entry into a loop that was wanted.
    pub missing_loop: u64,
    /// Artifacts whose objects could not be linked.
    pub object: u64,
    /// Compiles that were saved.
    pub saved: u64,
    /// Compiles that were not, since there was an artifact already that is as good, or the same.
    pub kept: u64,
    /// Compiles that could not be saved.
    pub unsavable: u64,
}

impl ArchiveStats {
    /// Artifacts that were found and not used, for all reasons together.
    pub fn refused(&self) -> u64 {
        let damaged = self.unreadable + self.format + self.truncated + self.altered + self.misplaced;
        let foreign = self.recipe + self.target + self.features;
        damaged + foreign + self.missing_symbol + self.missing_loop + self.object
    }
}

/// Why a compile was not saved. Its code is installed all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// It refers to something that has no name outside this process.
    #[error("the code of `{function}` refers to {what}; {remedy}")]
    Nameless {
        /// The function.
        function: String,
        /// What that is.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The object could not be written.
    #[error("no object can be made of the code of `{function}`: {reason}")]
    Object {
        /// The function.
        function: String,
        /// Why.
        reason: String,
    },
    /// The store refused it.
    #[error("the store refused the artifact of `{function}`: {reason}")]
    Store {
        /// The function.
        function: String,
        /// What it said.
        reason: String,
    },
    /// The store was cleared while the function was compiled.
    #[error("the store was cleared while `{function}` was compiled")]
    Cleared {
        /// The function.
        function: String,
    },
}

impl Archive {
    /// Uses a store.
    pub fn new(store: impl ArtifactStore) -> Archive {
        Archive::tagged(store, "")
    }

    /// Uses a store for one of the VMs, or versions of a VM, that share it: what has another tag is not found. The runtime that compiled code
    /// calls belongs to the tag; change it when the meaning of a runtime symbol changes.
    pub fn tagged(store: impl ArtifactStore, tag: impl Into<String>) -> Archive {
        Archive(Arc::new(Inner {
            store: Box::new(store),
            tag: tag.into(),
            saving: AtomicBool::new(false),
            cleared: AtomicU64::new(0),
            refused: Refused([const { AtomicU64::new(0) }; 256]),
            counters: Counters::default(),
        }))
    }

    /// The VM's tag; backends put it into their [`Recipe::options`].
    pub fn tag(&self) -> &str {
        &self.0.tag
    }

    /// Whether what is compiled from now on is saved. It costs a file that is synchronised for each function, on the thread
    /// that compiles.
    pub fn set_saving(&self, saving: bool) {
        // Relaxed: a wish.
        self.0.saving.store(saving, Relaxed);
    }

    /// Whether what is compiled is saved.
    pub fn is_saving(&self) -> bool {
        self.0.saving.load(Relaxed)
    }

    /// The artifact of `content`, compiled by `recipe`, with entries into these loops; `None` if there is none. What is answered was
    /// checked, and is to be [noted as loaded](Archive::loaded) or [refused](Archive::refused) once it was linked.
    ///
    /// # Errors
    /// [`Refusal`], counted and told as a warning.
    pub fn find(
        &self,
        content: ContentKey,
        recipe: &Recipe,
        sites: &[u64],
    ) -> Result<Option<Artifact>, Refusal> {
        let key = ArtifactKey::new(content, recipe);
        let found = self.look(key, recipe).and_then(|found| {
            let Some(artifact) = found else { return Ok(None) };
            match sites.iter().find(|site| !artifact.manifest().sites.contains(site)) {
                Some(&site) => Err(Refusal::MissingLoop { site }),
                None => Ok(Some(artifact)),
            }
        });
        if let Ok(None) = found {
            self.count(&self.0.counters.missing);
        }
        found.inspect_err(|refusal| self.refused(key, refusal))
    }

    fn look(&self, key: ArtifactKey, recipe: &Recipe) -> Result<Option<Artifact>, Refusal> {
        let found = self.0.store.get(key);
        let found = found.map_err(|error| Refusal::Unreadable { reason: error.to_string().into() })?;
        found.map(|bytes| Artifact::open_as(bytes, key, recipe)).transpose()
    }

    /// Notes that a function runs code of an artifact.
    pub fn loaded(&self) {
        self.count(&self.0.counters.loaded);
    }

    /// Notes that an artifact could not be used, and tells of it as a warning. The compile that follows replaces it, if it is
    /// [saved](Archive::save).
    pub fn refused(&self, key: ArtifactKey, refusal: &Refusal) {
        self.0.refused.note(key);
        if let Some(counter) = self.0.counters.refused.get(refusal.kind()) {
            self.count(counter);
        }
        tracing::warn!(target: "beadwork", artifact = %key, reason = %refusal, "an artifact was refused");
    }

    /// The state of the store to be named when a compile that began now is [saved](Archive::save).
    pub fn edition(&self) -> u64 {
        // Relaxed: who was not removed by a `clear` came to the store after it, and the store's own order makes its number seen.
        self.0.cleared.load(Relaxed)
    }

    /// Saves a compile that began when [`edition`](Archive::edition) was this, unless the store was cleared since. An artifact that is
    /// there already stays, unless it is damaged, cannot be read, has fewer loop entries, or was [refused](Archive::refused) just now for
    /// what it refers to or lacks. It stays in any case if this compile came to the same object and loop entries: that would be
    /// refused as well.
    ///
    /// # Errors
    /// [`SaveError`], counted and told as a warning.
    pub fn save(&self, edition: u64, manifest: &Manifest, object: &[u8]) -> Result<Put, SaveError> {
        let put = self.put(edition, manifest, object);
        match &put {
            Ok(Put::Stored) => self.count(&self.0.counters.saved),
            Ok(Put::Kept) => self.count(&self.0.counters.kept),
            Err(error) => self.unsavable(error),
        }
        put
    }

    /// Notes that a compile could not be saved, and tells of it as a warning.
    pub fn unsavable(&self, error: &SaveError) {
        self.count(&self.0.counters.unsavable);
        tracing::warn!(target: "beadwork", reason = %error, "a compile was not saved");
    }

    fn put(&self, edition: u64, manifest: &Manifest, object: &[u8]) -> Result<Put, SaveError> {
        let function = || manifest.name.clone();
        let (key, store) = (manifest.key(), &self.0.store);
        let bytes = Artifact::pack(manifest, object)
            .map_err(|error| SaveError::Object { function: function(), reason: error.to_string() })?;
        let failed =
            |error: std::io::Error| SaveError::Store { function: function(), reason: error.to_string() };
        let was_refused = self.0.refused.has(key);
        let replace = match self.look(key, &manifest.recipe) {
            Ok(None) => false,
            Ok(Some(old)) if old.object() == object && old.manifest().sites == manifest.sites => {
                return Ok(Put::Kept);
            }
            Ok(Some(old)) if !was_refused && old.manifest().sites.len() >= manifest.sites.len() => {
                return Ok(Put::Kept);
            }
            Ok(Some(_)) => true,
            // Of no use to anybody who looks there.
            Err(_) => true,
        };
        if edition != self.edition() {
            return Err(SaveError::Cleared { function: function() });
        }
        let put = store.put(key, &bytes, replace).map_err(failed)?;
        self.0.refused.forget(key);
        if edition != self.edition() {
            // Cleared just now, perhaps before this was there to be removed.
            store.remove(key).map_err(failed)?;
            return Err(SaveError::Cleared { function: function() });
        }
        Ok(put)
    }

    /// Whether a sound artifact of `content`, compiled by `recipe`, is there. Counts nothing.
    pub fn has(&self, content: ContentKey, recipe: &Recipe) -> bool {
        matches!(self.look(ArtifactKey::new(content, recipe), recipe), Ok(Some(_)))
    }

    /// Calls `visit` with the manifest of every sound artifact, whatever its recipe; counts the others. Reads all of them.
    ///
    /// # Errors
    /// Whatever keeps the store from being listed.
    pub fn each(&self, mut visit: impl FnMut(&Manifest)) -> std::io::Result<()> {
        self.0.store.keys(&mut |key| {
            let opened = match self.0.store.get(key) {
                Ok(Some(bytes)) => Artifact::open(bytes),
                Ok(None) => return,
                Err(error) => Err(Refusal::Unreadable { reason: error.to_string().into() }),
            };
            let placed = opened.and_then(|artifact| match artifact.manifest().key() {
                found if found == key => Ok(artifact),
                found => Err(Refusal::Misplaced { expected: key, found }),
            });
            match placed {
                Ok(artifact) => visit(artifact.manifest()),
                Err(refusal) => self.refused(key, &refusal),
            }
        })
    }

    /// The keys of all artifacts there are, sound or not, whatever their recipe. Reads none of them.
    ///
    /// # Errors
    /// Whatever keeps the store from being listed.
    pub fn keys(&self) -> std::io::Result<Vec<ArtifactKey>> {
        let mut all = Vec::new();
        self.0.store.keys(&mut |key| all.push(key))?;
        Ok(all)
    }

    /// Forgets all artifacts, and those of compiles that began before this was called. One that is being written just now may be seen
    /// for a moment.
    ///
    /// # Errors
    /// Whatever keeps them from being listed, and nothing is removed; or the first that could not be removed, once all others have been.
    pub fn clear(&self) -> std::io::Result<()> {
        // Compiles that began before are known by the older number.
        self.0.cleared.fetch_add(1, Relaxed);
        self.0.store.clear()
    }

    /// What became of artifacts.
    pub fn stats(&self) -> ArchiveStats {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let [
            unreadable,
            format,
            truncated,
            altered,
            misplaced,
            recipe,
            target,
            features,
            symbol,
            lacks,
            object,
        ] = counters.refused.each_ref().map(read);
        ArchiveStats {
            loaded: read(&counters.loaded),
            missing: read(&counters.missing),
            unreadable,
            format,
            truncated,
            altered,
            misplaced,
            recipe,
            target,
            features,
            missing_symbol: symbol,
            missing_loop: lacks,
            object,
            saved: read(&counters.saved),
            kept: read(&counters.kept),
            unsavable: read(&counters.unsavable),
        }
    }

    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
