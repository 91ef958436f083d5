//! Code kept across processes, as a cache sees it.

use super::unit::Unit;
use crate::artifact::Put;
use crate::code::CompiledCode;
use crate::error::CompileError;
use crate::job::Job;
use std::fmt;
use std::io;

/// Code that outlives the process, by key: what a cache asks before it compiles, and hands its compiles to that are to be kept.
///
/// All of it is called on workers or on the thread that called the cache, with no lock held; by several at once. Panics are
/// contained and taken for errors.
pub trait Artifacts<K>: Send + Sync + 'static {
    /// Whether there is an artifact for the key, as far as is known without asking the store: a key that has one is asked for at its
    /// first lookup, whatever the policy thinks. Asked on mutators' threads, so it has to be as cheap as a look into a map.
    fn contains(&self, key: &K) -> bool;

    /// Links the artifact of a key; asked before each compile, whatever [`contains`](Artifacts::contains) said. `None` if there is none, or none that may be used here (altered, for another target,
    /// for another version of the format): the implementation counts and reports why, and the key is compiled.
    ///
    /// # Errors
    /// Only what a compile would run into as well (memory, say): it counts as a failed compile.
    fn load(&self, key: &K, job: &mut Job<'_>) -> Result<Option<CompiledCode>, CompileError>;

    /// Compiles ahead of time, and links the result. It is kept when the cache calls [`Prepared::keep`].
    ///
    /// # Errors
    /// Whatever a backend would finish the job with.
    fn prepare(&self, unit: &Unit<K>, job: &mut Job<'_>) -> Result<Prepared, CompileError>;

    /// The keys there are artifacts for, each once; which of them [`load`](Artifacts::load) is not known yet.
    ///
    /// # Errors
    /// The store cannot be read.
    fn keys(&self) -> io::Result<Vec<K>>;

    /// Removes every artifact there is. Code that was loaded stays.
    ///
    /// # Errors
    /// The store cannot be written. What was removed stays removed.
    fn clear(&self) -> io::Result<()>;

    /// What is known of artifacts without asking the store, for [`CacheStats`](super::CacheStats). All 0 by default.
    fn counts(&self) -> ArtifactCounts {
        ArtifactCounts::default()
    }
}

/// What is known of artifacts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ArtifactCounts {
    /// Artifacts there are.
    pub persisted: u64,
    /// Artifacts that were found and not used, for whatever reason.
    pub refused: u64,
}

impl ArtifactCounts {
    /// So many there are, and so many were refused.
    pub fn new(persisted: u64, refused: u64) -> ArtifactCounts {
        ArtifactCounts { persisted, refused }
    }
}

/// Code compiled ahead of time and linked, with its artifact, which is not kept yet.
pub struct Prepared {
    pub(super) code: CompiledCode,
    pub(super) keep: Box<dyn FnOnce() -> io::Result<Put> + Send>,
}

impl Prepared {
    /// `keep` writes the artifact, and answers whether it did: there may be one already that is as good. It is not called if the artifacts were cleared since the compile was asked for; if it fails, the
    /// code runs all the same.
    pub fn new(code: CompiledCode, keep: impl FnOnce() -> io::Result<Put> + Send + 'static) -> Prepared {
        Prepared { code, keep: Box::new(keep) }
    }

    /// Writes the artifact, and answers the code. What a cache does, for tests.
    ///
    /// # Errors
    /// The artifact could not be written.
    pub fn keep(self) -> io::Result<CompiledCode> {
        (self.keep)().map(|_| self.code)
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("code", &self.code).finish_non_exhaustive()
    }
}
