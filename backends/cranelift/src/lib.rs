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
//! # Frontends that target `cranelift_module::Module`
//! keep working with [`JitModuleBackend`].
//!
//! # Panics and backtraces
//! Compiled frames are described to the system's unwinder, one table per batch, so backtraces reach through them and a Rust panic
//! passes through them, from an `extern "C-unwind"` runtime function to the VM's `catch_unwind`.

mod backend;
mod builder;
mod env;
mod error;
mod flags;
mod frontend;
#[allow(unsafe_code)]
mod libcalls;
#[allow(unsafe_code)]
mod module;
mod name;
mod reclaim;
mod reloc;
mod stage;
mod stats;
mod symbols;
mod unit;
mod unwind;

pub use backend::{CraneliftBackend, PlacementError};
pub use builder::CraneliftBuilder;
pub use error::CraneliftError;
pub use frontend::Frontend;
pub use module::{Definition, JitModuleBackend};
pub use reclaim::ArenaReclaim;
pub use stats::CraneliftStats;
pub use unit::FunctionUnit;

#[doc(no_inline)]
pub use cranelift_codegen::ir::{self, AbiParam, InstBuilder, Signature, types};
#[doc(no_inline)]
pub use cranelift_codegen::settings::OptLevel;
#[doc(no_inline)]
pub use {cranelift_codegen, cranelift_frontend, cranelift_jit, cranelift_module};
