//! Asking for compiles, and giving them what they need to know.

use super::Engine;
use crate::error::{CompileNowError, PromoteError};
use crate::id::{Bead, Reason, TierId};
use crate::snapshot;
use std::any::Any;
use std::time::Duration;

/// In each of these, `note` says what the compile is to know ([`Job::snapshot`](crate::Job::snapshot)); see
/// [`Mutator::dispatch_with`](crate::Mutator::dispatch_with). It is not called if nothing is to be asked for: a request that is
/// there already keeps what came with it.
impl Engine {
    /// As [`promote`](Engine::promote), with a note.
    ///
    /// # Errors
    /// As `promote`.
    pub fn promote_with<T: Any + Send>(
        &self,
        bead: Bead,
        tier: TierId,
        note: impl Fn() -> Option<T>,
    ) -> Result<(), PromoteError> {
        self.ask(bead, tier, Reason::Asked, false, Some(&|| snapshot::of(note()))).map(|_| ())
    }

    /// As [`promote_with`](Engine::promote_with), also if the function runs at `tier` already: it is compiled anew, and its code
    /// runs until the new is there.
    ///
    /// # Errors
    /// As `promote`.
    pub fn recompile_with<T: Any + Send>(
        &self,
        bead: Bead,
        tier: TierId,
        note: impl Fn() -> Option<T>,
    ) -> Result<(), PromoteError> {
        self.ask(bead, tier, Reason::Asked, true, Some(&|| snapshot::of(note()))).map(|_| ())
    }

    /// As [`compile_now`](Engine::compile_now), with a note.
    ///
    /// # Errors
    /// As `compile_now`.
    pub fn compile_now_with<T: Any + Send>(
        &self,
        bead: Bead,
        tier: TierId,
        timeout: Duration,
        note: impl Fn() -> Option<T>,
    ) -> Result<u32, CompileNowError> {
        self.compile_now_giving(bead, tier, timeout, Some(&|| snapshot::of(note())))
    }
}
