//! Counting in native code.

use beadwork::{Bead, CompileError, Core, Engine, Profile, Threshold, Tier};
use beadwork_checks::backends::counting::{self, T1, compile, count_call, count_loop, count_target, t2};
use beadwork_cranelift::ir::{BlockArg, Function, Value};
use beadwork_cranelift::types::I64;
use beadwork_cranelift::{
    AbiParam, CraneliftBackend, FunctionUnit, InstBuilder, Signature, cranelift_codegen,
};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// `(context, x) -> x`
fn signature(unit: &FunctionUnit<'_, '_>) -> Signature {
    let mut signature = unit.new_signature();
    signature.params.extend([I64, I64].map(AbiParam::new));
    signature.returns.push(AbiParam::new(I64));
    signature
}

/// The identity; counts its calls.
fn identity(unit: &mut FunctionUnit<'_, '_>) -> Result<(), CompileError> {
    let params = unit.begin(&signature(unit));
    unit.count_call("count_call", &params[..1]);
    unit.builder().ins().return_(&params[1..]);
    Ok(())
}

/// Goes round x times and answers the sum of what `body` gives; counts calls and iterations.
fn sum(
    unit: &mut FunctionUnit<'_, '_>,
    body: impl FnOnce(&mut FunctionUnit<'_, '_>, Value, Value) -> Value,
) -> Result<(), CompileError> {
    let params = unit.begin(&signature(unit));
    unit.count_call("count_call", &params[..1]);
    let builder = unit.builder();
    let (head, more, done) = (builder.create_block(), builder.create_block(), builder.create_block());
    let (left, sum) = (builder.append_block_param(head, I64), builder.append_block_param(head, I64));
    let zero = builder.ins().iconst(I64, 0);
    builder.ins().jump(head, &[params[1], zero].map(BlockArg::Value));
    builder.switch_to_block(head);
    unit.count_iteration(7, "count_loop", &params[..1]);
    unit.builder().ins().brif(left, more, &[], done, &[]);
    unit.builder().switch_to_block(more);
    let term = body(unit, params[0], left);
    let builder = unit.builder();
    let (left, more) = (builder.ins().iadd_imm_s(left, -1), builder.ins().iadd(sum, term));
    unit.builder().ins().jump(head, &[left, more].map(BlockArg::Value));
    unit.builder().switch_to_block(done);
    unit.builder().ins().return_(&[sum]);
    Ok(())
}

fn backend<F>(opt: &str, frontend: F) -> CraneliftBackend<F>
where
    F: Fn(&mut FunctionUnit<'_, '_>) -> Result<(), CompileError> + Send + Sync + 'static,
{
    let builder = CraneliftBackend::builder().flag("enable_verifier", "true").flag("opt_level", opt);
    let builder = builder.symbol("count_call", count_call as *const u8);
    let builder = builder.symbol("count_loop", count_loop as *const u8);
    builder.symbol("count_target", count_target as *const u8).build(frontend).unwrap()
}

/// Two tiers with one frontend; code of the first counts itself if `counts` says so.
fn engine<F>(counts: bool, threshold: u32, frontend: F) -> Engine
where
    F: Fn(&mut FunctionUnit<'_, '_>) -> Result<(), CompileError> + Clone + Send + Sync + 'static,
{
    let tier = |opt, threshold| Tier::new(backend(opt, frontend.clone())).policy(Threshold::new(threshold));
    let builder = Engine::builder().capacity(1 << 10).inline();
    builder.tier(tier("none", 1).counts_itself(counts)).tier(tier("speed", threshold)).build().unwrap()
}

#[test]
fn p35_a_function_called_by_native_code_only_reaches_the_next_tier_and_its_caller_calls_that() {
    let engine = engine(true, 1_000, |unit| match unit.job().core()?.get() {
        0 => identity(unit),
        _ => {
            let callee = Bead::from_bits(1 << 32).unwrap();
            sum(unit, |unit, context, x| {
                let call = unit.call_bead(callee, &signature(unit), &[context, x]);
                unit.builder().inst_results(call)[0]
            })
        }
    });
    counting::called_by_native_code_only_it_reaches_the_next_tier_and_its_caller_calls_that(&engine);
}

#[test]
fn a_native_loop_promotes_its_function_during_its_first_call() {
    let engine = engine(true, 1_000, |unit| sum(unit, |_, _, x| x));
    counting::a_native_loop_promotes_its_function_during_its_first_call(&engine);
}

