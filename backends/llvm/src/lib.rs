//! LLVM as a [beadwork](https://docs.rs/beadwork) backend.
//!
//! The VM gives a `Frontend` (a closure will do) that builds one function in LLVM IR, by [inkwell](https://docs.rs/inkwell); this crate
//! optimizes and compiles batches of them in parallel, links the objects into executable memory, and frees code function by function.
//!
//! # It is empty without a feature
//! that names a version of LLVM, so that a workspace with this crate in it builds where there is no LLVM. With
//! Debian's newest:
//! ```text
//! apt-get install -y --no-install-recommends llvm-22-dev
//! cargo add beadwork-llvm --features llvm22-1-prefer-dynamic
//! ```
//! The features are inkwell's: `llvm16-0`, `llvm17-0`, `llvm18-1`, `llvm19-1`, `llvm20-1`, `llvm21-1`, `llvm22-1` and `llvm23-1`, each by itself or with
//! `-prefer-dynamic`, `-prefer-static`, `-force-dynamic` or `-force-static` for how it is linked. Take one. (`resident` has what keeps a code cache's code besides.) Where that LLVM is
//! missing, the build of `llvm-sys` ends with `No suitable version of LLVM was found`; the README says what to do then.
//!
//! # Example
#![cfg_attr(feature = "_llvm", doc = "```")]
#![cfg_attr(not(feature = "_llvm"), doc = "```ignore")]
//! use beadwork::{Engine, Tier, TierId};
//! use beadwork_llvm::{FunctionUnit, LlvmBackend, Passes};
//!
//! // Here a function's core is the number it multiplies by.
//! let backend = LlvmBackend::builder().passes(Passes::O2).build(|unit: &mut FunctionUnit<'_, '_>| {
//!     let factor = unit.job().core()?.get() as u64;
//!     let word = unit.context().i64_type();
//!     let x = unit.begin(word.fn_type(&[word.into()], false))[0].into_int_value();
//!     let product = unit.builder().build_int_mul(x, word.const_int(factor, false), "product")?;
//!     unit.builder().build_return(Some(&product))?;
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
#![cfg_attr(feature = "_llvm", doc = include_str!("manual.md"))]

#[cfg(feature = "_llvm")]
#[allow(unsafe_code)]
mod address;
#[cfg(feature = "_llvm")]
mod backend;
#[cfg(feature = "_llvm")]
mod builder;
#[cfg(feature = "_llvm")]
mod calls;
#[cfg(feature = "_llvm")]
mod count;
#[cfg(feature = "_llvm")]
mod embed;
#[cfg(feature = "_llvm")]
mod env;
#[cfg(feature = "_llvm")]
mod error;
#[cfg(feature = "_llvm")]
mod frontend;
#[cfg(feature = "_llvm")]
mod hints;
#[cfg(feature = "_llvm")]
mod include;
#[cfg(feature = "_llvm")]
#[allow(unsafe_code)]
mod libcalls;
#[cfg(feature = "_llvm")]
mod loops;
#[cfg(feature = "_llvm")]
mod passes;
#[cfg(feature = "_llvm")]
#[allow(unsafe_code)]
mod session;
#[cfg(feature = "_llvm")]
mod stage;
#[cfg(feature = "_llvm")]
mod symbols;
#[cfg(feature = "_llvm")]
mod unit;
#[cfg(feature = "_llvm")]
mod worker;

#[cfg(feature = "_llvm")]
mod exports {
    pub use crate::backend::LlvmBackend;
    pub use crate::builder::LlvmBuilder;
    pub use crate::error::{BuildError, LlvmError};
    pub use crate::frontend::Frontend;
    pub use crate::loops::LiveValue;
    pub use crate::passes::Passes;
    pub use crate::unit::FunctionUnit;
    pub use beadwork_object::{
        ArenaReclaim, BackendStats, Dump, Entry, ITERATIONS_PER_REPORT, NullSymbol, PlacementError,
    };
    #[cfg(feature = "resident")]
    pub use beadwork_object::{KeptCode, KeptCodeError, KeptKey};
    #[doc(no_inline)]
    pub use inkwell;
    #[doc(no_inline)]
    pub use inkwell::OptimizationLevel;
}

#[cfg(feature = "_llvm")]
pub use exports::*;
