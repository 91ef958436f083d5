//! What a compile is of: a key, its source, and what for.

use super::entry::Keyed;
use crate::error::CompileError;
use crate::job::Job;
use crate::sync::lock;
use std::fmt;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What keys are: compared, hashed, copied when they are new, and shared by threads. Every such type is one.
///
/// `Hash`, `Eq` and `Clone` must not panic and must not call the cache. A key that is a cryptographic hash already may implement
/// `Hash` by giving eight of its bytes; that is the larger part of what a hit costs. They have to be bytes that nobody can choose: some
/// dozens of keys whose hashes are all equal make a clear take for ever.
pub trait CacheKey: Hash + Eq + Clone + Send + Sync + 'static {}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> CacheKey for K {}

/// What a compile of a [cache](super) is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Purpose {
    /// Code for this process; what an artifact holds will do.
    Run,
    /// An artifact, and code for this process with it. If there is an artifact already, that will do.
    Prepare,
    /// Only what an artifact holds: nothing is compiled, and there is no source.
    Preload,
}

/// One key to compile, as the request for it noted: what a backend reads by [`Unit::of`].
pub struct Unit<K> {
    key: K,
    source: Option<Arc<[u8]>>,
    purpose: Purpose,
    dump: Option<PathBuf>,
    phases: Mutex<Vec<(&'static str, Duration)>>,
    pub(super) of: Option<Asked<K>>,
}

/// The request of a cache's that a unit comes from.
pub(super) struct Asked<K> {
    pub(super) entry: Keyed<K>,
    /// The number of the turnstile then.
    pub(super) number: u64,
}

impl<K: Send + Sync + 'static> Unit<K> {
    /// What a job of a cache with keys of type `K` is to compile.
    ///
    /// # Errors
    /// If the job came without, since it was not a lookup that asked for it (a recompile after a bailout, a compile that a forked
    /// child took up again). Finish the job with the error, which is no failure; it is asked for again when the key is looked up.
    /// If the cache's keys are of another type, the error is a failure that says so.
    pub fn of<'j>(job: &'j Job<'_>) -> Result<&'j Unit<K>, CompileError> {
        match Unit::shared(job) {
            Some(unit) => Ok(unit),
            None if job.has_snapshot() => Err(CompileError::failed(format_args!(
                "the cache's keys are no {}; name the type of its keys in Unit::of",
                std::any::type_name::<K>()
            ))),
            None => Err(CompileError::Withdrawn("the request came without its key and source")),
        }
    }

    pub(super) fn shared<'j>(job: &'j Job<'_>) -> Option<&'j Arc<Unit<K>>> {
        job.snapshot()
    }
}

impl<K> Unit<K> {
    /// A unit outside of any cache, for tests of backends and artifacts.
    pub fn new(key: K, source: impl Into<Arc<[u8]>>, purpose: Purpose) -> Unit<K> {
        Unit { key, source: Some(source.into()), purpose, dump: None, phases: Mutex::default(), of: None }
    }

    pub(super) fn asked(
        key: K,
        source: Option<Arc<[u8]>>,
        purpose: Purpose,
        dump: Option<PathBuf>,
        asked: Asked<K>,
    ) -> Unit<K> {
        Unit { key, source, purpose, dump, phases: Mutex::default(), of: Some(asked) }
    }

    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The source; empty where the purpose is [`Purpose::Preload`], which compiles nothing.
    pub fn source(&self) -> &[u8] {
        self.source.as_deref().unwrap_or_default()
    }

    /// What it is compiled for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// A folder of this key's own that a backend may write what it makes to (IR, assembly), if the cache
    /// [dumps](super::CodeCacheBuilder::dump). It exists, and the source is in it.
    pub fn dump_dir(&self) -> Option<&Path> {
        self.dump.as_deref()
    }

    /// Notes what a phase of the compile took, for [`Completion::phases`](super::Completion::phases).
    pub fn note_phase(&self, phase: &'static str, took: Duration) {
        lock(&self.phases).push((phase, took));
    }

    pub(super) fn phases(&self) -> Vec<(&'static str, Duration)> {
        lock(&self.phases).clone()
    }
}

impl<K: fmt::Debug> fmt::Debug for Unit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unit")
            .field("key", &self.key)
            .field("source_bytes", &self.source.as_ref().map(|source| source.len()))
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}
