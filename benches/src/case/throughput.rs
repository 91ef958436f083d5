//! Compiling by Cranelift: the same functions, with the same options, through each broker's own backend.

use super::{Case, Row, Sample, Scale, once, only};
use crate::contender::Who;
use crate::measure::wall_nanos;
use crate::target::Target;
use beadwork::{Core, Engine, Manual, Tier, TierId};
use beadwork_cranelift::{AbiParam, CraneliftBackend, FunctionUnit, OptLevel, types::I64};
use beadwork_cranelift::{cranelift_codegen, cranelift_frontend};
use cranelift_codegen_of_beadie::ir as beadies_ir;
use std::time::Duration;

/// Functions a module is finalized for at once, where one thread does it by hand.
const BATCH: usize = 32;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let functions = scale.pick(1_000, 300);
    let case = |name: &str, workers, backends, least: Option<f64>| {
        let row = Row::of("per function", "µs");
        let row = match least {
            Some(least) => row.target(Target::FasterThan(Who::Beadie, least)),
            None => row,
        };
        let subjects = move || {
            vec![
                (Who::Raw, once(move || of_beadwork(functions, BATCH))),
                (Who::Beadwork, once(move || by_beadwork(functions, workers))),
                (Who::Beadie, once(move || by_beadie(functions, backends))),
            ]
        };
        Case::new(name, vec![vec![row]], move || only(subjects(), "has no compiler"))
            // What beadie compiles stays for good, in two mappings each, of which a process may have 65,530.
            .at_most(7)
            .smaller_on(scale)
    };
    // The limit is a module that is finalized for 32 functions at once, on one thread, and never frees one.
    vec![
        case("Cranelift, 1 worker", 1, 1, Some(1.15)),
        // beadie's way is one thread that compiles. A VM can have two of all, and share its functions out among them.
        case("Cranelift, 2 workers", 2, 1, Some(2.2)),
        case("Cranelift, 2 workers, two beadies", 2, 2, None),
        by_hand(functions).smaller_on(scale),
    ]
}

/// What is Cranelift's own in how the two differ: a module by hand in both columns, of the version that the broker's backend is built on.
/// beadie finalizes functions one by one.
fn by_hand(functions: usize) -> Case {
    let rows = [format!("finalized {BATCH} at a time"), "finalized one by one".to_owned()];
    let both = move |with: fn(usize, usize) -> Sample| {
        once(move || Ok([with(functions, BATCH)?, with(functions, 1)?].concat()))
    };
    let subjects = move || vec![(Who::Beadwork, both(of_beadwork)), (Who::Beadie, both(of_beadie))];
    Case::new(
        "Cranelift by hand: 0.135 as in beadwork, 0.130 as in beadie",
        vec![rows.map(|row| Row::of(row, "µs")).into()],
        move || only(subjects(), "has no Cranelift of its own"),
    )
}

/// What a function calls.
extern "C" fn helper(x: u64) -> u64 {
    x ^ 0x55
}

const HELPER: &str = "helper";

