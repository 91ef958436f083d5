//! What a compile is of: a key, its source, and what for.

use crate::backend::Job;
use crate::error::CompileError;
use std::fmt;
use std::sync::Arc;

/// What a compile of a [cache](super) is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Purpose {
    /// Code for this process; what an artifact holds will do.
    Run,
    /// An artifact, and code for this process with it.
    Prepare,
    /// Only what an artifact holds: nothing is compiled, and there is no source.
    Preload,
}

/// One key to compile, as the request for it noted: what a backend reads by [`Unit::of`].
pub struct Unit<K> {
    pub(super) key: K,
    pub(super) source: Option<Arc<[u8]>>,
    pub(super) purpose: Purpose,
}

impl<K: Send + Sync + 'static> Unit<K> {
    /// What a job of a cache with keys of type `K` is to compile.
    ///
    /// # Errors
    /// If the job came without: it is not a cache's, the keys are of another type, or it is a compile that a forked child
    /// took up again. Finish the job with the error; it is asked for again when the key is looked up.
    pub fn of<'j>(job: &'j Job<'_>) -> Result<&'j Unit<K>, CompileError> {
        job.snapshot::<Arc<Unit<K>>>().map(|unit| &**unit).ok_or_else(|| {
            CompileError::failed("the request came without its key and source; look the key up again")
        })
    }
}

impl<K> Unit<K> {
    /// A unit outside of any cache, for tests of backends and artifacts.
    pub fn new(key: K, source: impl Into<Arc<[u8]>>, purpose: Purpose) -> Unit<K> {
        Unit { key, source: Some(source.into()), purpose }
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
}

impl<K: fmt::Debug> fmt::Debug for Unit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unit")
            .field("key", &self.key)
            .field("source_bytes", &self.source.as_ref().map(|source| source.len()))
            .field("purpose", &self.purpose)
            .finish()
    }
}
