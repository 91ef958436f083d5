//! The backend: compiles each function of a batch, places the batch at once, finishes the jobs.

use crate::builder::LlvmBuilder;
use crate::env::Environment;
use crate::frontend::Frontend;
use crate::stage::{Hears, known, stage};
use crate::stats::{Counters, LlvmStats};
use crate::worker::{Worker, with_worker};
use beadwork::{Backend, Bead, CodeMemory, CompileError, CompiledCode, Job};
use beadwork_arena::Arena;
use beadwork_object::{Begun, Keeper, Keeps, Known, Placer, Placing, Staged};
use std::fmt;
use std::sync::Arc;

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
pub struct LlvmBackend<F> {
    env: Arc<Environment>,
    frontend: F,
    placer: Placer,
    counters: Counters,
    name: String,
}

impl LlvmBackend<()> {
    /// Options for a backend that generates code for this machine.
    pub fn builder() -> LlvmBuilder {
        LlvmBuilder::new()
    }
}

impl<F: Frontend> LlvmBackend<F> {
    pub(crate) fn new(env: Arc<Environment>, frontend: F, arena: Arena, name: String) -> LlvmBackend<F> {
        LlvmBackend { env, frontend, placer: Placer::new(arena), counters: Counters::default(), name }
    }

    /// What a job may be spared, or what is kept of it; `None` without an archive, or if the frontend wants neither.
    fn begin(&self, job: &Job<'_>) -> Option<(&Keeper, Begun)> {
        let keeper = self.env.keeper.as_ref()?;
        Some((keeper, keeper.begin(job, self.frontend.content(job)?)))
    }

    /// The function from the archive.
    fn find(&self, job: &mut Job<'_>, (keeper, begun): (&Keeper, &Begun)) -> Option<Staged> {
        let known =
            Known { function: &|key| self.frontend.function(key), symbol: &|name| known(&self.env, name) };
        keeper.load(begun, job, known)
    }

    fn stage(&self, worker: &mut Worker, job: &mut Job<'_>) -> Result<Staged, CompileError> {
        let hears = self.hearing(job.bead());
        stage(&self.env, &self.frontend, worker, job, &hears)
    }

    fn fail(&self, job: &mut Job<'_>, error: CompileError) {
        self.counters.failed();
        job.finish(Err(error));
    }

    /// The engine discards whatever comes for the job, so nothing need be compiled.
    fn withdraw(&self, job: &mut Job<'_>) {
        self.counters.superseded();
        job.finish(Err(CompileError::Withdrawn("superseded before it was compiled")));
    }

    fn hearing(&self, bead: Bead) -> Hearing<'_, F> {
        Hearing { backend: self, bead }
    }
}

impl<F: Frontend> Placing for LlvmBackend<F> {
    fn placed(&self, bytes: usize, loops: usize) {
        self.counters.compiled(bytes);
        self.counters.loop_entries(loops);
    }

    fn failed(&self) {
        self.counters.failed();
    }

    fn split(&self) {
        self.counters.split();
    }

    fn loop_failed(&self, bead: Bead, site: u64, error: CompileError) {
        self.counters.loop_entry_failed();
        self.frontend.loop_failed(bead, site, &error);
    }
}

impl<F: Frontend> Keeps for LlvmBackend<F> {
    fn keeper(&self) -> Option<&Keeper> {
        self.env.keeper.as_ref()
    }

    fn load(&self, begun: &Begun, job: &mut Job<'_>) -> Result<Option<CompiledCode>, CompileError> {
        let Some(keeper) = &self.env.keeper else { return Ok(None) };
        let Some(mut function) = self.find(job, (keeper, begun)) else { return Ok(None) };
        self.placer.install_one(job, &mut function, self).map(Some)
    }

