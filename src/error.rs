//! One error type per operation, each naming what was wrong and what to do.

use crate::assumption::Assumption;
use crate::id::{Bead, Group, TierId};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// The handle names no live function: it was removed, or it was never handed out by this engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("bead {0} is not live: it was removed or belongs to another engine; drop the handle")]
pub struct Stale(pub Bead);

/// Why [`EngineBuilder::build`](crate::EngineBuilder::build) failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The system refused the address space for the columns.
    #[error(
        "could not reserve {bytes} bytes of address space for {capacity} beads ({source}); ask for a smaller \
         .capacity(), or raise the address-space limit (ulimit -v, ulimit -d, RLIMIT_AS) or vm.overcommit_memory"
    )]
    Reserve {
        /// Beads asked for, rounded up to a power of two.
        capacity: u32,
        /// Bytes of address space that would have taken.
        bytes: usize,
        /// What the system answered.
        source: std::io::Error,
    },
    /// More beads than an index can name.
    #[error("a capacity of {capacity} beads is out of range; use 1 to {max}", max = crate::MAX_CAPACITY)]
    Capacity {
        /// Beads asked for.
        capacity: usize,
    },
    /// More tiers than there are tier numbers.
    #[error("{tiers} compiled tiers given; an engine has at most 15")]
    TooManyTiers {
        /// Compiled tiers given.
        tiers: usize,
    },
    /// The fallback stub's address does not fit an entry.
    #[error(
        "the fallback stub is null; pass the address of the VM's interpreter-entry function or leave it out"
    )]
    NullFallback,
}

/// Why a registration was refused. Everything registered before goes on working.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// All indices are in use.
    #[error(
        "all {capacity} beads are in use ({waiting} more wait for every mutator to pass a safepoint); remove \
         functions, or build the engine with a larger .capacity()"
    )]
    CapacityExhausted {
        /// Beads the engine was built for.
        capacity: u32,
        /// Removed indices that some mutator may still be using.
        waiting: usize,
    },
    /// The group was removed or belongs to another engine.
    #[error("group {0:?} was removed or belongs to another engine; make a new one with Engine::group")]
    NoSuchGroup(Group),
    /// All group numbers are used up.
    #[error("all group numbers are used up; build a new engine")]
    GroupsExhausted,
}

/// Why a request to promote was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum PromoteError {
    /// See [`Stale`].
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The engine has no such compiled tier.
    #[error("there is no compiled tier {tier}; this engine has T1 to T{tiers}")]
    NoSuchTier {
        /// The tier asked for.
        tier: TierId,
        /// How many compiled tiers the engine has.
        tiers: u8,
    },
    /// The function may not be compiled at that tier.
    #[error("bead {bead} may not be compiled at {tier}: it is blacklisted or capped at {cap}")]
    Barred {
        /// The function.
        bead: Bead,
        /// The tier asked for.
        tier: TierId,
        /// The highest tier it may have; the interpreter when it is blacklisted.
        cap: TierId,
    },
    /// The tier's filter does not take the function.
    #[error("the filter of {tier} does not take bead {bead}; change Tier::filter")]
    Filtered {
        /// The function.
        bead: Bead,
        /// The tier asked for.
        tier: TierId,
    },
    /// It has been asked for already.
    #[error(
        "bead {bead} is compiled at {tier} or waits for it already; invalidate it first to compile it anew"
    )]
    Pending {
        /// The function.
        bead: Bead,
        /// The tier asked for.
        tier: TierId,
    },
    /// Promotion is switched off.
    #[error("promotion is switched off; call Engine::set_enabled(true)")]
    Disabled,
    /// The engine was shut down.
    #[error("the engine was shut down; build a new one")]
    Closed,
}

/// The engine has no such compiled tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("there is no compiled tier {tier}; this engine has T1 to T{tiers}")]
pub struct NoSuchTier {
    /// The tier asked for.
    pub tier: TierId,
    /// How many compiled tiers the engine has.
    pub tiers: u8,
}

/// Why [`Engine::compile_now`](crate::Engine::compile_now) gave no code.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CompileNowError {
    /// The request was refused.
    #[error(transparent)]
    Refused(#[from] PromoteError),
    /// The compile failed.
    #[error(transparent)]
    Compile(CompileError),
    /// It was asked for from inside of a compile of the same function, or of another one of the same batch: the calling thread
    /// would have waited for itself.
    #[error(
        "bead {0} is in the batch the calling thread compiles; it cannot wait for that (see Tier::batch)"
    )]
    Within(Bead),
    /// The request was cancelled: by an invalidation, a demotion, or code the VM installed.
    #[error("the request for bead {0} was cancelled while it was waited for; ask again")]
    Superseded(Bead),
    /// The time was over; the request stays queued.
    #[error(
        "bead {bead} was not compiled within {waited:?}; the request stays (is the engine paused, its tier switched \
         off, or every worker busy?)"
    )]
    Timeout {
        /// The function.
        bead: Bead,
        /// How long was waited.
        waited: Duration,
    },
}

/// A submitted compile that was refused, handed back.
#[derive(Error)]
#[error("the compile was not accepted: {reason}")]
pub struct SubmitError<F> {
    /// Why.
    #[source]
    pub reason: PromoteError,
    /// What was submitted.
    pub compile: F,
}

impl<F> std::fmt::Debug for SubmitError<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubmitError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// A shutdown that found compiles still running when its time was over.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("after {waited:?} these compiles were still running: {stuck:?}")]
pub struct ShutdownError {
    /// How long was waited.
    pub waited: Duration,
    /// The functions being compiled, and their tiers.
    pub stuck: Vec<(Bead, TierId)>,
}

