//! What a backend that can keep code offers beyond compiling it.

use crate::keeper::{Begun, Keeper};
use crate::place::Staged;
use beadwork::{Backend, CompileError, CompiledCode, Job};

/// A backend that loads and keeps code for whoever decides what is to be kept, one function at a time. (By itself it does so for
/// functions whose content its frontend knows, while its archive [saves](beadwork::Archive::is_saving).)
pub trait Keeps: Backend {
    /// What it keeps by; `None` if it was built without an archive.
    fn keeper(&self) -> Option<&Keeper>;

    /// Links and places what the archive has. `None` if it has nothing that can be used: that was counted and told.
    ///
    /// # Errors
    /// There is no place for the code.
    fn load(&self, begun: &Begun, job: &mut Job<'_>) -> Result<Option<CompiledCode>, CompileError>;

    /// Compiles a function and places it, and answers what [`Keeper::save`] needs as well. Does not look into the archive.
    ///
    /// # Errors
    /// Whatever the job would be finished with.
    fn compile_to_keep(&self, job: &mut Job<'_>) -> Result<(CompiledCode, Staged), CompileError>;
}
