//! What is told of each attempt to get code for a key.

use super::unit::Purpose;
use crate::error::CompileError;
use crate::id::TierId;
use std::time::Duration;

/// Where code came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// It was compiled here.
    Compiled,
    /// It was linked from an artifact.
    Loaded,
}

/// An attempt that has ended; see [`CodeCacheBuilder::on_completion`](super::CodeCacheBuilder::on_completion).
#[derive(Debug)]
#[non_exhaustive]
pub struct Completion<'c, K> {
    /// The key.
    pub key: &'c K,
    /// The tier; the cache's own is [`TierId::BASELINE`].
    pub tier: TierId,
    /// What it was for.
    pub purpose: Purpose,
    /// Where the code came from, or would have.
    pub origin: Origin,
    /// What came of it.
    pub outcome: Attempt<'c>,
    /// What it took: the backend's own figure where it gives one, or else the time since the batch was handed over.
    pub duration: Duration,
    /// What the backend [noted](super::Unit::note_phase) of its phases, in that order.
    pub phases: &'c [(&'static str, Duration)],
}

/// What came of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt<'c> {
    /// Lookups find the code.
    Installed {
        /// Its size, as the backend stated it.
        bytes: usize,
    },
    /// There is none.
    Failed(&'c CompileError),
    /// The key was cleared meanwhile, or something else made the result unwanted.
    Discarded,
}
