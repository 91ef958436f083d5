//! Counting in native code.

use crate::rig::{all_passes, number, options};
use beadwork::{Archive, Bead, BeadInfo, Core, Engine, MemoryStore, Profile, Threshold, Tier};
use beadwork_checks::backends::counting::{
    self, T1, call, compile, count_call, count_loop, count_target, t2,
};
use beadwork_llvm::inkwell::context::Context;
use beadwork_llvm::inkwell::memory_buffer::MemoryBuffer;
use beadwork_llvm::inkwell::passes::PassBuilderOptions;
use beadwork_llvm::inkwell::support::get_llvm_version;
use beadwork_llvm::inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine,
};
use beadwork_llvm::inkwell::types::FunctionType;
use beadwork_llvm::inkwell::values::{BasicValueEnum, IntValue};
use beadwork_llvm::inkwell::{AddressSpace, IntPredicate};
use beadwork_llvm::{BuildError, FunctionUnit, LlvmBackend, LlvmBuilder, OptimizationLevel, Passes};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// `(context, x) -> x`
fn signature<'c>(unit: &FunctionUnit<'c, '_>) -> FunctionType<'c> {
    let (word, pointer) = (unit.context().i64_type(), unit.context().ptr_type(AddressSpace::default()));
    word.fn_type(&[pointer.into(), word.into()], false)
}

/// Begins a function that counts its calls; answers the context and x.
fn begin<'c>(unit: &mut FunctionUnit<'c, '_>) -> Result<(BasicValueEnum<'c>, IntValue<'c>), BuildError> {
    let params = unit.begin(signature(unit));
    unit.count_call("count_call", &params[..1])?;
    Ok((params[0], params[1].into_int_value()))
}

/// The identity.
fn identity(unit: &mut FunctionUnit<'_, '_>) -> Result<(), BuildError> {
    let (_, x) = begin(unit)?;
    unit.builder().build_return(Some(&x))?;
    Ok(())
}

/// Goes round x times and answers the sum of what `body` gives for x, x - 1, and so on.
fn sum<'c, 'e>(
    unit: &mut FunctionUnit<'c, 'e>,
    body: impl FnOnce(
        &mut FunctionUnit<'c, 'e>,
        BasicValueEnum<'c>,
        IntValue<'c>,
    ) -> Result<IntValue<'c>, BuildError>,
) -> Result<(), BuildError> {
    let (context, x) = begin(unit)?;
    let [head, more, done] =
        [unit.append_block("head")?, unit.append_block("more")?, unit.append_block("done")?];
    let zero = number(unit, 0);
    let entry = unit.builder().get_insert_block().unwrap();
    unit.builder().build_unconditional_branch(head)?;
    unit.builder().position_at_end(head);
    let ty = x.get_type();
    let (left, sum) = (unit.builder().build_phi(ty, "left")?, unit.builder().build_phi(ty, "sum")?);
    let (now, old) = (left.as_basic_value().into_int_value(), sum.as_basic_value().into_int_value());
    unit.count_iteration(7, "count_loop", &[context])?;
    let goes_on = unit.builder().build_int_compare(IntPredicate::NE, now, zero, "")?;
    unit.builder().build_conditional_branch(goes_on, more, done)?;
    unit.builder().position_at_end(more);
    let term = body(unit, context, now)?;
    let b = unit.builder();
    let (less, new) = (b.build_int_sub(now, number(unit, 1), "")?, b.build_int_add(old, term, "")?);
    let last = b.get_insert_block().unwrap();
    b.build_unconditional_branch(head)?;
    left.add_incoming(&[(&x, entry), (&less, last)]);
    sum.add_incoming(&[(&zero, entry), (&new, last)]);
    b.position_at_end(done);
    b.build_return(Some(&old))?;
    Ok(())
}

fn symbols(options: LlvmBuilder) -> LlvmBuilder {
    let options = options.symbol("count_call", count_call as *const u8);
    let options = options.symbol("count_loop", count_loop as *const u8);
    options.symbol("count_target", count_target as *const u8)
}

/// Two tiers with one frontend; code of the first counts itself if `counts` says so.
fn engine<F>(counts: bool, threshold: u32, frontend: F) -> Engine
where
    F: Fn(&mut FunctionUnit<'_, '_>) -> Result<(), BuildError> + Clone + Send + Sync + 'static,
{
    engine_by(LlvmBackend::builder(), counts, threshold, frontend)
}

/// The same, with options.
fn engine_by<F>(options: LlvmBuilder, counts: bool, threshold: u32, frontend: F) -> Engine
where
    F: Fn(&mut FunctionUnit<'_, '_>) -> Result<(), BuildError> + Clone + Send + Sync + 'static,
{
    let tier = |passes, threshold| {
        let options = symbols(options.clone().passes(passes));
        Tier::new(options.build(frontend.clone()).unwrap()).policy(Threshold::new(threshold))
    };
    let builder = Engine::builder().capacity(1 << 10).inline();
    let builder = builder.tier(tier(Passes::Fast, 1).counts_itself(counts));
    builder.tier(tier(Passes::O3, threshold)).build().unwrap()
}