    fn compile_to_keep(&self, job: &mut Job<'_>) -> Result<(CompiledCode, Staged), CompileError> {
        let created = || self.counters.new_context();
        let staged = with_worker(&self.env, created, |worker| self.stage(worker, job));
        let staged = staged.unwrap_or_else(|error| Err(CompileError::because(error)));
        let mut function = staged.inspect_err(|_| self.counters.failed())?;
        let code = self.placer.install_one(job, &mut function, self)?;
        Ok((code, function))
    }
}

/// What a compile of a function tells.
struct Hearing<'b, F> {
    backend: &'b LlvmBackend<F>,
    bead: Bead,
}

impl<F: Frontend> Hears for Hearing<'_, F> {
    fn loop_failed(&self, site: u64, error: CompileError) {
        self.backend.loop_failed(self.bead, site, error);
    }

    fn new_context(&self) {
        self.backend.counters.new_context();
    }

    fn included(&self, bodies: usize) {
        self.backend.counters.included(bodies);
    }

    fn unit_failed(&self) {
        self.backend.counters.unit_failed();
    }
}

impl<F> LlvmBackend<F> {
    /// What the backend has done and what its arena holds. Takes the arena's lock.
    pub fn stats(&self) -> LlvmStats {
        self.counters.snapshot(self.arena().stats())
    }

    /// The arena the code lies in.
    pub fn arena(&self) -> &Arena {
        self.placer.arena()
    }

    /// The processor code is generated for, in LLVM's words.
    pub fn cpu(&self) -> &str {
        &self.env.cpu
    }

    /// The processor's features, in LLVM's words, those asked for last; empty if they are just those that come with
    /// [`cpu`](LlvmBackend::cpu).
    pub fn features(&self) -> &str {
        &self.env.features
    }

    /// The pass pipeline, as `opt -passes=…` would take it.
    pub fn pipeline(&self) -> &str {
        self.env.passes.pipeline()
    }
}

impl<F: Frontend> Backend for LlvmBackend<F> {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        self.counters.batch();
        let mut batch = Vec::with_capacity(jobs.len());
        let mut compiled = Vec::with_capacity(jobs.len());
        let mut kept = Vec::new();
        let mut left = Vec::with_capacity(jobs.len());
        for job in jobs {
            if !job.is_current() {
                self.withdraw(job);
                continue;
            }
            let begun = self.begin(job);
            let found = begun.as_ref().and_then(|(keeper, begun)| self.find(job, (keeper, begun)));
            match found {
                Some(function) => {
                    batch.push(function);
                    compiled.push(job);
                }
                None => left.push((job, begun)),
            }
        }
        let mut left = left.into_iter();
        // Where all was kept, this thread needs nothing of LLVM.
        if left.len() > 0 {
            let created = || self.counters.new_context();
            let lent = with_worker(&self.env, created, |worker| {
                for (job, begun) in left.by_ref() {
                    if !job.is_current() {
                        self.withdraw(job);
                        continue;
                    }
                    match self.stage(worker, job) {
                        Ok(function) => {
                            if let Some(begun) = begun.filter(|(keeper, _)| keeper.archive().is_saving()) {
                                kept.push((batch.len(), begun));
                            }
                            batch.push(function);
                            compiled.push(job);
                        }
                        Err(error) => self.fail(job, error),
                    }
                }
            });
            if let Err(error) = lent {
                for (job, _) in left {
                    self.fail(job, CompileError::because(error.clone()));
                }
            }
        }
        self.placer.install(&mut compiled, &mut batch, self);
        // Writing files takes longer than compiling, so the code runs meanwhile.
        for (at, (keeper, begun)) in kept {
            // Counted and told of there.
            let _ = keeper.save(&begun, &batch[at]);
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn memory(&self) -> Option<CodeMemory> {
        Some(beadwork_object::memory(self.arena()))
    }
}

impl<F> fmt::Debug for LlvmBackend<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlvmBackend")
            .field("cpu", &self.cpu())
            .field("passes", &self.pipeline())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
