//! The backend: compiles each function of a batch, places the batch at once, finishes the jobs.

use crate::builder::CraneliftBuilder;
use crate::env::Environment;
use crate::frontend::Frontend;
use crate::libcalls;
use crate::reclaim::ArenaReclaim;
use crate::stage::{Hears, Staged, stage, with_scratch};
use crate::stats::{Counters, CraneliftStats};
use beadwork::{Backend, Bead, CodeOwner, CompileError, CompiledCode, Job, Reclaim};
use beadwork_arena::{Arena, ArenaError, CodeGroup};
use beadwork_object::{Begun, Keeper, Known, Loaded, Part};
use cranelift_codegen::isa::TargetIsa;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A compiled tier by Cranelift, for a frontend that builds one function at a time.
///
/// Workers compile in parallel and share no lock while they do; a batch is then placed in the arena by one call, with
/// one unwind table, and its jobs are finished. Code is freed function by function, by token, without a heap object
/// per function. To keep an eye on [`stats`](CraneliftBackend::stats), give the tier a clone of an
/// [`Arc`] of the backend.
///
/// See the [crate's documentation](crate) for an example.
pub struct CraneliftBackend<F> {
    env: Environment,
    frontend: F,
    arena: Arena,
    reclaim: Arc<dyn Reclaim>,
    counters: Counters,
    name: String,
}

/// Why a function that was compiled has no place; in [`CompileError::Backend`](beadwork::CompileError).
#[derive(Clone, Debug, thiserror::Error)]
#[error("function `{function}` was not placed: {error}")]
pub struct PlacementError {
    function: String,
    #[source]
    error: ArenaError,
}

impl PlacementError {
    /// The function's name.
    pub fn function(&self) -> &str {
        &self.function
    }

    /// What the arena said.
    pub fn arena(&self) -> &ArenaError {
        &self.error
    }
}

/// Whether functions of the batch might be placed one by one. Where executable memory is refused, asking again for each function
/// costs a system call each.
fn may_be_one_functions(error: &ArenaError) -> bool {
    !matches!(error, ArenaError::ExecMemoryDenied { .. } | ArenaError::Unsupported { .. })
}

impl CraneliftBackend<()> {
    /// Options for a backend that generates code for this machine.
    pub fn builder() -> CraneliftBuilder {
        CraneliftBuilder::new()
    }
}

impl<F: Frontend> CraneliftBackend<F> {
    pub(crate) fn new(env: Environment, frontend: F, arena: Arena, name: String) -> CraneliftBackend<F> {
        CraneliftBackend {
            env,
            frontend,
            reclaim: Arc::new(ArenaReclaim::new(arena.clone())),
            arena,
            counters: Counters::default(),
            name,
        }
    }

    /// Places a batch, each function with its loop entries; the answer is in the same order.
    fn place(&self, batch: &[Staged]) -> Result<Vec<CodeGroup>, ArenaError> {
        let parts: Vec<&Part> = batch.iter().flat_map(Staged::parts).collect();
        let mut relocations = Vec::with_capacity(parts.len());
        for function in batch {
            let first = relocations.len() as u32;
            relocations
                .extend(function.parts().zip(first..).map(|(part, own)| part.relocations_at(first, own)));
        }
        let functions = parts.iter().zip(&relocations).map(|(part, relocations)| part.function(relocations));
        let functions: Vec<_> = functions.collect();
        let mut rest = functions.as_slice();
        let groups = batch.iter().map(|function| {
            let (group, later) = rest.split_at(function.len());
            rest = later;
            group
        });
        self.arena.place_groups(&groups.collect::<Vec<_>>())
    }

