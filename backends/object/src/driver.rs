//! What a backend does with a batch: loads what is kept, has the rest compiled, places all of it at once, and finishes the jobs.

use crate::dump::{Dump, Dumping};
use crate::keeper::{Begun, Keeper, Known};
use crate::keeps::Keeps;
use crate::place::{Placer, Staged};
use crate::stats::{BackendStats, Counters};
use beadwork::{Backend, Bead, CodeMemory, CompileError, CompiledCode, ContentKey, Job};
use beadwork_arena::Arena;
use std::any::Any;

/// A compiler with its frontend, as a [`Driver`] needs it. Called on worker threads, by several at once.
pub trait Compiler: Send + Sync + Sized + 'static {
    /// What a thread needs to compile: buffers, a context.
    type Worker;

    /// What this thread compiles with. Asked for once in a batch, and only if something is left to compile.
    ///
    /// # Errors
    /// There is none. All functions of the batch that are left fail with this.
    fn lend(&self) -> Result<Self::Worker, CompileError>;

    /// Takes it back when the batch is compiled. If a compile unwinds it is dropped instead, since it may be half-filled.
    fn take_back(&self, worker: Self::Worker);

    /// Has the frontend build a function and all that belongs to it, and compiles that.
    ///
    /// # Errors
    /// What the job is to be finished with.
    fn compile(
        &self,
        worker: &mut Self::Worker,
        job: &mut Job<'_>,
        hears: &Hears<'_, Self>,
    ) -> Result<Staged, CompileError>;

    /// What the code of a job's function is made of; `None` if it is neither to be looked for in an archive nor kept there.
    fn content(&self, job: &Job<'_>) -> Option<ContentKey>;

    /// The live function with a key, which kept code refers to.
    fn function(&self, key: u64) -> Option<Bead>;

    /// The address of a runtime symbol, the VM's or the compiler's.
    fn symbol(&self, name: &str) -> Option<u64>;

    /// The frontend hears that a loop entry was left out, and why.
    fn loop_failed(&self, bead: Bead, site: u64, error: &CompileError);

    /// What code is kept by; `None` without an archive.
    fn keeper(&self) -> Option<&Keeper>;

    /// What compiles are written to, if they are.
    fn dump(&self) -> Option<&Dump>;
}

/// A backend of a [`Compiler`] and an arena.
///
/// Workers compile in parallel and share no lock while they do; a batch is then placed by one call of the arena, and its jobs are
/// finished in their order. A job that is superseded before its turn is withdrawn.
#[derive(Debug)]
pub struct Driver<C> {
    compiler: C,
    pub(crate) placer: Placer,
    pub(crate) counters: Counters,
    name: String,
}

/// Hears what a compile of one function has to tell besides its result.
#[derive(Debug)]
pub struct Hears<'d, C> {
    driver: &'d Driver<C>,
    bead: Bead,
    dumping: Option<&'d Dumping>,
}

impl<C: Compiler> Hears<'_, C> {
    /// A loop entry is left out.
    pub fn loop_failed(&self, site: u64, error: CompileError) {
        self.driver.loop_failed(self.bead, site, error);
    }

    /// The function, or one of its loop entries, contains so many bodies of others.
    pub fn included(&self, bodies: usize) {
        self.driver.counters.included(bodies);
    }

    /// It is built again without bodies of others.
    pub fn unit_failed(&self) {
        self.driver.counters.unit_failed();
    }

    /// What the compile is written to, if it is.
    pub fn dumping(&self) -> Option<&Dumping> {
        self.dumping
    }
}

impl<C> Driver<C> {
    /// A backend with this name in events and logs.
    pub fn new(compiler: C, arena: Arena, name: String) -> Driver<C> {
        Driver { compiler, placer: Placer::new(arena), counters: Counters::default(), name }
    }

    /// The compiler.
    pub fn compiler(&self) -> &C {
        &self.compiler
    }

    /// The arena the code lies in.
    pub fn arena(&self) -> &Arena {
        self.placer.arena()
    }

    /// What was done and what the arena holds. Takes the arena's lock.
    pub fn stats(&self) -> BackendStats {
        self.counters.snapshot(self.arena().stats())
    }
}