/// Why code the VM compiled itself was not installed. The code's owner has been dropped, so its memory is free.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum InstallError {
    /// See [`Stale`].
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The engine has no such compiled tier.
    #[error("there is no compiled tier {tier}; this engine has T1 to T{tiers}")]
    NoSuchTier {
        /// The tier asked for.
        tier: TierId,
        /// How many compiled tiers the engine has.
        tiers: u8,
    },
    /// The code itself cannot be installed.
    #[error(transparent)]
    Code(#[from] CompileError),
    /// The code relies on what does not hold any more.
    #[error("assumption {0} does not hold; compile again without it")]
    AssumptionBroken(Assumption),
    /// The function has had 2,147,483,647 versions, so code that relies on an assumption cannot be told from later code.
    #[error(
        "the versions of bead {0} are used up; install without assumptions, or remove it and register anew"
    )]
    VersionsUsedUp(Bead),
}

/// Why a job could not look at its core; see [`Job::with_core`](crate::Job::with_core).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CoreError {
    /// See [`Stale`].
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The thread that compiles holds a pause of the collector's itself.
    #[error("this thread holds a GcPause; drop it before running compiles on this thread")]
    Paused,
}

impl From<CoreError> for CompileError {
    fn from(error: CoreError) -> CompileError {
        match error {
            CoreError::Stale(stale) => stale.into(),
            CoreError::Paused => CompileError::because(error),
        }
    }
}

/// Why a collector could not keep jobs away from cores; see [`Engine::gc_pause`](crate::Engine::gc_pause).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum GcPauseError {
    /// The thread is inside `Job::with_core` itself.
    #[error("this thread is inside Job::with_core and would wait for itself; return from it first")]
    Inside,
    /// The time was over; jobs look at cores again.
    #[error(
        "after {waited:?}, {inside} jobs were still inside Job::with_core; copy out of the heap and leave it soon"
    )]
    Timeout {
        /// How long was waited.
        waited: Duration,
        /// Jobs that were still inside.
        inside: usize,
    },
}

/// Why a compile produced nothing that can run. The bead stays at its tier and is asked for again later.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The backend's own reason, as text.
    #[error("{0}")]
    Failed(String),
    /// The backend's own reason, as it raised it; made by [`CompileError::because`].
    #[error(transparent)]
    Backend(BackendError),
    /// There is no memory for the code now; made by [`CompileError::no_room`]. Does not count towards
    /// [`EngineBuilder::fault_limit`](crate::EngineBuilder::fault_limit), since memory may be freed: as long as the function is hot it
    /// is tried again after a pause, 1,000 calls long at first and 16,000 at most.
    #[error("there is no room for the code: {0}")]
    NoRoom(BackendError),
    /// The backend gave a null entry.
    #[error("the backend gave a null entry; return Err(CompileError::Failed(reason)) when there is no code")]
    NullEntry,
    /// The entry's address is wider than the 48 bits a code word holds.
    #[error("the entry {entry:#x} needs more than 48 bits; allocate code below {max:#x}", max = 1u64 << 48)]
    EntryTooWide {
        /// The address given.
        entry: u64,
    },
    /// More native loop entries than a table can have.
    #[error("the code comes with {given} loop entries; give at most {max}", max = crate::osr::MAX_ENTRIES)]
    TooManyLoopEntries {
        /// Entries given.
        given: usize,
    },
    /// The backend panicked.
    #[error("the backend panicked: {0}")]
    Panicked(String),
    /// The compile took longer than [`Tier::timeout`](crate::Tier::timeout).
    #[error(
        "the compile took longer than {limit:?}; raise Tier::timeout or leave the function out by Tier::filter"
    )]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The backend returned without finishing the job.
    #[error("the backend returned without finishing the job; call Job::finish for every job of the batch")]
    Unfinished,
    /// The function was removed while it was being compiled.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The compile relies on what does not hold any more: [`Job::assume`](crate::Job::assume) answered false. A job finished
    /// with this is discarded, and does not count as failed.
    #[error("assumption {0} does not hold any more; the function is compiled again when it is hot again")]
    AssumptionBroken(Assumption),
    /// The backend has not what it needs to compile this now, and may have it when it is asked the next time. A job finished
    /// with this is discarded, and does not count as failed: the function counts from zero again.
    #[error("the compile was withdrawn: {0}; the function is compiled when it is hot again")]
    Withdrawn(&'static str),
}

impl CompileError {
    /// A reason of the backend's own, from anything that prints.
    pub fn failed(reason: impl std::fmt::Display) -> CompileError {
        CompileError::Failed(reason.to_string())
    }

    /// A reason of the backend's own, kept as it is, so that a listener can downcast it.
    pub fn because(reason: impl std::error::Error + Send + Sync + 'static) -> CompileError {
        CompileError::Backend(BackendError(Arc::new(reason)))
    }

    /// There is no memory for the code now. The reason is kept as it is, so that a listener can downcast it.
    pub fn no_room(reason: impl std::error::Error + Send + Sync + 'static) -> CompileError {
        CompileError::NoRoom(BackendError(Arc::new(reason)))
    }
}

/// A wait ended before what was waited for happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("after {waited:?}, {queued} requests were still queued and {compiling} workers still busy")]
pub struct DrainTimeout {
    /// How long was waited.
    pub waited: Duration,
    /// Requests still queued.
    pub queued: usize,
    /// Workers still running.
    pub compiling: usize,
}

/// An error of a backend's own type, shared between the event, the log and the record of the fault.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
pub struct BackendError(#[source] Arc<dyn std::error::Error + Send + Sync>);

impl BackendError {
    /// The error, to be downcast.
    pub fn get(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

/// Two are equal if they are the same error, not if they read alike.
impl PartialEq for BackendError {
    fn eq(&self, other: &BackendError) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for BackendError {}