#[test]
fn a_tier_that_does_not_count_itself_and_the_highest_one_emit_nothing() {
    let slow_paths = Arc::new(AtomicU32::new(0));
    for counts in [false, true] {
        let seen = slow_paths.clone();
        let engine = engine(counts, u32::MAX, move |unit| {
            sum(unit, |_, _, x| x)?;
            let text = unit.builder().func.display().to_string();
            seen.fetch_add(text.matches(" cold:").count() as u32, Relaxed);
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
fn blocks_and_callees_that_native_code_counts_are_read_by_the_next_tier() {
    let seen = Arc::<Mutex<Option<Profile>>>::default();
    let profile = seen.clone();
    let engine = engine(true, u32::MAX, move |unit| {
        let first = unit.job().tier() == T1;
        *profile.lock().unwrap() = unit.job().profile();
        let sites = if first { unit.job().call_sites(2) } else { None };
        assert!(!first || unit.count_blocks(2));
        sum(unit, |unit, context, x| {
            unit.count_block(1);
            if let Some(sites) = sites {
                let (direct, other) = (sites.site(0).unwrap(), sites.site(1).unwrap());
                unit.count_direct_call(direct, Bead::from_bits(2 << 32).unwrap());
                // Bits of the first generation of index x.
                let callee = unit.builder().ins().bor_imm_u(x, 1 << 32);
                unit.count_target(other, callee, "count_target", &[context]);
            }
            x
        })?;
        unit.count_block(9);
        Ok(())
    });
    counting::blocks_and_callees_are_read_by_the_next_tier(&engine, &seen);
}

/// The machine code of what a frontend builds in the first tier, as lines of text; cold blocks left out.
#[cfg(target_arch = "x86_64")]
fn hot_code(
    counts: bool,
    opt: &'static str,
    frontend: impl Fn(&mut FunctionUnit<'_, '_>) -> Result<(), CompileError> + Send + Sync + 'static,
) -> Vec<String> {
    let built = Arc::<Mutex<Option<Function>>>::default();
    let sink = built.clone();
    let backend = Arc::new(backend(opt, move |unit: &mut FunctionUnit<'_, '_>| {
        frontend(unit)?;
        unit.builder().seal_all_blocks();
        *sink.lock().unwrap() = Some(unit.builder().func.clone());
        Ok(())
    }));
    let engine = Engine::builder().capacity(16).inline();
    let engine = engine.tier(Tier::new(backend.clone()).counts_itself(counts));
    let engine = engine.tier(Tier::new(backend.clone())).build().unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    compile(&engine, bead, T1);
    let mut context = cranelift_codegen::Context::for_function(built.lock().unwrap().take().unwrap());
    context.set_disasm(true);
    let code = context.compile(backend.isa(), &mut Default::default()).unwrap();
    let text = code.vcode.as_ref().unwrap();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("ret"));
    lines.map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

/// Instructions among these lines. A jump to the next block is none; a conditional one has an alternative, which is none either where it
/// is out of line.
#[cfg(target_arch = "x86_64")]
fn instructions(lines: &[String]) -> usize {
    let falls_through = |at: usize| {
        let target =
            lines[at].strip_prefix("jmp").map(str::trim).and_then(|label| label.strip_prefix("label"));
        target.is_some_and(|label| lines.get(at + 1).is_some_and(|next| *next == format!("block{label}:")))
    };
    let is_one = |at: &usize| {
        let line = &lines[*at];
        !line.ends_with(':') && !line.starts_with(';') && !line.starts_with("unwind") && !falls_through(*at)
    };
    (0..lines.len()).filter(is_one).count()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_call_is_counted_by_at_most_six_instructions() {
    for opt in ["none", "speed"] {
        let lines = hot_code(true, opt, identity);
        // From the budget's address to the jump; what is before and behind belongs to the function.
        let first = lines.iter().position(|line| line.starts_with("movabs")).unwrap();
        let jump = lines.iter().position(|line| line.starts_with("jnle") || line.starts_with("jle")).unwrap();
        let added = instructions(&lines[first..=jump]);
        assert!((1..=6).contains(&added), "{added} at {opt}: {lines:#?}");
        assert!(!hot_code(false, opt, identity).iter().any(|line| line.starts_with("movabs")));
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn an_iteration_is_counted_by_at_most_four_instructions() {
    for opt in ["speed", "none"] {
        let [without, with] = [false, true].map(|counts| {
            let lines = hot_code(counts, opt, |unit| {
                let params = unit.begin(&signature(unit));
                let builder = unit.builder();
                let (head, done) = (builder.create_block(), builder.create_block());
                let left = builder.append_block_param(head, I64);
                builder.ins().jump(head, &[BlockArg::Value(params[1])]);
                builder.switch_to_block(head);
                unit.count_iteration(7, "count_loop", &params[..1]);
                let less = unit.builder().ins().iadd_imm_s(left, -3);
                unit.builder().ins().brif(less, head, &[BlockArg::Value(less)], done, &[]);
                unit.builder().switch_to_block(done);
                unit.builder().ins().return_(&[less]);
                Ok(())
            });
            // From the header to the jump back.
            let head = lines.iter().position(|line| line.starts_with("block1")).unwrap();
            let back = |line: &String| line.starts_with('j') && line.contains("label1");
            let back = lines.iter().rposition(back).unwrap();
            lines[head..=back].to_vec()
        });
        let added = instructions(&with) - instructions(&without);
        assert!((1..=4).contains(&added), "{added} at {opt}: {with:#?} instead of {without:#?}");
    }
}