#[test]
fn p35_a_function_called_by_native_code_only_reaches_the_next_tier_and_its_caller_calls_that() {
    let engine = engine(true, 1_000, |unit| match unit.job().core()?.get() {
        0 => identity(unit),
        _ => sum(unit, |unit, context, x| {
            let callee = Bead::from_bits(1 << 32).unwrap();
            let call = unit.call_bead(callee, signature(unit), &[context.into(), x.into()])?;
            Ok(call.try_as_basic_value().unwrap_basic().into_int_value())
        }),
    });
    counting::called_by_native_code_only_it_reaches_the_next_tier_and_its_caller_calls_that(&engine);
}

#[test]
fn kept_code_counts_in_the_engine_it_is_loaded_into() {
    let archive = Archive::new(MemoryStore::new());
    archive.set_saving(true);
    // Two lives; in the second one other functions come first, so budgets and counters lie elsewhere.
    for (strangers, loaded) in [(0, 0), (7, 1)] {
        let options = LlvmBackend::builder().archive(archive.clone());
        let engine = engine_by(options, true, 1_000, |unit| {
            unit.count_blocks(2);
            sum(unit, |unit, _, x| {
                unit.count_block(1)?;
                Ok(x)
            })
        });
        (0..strangers).for_each(|_| _ = engine.register(Core::ZERO).unwrap());
        let bead = engine.register_with(Core::ZERO, &BeadInfo::new().key(77)).unwrap();
        compile(&engine, bead, T1);
        assert_eq!((archive.stats().loaded, archive.stats().unsavable), (loaded, 0));
        let m = engine.mutator();
        (0..999).for_each(|_| assert_eq!(call(&m, bead, 2), 3));
        assert_eq!(engine.profile(bead).unwrap().unwrap().blocks(), [0, 2 * 999]);
        engine.run_pending(usize::MAX);
        assert_eq!(engine.tier(bead), Ok(T1));
        call(&m, bead, 2);
        engine.run_pending(usize::MAX);
        assert_eq!(engine.tier(bead), Ok(t2()), "the budget is this function's");
    }
}

#[test]
fn a_native_loop_promotes_its_function_during_its_first_call() {
    let engine = engine(true, 1_000, |unit| sum(unit, |_, _, x| Ok(x)));
    counting::a_native_loop_promotes_its_function_during_its_first_call(&engine);
}

#[test]
fn a_tier_that_does_not_count_itself_and_the_highest_one_emit_nothing() {
    let slow_paths = Arc::new(AtomicU32::new(0));
    for counts in [false, true] {
        let seen = slow_paths.clone();
        let engine = engine(counts, u32::MAX, move |unit| {
            sum(unit, |_, _, x| Ok(x))?;
            let text = unit.module().print_to_string().to_string();
            seen.fetch_add(text.matches("call void @count_").count() as u32, Relaxed);
            Ok(())
        });
        let bead = engine.register(Core::new(0)).unwrap();
        compile(&engine, bead, T1);
        assert_eq!(slow_paths.swap(0, Relaxed), if counts { 2 } else { 0 });
        compile(&engine, bead, t2());
        assert_eq!(slow_paths.swap(0, Relaxed), 0);
    }
}

#[test]
fn counting_by_an_unknown_symbol_fails_the_function_with_its_name() {
    let identity = |unit: &mut FunctionUnit<'_, '_>| identity(unit);
    let tier = || Tier::new(options().build(identity).unwrap());
    let engine = Engine::builder().capacity(16).inline().tier(tier().counts_itself(true)).tier(tier());
    let engine = engine.build().unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    let fault = engine.fault(bead, T1).unwrap();
    assert!(fault.last.to_string().contains("`count_call`"), "{fault:?}");
}

#[test]
fn blocks_and_callees_that_native_code_counts_are_read_by_the_next_tier() {
    let seen = Arc::<Mutex<Option<Profile>>>::default();
    let profile = seen.clone();
    let engine = engine(true, u32::MAX, move |unit| {
        let first = unit.job().tier() == T1;
        *profile.lock().unwrap() = unit.job().profile();
        let sites = if first { unit.job().call_sites(2) } else { None };
        assert!(!first || unit.count_blocks(2));
        sum(unit, |unit, context, x| {
            unit.count_block(1)?;
            if let Some(sites) = sites {
                let (direct, other) = (sites.site(0).unwrap(), sites.site(1).unwrap());
                unit.count_direct_call(direct, Bead::from_bits(2 << 32).unwrap())?;
                // Bits of the first generation of index x.
                let callee = unit.builder().build_or(x, number(unit, 1 << 32), "")?;
                unit.count_target(other, callee, "count_target", &[context])?;
            }
            unit.count_block(9)?;
            Ok(x)
        })
    });
    counting::blocks_and_callees_are_read_by_the_next_tier(&engine, &seen);
}

