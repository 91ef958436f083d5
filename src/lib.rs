//! A hot-function promotion broker for interpreter-to-JIT tiering.

mod backend;
mod builder;
mod code;
mod column;
mod counter;
mod drain;
mod engine;
mod error;
mod event;
mod executor;
mod fault;
#[cfg(all(unix, not(beadwork_loom)))]
mod fork;
mod free;
mod gate;
mod grace;
mod id;
mod info;
mod mutator;
mod owner;
mod pins;
mod policy;
mod promotion;
pub mod protocol;
mod queue;
mod register;
mod shared;
mod state;
mod stats;
mod sync;
mod table;
mod tier;
mod wake;

pub use backend::{Backend, FnBackend, Job, Outcome, Slot};
pub use builder::{DEFAULT_CAPACITY, EngineBuilder, MAX_CAPACITY};
pub use code::{Code, CompiledCode};
pub use engine::{BeadState, Engine, PendingState, Pinned};
pub use error::{
    BackendError, BuildError, CompileError, DrainTimeout, InstallError, PromoteError, RegisterError, Stale,
};
pub use event::{Event, Invalidation};
pub use fault::{Fault, RETRY_AFTER_CALLS};
pub use id::{Bead, Core, Group, MAX_GENERATION, Reason, TierId};
pub use info::BeadInfo;
pub use mutator::Mutator;
pub use owner::{CodeOwner, Reclaim};
pub use policy::{Activity, Manual, Policy, Threshold, Verdict};
pub use register::BeadRuns;
pub use stats::Stats;
pub use tier::{DEFAULT_BATCH, Tier};