    /// Places what was compiled and finishes its jobs, which are in the same order.
    fn install(&self, jobs: &mut [&mut Job<'_>], batch: &mut [Staged]) {
        if batch.is_empty() {
            return;
        }
        let started = Instant::now();
        match self.place(batch) {
            Ok(groups) => {
                let share = started.elapsed() / batch.len() as u32;
                for ((job, function), group) in jobs.iter_mut().zip(batch).zip(groups) {
                    self.succeed(job, function, group, share);
                }
            }
            Err(error) if batch.len() > 1 && may_be_one_functions(&error) => {
                self.counters.split();
                for (job, function) in jobs.chunks_mut(1).zip(batch.chunks_mut(1)) {
                    self.install(job, function);
                }
            }
            // It may be one of its loop entries that has no place, and the function can do without.
            Err(error)
                if batch.iter().any(|function| !function.loops.is_empty())
                    && may_be_one_functions(&error) =>
            {
                for (job, function) in jobs.iter().zip(&mut *batch) {
                    for (site, part) in function.loops.drain(..) {
                        let (function, error) = (part.name, error.clone());
                        self.loop_failed(
                            job.bead(),
                            site,
                            &CompileError::because(PlacementError { function, error }),
                        );
                    }
                }
                self.install(jobs, batch);
            }
            Err(error) => {
                for (job, function) in jobs.iter_mut().zip(batch) {
                    let (function, error) = (function.function.name.clone(), error.clone());
                    self.fail(job, CompileError::because(PlacementError { function, error }));
                }
            }
        }
    }

    fn succeed(&self, job: &mut Job<'_>, function: &Staged, group: CodeGroup, share: Duration) {
        let code = self.installable(function, group, share);
        job.finish(Ok(code));
    }

    /// What was placed, as the engine takes it.
    fn installable(&self, function: &Staged, group: CodeGroup, share: Duration) -> CompiledCode {
        let CodeGroup { block, entries } = group;
        let (entry, bytes) = (block.entry(), block.len());
        self.counters.compiled(bytes);
        self.counters.loop_entries(function.loops.len());
        // One token frees all entries.
        let owner = CodeOwner::token(self.reclaim.clone(), block.into_token().to_bits());
        let code = CompiledCode::new(entry).owner(owner).with_bytes(bytes);
        let code = code.with_compile_time(function.took + share);
        let loops = function.loops.iter().zip(entries.into_iter().skip(1 + function.bodies.len()));
        loops.fold(code, |code, ((site, _), entry)| code.osr(*site, entry))
    }

    /// What a job may be spared, or what is kept of it; `None` without an archive, or if the frontend wants neither.
    fn begin(&self, job: &Job<'_>) -> Option<(&Keeper, Begun)> {
        let keeper = self.env.keeper.as_ref()?;
        Some((keeper, keeper.begin(job, self.frontend.content(job)?)))
    }

    /// The function from the archive.
    fn load(&self, job: &mut Job<'_>, (keeper, begun): (&Keeper, &Begun)) -> Option<Staged> {
        let started = Instant::now();
        let symbols = &self.env.symbols;
        let known = Known {
            function: &|key| self.frontend.function(key),
            symbol: &|name| symbols.address_of(name).or_else(|| libcalls::address_by_name(name)),
        };
        let Loaded { entry, loops } = keeper.load(begun, job, known)?;
        Some(Staged { function: entry, bodies: Vec::new(), loops, took: started.elapsed(), assumes: false })
    }

    fn loop_failed(&self, bead: Bead, site: u64, error: &CompileError) {
        self.counters.loop_entry_failed();
        self.frontend.loop_failed(bead, site, error);
    }

    fn fail(&self, job: &mut Job<'_>, error: CompileError) {
        self.counters.failed();
        job.finish(Err(error));
    }
}

/// What a compile of a function tells.
struct Hearing<'b, F> {
    backend: &'b CraneliftBackend<F>,
    bead: Bead,
}

impl<F: Frontend> Hears for Hearing<'_, F> {
    fn loop_failed(&self, site: u64, error: CompileError) {
        self.backend.loop_failed(self.bead, site, &error);
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
        self.counters.snapshot(self.arena.stats())
    }

    /// The arena the code lies in.
    pub fn arena(&self) -> &Arena {
        &self.arena
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
                    && let Some(function) = self.load(job, (keeper, begun))
                {
                    batch.push(function);
                    compiled.push(job);
                    continue;
                }
                let hears = Hearing { backend: self, bead: job.bead() };
                match stage(&self.env, &self.frontend, scratch, job, &hears) {
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
        self.install(&mut compiled, &mut batch);
        // Writing files takes longer than compiling, so the code runs meanwhile.
        for (at, (keeper, begun)) in kept {
            let Staged { function, loops, assumes, .. } = &batch[at];
            keeper.save(&begun, *assumes, function, loops);
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn held_bytes(&self) -> Option<u64> {
        Some(self.arena.stats().resident_bytes as u64)
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
