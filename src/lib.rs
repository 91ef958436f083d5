//! A hot-function promotion broker for interpreter-to-JIT tiering.
//!
//! You have an interpreter, and one or more JIT compilers. beadwork sits between them: it counts calls, decides what is
//! worth compiling, compiles it in the background, publishes the code, and frees it when no thread can be in it any
//! more. It is made for very many functions: a function is a [`Bead`], an index into columns of atomics, and costs
//! 8 bytes until it is called.
//!
//! # A first program
//! The "interpreter" here is a match, and the "compiler" hands out functions that rustc compiled. A real backend is
//! `beadwork-cranelift`.
//!
//! ```
//! use beadwork::{Bead, CompiledCode, CompileError, Core, Engine, FnBackend, Job, Threshold, Tier};
//!
//! extern "C" fn native_double(x: i64) -> i64 { x * 2 }
//! extern "C" fn native_square(x: i64) -> i64 { x * x }
//!
//! // The VM's own handle for a function; beadwork stores it and hands it back.
//! const DOUBLE: Core = Core::new(0);
//! const SQUARE: Core = Core::new(1);
//!
//! let compiler = FnBackend::new(|job: &mut Job<'_>| match job.core()? {
//!     DOUBLE => Ok(CompiledCode::new(native_double as *const u8)),
//!     SQUARE => Ok(CompiledCode::new(native_square as *const u8)),
//!     core => Err(CompileError::failed(format_args!("no function {core:?}"))),
//! });
//! let engine = Engine::builder().tier(Tier::new(compiler).policy(Threshold::new(100))).build()?;
//! let square: Bead = engine.register(SQUARE)?;
//!
//! let mut m = engine.mutator(); // one per interpreter thread
//! let (mut interpreted, mut native) = (0, 0);
//! while native < 100 {
//!     let result = match m.dispatch(square) {
//!         Some(code) => {
//!             native += 1;
//!             // SAFETY: the compiler above gives functions of this type, and `code` borrows `m`, so no safepoint is
//!             // passed before the call is over.
//!             let function: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
//!             function(7)
//!         }
//!         None => {
//!             interpreted += 1;
//!             7 * 7
//!         }
//!     };
//!     assert_eq!(result, 49);
//!     m.safepoint(); // holds no code pointer here
//! }
//! assert!(interpreted >= 100);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The parts
//! * [`Engine`]: a counted handle. Registers and removes functions, promotes, installs, invalidates, tells what is going on.
//!   Built by [`EngineBuilder`] with one [`Tier`] for each compiler.
//! * [`Mutator`]: one for each thread that runs the guest program. [`dispatch`](Mutator::dispatch) is the hot path: one
//!   load and one compare when there is code. [`safepoint`](Mutator::safepoint) says that the thread holds no code pointer.
//! * [`Backend`]: compiles batches of [`Job`]s on a rayon pool that starts with the first request. Errors, nulls and
//!   panics are outcomes: the function stays where it is and is asked for again after a pause that doubles.
//! * [`Policy`]: says when a function enters a tier. It is asked when a budget runs out, never per call.
//! * [`Engine::bailout`]: compiled code's guard failed. A [`DeoptPolicy`] proposes what becomes of the code, and a governor keeps
//!   code that fails again and again from costing more than a few compiles.
//! * [`Assumption`]: what code takes for granted. Broken, it takes all code back that relied on it.
//! * [`Delivery`]: what happened to code, with what its backend sent along, taken by the VM at a time of its own.
//! * [`GcPause`]: keeps compiles from following cores while a collector moves them.
//! * [`Slot`]: the stable address of a function's code pointer, for native code that calls without asking anybody.
//!
//! # What holds, always
//! * A handle of a removed function never sees another function's code: `None` or [`Stale`] is the answer.
//! * Code is freed once, after every mutator has passed a safepoint (or said which frames it is in), and never while a mutator
//!   can be in it or a [`Lease`] holds it.
//! * A request is compiled once, and none is lost; queues cannot be full.
//! * No input makes the library panic, and no backend, policy or listener that panics makes it lose a promise.
//!
//! How that works is in [`protocol`]; how to embed it, step by step, in the [`guide`].
//!
//! # Cargo features
//! None is on by default. `resident`: the module of that name, a code cache by content. `serde`: statistics and reports are
//! `Serialize`. `metrics`: `record_metrics`, events and statistics through the facade of that name. `trace`: `Trace`, a recording in
//! Chrome's format. The spans and events of `tracing` need none.
//!
//! # Features of the platform
//! With `panic = "abort"` a backend's panic ends the process, as any panic does. After a `fork` both processes keep
//! dispatching, and the child compiles on a pool of its own; a [`Mutator`] that was on another thread at the fork
//! holds back freeing in the child until [`Engine::forget_other_mutators`] is called. wasm and other targets without threads can use an
//! [inline](EngineBuilder::inline) engine.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[macro_use]
mod mutant;

