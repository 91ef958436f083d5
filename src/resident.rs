//! A code cache by content: the VM has a key (a hash of the code, say) and the bytes it stands for, and asks for native code.
//!
//! It is made for VMs whose functions come from outside, again and again, in any order: contracts, queries, filters, scripts. The
//! VM registers nothing and keeps nothing. Each key becomes a function of an [engine](crate::Engine) when it is first looked up, is
//! counted while it has no code, compiled in the background when it is hot, and forgotten when it is not used. This module needs the
//! crate's feature `resident`.
//!
//! ```
//! use beadwork::resident::{CodeCache, Lookup, Unit};
//! use beadwork::{CompiledCode, FnBackend, Job, Threshold, Tier};
//!
//! extern "C" fn native_double(x: i64) -> i64 { x * 2 }
//!
//! // A compiler finds out what to compile by `Unit::of`. This one knows one program.
//! let compiler = FnBackend::new(|job: &mut Job<'_>| {
//!     let unit = Unit::<[u8; 32]>::of(job)?;
//!     assert_eq!(unit.source(), b"x * 2");
//!     Ok(CompiledCode::new(native_double as *const u8))
//! });
//! let cache = CodeCache::<[u8; 32]>::builder(Tier::new(compiler).policy(Threshold::new(8))).build()?;
//!
//! let key = [7; 32]; // of whatever the VM loaded just now
//! let mut m = cache.mutator(); // one per interpreter thread
//! let (mut interpreted, mut native) = (0, 0);
//! while native < 10 {
//!     match m.lookup(&key, &b"x * 2"[..]) {
//!         Lookup::Compiled { code, .. } => {
//!             native += 1;
//!             // SAFETY: the compiler above gives functions of this type, and `code` borrows `m`, so no safepoint is
//!             // passed before the call is over.
//!             let function: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
//!             assert_eq!(function(21), 42);
//!         }
//!         Lookup::Interpret(_why) => interpreted += 1,
//!     }
//!     m.safepoint(); // holds no code pointer here
//! }
//! assert!(interpreted >= 8);
//! let stats = cache.stats();
//! assert_eq!((stats.hits, stats.misses), (native, interpreted));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The parts
//! * [`CodeCache`]: a counted handle, built by [`CodeCacheBuilder`] with one [`Tier`](crate::Tier). Compiles by name
//!   ([`compile`](CodeCache::compile), [`compile_sync`](CodeCache::compile_sync)), clears, pauses, tells.
//! * [`CacheMutator`]: one for each thread. [`lookup`](CacheMutator::lookup) is the hot path: no lock, no allocation, and nothing
//!   written that other threads read, but for the time of use when it has moved on.
//! * [`Source`]: the bytes, borrowed or to be fetched; asked for when a compile is requested, and never on a hit.
//! * [`Artifacts`]: code kept across processes, asked before anything is compiled. `beadwork-object` has it for every backend that
//!   makes objects (`KeptCode`).
//! * [`CodeCacheBuilder::profile`]: what earlier runs found hot is asked for at the first lookup; [`CodeCache::remember`] for the next run.
//! * [`Completion`]: what came of each attempt, for whoever [wants to hear](CodeCacheBuilder::on_completion).
//!
//! # What is bounded
//! Keys without code are at most [`cold_limit`](CodeCacheBuilder::cold_limit), and a flood of keys that come once pushes out none
//! that comes again. Code is at most [`byte_budget`](CodeCacheBuilder::byte_budget) after each batch of compiles, the least recently
//! used going first, and goes when it was not used [for long](CodeCacheBuilder::idle_after). Requests that wait are at most
//! [`pending_limit`](CodeCacheBuilder::pending_limit), and none is lost to that: a key that is hot asks again at its next lookup. What
//! was dropped comes back as a new key. Memory of all that is freed by the engine's rules: when every mutator has passed a safepoint.
//!
//! # What holds, always
//! * A lookup answers code of its own key, or none.
//! * A clear is done when it returns, and takes nothing from what was asked for since.
//! * `hits + misses` are the lookups of eligible keys on an enabled cache, exactly, once threads are quiet.
//! * No compiler, callback or store that fails or panics makes the cache lose a promise.

mod artifacts;
mod budget;
mod builder;
mod cache;
mod code_cache;
mod completion;
mod counts;
mod dump;
mod entry;
mod error;
mod flights;
mod held;
mod looks;
mod lookup;
mod mutator;
mod near;
mod notes;
mod ring;
mod source;
mod tier;
mod turnstile;
mod unit;
mod wishes;

pub use artifacts::{ArtifactCounts, Artifacts, Prepared};
pub use builder::{
    CodeCacheBuilder, DEFAULT_BYTE_BUDGET, DEFAULT_COLD_LIMIT, DEFAULT_IDLE_AFTER, DEFAULT_PENDING_LIMIT,
    DEFAULT_SOURCE_LIMIT, DEFAULT_SWEEP_EVERY,
};
pub use code_cache::CodeCache;
pub use completion::{Attempt, Completion, Origin};
pub use counts::CacheStats;
pub use error::{CacheBuildError, CacheError};
pub use lookup::{Interpret, Lookup};
pub use mutator::CacheMutator;
pub use source::{Lazy, Source};
pub use unit::{CacheKey, Purpose, Unit};
