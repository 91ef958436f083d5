//! Cranelift as a [beadwork] backend.
//!
//! The VM gives a [`Frontend`] (a closure will do) that builds one function in Cranelift IR; this crate compiles
//! batches of them in parallel, places each batch in executable memory, and frees code function by function.
//!
//! ```
//! use beadwork::{Engine, Tier, TierId};
//! use beadwork_cranelift::{AbiParam, CraneliftBackend, FunctionUnit, InstBuilder, OptLevel, types::I64};
//!
//! // Here a function's core is the number it multiplies by.
//! let backend = CraneliftBackend::builder().opt_level(OptLevel::Speed).build(|unit: &mut FunctionUnit<'_, '_>| {
//!     let factor = unit.job().core()?.get() as i64;
//!     let mut signature = unit.new_signature();
//!     signature.params.push(AbiParam::new(I64));
//!     signature.returns.push(AbiParam::new(I64));
//!     let x = unit.begin(&signature)[0];
//!     let ins = unit.builder().ins();
//!     let product = ins.imul_imm_s(x, factor);
//!     unit.builder().ins().return_(&[product]);
//!     Ok(())
//! })?;
//!
//! let engine = Engine::builder().tier(Tier::new(backend)).inline().build()?;
//! let triple = engine.register(3.into())?;
//! engine.promote(triple, TierId::BASELINE)?;
//! engine.run_pending(1);
//!
//! let m = engine.mutator();
//! let code = m.dispatch(triple).expect("it was compiled just now");
//! // SAFETY: the signature above, and `m` passes no safepoint during the call.
//! let triple: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
//! assert_eq!(triple(14), 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Calls between functions
//! [`FunctionUnit::call_bead`] calls through the callee's slot, so recursion, calls of functions that are not compiled yet,
//! and calls of functions that will be compiled again all look the same and need no patching. beadwork never calls
//! code, so what an empty slot holds is the VM's stub: the engine's [fallback](beadwork::EngineBuilder::fallback).
//! One stub serves all functions and has to learn which was called:
//! [`CraneliftBuilder::pass_callee_bits`] passes the callee's handle as a hidden first argument.
//!
//! # Loops
//! An interpreter in the middle of a loop goes on natively through a *loop entry* (on-stack replacement). The frontend asks
//! for one with [`FunctionUnit::add_loop_entry`], is called again for it, and describes where the interpreter keeps what is alive
//! at the loop's header; [`FunctionUnit::load_live`] brings it into registers and
//! [`FunctionUnit::store_live`] takes it back when a speculation fails:
//!
//! ```
//! use beadwork_cranelift::types::I64;
//! use beadwork_cranelift::{AbiParam, CraneliftBackend, Entry, FunctionUnit, InstBuilder, LiveValue};
//!
//! // Counts its argument down to 0, and answers how often. The interpreter's frame is two words: what is left, and the count.
//! let count_down = |unit: &mut FunctionUnit<'_, '_>| {
//!     for site in unit.job().osr_sites() {
//!         unit.add_loop_entry(site);
//!     }
//!     let mut signature = unit.new_signature();
//!     signature.params.push(AbiParam::new(I64)); // the argument, or the address of the frame
//!     signature.returns.push(AbiParam::new(I64));
//!     let x = unit.begin(&signature)[0];
//!     let (left, count) = match unit.entry() {
//!         Entry::Function => (x, unit.builder().ins().iconst(I64, 0)),
//!         Entry::Loop(_) => {
//!             let live = unit.load_live(x, &[LiveValue::new(I64, 0), LiveValue::new(I64, 8)]);
//!             (live[0], live[1])
//!         }
//!     };
//!     let b = unit.builder();
//!     let (header, body, end) = (b.create_block(), b.create_block(), b.create_block());
//!     let [left_now, count_now] = [(); 2].map(|()| b.append_block_param(header, I64));
//!     b.ins().jump(header, &[left.into(), count.into()]);
//!     b.switch_to_block(header);
//!     b.ins().brif(left_now, body, &[], end, &[]);
//!     b.switch_to_block(body);
//!     let left = b.ins().iadd_imm_s(left_now, -1);
//!     let count = b.ins().iadd_imm_s(count_now, 1);
//!     b.ins().jump(header, &[left.into(), count.into()]);
//!     b.switch_to_block(end);
//!     b.ins().return_(&[count_now]);
//!     Ok(())
//! };
//! let backend = CraneliftBackend::builder().build(count_down)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Frontends that target `cranelift_module::Module`
//! keep working with [`JitModuleBackend`].
//!
//! # Code across processes
//! (`KeptCode` and `beadwork::resident` are behind the feature `resident` of this crate.)
//!
//! With an [archive](CraneliftBuilder::archive) the backend runs what an earlier process kept, where it is still what it would compile.
//! Functions of an engine are known by their [content](Frontend::content); keys of a code cache are content by themselves:
//!
//! ```
//! use beadwork::resident::{CodeCache, Lookup, Origin, Unit};
//! use beadwork::{Archive, FileStore, Tier};
//! use beadwork_cranelift::{AbiParam, CraneliftBackend, FunctionUnit, InstBuilder, KeptCode, types::I64};
//! use std::{sync::Arc, time::Duration};
//!
//! // Programs are lists of numbers to be added.
//! let frontend = |unit: &mut FunctionUnit<'_, '_>| {
//!     let source = Unit::<[u8; 32]>::of(unit.job())?.source().to_vec();
//!     let mut signature = unit.new_signature();
//!     signature.params.push(AbiParam::new(I64));
//!     signature.returns.push(AbiParam::new(I64));
//!     let mut sum = unit.begin(&signature)[0];
//!     for number in source {
//!         sum = unit.builder().ins().iadd_imm_s(sum, i64::from(number));
//!     }
//!     unit.builder().ins().return_(&[sum]);
//!     Ok(())
//! };
//! # let directory = std::env::temp_dir().join(format!("beadwork-doc-kept-{}", std::process::id()));
//! // One life of the process. Artifacts are not signed: the directory is one where only the VM's own user can write.
//! let live = || -> Result<CodeCache<[u8; 32]>, Box<dyn std::error::Error>> {
//!     let archive = Archive::tagged(FileStore::open(&directory)?, "adder 1");
//!     let backend = Arc::new(CraneliftBackend::builder().archive(archive).build(frontend)?);
//!     let kept = KeptCode::new(backend.clone())?;
//!     Ok(CodeCache::builder(Tier::new(backend)).artifacts(kept).preload(true).build()?)
//! };
//! let (key, patience) = ([7; 32], Duration::from_secs(60));
//! let cache = live()?;
//! cache.prepare(&key, &[40u8, 1][..])?; // compiled ahead of time, and kept
//! cache.drain(patience)?;
//! assert_eq!(cache.stats().kept, 1);
//! drop(cache);
//!
//! let cache = live()?;
//! cache.drain(patience)?; // until what is preloaded is there
//! let m = cache.mutator();
//! let Lookup::Compiled { code, origin } = m.lookup(&key, &[40u8, 1][..]) else { panic!("it was kept") };
//! assert_eq!(origin, Origin::Loaded);
//! // SAFETY: the signature above, and `m` passes no safepoint during the call.
//! let function: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
//! assert_eq!(function(1), 42);
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Panics and backtraces
//! Compiled frames are described to the system's unwinder, one table per batch, so backtraces reach through them and a Rust panic
//! passes through them, from an `extern "C-unwind"` runtime function to the VM's `catch_unwind`.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod builder;
mod count;
mod env;
mod error;
mod flags;
mod frontend;
mod include;
#[allow(unsafe_code)]
mod libcalls;
mod loops;
#[allow(unsafe_code)]
mod module;
mod name;
mod reloc;
mod stage;
mod unit;
mod unwind;

pub use backend::CraneliftBackend;
pub use beadwork_object::{
    ArenaReclaim, BackendStats, Dump, Entry, ITERATIONS_PER_REPORT, NullSymbol, PlacementError,
};
#[cfg(feature = "resident")]
pub use beadwork_object::{KeptCode, KeptCodeError, KeptKey};
pub use builder::CraneliftBuilder;
pub use error::CraneliftError;
pub use frontend::Frontend;
pub use loops::LiveValue;
pub use module::{Definition, JitModuleBackend};
pub use unit::FunctionUnit;

#[doc(no_inline)]
pub use cranelift_codegen::ir::{self, AbiParam, InstBuilder, Signature, types};
#[doc(no_inline)]
pub use cranelift_codegen::settings::{OptLevel, RegallocAlgorithm};
#[doc(no_inline)]
pub use {cranelift_codegen, cranelift_frontend, cranelift_jit, cranelift_module};
