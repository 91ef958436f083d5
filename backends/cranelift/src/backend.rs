//! The backend: compiles each function of a batch, places the batch at once, finishes the jobs.

use crate::builder::CraneliftBuilder;
use crate::env::Environment;
use crate::frontend::Frontend;
use crate::libcalls;
use crate::stage::{Hears, Scratch, stage, with_scratch};
use crate::stats::{Counters, CraneliftStats};
use beadwork::{Backend, Bead, CodeMemory, CompileError, CompiledCode, Job};
use beadwork_arena::Arena;
use beadwork_object::{Begun, Keeper, Keeps, Known, Placer, Placing, Staged};
use cranelift_codegen::isa::TargetIsa;
use std::fmt;

/// A compiled tier by Cranelift, for a frontend that builds one function at a time.
///
/// Workers compile in parallel and share no lock while they do; a batch is then placed in the arena by one call, with
/// one unwind table, and its jobs are finished. Code is freed function by function, by token, without a heap object
/// per function. To keep an eye on [`stats`](CraneliftBackend::stats), give the tier a clone of an
/// [`Arc`](std::sync::Arc) of the backend.
///
/// See the [crate's documentation](crate) for an example.
pub struct CraneliftBackend<F> {
    env: Environment,
    frontend: F,
    placer: Placer,
    counters: Counters,
    name: String,
}

impl CraneliftBackend<()> {
    /// Options for a backend that generates code for this machine.
    pub fn builder() -> CraneliftBuilder {
        CraneliftBuilder::new()
    }
}

impl<F: Frontend> CraneliftBackend<F> {
    pub(crate) fn new(env: Environment, frontend: F, arena: Arena, name: String) -> CraneliftBackend<F> {
        CraneliftBackend { env, frontend, placer: Placer::new(arena), counters: Counters::default(), name }
    }

    /// What a job may be spared, or what is kept of it; `None` without an archive, or if the frontend wants neither.
    fn begin(&self, job: &Job<'_>) -> Option<(&Keeper, Begun)> {
        let keeper = self.env.keeper.as_ref()?;
        Some((keeper, keeper.begin(job, self.frontend.content(job)?)))
    }

    /// The function from the archive.
    fn find(&self, job: &mut Job<'_>, (keeper, begun): (&Keeper, &Begun)) -> Option<Staged> {
        let symbols = &self.env.symbols;
        let known = Known {
            function: &|key| self.frontend.function(key),
            symbol: &|name| symbols.address_of(name).or_else(|| libcalls::address_by_name(name)),
        };
        keeper.load(begun, job, known)
    }

    fn stage(&self, scratch: &mut Scratch, job: &mut Job<'_>) -> Result<Staged, CompileError> {
        let hears = Hearing { backend: self, bead: job.bead() };
        stage(&self.env, &self.frontend, scratch, job, &hears)
    }

    fn fail(&self, job: &mut Job<'_>, error: CompileError) {
        self.counters.failed();
        job.finish(Err(error));
    }
}

impl<F: Frontend> Placing for CraneliftBackend<F> {
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

impl<F: Frontend> Keeps for CraneliftBackend<F> {
    fn keeper(&self) -> Option<&Keeper> {
        self.env.keeper.as_ref()
    }

    fn load(&self, begun: &Begun, job: &mut Job<'_>) -> Result<Option<CompiledCode>, CompileError> {
        let Some(keeper) = &self.env.keeper else { return Ok(None) };
        let Some(mut function) = self.find(job, (keeper, begun)) else { return Ok(None) };
        self.placer.install_one(job, &mut function, self).map(Some)
    }

    fn compile_to_keep(&self, job: &mut Job<'_>) -> Result<(CompiledCode, Staged), CompileError> {
        let staged = with_scratch(|scratch| self.stage(scratch, job));
        let mut function = staged.inspect_err(|_| self.counters.failed())?;
        let code = self.placer.install_one(job, &mut function, self)?;
        Ok((code, function))
    }
}

/// What a compile of a function tells.
struct Hearing<'b, F> {
    backend: &'b CraneliftBackend<F>,
    bead: Bead,
}

impl<F: Frontend> Hears for Hearing<'_, F> {
    fn loop_failed(&self, site: u64, error: CompileError) {
        self.backend.loop_failed(self.bead, site, error);
    }

    fn included(&self, bodies: usize) {
        self.backend.counters.included(bodies);
    }

    fn unit_failed(&self) {
        self.backend.counters.unit_failed();
    }
}

impl<F> CraneliftBackend<F> {
    /// What the backend has done and what its arena holds. Takes the arena's lock.
    pub fn stats(&self) -> CraneliftStats {
        self.counters.snapshot(self.arena().stats())
    }

    /// The arena the code lies in.
    pub fn arena(&self) -> &Arena {
        self.placer.arena()
    }

    /// The code generator with its flags.
    pub fn isa(&self) -> &dyn TargetIsa {
        &*self.env.isa
    }
}

impl<F: Frontend> Backend for CraneliftBackend<F> {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        self.counters.batch();
        let mut batch = Vec::with_capacity(jobs.len());
        let mut compiled = Vec::with_capacity(jobs.len());
        let mut kept = Vec::new();
        with_scratch(|scratch| {
            for job in jobs {
                if !job.is_current() {
                    // Nobody wants what would come of it.
                    self.counters.superseded();
                    job.finish(Err(CompileError::Withdrawn("superseded before it was compiled")));
                    continue;
                }
                let begun = self.begin(job);
                if let Some((keeper, begun)) = &begun
                    && let Some(function) = self.find(job, (keeper, begun))
                {
                    batch.push(function);
                    compiled.push(job);
                    continue;
                }
                match self.stage(scratch, job) {
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

impl<F> fmt::Debug for CraneliftBackend<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CraneliftBackend")
            .field("isa", &self.isa().name())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
