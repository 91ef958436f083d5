//! The backend: what LLVM adds to a driver of batches.

use crate::builder::LlvmBuilder;
use crate::env::Environment;
use crate::frontend::Frontend;
use crate::stage::{known, stage};
use crate::worker::Worker;
use beadwork::{Backend, Bead, CodeMemory, CompileError, CompiledCode, ContentKey, Job};
use beadwork_arena::Arena;
use beadwork_object::{BackendStats, Begun, Compiler, Driver, Dump, Hears, Keeper, Keeps, Staged};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A compiled tier by LLVM, for a frontend that builds one function at a time.
///
/// Workers compile in parallel and share no lock while they do; a batch is then placed in the arena by one call, with
/// one unwind table, and its jobs are finished. Code is freed function by function, by token, without a heap object
/// per function. To keep an eye on [`stats`](LlvmBackend::stats), give the tier a clone of an
/// [`Arc`] of the backend.
///
/// What belongs to LLVM (contexts, code generators) belongs to the worker threads and goes with them; code does not need it.
///
/// See the [crate's documentation](crate) for an example.
pub struct LlvmBackend<F>(Driver<Llvm<F>>);

impl LlvmBackend<()> {
    /// Options for a backend that generates code for this machine.
    pub fn builder() -> LlvmBuilder {
        LlvmBuilder::new()
    }
}

impl<F> LlvmBackend<F> {
    pub(crate) fn new(env: Arc<Environment>, frontend: F, arena: Arena, name: String) -> LlvmBackend<F> {
        LlvmBackend(Driver::new(Llvm { env, frontend }, arena, name))
    }

    /// What the backend has done and what its arena holds. Takes the arena's lock.
    pub fn stats(&self) -> BackendStats {
        self.0.stats()
    }

    /// LLVM contexts made so far, by all worker threads. Exact once no compile runs.
    pub fn contexts(&self) -> u64 {
        self.env().contexts.load(Relaxed)
    }

    /// The arena the code lies in.
    pub fn arena(&self) -> &Arena {
        self.0.arena()
    }

    /// The processor code is generated for, in LLVM's words.
    pub fn cpu(&self) -> &str {
        &self.env().cpu
    }

    /// The processor's features, in LLVM's words, those asked for last; empty if they are just those that come with
    /// [`cpu`](LlvmBackend::cpu).
    pub fn features(&self) -> &str {
        &self.env().features
    }

    /// The pass pipeline, as `opt -passes=…` would take it.
    pub fn pipeline(&self) -> &str {
        self.env().passes.pipeline()
    }

    fn env(&self) -> &Environment {
        &self.0.compiler().env
    }
}

/// LLVM and a frontend.
struct Llvm<F> {
    env: Arc<Environment>,
    frontend: F,
}

impl<F: Frontend> Compiler for Llvm<F> {
    type Worker = Worker;

    fn lend(&self) -> Result<Worker, CompileError> {
        Worker::take(&self.env).map_err(CompileError::because)
    }

    fn take_back(&self, worker: Worker) {
        worker.put();
    }

    fn compile(
        &self,
        worker: &mut Worker,
        job: &mut Job<'_>,
        hears: &Hears<'_, Self>,
    ) -> Result<Staged, CompileError> {
        stage(&self.env, &self.frontend, worker, job, hears)
    }

    fn content(&self, job: &Job<'_>) -> Option<ContentKey> {
        self.frontend.content(job)
    }

    fn function(&self, key: u64) -> Option<Bead> {
        self.frontend.function(key)
    }

    fn symbol(&self, name: &str) -> Option<u64> {
        known(&self.env, name)
    }

    fn loop_failed(&self, bead: Bead, site: u64, error: &CompileError) {
        self.frontend.loop_failed(bead, site, error);
    }

    fn keeper(&self) -> Option<&Keeper> {
        self.env.keeper.as_ref()
    }

    fn dump(&self) -> Option<&Dump> {
        self.env.dump.as_ref()
    }
}

impl<F: Frontend> Backend for LlvmBackend<F> {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        self.0.compile(jobs);
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn memory(&self) -> Option<CodeMemory> {
        self.0.memory()
    }
}

impl<F: Frontend> Keeps for LlvmBackend<F> {
    fn keeper(&self) -> Option<&Keeper> {
        self.0.keeper()
    }

    fn load(&self, begun: &Begun, job: &mut Job<'_>) -> Result<Option<CompiledCode>, CompileError> {
        self.0.load(begun, job)
    }

    fn compile_to_keep(&self, job: &mut Job<'_>) -> Result<(CompiledCode, Staged), CompileError> {
        self.0.compile_to_keep(job)
    }
}

impl<F> fmt::Debug for LlvmBackend<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlvmBackend")
            .field("cpu", &self.cpu())
            .field("passes", &self.pipeline())
            .field("stats", &self.stats())
            .field("contexts", &self.contexts())
            .finish_non_exhaustive()
    }
}
