//! **strand**: a small statically typed language with an interpreter and native code, the virtual machine beadwork's examples
//! embed.
//!
//! ```
//! use strand::{InterpretAll, Limits, Program, Value, Vm};
//!
//! let source = "fn main(n: int) -> int { let sum = 0; for i in 0..n { sum = sum + i * i; } return sum; }";
//! let program = Program::parse("squares.strand", source)?;
//! let mut vm = Vm::new(&program, Limits::default(), InterpretAll)?;
//! assert_eq!(vm.run(&[10])?, Value::Int(285));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Language
//! A program is a list of functions, `fn name(a: int, b: [float]) -> int { … }`, at most 8 parameters each; `main` takes ints and
//! returns an int or a float. Types are `int` (64 bits, wrapping), `float` (IEEE 754 binary64), `bool`, `num` (dynamic: an
//! integer of 32 bits until a result does not fit or is no integer, then a float, see [`num`]), and arrays of them, `[int]`,
//! `[[float]]`; types are never converted silently. Statements: `let x = e;` (the type is that of `e`), `x = e;`, `a[i] = e;`, calls,
//! `if`/`else if`/`else`, `while`, `for i in from..to` (`to` is evaluated once, `i` cannot be assigned), `break`, `continue`, `return`. Operators,
//! loosest first: `||`, `&&`, comparisons, `|`, `^`, `&`, `<< >>`, `+ -`, `* / %`, unary `- !`. `/` and `%` of ints round towards zero and fail
//! for 0; `i64::MIN / -1` wraps; shifts use the low six bits of the right side, `>>` keeps the sign; `%` is for ints. Builtins: `int(x)`
//! (rounds towards zero, saturates, NaN is 0), `float(x)`, `num(x)`, `sqrt(x)`, `len(a)`, `array(n, init)`, `print(x)`. Comments start with `//`.
//!
//! # Layers
//! [`lexer`] → [`parser`] ([`ast`]) → [`check`] ([`hir`]) → [`lower`] ([`bytecode`], [`function`]) → [`vm`] and the interpreter behind it,
//! with [`heap`] for arrays and [`num`] for dynamic numbers. [`native`] is the calling convention, [`runtime`] what native code calls
//! back, [`jit`] the Cranelift frontend, with [`liveness`] for what goes back to the interpreter when a guard fails, and [`calls`] where an
//! engine hooks in. [`tiering`], [`frontend`] and [`dispatching`] connect the two; [`speculation`] remembers failed bets, and [`redefine`]
//! changes functions that run.

pub mod ast;
pub mod bytecode;
pub mod calls;
pub mod check;
mod counting;
pub mod dispatching;
pub mod error;
#[cfg(feature = "_llvm")]
mod flow;
pub mod frontend;
pub mod function;
pub mod heap;
pub mod hir;
mod interp;
pub mod jit;
pub mod keys;
pub mod lexer;
pub mod liveness;
#[cfg(feature = "_llvm")]
pub mod llvm;
pub mod lower;
pub mod native;
pub mod num;
pub mod parser;
pub mod program;
pub mod redefine;
pub mod report;
pub mod runtime;
pub mod speculation;
pub mod tiering;
pub mod types;
pub mod vm;

pub use calls::{Calls, Edge, Enter, InterpretAll};
pub use error::{Diagnostic, ErrorKind, Pos, RuntimeError, Trap};
pub use function::{Function, LoopSite};
pub use hir::FuncIndex;
pub use native::{Context, Entry, NativeResult, entry_stub};
pub use program::Program;
pub use types::Type;
pub use vm::{Limits, Value, Vm, on_vm_stack};