/// The assembly of what a frontend builds in the first tier, after `passes`: labels and instructions.
fn assembly(
    counts: bool,
    passes: Passes,
    frontend: impl Fn(&mut FunctionUnit<'_, '_>) -> Result<(), BuildError> + Send + Sync + 'static,
) -> Vec<String> {
    let text = Arc::<Mutex<String>>::default();
    let sink = text.clone();
    let options = symbols(LlvmBackend::builder().passes(passes));
    let built = options.build(move |unit: &mut FunctionUnit<'_, '_>| {
        frontend(unit)?;
        // The second tier's code does not count.
        if unit.job().tier() == T1 {
            *sink.lock().unwrap() = unit.module().print_to_string().to_string();
        }
        Ok(())
    });
    let backend = Arc::new(built.unwrap());
    let engine = Engine::builder().capacity(16).inline();
    let engine = engine.tier(Tier::new(backend.clone()).counts_itself(counts));
    let engine = engine.tier(Tier::new(backend.clone())).build().unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    compile(&engine, bead, T1);

    let context = Context::create();
    let text = text.lock().unwrap().clone() + "\0";
    let text = MemoryBuffer::create_from_memory_range_copy(text.as_bytes(), "module");
    let module = context.create_module_from_ir(text).unwrap();
    Target::initialize_native(&InitializationConfig::default()).unwrap();
    let triple = TargetMachine::get_default_triple();
    let (reloc, model) = (RelocMode::PIC, CodeModel::Small);
    let machine = Target::from_triple(&triple).unwrap().create_target_machine(
        &triple,
        backend.cpu(),
        backend.features(),
        OptimizationLevel::Default,
        reloc,
        model,
    );
    let machine = machine.unwrap();
    module.run_passes(backend.pipeline(), &machine, PassBuilderOptions::create()).unwrap();
    let assembly = machine.write_to_memory_buffer(&module, FileType::Assembly).unwrap();
    let assembly = String::from_utf8(assembly.as_slice().to_vec()).unwrap();
    let code = assembly.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let code =
        code.skip_while(|line| *line != "beadwork.entry:").take_while(|line| !line.starts_with(".Lfunc_end"));
    let is_code = |line: &&str| !line.is_empty() && (!line.starts_with('.') || line.ends_with(':'));
    code.filter(is_code).map(str::to_owned).collect()
}

/// The instructions among these lines.
fn instructions(lines: &[String]) -> usize {
    lines.iter().filter(|line| !line.ends_with(':')).count()
}

/// LLVM 16 keeps what lives across a call in a register of the caller's, also where the call is cold: so much more.
fn by_an_old_llvm(more: usize) -> usize {
    if get_llvm_version().0 < 17 { more } else { 0 }
}

#[test]
fn a_call_is_counted_by_at_most_six_instructions() {
    for passes in all_passes() {
        // What is behind the return is out of line.
        let [without, with] = [false, true].map(|counts| {
            let lines = assembly(counts, passes.clone(), identity);
            let end = lines.iter().position(|line| line.starts_with("ret")).unwrap();
            lines[..=end].to_vec()
        });
        let added = instructions(&with) - instructions(&without);
        assert!(
            (1..=6 + by_an_old_llvm(3)).contains(&added),
            "{added} by {passes:?}: {with:#?} instead of {without:#?}"
        );
    }
}

/// The loops among the lines: from a label to a jump back to it.
fn loops(lines: &[String]) -> Vec<&[String]> {
    let loop_to = |end: usize| {
        let label = format!("{}:", lines[end].strip_prefix('j')?.split_whitespace().nth(1)?);
        let start = lines[..end].iter().position(|line| *line == label)?;
        Some(&lines[start..=end])
    };
    (0..lines.len()).filter_map(loop_to).collect()
}

#[test]
fn an_iteration_is_counted_by_at_most_four_instructions() {
    for passes in all_passes() {
        let [without, with] = [false, true].map(|counts| {
            // With a call in it, so that each iteration stays one.
            let lines = assembly(counts, passes.clone(), |unit| {
                sum(unit, |unit, context, x| {
                    let callee = unit.job().bead();
                    let call = unit.call_bead(callee, signature(unit), &[context.into(), x.into()])?;
                    Ok(call.try_as_basic_value().unwrap_basic().into_int_value())
                })
            });
            // The longer ones take the slow path.
            loops(&lines).into_iter().min_by_key(|lines| instructions(lines)).unwrap().to_vec()
        });
        let added = instructions(&with) - instructions(&without);
        assert!(
            (1..=4 + by_an_old_llvm(1)).contains(&added),
            "{added} by {passes:?}: {with:#?} instead of {without:#?}"
        );
    }
}

#[test]
fn a_block_in_a_loop_is_counted_in_memory_each_time_and_not_when_the_loop_ends() {
    for passes in all_passes() {
        let lines = assembly(false, passes.clone(), |unit| {
            assert!(unit.count_blocks(1));
            sum(unit, |unit, _, x| {
                unit.count_block(0)?;
                Ok(x)
            })
        });
        let loops = loops(&lines);
        let counts = |lines: &&[String]| lines.iter().any(|line| line.starts_with("incq\t("));
        assert!(!loops.is_empty() && loops.iter().all(counts), "{passes:?}: {lines:#?}");
    }
}
