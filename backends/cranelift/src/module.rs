//! For frontends that target `cranelift_module::Module` already: one JITModule per batch.

use beadwork::{Backend, CodeOwner, CompileError, CompiledCode, Job};
use cranelift_jit::JITModule;
use cranelift_module::FuncId;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a frontend defined for a job: the function to be entered, which must be defined in the module it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    function: FuncId,
    bytes: usize,
}

impl Definition {
    /// The job's function.
    pub fn new(function: FuncId) -> Definition {
        Definition { function, bytes: 0 }
    }

    /// States the size of its code in bytes, which a module does not tell; `code_info().total_size` of the compiled
    /// context does.
    #[must_use]
    pub fn with_bytes(mut self, bytes: usize) -> Definition {
        self.bytes = bytes;
        self
    }
}

impl From<FuncId> for Definition {
    fn from(function: FuncId) -> Definition {
        Definition::new(function)
    }
}

/// A compiled tier for a frontend that defines functions in a [`JITModule`].
///
/// Each batch gets a fresh module, is finalized once, and its memory is freed when the last of its functions has been
/// retired. A function whose definition fails in the company of others is tried again in a module of its own, and so
/// are all if the module cannot be finalized; so a failure is one function's (a name two functions of a batch share
/// is no failure at all).
///
/// Compared with [`CraneliftBackend`](crate::CraneliftBackend): memory comes back in batches and not function by
/// function, each module takes whole pages and mappings of its own, and no unwind information is registered, so **a
/// panic that reaches a frame of the code aborts the process**.
///
/// ```
/// use beadwork_cranelift::{CraneliftBackend, Definition, JitModuleBackend};
/// use cranelift_codegen::ir::InstBuilder;
/// use cranelift_jit::JITModule;
/// use cranelift_module::{Linkage, Module};
///
/// let options = CraneliftBackend::builder().flag("enable_verifier", "true");
/// let new_module =
///     move || Ok(JITModule::new(options.jit_builder().map_err(beadwork::CompileError::failed)?));
/// let backend = JitModuleBackend::new(new_module, |job, module| {
///     let mut context = module.make_context();
///     let name = job.bead().to_string();
///     // … build context.func with a FunctionBuilder …
/// #   let mut functions = cranelift_frontend::FunctionBuilderContext::new();
/// #   let mut builder = cranelift_frontend::FunctionBuilder::new(&mut context.func, &mut functions);
/// #   let block = builder.create_block();
/// #   builder.switch_to_block(block);
/// #   builder.ins().return_(&[]);
/// #   builder.seal_all_blocks();
/// #   builder.finalize(module.target_config());
///     let function = module
///         .declare_function(&name, Linkage::Local, &context.func.signature)
///         .map_err(beadwork::CompileError::failed)?;
///     module.define_function(function, &mut context).map_err(beadwork::CompileError::failed)?;
///     Ok(Definition::new(function))
/// });
/// # use beadwork::{Engine, Tier, TierId};
/// # let engine = Engine::builder().tier(Tier::new(backend)).inline().capacity(16).build().unwrap();
/// # let bead = engine.register(0.into()).unwrap();
/// # engine.promote(bead, TierId::BASELINE).unwrap();
/// # engine.run_pending(1);
/// # assert_eq!(engine.tier(bead), Ok(TierId::BASELINE));
/// ```
pub struct JitModuleBackend<M, D> {
    new_module: M,
    define: D,
    live: Arc<AtomicUsize>,
}

impl<M, D> JitModuleBackend<M, D>
where
    M: Fn() -> Result<JITModule, CompileError> + Send + Sync + 'static,
    D: Fn(&mut Job<'_>, &mut JITModule) -> Result<Definition, CompileError> + Send + Sync + 'static,
{
    /// `new_module` makes the module of a batch, `define` defines one job's function in it. Both are called on worker
    /// threads, by several at once. `define` does not finalize the module, and keeps nothing of it.
    ///
    /// A module that refers to a symbol nobody defined panics when it is finalized, which the engine contains: the
    /// functions of the batch are then compiled one by one, and the culprit alone fails.
    pub fn new(new_module: M, define: D) -> JitModuleBackend<M, D> {
        JitModuleBackend { new_module, define, live: Arc::new(AtomicUsize::new(0)) }
    }
}

impl<M, D> JitModuleBackend<M, D> {
    /// Modules that hold memory now: being filled, with installed functions, or with retired ones that wait for their
    /// grace period.
    pub fn live_modules(&self) -> usize {
        self.live.load(Relaxed)
    }
}

/// A module that gives its memory back when it goes, as a `JITModule` by itself does not.
struct OwnedModule {
    /// Present until the drop.
    module: Option<JITModule>,
    live: Arc<AtomicUsize>,
}

impl OwnedModule {
    fn new(module: JITModule, live: &Arc<AtomicUsize>) -> OwnedModule {
        live.fetch_add(1, Relaxed);
        OwnedModule { module: Some(module), live: live.clone() }
    }
}

impl Drop for OwnedModule {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: the module is dropped with the last owner of its functions' code. Owners go after the engine's
            // grace period, when no thread runs the code and nobody will enter it (the contract of `CodeOwner`), or before
            // any pointer was handed out. `JitModuleBackend::new` demands that frontends keep none.
            unsafe { module.free_memory() };
        }
        self.live.fetch_sub(1, Relaxed);
    }
}