mod artifact;
mod assumption;
mod backend;
mod bisect;
mod builder;
mod clock;
mod code;
mod column;
mod contain;
mod counter;
mod crew;
mod delivery;
mod deopt;
mod direct;
mod drain;
mod engine;
mod error;
mod event;
mod evict;
mod executor;
mod fault;
#[cfg(all(unix, not(beadwork_loom)))]
mod fork;
mod free;
mod gate;
mod grace;
pub mod guide;
mod heat;
mod history;
mod id;
mod info;
mod job;
mod lease;
mod moving;
mod mutator;
mod native;
mod nest;
mod observe;
mod osr;
mod owner;
mod pins;
mod policy;
mod preset;
mod profile;
mod promotion;
pub mod protocol;
mod queue;
mod reclaim;
mod register;
mod request;
#[cfg(all(feature = "resident", not(beadwork_loom)))]
pub mod resident;
mod results;
mod saved;
mod shared;
mod snapshot;
mod speculate;
mod state;
mod stats;
mod sync;
mod table;
mod taken;
mod tier;
mod unit;
mod wake;

#[cfg(unix)]
pub use artifact::FileStore;
pub use artifact::{
    ARTIFACT_FORMAT, Archive, ArchiveStats, Artifact, ArtifactBytes, ArtifactKey, ArtifactStore, ContentKey,
    Manifest, MemoryStore, Put, Recipe, RecipeKey, Refusal, SaveError,
};
pub use assumption::Assumption;
pub use backend::{Backend, CodeMemory, FnBackend};
pub use bisect::{Bisect, Bisected};
pub use builder::{
    DEFAULT_CAPACITY, DEFAULT_CLOSE_TIMEOUT, DEFAULT_COLD_AFTER, DEFAULT_FAULT_LIMIT, DEFAULT_RETIRED_LIMIT,
    EngineBuilder, MAX_CAPACITY,
};
pub use code::{Code, CodeWords, CompiledCode};
pub use delivery::Delivery;
pub use deopt::{
    AlwaysRecompile, BailoutInfo, DEOPT_CYCLE_LIMIT, DEOPT_KEEP_BURST, DEOPT_KEEP_PER_SECOND,
    DEOPT_REENTRY_CALLS, DEOPT_TIER_LIMIT, DeoptDecision, DeoptHistory, DeoptPolicy, DeoptStats,
    DeoptThreshold, ExponentialBackoff, Recovery, TieredDeopt, Tolerate,
};
pub use engine::{
    BeadState, Census, Engine, HeatLimits, HotFunction, PauseGuard, PendingState, Pinned, Reloaded, Report,
    Superseded, Swapped,
};
pub use error::{
    BackendError, BuildError, CompileError, CompileNowError, CoreError, DrainTimeout, GcPauseError,
    InstallError, NoSuchTier, PromoteError, RegisterError, ShutdownError, Stale, SubmitError,
};
pub use event::{Event, Invalidation};
pub use fault::{Fault, RETRY_AFTER_CALLS};
#[cfg(beadwork_loom)]
pub use gate::ForkGate;
pub use grace::Laggard;
pub use history::HistoryEntry;
pub use id::{Bead, Core, Group, MAX_GENERATION, Reason, TierId};
pub use info::BeadInfo;
pub use job::{Job, Outcome, Slot};
pub use lease::Lease;
pub use moving::GcPause;
pub use mutator::{Mutator, OfflineMutator, RawMutator, Reentered};
pub use native::BudgetSlot;
#[cfg(feature = "metrics")]
pub use observe::record_metrics;
#[cfg(feature = "trace")]
pub use observe::{TRACE_LIMIT, Trace};
pub use osr::ITERATIONS_PER_CALL;
pub use owner::{CodeOwner, Reclaim};
pub use policy::{
    Activity, BASELINE_LOAD_FEEDBACK, BoxedPolicy, CODE_MEMORY_PRESSURE_FROM, Decaying, HalfLife, Jittered,
    Manual, OPTIMIZING_LOAD_FEEDBACK, Policy, Scaled, ScaledByCodeMemory, ScaledByLoad, ScaledBySize,
    Threshold, Tiered, Verdict,
};
pub use preset::{Preset, PresetValues};
pub use profile::{BlockCounters, CALL_TARGETS, CallProfile, CallSite, CallSites, Profile};
pub use reclaim::HandedBack;
pub use register::BeadRuns;
pub use saved::{PROFILE_FORMAT, ProfileRefusal, Recalled, Remembered, SavedProfile};
pub use stats::Stats;
/// README's program, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use tier::{Candidate, DEFAULT_BATCH, Tier};