/// Fills a function: 82 instructions, with a loop and two calls. A macro, since the two Craneliftes have types of their own.
macro_rules! build {
    ($ir:path, $builder:expr, $x:expr, $helper:expr, $core:expr) => {{
        use $ir::{BlockArg, InstBuilder, condcodes::IntCC, types::I64};
        let (b, helper) = ($builder, $helper);
        let k = b.ins().iconst(I64, $core as i64 | 1);
        let three = b.ins().iconst(I64, 3);
        let mut x = $x;
        for _ in 0..14 {
            x = b.ins().iadd(x, k);
            let high = b.ins().ushr(x, three);
            x = b.ins().bxor(x, high);
        }
        let call = b.ins().call(helper, &[x]);
        x = b.inst_results(call)[0];
        let (header, end) = (b.create_block(), b.create_block());
        let [round, sum] = [(); 2].map(|()| b.append_block_param(header, I64));
        let result = b.append_block_param(end, I64);
        let zero = b.ins().iconst(I64, 0);
        b.ins().jump(header, &[BlockArg::Value(zero), BlockArg::Value(x)]);
        b.switch_to_block(header);
        let mut y = sum;
        for _ in 0..7 {
            y = b.ins().imul(y, k);
            let high = b.ins().ushr(y, three);
            y = b.ins().iadd(y, high);
        }
        let one = b.ins().iconst(I64, 1);
        let next = b.ins().iadd(round, one);
        let more = b.ins().icmp(IntCC::SignedLessThan, next, k);
        let again = [BlockArg::Value(next), BlockArg::Value(y)];
        b.ins().brif(more, header, &again, end, &[BlockArg::Value(y)]);
        b.switch_to_block(end);
        for _ in 0..2 {
            let shifted = b.ins().ishl(result, three);
            x = b.ins().bxor(x, shifted);
        }
        let call = b.ins().call(helper, &[x]);
        let answer = b.inst_results(call)[0];
        b.ins().return_(&[answer]);
        b.seal_all_blocks();
    }};
}

/// Microseconds per function.
fn micros(functions: usize, work: impl FnOnce()) -> Sample {
    Ok(vec![wall_nanos(functions, work) / 1000.0])
}

fn by_beadwork(functions: usize, workers: usize) -> Sample {
    let frontend = |unit: &mut FunctionUnit<'_, '_>| {
        let core = unit.job().core()?.get();
        let mut signature = unit.new_signature();
        signature.params.push(AbiParam::new(I64));
        signature.returns.push(AbiParam::new(I64));
        let x = unit.begin(&signature)[0];
        let helper = unit.symbol(HELPER, &signature);
        build!(beadwork_cranelift::ir, unit.builder(), x, helper, core);
        Ok(())
    };
    let backend = CraneliftBackend::builder().opt_level(OptLevel::Speed).symbol(HELPER, helper as *const u8);
    let backend = backend.build(frontend).map_err(|error| error.to_string())?;
    let tier = Tier::new(backend).policy(Manual);
    let engine = Engine::builder().capacity(functions).workers(workers).tier(tier).build();
    let engine = engine.map_err(|error| error.to_string())?;
    let beads = engine.register_many((0..functions).map(Core::new)).map_err(|error| error.to_string())?;
    let beads: Vec<_> = beads.iter().collect();
    let nanos = micros(functions, || {
        beads.iter().for_each(|&bead| engine.promote(bead, TierId::BASELINE).expect("it is live"));
        engine.drain(Duration::from_secs(120)).expect("compiles are short");
    });
    match engine.stats().installed as usize {
        installed if installed == functions => nanos,
        installed => Err(format!("only {installed} of {functions} compiled")),
    }
}

/// Each backend on a thread of its own.
fn by_beadie(functions: usize, backends: usize) -> Sample {
    let adapter = |_| {
        let backend = beadie::CraneliftConfig::new()
            .opt_level("speed")
            // As beadwork's backend has it.
            .set("enable_verifier", "false")
            .symbol(HELPER, helper as *const u8)
            .build();
        backend.map(beadie::BackendAdapter::new).map_err(|error| error.to_string())
    };
    let adapters = (0..backends).map(adapter).collect::<Result<Vec<_>, _>>()?;
    let register =
        |core: usize| adapters[core % backends].register(std::ptr::without_provenance_mut(core), None);
    let bound: Vec<_> = (0..functions).map(register).collect();
    let compile = |core: usize| {
        let bound = &bound[core];
        let backend = bound.backend();
        let mut signature = backend.make_signature();
        signature.params.push(beadies_ir::AbiParam::new(beadies_ir::types::I64));
        signature.returns.push(beadies_ir::AbiParam::new(beadies_ir::types::I64));
        let mut def = backend.new_def(signature.clone(), &format!("f{core}")).expect("a new name");
        let helper = backend.import_function(HELPER, &signature, &mut def.ctx.func).expect("it is known");
        let mut b = def.builder();
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let x = b.block_params(entry)[0];
        build!(cranelift_codegen_of_beadie::ir, &mut b, x, helper, core);
        b.finalize();
        bound.compile(def).expect("it is right");
    };
    let nanos = micros(functions, || {
        std::thread::scope(|scope| {
            for first in 0..backends {
                let compile = &compile;
                scope.spawn(move || (first..functions).step_by(backends).for_each(compile));
            }
        });
    });
    bound.iter().for_each(|bound| bound.bead().invalidate());
    adapters.iter().for_each(beadie::BackendAdapter::prune);
    nanos
}

