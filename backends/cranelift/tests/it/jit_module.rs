//! The adapter for frontends that target `cranelift_module::Module`.

use beadwork::{Backend, Bead, CompileError, Engine, Job, Manual, Tier, TierId};
use beadwork_cranelift::cranelift_codegen::Context;
use beadwork_cranelift::cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use beadwork_cranelift::cranelift_jit::JITModule;
use beadwork_cranelift::cranelift_module::{Linkage, Module};
use beadwork_cranelift::types::I64;
use beadwork_cranelift::{AbiParam, CraneliftBackend, Definition, InstBuilder, JitModuleBackend};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// What the function does, by core.
const FAILS: usize = 100;
const REFERS_TO_NOTHING: usize = 101;
const SAME_NAME: usize = 200;

extern "C" fn triple(x: i64) -> i64 {
    x * 3
}

/// `core + 3 * x`, with the mishaps named above.
fn define(job: &mut Job<'_>, module: &mut JITModule) -> Result<Definition, CompileError> {
    let core = job.core()?.get();
    let mut context: Context = module.make_context();
    context.func.signature.params.push(AbiParam::new(I64));
    context.func.signature.returns.push(AbiParam::new(I64));
    let callee = if core == REFERS_TO_NOTHING { "nowhere" } else { "triple" };
    let callee = module.declare_function(callee, Linkage::Import, &context.func.signature);
    let callee = callee.map_err(CompileError::failed)?;
    let callee = module.declare_func_in_func(callee, &mut context.func);
    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    let x = builder.block_params(entry)[0];
    let call = builder.ins().call(callee, &[x]);
    let tripled = builder.inst_results(call)[0];
    let sum = builder.ins().iadd_imm_s(tripled, core as i64);
    builder.ins().return_(&[sum]);
    builder.seal_all_blocks();
    builder.finalize(module.target_config());
    if core == FAILS {
        return Err(CompileError::failed("cannot be compiled"));
    }
    let name = if core >= SAME_NAME { "same".to_owned() } else { job.bead().to_string() };
    let function = module.declare_function(&name, Linkage::Local, &context.func.signature);
    let function = function.map_err(CompileError::failed)?;
    module.define_function(function, &mut context).map_err(CompileError::failed)?;
    let bytes = context.compiled_code().map_or(0, |code| code.code_info().total_size as usize);
    Ok(Definition::new(function).with_bytes(bytes))
}

type Define = fn(&mut Job<'_>, &mut JITModule) -> Result<Definition, CompileError>;

/// Writes down which functions came in one batch.
struct Noting<B> {
    backend: Arc<B>,
    batches: Batches,
}

type Batches = Arc<Mutex<Vec<Vec<Bead>>>>;

impl<B: Backend> Backend for Noting<B> {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        self.batches.lock().unwrap().push(jobs.iter().map(|job| job.bead()).collect());
        self.backend.compile(jobs);
    }
}

struct Rig {
    engine: Engine,
    live_modules: Box<dyn Fn() -> usize>,
    /// Modules made so far.
    made: Arc<AtomicUsize>,
    beads: Vec<Bead>,
    batches: Batches,
}

fn rig(cores: impl IntoIterator<Item = usize>) -> Rig {
    let options = CraneliftBackend::builder().symbol("triple", triple as *const u8);
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let new_module = move || {
        count.fetch_add(1, Relaxed);
        Ok(JITModule::new(options.jit_builder().map_err(CompileError::failed)?))
    };
    let backend = Arc::new(JitModuleBackend::new(new_module, define as Define));
    assert_eq!(backend.name(), "cranelift-jit");
    let batches = Batches::default();
    let tier = Tier::new(Noting { backend: backend.clone(), batches: batches.clone() }).policy(Manual);
    let engine = Engine::builder().inline().capacity(1 << 10).tier(tier).build().unwrap();
    let beads: Vec<_> = cores.into_iter().map(|core| engine.register(core.into()).unwrap()).collect();
    let rig = Rig { engine, live_modules: Box::new(move || backend.live_modules()), made, beads, batches };
    for &bead in &rig.beads {
        rig.engine.promote(bead, TierId::BASELINE).unwrap();
    }
    rig.engine.run_pending(usize::MAX);
    rig
}

