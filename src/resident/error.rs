//! What can go wrong when a cache is asked for something.

use crate::error::{BuildError, CompileError, CompileNowError, PromoteError, RegisterError};
use std::io;
use thiserror::Error;

/// Why a key was not compiled, or not asked for.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The source is empty or too large; or it could not be fetched.
    #[error(
        "the source has {bytes:?} bytes; a cache takes 1 to {limit} (0: any number), see CodeCacheBuilder::source_limit"
    )]
    Ineligible {
        /// Its size, if that is known.
        bytes: Option<usize>,
        /// The limit, 0 if there is none.
        limit: usize,
    },
    /// The cache has no room for another key.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The compile was refused.
    #[error(transparent)]
    Refused(PromoteError),
    /// The key was cleared or evicted while it was waited for.
    #[error("the key was cleared while it was waited for; ask again")]
    Cleared,
    /// The compile failed, with the compiler's reason; everybody who waits for it gets the same.
    #[error(transparent)]
    Compile(CompileError),
    /// The wait ended without code for another reason.
    #[error(transparent)]
    Wait(CompileNowError),
    /// An artifact was to be made of a key that runs code of a higher tier than the cache's own, of which there are none.
    #[error(
        "the key runs code of a higher tier, and artifacts are of the cache's own; clear it, and prepare it before it is hot"
    )]
    Optimized,
    /// There is nothing to keep artifacts in.
    #[error("this cache keeps no artifacts; give CodeCacheBuilder::artifacts")]
    NoArtifacts,
}

impl From<PromoteError> for CacheError {
    fn from(error: PromoteError) -> CacheError {
        match error {
            PromoteError::Stale(_) => CacheError::Cleared,
            error => CacheError::Refused(error),
        }
    }
}

impl From<CompileNowError> for CacheError {
    fn from(error: CompileNowError) -> CacheError {
        match error {
            CompileNowError::Refused(error) => error.into(),
            CompileNowError::Compile(error) => CacheError::Compile(error),
            error => CacheError::Wait(error),
        }
    }
}

/// Why a cache was not built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CacheBuildError {
    /// The engine below it was not.
    #[error(transparent)]
    Engine(#[from] BuildError),
    /// The artifacts to be loaded at the start cannot be listed.
    #[error(
        "the artifacts to preload cannot be listed: {0}; build without CodeCacheBuilder::preload, or mend the store"
    )]
    Preload(#[source] io::Error),
}
