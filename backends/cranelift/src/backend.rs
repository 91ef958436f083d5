//! The backend: what Cranelift adds to a driver of batches.

use crate::builder::CraneliftBuilder;
use crate::env::Environment;
use crate::frontend::Frontend;
use crate::libcalls;
use crate::stage::{Scratch, stage};
use beadwork::{Backend, Bead, CodeMemory, CompileError, CompiledCode, ContentKey, Job};
use beadwork_arena::Arena;
use beadwork_object::{BackendStats, Begun, Compiler, Driver, Dump, Hears, Keeper, Keeps, Staged};
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
pub struct CraneliftBackend<F>(Driver<Cranelift<F>>);

impl CraneliftBackend<()> {
    /// Options for a backend that generates code for this machine.
    pub fn builder() -> CraneliftBuilder {
        CraneliftBuilder::new()
    }
}

impl<F> CraneliftBackend<F> {
    pub(crate) fn new(env: Environment, frontend: F, arena: Arena, name: String) -> CraneliftBackend<F> {
        CraneliftBackend(Driver::new(Cranelift { env, frontend }, arena, name))
    }

    /// What the backend has done and what its arena holds. Takes the arena's lock.
    pub fn stats(&self) -> BackendStats {
        self.0.stats()
    }

    /// The arena the code lies in.
    pub fn arena(&self) -> &Arena {
        self.0.arena()
    }

    /// The code generator with its flags.
    pub fn isa(&self) -> &dyn TargetIsa {
        &*self.0.compiler().env.isa
    }
}

/// Cranelift and a frontend.
struct Cranelift<F> {
    env: Environment,
    frontend: F,
}

impl<F: Frontend> Compiler for Cranelift<F> {
    type Worker = Box<Scratch>;

    fn lend(&self) -> Result<Box<Scratch>, CompileError> {
        Ok(Scratch::take())
    }

    fn take_back(&self, scratch: Box<Scratch>) {
        scratch.put();
    }

    fn compile(
        &self,
        scratch: &mut Box<Scratch>,
        job: &mut Job<'_>,
        hears: &Hears<'_, Self>,
    ) -> Result<Staged, CompileError> {
        stage(&self.env, &self.frontend, scratch, job, hears)
    }

    fn content(&self, job: &Job<'_>) -> Option<ContentKey> {
        self.frontend.content(job)
    }

    fn function(&self, key: u64) -> Option<Bead> {
        self.frontend.function(key)
    }

    fn symbol(&self, name: &str) -> Option<u64> {
        self.env.symbols.address_of(name).or_else(|| libcalls::address_by_name(name))
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

impl<F: Frontend> Backend for CraneliftBackend<F> {
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

impl<F: Frontend> Keeps for CraneliftBackend<F> {
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

impl<F> fmt::Debug for CraneliftBackend<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CraneliftBackend")
            .field("isa", &self.isa().name())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