impl Rig {
    fn call(&self, number: usize, x: i64) -> Option<i64> {
        let pinned = self.engine.pin();
        let code = pinned.code(self.beads[number])?;
        // SAFETY: `define` builds `i64 -> i64`, and the mutator is pinned during the call.
        let f: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        Some(f(x))
    }

    fn made(&self) -> usize {
        self.made.load(Relaxed)
    }

    fn live(&self) -> usize {
        (self.live_modules)()
    }

    /// Batches that contain one of these functions.
    fn batches_with(&self, beads: &[Bead]) -> usize {
        let batches = self.batches.lock().unwrap();
        batches.iter().filter(|batch| batch.iter().any(|bead| beads.contains(bead))).count()
    }

    /// The size of the batch with this function.
    fn company(&self, number: usize) -> usize {
        let batches = self.batches.lock().unwrap();
        batches.iter().find(|batch| batch.contains(&self.beads[number])).map_or(0, Vec::len)
    }
}

#[test]
fn a_batch_is_one_module_and_its_functions_run() {
    let rig = rig(0..20);
    for number in 0..20 {
        assert_eq!(rig.call(number, 5), Some(15 + number as i64));
    }
    let batches = rig.batches_with(&rig.beads);
    assert!(batches < 10, "there are batches at all: {batches}");
    assert_eq!((rig.made(), rig.live()), (batches, batches));
    assert!(rig.engine.stats().code_bytes >= 20 * 16, "{:?}", rig.engine.stats());
}

#[test]
fn a_module_is_freed_when_its_last_function_has_been_retired() {
    let rig = rig(0..8);
    let mut m = rig.engine.mutator();
    for number in 0..8 {
        assert_eq!(rig.live(), rig.batches_with(&rig.beads[number..]), "{number} functions retired");
        assert_eq!(rig.call(7, 0), Some(7), "the others go on");
        rig.engine.remove(rig.beads[number]).unwrap();
        m.safepoint();
        rig.engine.reclaim();
    }
    assert_eq!(rig.live(), 0);
}

#[test]
fn a_failing_function_does_not_sink_its_batch() {
    let rig = rig([FAILS, 1, 2, 3, 4, 5]);
    assert_eq!([0, 1, 2, 3, 4, 5].map(|number| rig.call(number, 1).unwrap_or(0)), [0, 4, 5, 6, 7, 8]);
    assert!(rig.company(0) > 1);
    assert_eq!(rig.engine.stats().failed, 1);
    let batches = rig.batches_with(&rig.beads);
    assert_eq!((rig.made(), rig.live()), (batches + 1, batches), "it alone was tried again");
}

#[test]
fn a_name_that_two_functions_share_is_no_failure() {
    let rig = rig((0..4).map(|n| SAME_NAME + n));
    assert_eq!([0, 1, 2, 3].map(|number| rig.call(number, 0)), [200, 201, 202, 203].map(Some));
    assert!(rig.company(0) > 1);
    assert_eq!((rig.engine.stats().failed, rig.live()), (0, 4));
}

#[test]
fn an_undefined_symbol_fails_only_the_function_that_refers_to_it_and_leaks_no_module() {
    let rig = rig([REFERS_TO_NOTHING, 1, 2, 3, 4, 5]);
    assert_eq!([0, 1, 2, 3, 4, 5].map(|number| rig.call(number, 1).unwrap_or(0)), [0, 4, 5, 6, 7, 8]);
    assert!(rig.company(0) > 1);
    assert_eq!(rig.engine.stats().failed, 1);
    for &bead in &rig.beads {
        rig.engine.remove(bead).unwrap();
    }
    rig.engine.reclaim();
    assert_eq!(rig.live(), 0);
}
