//! Why a backend could not be built, and why a frontend gave up.

use beadwork::{CompileError, CoreError, Stale};
use beadwork_arena::ArenaError;
use beadwork_object::NullSymbol;
use inkwell::builder::BuilderError;
use inkwell::values::InstructionValueError;

/// Why [`LlvmBuilder::build`](crate::LlvmBuilder::build) failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LlvmError {
    /// The linker of this crate knows x86-64 ELF objects only.
    #[error("LLVM code is linked on x86-64 Linux only; leave this tier out")]
    Host,
    /// LLVM generates no code for this machine, processor or features.
    #[error("LLVM {version} gave no code generator for {triple}, processor `{cpu}`: {reason}")]
    Machine {
        /// LLVM's version.
        version: String,
        /// The target triple.
        triple: String,
        /// The processor asked for.
        cpu: String,
        /// What it said.
        reason: String,
    },
    /// The pass pipeline is not one.
    #[error("LLVM {version} refused the passes `{passes}`: {reason}")]
    Passes {
        /// LLVM's version.
        version: String,
        /// The text given.
        passes: String,
        /// What it said.
        reason: String,
    },
    /// A text with a NUL in it, where LLVM takes C strings.
    #[error("the {what} contains a NUL character")]
    Nul {
        /// Which text.
        what: &'static str,
    },
    /// A runtime symbol without an address.
    #[error(transparent)]
    NullSymbol(#[from] NullSymbol),
    /// The arena for the code could not be made.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

/// Why a [`Frontend`](crate::Frontend) gave up on a function; `?` makes it from what inkwell's builder and the engine answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// inkwell refused an instruction.
    #[error("building IR: {0}")]
    Builder(#[from] BuilderError),
    /// inkwell refused a change of an instruction.
    #[error("building IR: {0}")]
    Instruction(#[from] InstructionValueError),
    /// Anything else, ready for the engine.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl BuildError {
    /// The frontend's own reason, from anything that prints.
    pub fn failed(reason: impl std::fmt::Display) -> BuildError {
        CompileError::failed(reason).into()
    }
}

impl From<Stale> for BuildError {
    fn from(error: Stale) -> BuildError {
        CompileError::from(error).into()
    }
}

impl From<CoreError> for BuildError {
    fn from(error: CoreError) -> BuildError {
        CompileError::from(error).into()
    }
}

impl From<BuildError> for CompileError {
    fn from(error: BuildError) -> CompileError {
        match error {
            BuildError::Compile(error) => error,
            other => CompileError::because(other),
        }
    }
}
