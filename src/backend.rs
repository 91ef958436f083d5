//! The compiler's side: a [`Backend`] gets batches of [`Job`]s and finishes each with code or a reason.

use crate::code::CompiledCode;
use crate::error::CompileError;
use crate::job::Job;
use crate::sync::Arc;
use std::fmt;
use std::time::Instant;

/// A compiler for one tier. Called on worker threads, by several at once.
///
/// Errors, null entries and panics are ordinary outcomes: the bead stays where it is, is asked for again after a
/// pause that doubles, and the event and the log carry the reason. A panic is contained where panics unwind (with
/// `panic = "abort"` it ends the process, as any panic does). A backend must not run rayon work on the engine's own
/// pool: the stack that waits for it could pick up another compile.
pub trait Backend: Send + Sync + 'static {
    /// Compiles a batch, at least one job, all of one tier. Finish each by [`Job::finish`], as soon as its code can
    /// be run: it is installed there and then. A job that is not finished counts as failed.
    fn compile(&self, jobs: &mut [Job<'_>]);

    /// The name in events and logs.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }

    /// The memory in which the backend places code and its data; `None` if it does not know. Whoever keeps a budget of bytes asks
    /// after each batch.
    fn memory(&self) -> Option<CodeMemory> {
        None
    }
}

/// Memory for code, as a [`Backend`] tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CodeMemory {
    /// Tells it from other memory of the process. Backends that share some give the same number.
    pub id: u64,
    /// Bytes that are held, in whole pages.
    pub held_bytes: u64,
    /// Of these, bytes with code and data in them, whosever it is.
    pub live_bytes: u64,
    /// Pieces of code there: as many as there were installs of code that is not freed yet, if nobody else places code there.
    pub live_blocks: u64,
}

impl CodeMemory {
    /// Memory with that number, so many bytes of pages, so many of code, and so many pieces of that.
    pub fn new(id: u64, held_bytes: u64, live_bytes: u64, live_blocks: u64) -> CodeMemory {
        CodeMemory { id, held_bytes, live_bytes, live_blocks }
    }
}

impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        (**self).compile(jobs)
    }
    fn name(&self) -> &str {
        (**self).name()
    }
    fn memory(&self) -> Option<CodeMemory> {
        (**self).memory()
    }
}

/// A closure as a backend, called once per function.
///
/// ```
/// use beadwork::{CompiledCode, FnBackend};
/// extern "C" fn native() {}
/// let backend = FnBackend::new(|_job| Ok(CompiledCode::new(native as *const u8)));
/// ```
pub struct FnBackend<F>(F);

impl<F> FnBackend<F>
where
    F: Fn(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + Sync + 'static,
{
    /// Compiles each function by calling `compile`.
    pub fn new(compile: F) -> FnBackend<F> {
        FnBackend(compile)
    }
}

impl<F> Backend for FnBackend<F>
where
    F: Fn(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + Sync + 'static,
{
    fn compile(&self, jobs: &mut [Job<'_>]) {
        let mut started = Instant::now();
        for job in jobs {
            if !job.is_current() {
                job.finish(Err(CompileError::Withdrawn("superseded before it was compiled")));
                continue;
            }
            let result = (self.0)(job);
            // One look at the clock for each: it costs more than the rest of what happens here. So the time it takes to install
            // one function is counted with the next.
            let now = Instant::now();
            job.finish(result.map(|code| code.default_compile_time(now - started)));
            started = now;
        }
    }
}

impl<F> fmt::Debug for FnBackend<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FnBackend")
    }
}
