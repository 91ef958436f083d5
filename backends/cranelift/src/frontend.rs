//! The VM's side: what turns a function into Cranelift IR.

use crate::unit::FunctionUnit;
use beadwork::{Bead, CompileError, ContentKey, Job};

/// Fills the body of one function, or of an entry into one of its loops. A closure `Fn(&mut FunctionUnit<'_, '_>) -> Result<(), CompileError>` is a frontend.
///
/// It is called on worker threads, by several at once. Which function is wanted, at which tier and why, says
/// [`FunctionUnit::job`].
///
/// An error fails this function only. So does a panic: it leaves the backend intact, the engine contains it, and
/// compiles the other functions of the batch again.
pub trait Frontend: Send + Sync + 'static {
    /// Declares the signature with [`FunctionUnit::begin`] and builds the body. Every block must end in a terminator;
    /// blocks left unsealed are sealed afterwards.
    ///
    /// In debug builds Cranelift verifies what was built. In release builds a mistake may be a panic, which is contained, or wrong code: while
    /// you develop, [switch the verifier on](crate::CraneliftBuilder::flag) there, too (`enable_verifier`, `true`).
    ///
    /// # Errors
    /// Whatever makes the function impossible to compile: it goes on as before, and is asked for again later.
    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), CompileError>;

    /// Hears that an entry at the header of a loop was left out, though
    /// [`add_loop_entry`](FunctionUnit::add_loop_entry) asked for it, and why; the rest of the function goes on. Called on the
    /// worker thread. Ignored by default; [`BackendStats::loop_entries_failed`](crate::BackendStats::loop_entries_failed)
    /// counts it in any case.
    fn loop_failed(&self, bead: Bead, site: u64, error: &CompileError) {
        let _ = (bead, site, error);
    }

    /// What the code of a job's function is made of, for a backend with an [archive](crate::CraneliftBuilder::archive). Jobs of equal
    /// content may get each other's code, in other processes too: so it covers the source, what the code speculates on, and all constants
    /// of the VM that are in it. `None`: the function is neither looked for nor kept. By default the function's
    /// [key](beadwork::BeadInfo::key), if it has one.
    fn content(&self, job: &Job<'_>) -> Option<ContentKey> {
        let key = Some(job.key()).filter(|&key| key != 0)?;
        Some(ContentKey::of([&key.to_le_bytes()[..]]))
    }

    /// The live function with this [key](beadwork::BeadInfo::key), which kept code calls or counts. Without an answer, the default, only
    /// functions that refer to none but themselves can be loaded.
    fn function(&self, key: u64) -> Option<Bead> {
        let _ = key;
        None
    }
}

impl<F> Frontend for F
where
    F: Fn(&mut FunctionUnit<'_, '_>) -> Result<(), CompileError> + Send + Sync + 'static,
{
    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), CompileError> {
        self(unit)
    }
}
