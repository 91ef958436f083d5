//! What a compiled backend has to hold, whatever its IR is: properties of a [`Tested`] one, which the tests of the backends call.

pub mod calls;
pub mod counting;
pub mod lifetime;
pub mod loops;
pub mod parallel;
mod rig;
pub mod units;
pub mod unwind;

pub use rig::{KEYS, Rig, Seen};

use beadwork::{Backend, Bead, CompileError};
use beadwork_arena::Arena;
use beadwork_object::{BackendStats, Entry};
use std::time::Duration;

/// Far more than any of these tests takes; only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A backend, with a frontend that builds a list of functions.
pub trait Tested: Sized + 'static {
    type Backend: Backend;
    type Options: Clone;
    /// Builds one function, `i64 -> i64`.
    type Body;

    /// What most tests use: they are about the backend and not about what optimizations do.
    fn options() -> Self::Options;
    /// From few optimizations to many, with what they are called.
    fn levels() -> Vec<(String, Self::Options)>;
    fn with(options: Self::Options, choice: With) -> Self::Options;

    /// A function that gets its parameter and all functions, and answers the result.
    fn body(
        build: impl Fn(&mut dyn Ir, Value, &[Bead]) -> Result<Value, CompileError> + Send + Sync + 'static,
    ) -> Self::Body;
    /// A function's core is its number.
    fn backend(options: Self::Options, bodies: Vec<Self::Body>, seen: Seen) -> Self::Backend;
    fn stats(backend: &Self::Backend) -> BackendStats;
}

/// An option that all backends have.
#[derive(Debug)]
pub enum With {
    Symbol(&'static str, *const u8),
    Arena(Arena),
    CalleeBits,
}

/// A word in the code that is built.
#[derive(Clone, Copy, Debug)]
pub struct Value(pub usize);

/// Builds code of 64-bit words, by whichever IR. Panics where that refuses.
pub trait Ir {
    fn number(&mut self, n: i64) -> Value;
    fn add(&mut self, a: Value, b: Value) -> Value;
    fn mul(&mut self, a: Value, b: Value) -> Value;
    fn xor(&mut self, a: Value, b: Value) -> Value;
    /// `if x == 0 { at_zero } else { otherwise() }`
    fn unless_zero(
        &mut self,
        x: Value,
        at_zero: i64,
        otherwise: &mut dyn FnMut(&mut dyn Ir) -> Value,
    ) -> Value;

    fn call(&mut self, callee: Bead, x: Value) -> Value;
    fn call_symbol(&mut self, name: &str, x: Value) -> Value;
    fn code_pointer(&mut self, callee: Bead) -> Value;
    /// The address of so many bytes.
    fn data(&mut self, bytes: &[u8]) -> Value;

    fn include(&mut self, body: Bead) -> bool;
    /// Whether it is the function itself that is built, and not a body in it.
    fn is_root(&mut self) -> bool;
    fn call_sites(&mut self, count: u32) -> bool;

    fn entry(&self) -> Entry;
    fn add_loop_entry(&mut self, site: u64);
    /// Words of a frame at these offsets.
    fn load_live(&mut self, frame: Value, offsets: &[i32]) -> Vec<Value>;

    fn plus(&mut self, x: Value, n: i64) -> Value {
        let n = self.number(n);
        self.add(x, n)
    }
}

/// A function that answers its parameter plus `n`.
pub fn plus<T: Tested>(n: i64) -> T::Body {
    T::body(move |ir, x, _| Ok(ir.plus(x, n)))
}

/// Tests with the names of properties.
#[macro_export]
macro_rules! properties {
    ($tested:ty: $($module:ident::{$($name:ident),* $(,)?}),* $(,)?) => {
        $($(
            #[test]
            fn $name() {
                $crate::backends::$module::$name::<$tested>();
            }
        )*)*
    };
}
