//! What a lookup answers.

use super::completion::Origin;
use crate::code::Code;

/// What a lookup answers.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'m> {
    /// Run this. It borrows the mutator, so no safepoint is passed while it is held.
    Compiled {
        /// The code.
        code: Code<'m>,
        /// Where it came from.
        origin: Origin,
    },
    /// Interpret.
    Interpret(Interpret),
}

/// Why there is no code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Interpret {
    /// The cache is disabled.
    Disabled,
    /// The source is empty, or larger than the [limit](super::CodeCacheBuilder::source_limit).
    Ineligible,
    /// It is not hot yet, or its compile is not done.
    NotReady,
    /// Its last compile failed. It is tried again after a pause, see [`RETRY_AFTER_CALLS`](crate::RETRY_AFTER_CALLS).
    Failed,
}

impl<'m> Lookup<'m> {
    /// The code, if there is some.
    pub fn code(self) -> Option<Code<'m>> {
        match self {
            Lookup::Compiled { code, .. } => Some(code),
            Lookup::Interpret(_) => None,
        }
    }

    /// Why there is none.
    pub fn interpret(self) -> Option<Interpret> {
        match self {
            Lookup::Compiled { .. } => None,
            Lookup::Interpret(why) => Some(why),
        }
    }
}
