//! Why a backend could not be built. What goes wrong in a compile is a [`CompileError`](beadwork::CompileError).

use beadwork_arena::ArenaError;
use beadwork_object::NullSymbol;

/// Why [`CraneliftBuilder::build`](crate::CraneliftBuilder::build) failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CraneliftError {
    /// Cranelift has no such flag for this processor.
    #[error("Cranelift has no flag `{name}` on this processor; the flags are: {}", known.join(", "))]
    UnknownFlag {
        /// The name given.
        name: String,
        /// All names there are: shared flags, then those of the processor.
        known: Vec<&'static str>,
    },
    /// The flag exists but cannot have this value.
    #[error("flag `{name}` cannot be `{value}`; it takes {}", known.join(", "))]
    BadFlagValue {
        /// The flag.
        name: String,
        /// The value given.
        value: String,
        /// What it takes.
        known: Vec<&'static str>,
    },
    /// The flags contradict each other or the processor.
    #[error("Cranelift refused the combination of flags: {reason}")]
    Flags {
        /// What it said.
        reason: String,
    },
    /// Cranelift generates no code for this machine.
    #[error("Cranelift has no code generator for this machine: {reason}; leave this tier out")]
    Host {
        /// What it said.
        reason: &'static str,
    },
    /// A runtime symbol without an address.
    #[error(transparent)]
    NullSymbol(#[from] NullSymbol),
    /// The arena for the code could not be made.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}
