//! Memory over very many recompiles of one function, each by Cranelift.

use super::{Case, Row, Sample, Scale, once, only};
use crate::contender::Who;
use crate::measure::resident;
use beadwork::{Core, Engine, Manual, Tier, TierId};
use beadwork_cranelift::ir::InstBuilder as _;
use beadwork_cranelift::{AbiParam, CraneliftBackend, FunctionUnit, OptLevel, types::I64};
use cranelift_codegen_of_beadie::ir as beadies_ir;
use cranelift_codegen_of_beadie::ir::InstBuilder as _;
use std::time::Instant;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let recompiles = scale.pick(1_000_000, 20_000);
    let rows = vec![vec![
        // No ratios: each side makes another number of recompiles, and one that keeps nothing is no times as good.
        Row::of("kept in the first quarter", "KiB").not_compared(),
        Row::of("kept in the other three", "KiB").not_compared(),
        Row::of("kept per recompile in those three", "bytes").not_compared(),
        Row::of("time per recompile", "µs"),
    ]];
    let made = move || {
        vec![
            (Who::Beadwork, once(move || by_beadwork(recompiles))),
            // Each leaves 4 kB or more and two mappings, of which a process may have 65,530.
            (Who::Beadie, once(|| by_beadie(5_000))),
        ]
    };
    vec![Case::new("recompiles", rows, move || only(made(), "has no compiler")).at_most(1)]
}

/// Repeats `recompile` after a warm-up, and looks at the memory after a quarter too: what grows once is not what each recompile keeps.
fn measured(count: usize, mut recompile: impl FnMut(usize)) -> Sample {
    let (warm_up, quarter) = (count / 10, count / 4);
    let mut next = 0;
    let mut repeat = |count| {
        let start = Instant::now();
        (next..next + count).for_each(&mut recompile);
        next += count;
        let took = start.elapsed();
        (resident(), took)
    };
    let (before, _) = repeat(warm_up);
    let (after_one, one) = repeat(quarter);
    let (after_all, three) = repeat(3 * quarter);
    let first = after_one.saturating_sub(before) as f64;
    let rest = after_all.saturating_sub(after_one) as f64;
    let micros = (one + three).as_secs_f64() * 1e6 / (4 * quarter) as f64;
    Ok(vec![first / 1024.0, rest / 1024.0, rest / (3 * quarter) as f64, micros])
}

fn by_beadwork(recompiles: usize) -> Sample {
    let backend =
        CraneliftBackend::builder().opt_level(OptLevel::None).build(|unit: &mut FunctionUnit<'_, '_>| {
            let mut signature = unit.new_signature();
            signature.params.push(AbiParam::new(I64));
            signature.returns.push(AbiParam::new(I64));
            let x = unit.begin(&signature)[0];
            let product = unit.builder().ins().imul_imm_s(x, 3);
            unit.builder().ins().return_(&[product]);
            Ok(())
        });
    let tier = Tier::new(backend.map_err(|error| error.to_string())?).policy(Manual);
    let engine =
        Engine::builder().inline().capacity(16).tier(tier).build().map_err(|error| error.to_string())?;
    let bead = engine.register(Core::new(0)).map_err(|error| error.to_string())?;
    engine.promote(bead, TierId::BASELINE).map_err(|error| error.to_string())?;
    engine.run_pending(1);
    let mut m = engine.mutator();
    measured(recompiles, |_| {
        engine.reload(bead).expect("it is live");
        engine.run_pending(1);
        m.safepoint();
    })
}

fn by_beadie(recompiles: usize) -> Sample {
    let backend = beadie::CraneliftConfig::new().opt_level("none").set("enable_verifier", "false").build();
    let adapter = beadie::BackendAdapter::new(backend.map_err(|error| error.to_string())?);
    let bound = adapter.register(std::ptr::null_mut(), None);
    let def = |number: usize| {
        let mut signature = bound.backend().make_signature();
        signature.params.push(beadies_ir::AbiParam::new(beadies_ir::types::I64));
        signature.returns.push(beadies_ir::AbiParam::new(beadies_ir::types::I64));
        let mut def = bound.backend().new_def(signature, &format!("v{number}")).expect("a new name");
        let mut b = def.builder();
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let x = b.block_params(entry)[0];
        let product = b.ins().imul_imm(x, 3);
        b.ins().return_(&[product]);
        b.seal_all_blocks();
        b.finalize();
        def
    };
    measured(recompiles, |number| {
        bound.reload();
        bound.compile(def(number)).expect("it is right");
    })
}