/// A job with what was defined for it, and what that took.
type Defined<'j, 'e> = (&'j mut Job<'e>, Definition, Duration);

impl<M, D> JitModuleBackend<M, D>
where
    M: Fn() -> Result<JITModule, CompileError> + Send + Sync + 'static,
    D: Fn(&mut Job<'_>, &mut JITModule) -> Result<Definition, CompileError> + Send + Sync + 'static,
{
    /// Compiles jobs in one module. Answers those that should be tried alone; of a single job, none.
    fn batch<'j, 'e>(&self, jobs: impl ExactSizeIterator<Item = &'j mut Job<'e>>) -> Vec<&'j mut Job<'e>>
    where
        'e: 'j,
    {
        let alone = jobs.len() == 1;
        let mut owned = match (self.new_module)() {
            Ok(module) => OwnedModule::new(module, &self.live),
            Err(error) => {
                jobs.for_each(|job| {
                    job.finish(Err(error.clone()));
                });
                return Vec::new();
            }
        };
        let Some(module) = owned.module.as_mut() else { return Vec::new() };
        let mut defined: Vec<Defined<'j, 'e>> = Vec::with_capacity(jobs.len());
        let mut again = Vec::new();
        for job in jobs {
            let started = Instant::now();
            match (self.define)(job, module) {
                Ok(definition) => defined.push((job, definition, started.elapsed())),
                Err(error) if alone => {
                    job.finish(Err(error));
                }
                Err(_) => again.push(job),
            }
        }
        if defined.is_empty() {
            return again;
        }
        let started = Instant::now();
        match module.finalize_definitions() {
            Ok(()) => install(owned, defined, started.elapsed()),
            Err(error) if alone => {
                let error = CompileError::failed(error);
                defined.into_iter().for_each(|(job, ..)| {
                    job.finish(Err(error.clone()));
                });
            }
            Err(_) => again.extend(defined.into_iter().map(|(job, ..)| job)),
        }
        again
    }
}

/// Finishes the jobs of a finalized module; each function's owner keeps the module.
fn install(owned: OwnedModule, defined: Vec<Defined<'_, '_>>, finalizing: Duration) {
    let share = finalizing / defined.len().max(1) as u32;
    let entries: Vec<_> = match &owned.module {
        Some(module) => defined.iter().map(|(_, d, _)| module.get_finalized_function(d.function)).collect(),
        None => return,
    };
    // Owners are shared by threads though only their drop touches the module: a mutex says so to the compiler.
    let owned = Arc::new(Mutex::new(owned));
    for ((job, definition, took), entry) in defined.into_iter().zip(entries) {
        let code = CompiledCode::new(entry)
            .owner(CodeOwner::boxed(owned.clone()))
            .with_bytes(definition.bytes)
            .with_compile_time(took + share);
        job.finish(Ok(code));
    }
}

impl<M, D> Backend for JitModuleBackend<M, D>
where
    M: Fn() -> Result<JITModule, CompileError> + Send + Sync + 'static,
    D: Fn(&mut Job<'_>, &mut JITModule) -> Result<Definition, CompileError> + Send + Sync + 'static,
{
    fn compile(&self, jobs: &mut [Job<'_>]) {
        for job in self.batch(jobs.iter_mut()) {
            self.batch(std::iter::once(job));
        }
    }

    fn name(&self) -> &str {
        "cranelift-jit"
    }
}

impl<M, D> fmt::Debug for JitModuleBackend<M, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JitModuleBackend").field("live_modules", &self.live_modules()).finish_non_exhaustive()
    }
}