/// Compiles the functions by a module, and finalizes it for so many at once. A macro, since the two Craneliftes have types of their own.
macro_rules! by_module {
    ($name:ident, $codegen:ident, $frontend:ident, $jit:ident, $module:ident, $native:ident, |$b:ident, $m:ident| $finalize:expr) => {
        #[allow(unsafe_code, reason = "a module frees its code when told that nobody is in it")]
        fn $name(functions: usize, batch: usize) -> Sample {
            use $codegen::ir::{AbiParam, types::I64};
            use $codegen::settings::{self, Configurable};
            use $frontend::{FunctionBuilder, FunctionBuilderContext};
            use $module::{Linkage, Module};
            let mut flags = settings::builder();
            for (flag, value) in [
                ("opt_level", "speed"),
                ("is_pic", "false"),
                ("use_colocated_libcalls", "false"),
                ("enable_verifier", "false"),
            ] {
                flags.set(flag, value).map_err(|error| error.to_string())?;
            }
            let isa =
                $native::builder()?.finish(settings::Flags::new(flags)).map_err(|error| error.to_string())?;
            let mut builder = $jit::JITBuilder::with_isa(isa, $module::default_libcall_names());
            builder.symbol(HELPER, helper as *const u8);
            let mut module = $jit::JITModule::new(builder);
            let mut context = module.make_context();
            let mut frontend = FunctionBuilderContext::new();
            let nanos = micros(functions, || {
                for core in 0..functions {
                    let mut signature = module.make_signature();
                    signature.params.push(AbiParam::new(I64));
                    signature.returns.push(AbiParam::new(I64));
                    let imported =
                        module.declare_function(HELPER, Linkage::Import, &signature).expect("it is known");
                    let function = module
                        .declare_function(&format!("f{core}"), Linkage::Local, &signature)
                        .expect("new");
                    context.func.signature = signature;
                    let helper = module.declare_func_in_func(imported, &mut context.func);
                    let mut b = FunctionBuilder::new(&mut context.func, &mut frontend);
                    let entry = b.create_block();
                    b.append_block_params_for_function_params(entry);
                    b.switch_to_block(entry);
                    let x = b.block_params(entry)[0];
                    build!($codegen::ir, &mut b, x, helper, core);
                    let ($b, $m) = (b, &module);
                    $finalize;
                    module.define_function(function, &mut context).expect("it is right");
                    $codegen::Context::clear(&mut context);
                    if core % batch == batch - 1 || core + 1 == functions {
                        module.finalize_definitions().expect("there is memory");
                    }
                }
            });
            // SAFETY: nothing of it was ever called.
            unsafe { module.free_memory() };
            nanos
        }
    };
}

by_module!(
    of_beadwork,
    cranelift_codegen,
    cranelift_frontend,
    cranelift_jit,
    cranelift_module,
    cranelift_native,
    |b, module| b.finalize(module.isa().frontend_config())
);
by_module!(
    of_beadie,
    cranelift_codegen_of_beadie,
    cranelift_frontend_of_beadie,
    cranelift_jit_of_beadie,
    cranelift_module_of_beadie,
    cranelift_native_of_beadie,
    |b, _module| b.finalize()
);