impl<C: Compiler> Driver<C> {
    /// What a job may be spared, or what is kept of it; `None` without an archive, or if the frontend wants neither.
    fn begin(&self, job: &Job<'_>) -> Option<(&Keeper, Begun)> {
        let keeper = self.compiler.keeper()?;
        Some((keeper, keeper.begin(job, self.compiler.content(job)?)))
    }

    /// The function from the archive.
    fn find(&self, job: &mut Job<'_>, (keeper, begun): (&Keeper, &Begun)) -> Option<Staged> {
        let known = Known {
            function: &|key| self.compiler.function(key),
            symbol: &|name| self.compiler.symbol(name),
        };
        keeper.load(begun, job, known)
    }

    fn compile_one(&self, worker: &mut C::Worker, job: &mut Job<'_>) -> Result<Staged, CompileError> {
        let dumping = self.compiler.dump().and_then(|dump| dump.begin(job));
        let hears = Hears { driver: self, bead: job.bead(), dumping: dumping.as_ref() };
        let staged = self.compiler.compile(worker, job, &hears);
        if let Some(dumping) = dumping {
            dumping.finish(staged.as_ref());
        }
        staged
    }

    fn fail(&self, job: &mut Job<'_>, error: CompileError) {
        self.counters.failed();
        job.finish(Err(error));
    }

    pub(crate) fn loop_failed(&self, bead: Bead, site: u64, error: CompileError) {
        self.counters.loop_entry_failed();
        self.compiler.loop_failed(bead, site, &error);
    }
}

impl<C: Compiler> Backend for Driver<C> {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        self.counters.batch();
        let mut batch = Vec::with_capacity(jobs.len());
        let mut compiled = Vec::with_capacity(jobs.len());
        let mut kept = Vec::new();
        // Asked for when the first function is left, so where all was kept, this thread needs nothing of the compiler.
        let mut lent = None;
        for job in jobs {
            if !job.is_current() {
                // The engine discards whatever comes for it.
                self.counters.superseded();
                job.finish(Err(CompileError::Withdrawn("superseded before it was compiled")));
                continue;
            }
            let begun = self.begin(job);
            let found = begun.as_ref().and_then(|(keeper, begun)| self.find(job, (keeper, begun)));
            if let Some(function) = found {
                batch.push(function);
                compiled.push(job);
                continue;
            }
            let worker = match lent.get_or_insert_with(|| self.compiler.lend()) {
                Ok(worker) => worker,
                Err(error) => {
                    self.fail(job, error.clone());
                    continue;
                }
            };
            match self.compile_one(worker, job) {
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
        if let Some(Ok(worker)) = lent {
            self.compiler.take_back(worker);
        }
        self.install(&mut compiled, &mut batch);
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
        Some(self.placer.memory())
    }
}

impl<C: Compiler> Keeps for Driver<C> {
    fn keeper(&self) -> Option<&Keeper> {
        self.compiler.keeper()
    }

    fn load(&self, begun: &Begun, job: &mut Job<'_>) -> Result<Option<CompiledCode>, CompileError> {
        let Some(keeper) = self.compiler.keeper() else { return Ok(None) };
        let Some(mut function) = self.find(job, (keeper, begun)) else { return Ok(None) };
        self.install_one(job, &mut function).map(Some)
    }

    fn compile_to_keep(&self, job: &mut Job<'_>) -> Result<(CompiledCode, Staged), CompileError> {
        let staged = self.compiler.lend().and_then(|mut worker| {
            let staged = self.compile_one(&mut worker, job);
            self.compiler.take_back(worker);
            staged
        });
        let mut function = staged.inspect_err(|_| self.counters.failed())?;
        let code = self.install_one(job, &mut function)?;
        Ok((code, function))
    }
}

/// What a job's function is called in messages and by profilers: its name, or its bead.
pub fn function_name(job: &Job<'_>) -> String {
    job.name().map_or_else(|| job.bead().to_string(), |name| name.to_string())
}

/// The text of a panic that was caught. A payload that is no text is forgotten: its drop is foreign code that could panic again.
pub fn panic_message(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<&str>() {
        Ok(text) => text.to_string(),
        Err(payload) => payload.downcast::<String>().map_or_else(
            |other| {
                std::mem::forget(other);
                "a payload that is no text".to_owned()
            },
            |text| *text,
        ),
    }
}
