//! Everything that can be wrong with a program: [`Diagnostic`] before it runs, [`RuntimeError`] while it runs.

use std::sync::Arc;

use crate::types::Type;

/// A place in a source file; both numbers start at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pos {
    /// Line number.
    pub line: u32,
    /// Column number, counted in bytes.
    pub column: u32,
}

/// A program that cannot be compiled: where it is wrong, and how.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{file}:{}:{}: {kind}", pos.line, pos.column)]
pub struct Diagnostic {
    /// The file name given to [`Program::parse`](crate::Program::parse).
    pub file: Arc<str>,
    /// The first place at which the error is visible.
    pub pos: Pos,
    /// What is wrong.
    pub kind: ErrorKind,
}

/// What is wrong with a program before it runs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A character that starts no token.
    #[error("unexpected character {0:?}")]
    UnexpectedCharacter(char),
    /// A number that does not fit its type or is not written as one.
    #[error("malformed number `{0}`: write an int up to 9223372036854775807 or a float such as 1.5e3")]
    MalformedNumber(String),
    /// A token where the grammar allows another one.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What the grammar allows here.
        expected: &'static str,
        /// What the file has.
        found: String,
    },
    /// Expressions, blocks or array types inside each other beyond [`MAX_NESTING`](crate::ast::MAX_NESTING).
    #[error("nested too deeply (limit {0}): split it into several statements or functions")]
    NestedTooDeeply(u32),
    /// A name nothing visible has.
    #[error("unknown {what} `{name}`")]
    Unknown {
        /// `"variable"` or `"function"`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A second definition of a name in the same scope.
    #[error("`{name}` is already defined on line {first}")]
    Duplicate {
        /// The name.
        name: String,
        /// Line of the first definition.
        first: u32,
    },
    /// A function named like a builtin.
    #[error("`{0}` is a builtin function and cannot be redefined")]
    Builtin(String),
    /// A call with the wrong number of arguments.
    #[error("`{name}` takes {expected} argument(s), {given} given")]
    Arity {
        /// The called function.
        name: String,
        /// How many it takes.
        expected: usize,
        /// How many the call has.
        given: usize,
    },
    /// A value of one type where another is needed.
    #[error("type mismatch: expected {expected}, found {found}")]
    Mismatch {
        /// The type needed here.
        expected: Type,
        /// The type of the value.
        found: Type,
    },
    /// An operator or builtin used on a type it is not defined for.
    #[error("`{what}` is not defined for {found}")]
    NotDefined {
        /// The operator or builtin.
        what: &'static str,
        /// The type it was used on.
        found: Type,
    },
    /// A path through a function that returns no value.
    #[error("`{0}` can end without returning a value: add a `return`")]
    MissingReturn(String),
    /// `break` or `continue` outside of a loop.
    #[error("`{0}` outside of a loop")]
    OutsideLoop(&'static str),
    /// Assignment to the variable of a `for` loop.
    #[error("loop variable `{0}` cannot be assigned")]
    LoopVariable(String),
    /// The program has no usable `main`.
    #[error("{0}")]
    Main(&'static str),
    /// A fixed limit of the bytecode was exceeded.
    #[error("`{name}` has too many {what} (limit {limit})")]
    TooMany {
        /// The function, or the file for limits of a whole program.
        name: String,
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// Why a running program stopped.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Trap {
    /// `/` or `%` by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// An array access outside of the array.
    #[error("index {index} out of range for length {length}")]
    IndexOutOfRange {
        /// The index used.
        index: i64,
        /// The length of the array.
        length: u64,
    },
    /// `array(n, x)` with negative `n`.
    #[error("negative array length {0}")]
    NegativeLength(i64),
    /// The arrays of one run exceed [`Limits::array_bytes`](crate::Limits::array_bytes).
    #[error("out of memory: an array of length {length} exceeds the limit of {limit} bytes for all arrays")]
    OutOfMemory {
        /// The length asked for.
        length: i64,
        /// The limit in bytes.
        limit: u64,
    },
    /// More calls inside each other than [`Limits::frames`](crate::Limits::frames).
    #[error("recursion too deep in `{function}` (limit {limit})")]
    RecursionTooDeep {
        /// The function that could not be entered.
        function: String,
        /// The limit in frames.
        limit: u64,
    },
    /// The output given by the host refused what `print` wrote.
    #[error("cannot print: {0}")]
    Output(String),
    /// A hook of the host asked to stop.
    #[error("stopped by the host")]
    Stopped,
    /// Native code named a function or trap that does not exist; a defect of the code generator, never of the program.
    #[error("native code passed the invalid {what} {value:#x}")]
    InvalidNative {
        /// What it should have been.
        what: &'static str,
        /// What it was.
        value: u64,
    },
}

/// A run that ended without a value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The program did something wrong.
    #[error("{file}:{line}: {trap}")]
    Trap {
        /// The file of the program.
        file: Arc<str>,
        /// The line that was running; for [`Trap::RecursionTooDeep`] the line of the function's declaration.
        line: u32,
        /// What it did.
        trap: Trap,
    },
    /// The host gave `main` the wrong number of arguments.
    #[error("`main` takes {expected} argument(s), {given} given")]
    Arguments {
        /// How many `main` takes.
        expected: usize,
        /// How many were given.
        given: usize,
    },
    /// The limits ask for more register memory than the host has.
    #[error("cannot reserve {bytes} bytes of registers: lower `Limits::frames`")]
    Registers {
        /// The bytes asked for.
        bytes: usize,
    },
}
