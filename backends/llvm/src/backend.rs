//! The backend: compiles each function of a batch, places the batch at once, finishes the jobs.

use crate::builder::LlvmBuilder;
use crate::env::Environment;
use crate::frontend::Frontend;
use crate::reclaim::ArenaReclaim;
use crate::stage::{Hears, Part, Staged, stage};
use crate::stats::{Counters, LlvmStats};
use crate::worker::with_worker;
use beadwork::{Backend, Bead, CodeOwner, CompileError, CompiledCode, Job, Reclaim};
use beadwork_arena::{Arena, ArenaError, CodeGroup, Function};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

impl LlvmBackend<()> {
    /// Options for a backend that generates code for this machine.
    pub fn builder() -> LlvmBuilder {
        LlvmBuilder::new()
    }
}

impl<F: Frontend> LlvmBackend<F> {
    pub(crate) fn new(env: Arc<Environment>, frontend: F, arena: Arena, name: String) -> LlvmBackend<F> {
        LlvmBackend {
            env,
            frontend,
            reclaim: Arc::new(ArenaReclaim::new(arena.clone())),
            arena,
            counters: Counters::default(),
            name,
        }
    }

    /// Places a batch, each function with its loop entries; the answer is in the same order.
    fn place(&self, batch: &mut [Staged]) -> Result<Vec<CodeGroup>, ArenaError> {
        for (part, position) in batch.iter_mut().flat_map(Staged::parts_mut).zip(0..) {
            part.set_position(position);
        }
        let functions = batch.iter().flat_map(Staged::parts).map(|Part { name, linked }| Function {
            name,
            code: &linked.code,
            align: linked.align,
            relocations: &linked.relocations,
            unwind: linked.unwind.as_ref(),
        });
        let functions: Vec<_> = functions.collect();
        let mut rest = functions.as_slice();
        let groups = batch.iter().map(|function| {
            let (group, later) = rest.split_at(1 + function.loops.len());
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
                        let error = CompileError::because(PlacementError { function, error });
                        self.hearing(job.bead()).loop_failed(site, error);
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
        let CodeGroup { block, entries } = group;
        let bytes = block.len();
        self.counters.compiled(bytes);
        self.counters.loop_entries(function.loops.len());
        // One token frees all entries.
        let owner = CodeOwner::token(self.reclaim.clone(), block.into_token().to_bits());
        let mut entries =
            function.parts().zip(entries).map(|(part, start)| start.wrapping_add(part.linked.entry));
        let code =
            CompiledCode::new(entries.next().unwrap_or(std::ptr::null())).owner(owner).with_bytes(bytes);
        let code = code.with_compile_time(function.took + share);
        let loops = function.loops.iter().zip(entries);
        job.finish(Ok(loops.fold(code, |code, ((site, _), entry)| code.osr(*site, entry))));
    }

    fn fail(&self, job: &mut Job<'_>, error: CompileError) {
        self.counters.failed();
        job.finish(Err(error));
    }

    fn hearing(&self, bead: Bead) -> Hearing<'_, F> {
        Hearing { backend: self, bead }
    }
}

/// What a compile of a function tells.
struct Hearing<'b, F> {
    backend: &'b LlvmBackend<F>,
    bead: Bead,
}

impl<F: Frontend> Hears for Hearing<'_, F> {
    fn loop_failed(&self, site: u64, error: CompileError) {
        self.backend.counters.loop_entry_failed();
        self.backend.frontend.loop_failed(self.bead, site, &error);
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
        self.counters.snapshot(self.arena.stats())
    }

    /// The arena the code lies in.
    pub fn arena(&self) -> &Arena {
        &self.arena
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
        let mut left = jobs.iter_mut();
        let lent = with_worker(
            &self.env,
            || self.counters.new_context(),
            |worker| {
                for job in left.by_ref() {
                    if !job.is_current() {
                        // The engine discards whatever comes for it, so nothing need be compiled.
                        self.counters.superseded();
                        job.finish(Err(CompileError::Withdrawn("superseded before it was compiled")));
                        continue;
                    }
                    let hears = self.hearing(job.bead());
                    match stage(&self.env, &self.frontend, worker, job, &hears) {
                        Ok(function) => {
                            batch.push(function);
                            compiled.push(job);
                        }
                        Err(error) => self.fail(job, error),
                    }
                }
            },
        );
        if let Err(error) = lent {
            for job in left {
                self.fail(job, CompileError::because(error.clone()));
            }
        }
        self.install(&mut compiled, &mut batch);
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn held_bytes(&self) -> Option<u64> {
        Some(self.arena.stats().resident_bytes as u64)
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
