//! What native code pays: for a call through a slot that retargets itself, and for counting its own calls.
#![allow(unsafe_code, reason = "calls the code it had compiled")]

use super::{Case, Made, Row, Sample, Scale, Subject, only};
use crate::contender::Who;
use crate::measure::busy_nanos;
use crate::target::Target;
use beadwork::{Bead, CompileError, Core, Engine, Manual, Mutator, Tier, TierId};
use beadwork_cranelift::ir::{InstBuilder, condcodes::IntCC};
use beadwork_cranelift::{AbiParam, CraneliftBackend, FunctionUnit, Signature, types::I64};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let calls = scale.pick(1 << 24, 1 << 22);
    let slot =
        Row::nanos("call through a slot, against a direct one").target(Target::TimesOf(Who::Raw, 1.05));
    let rows = vec![vec![slot], vec![Row::nanos("call that is counted, against one that is not")]];
    let made = move || {
        vec![(Who::Raw, make([DIRECT, SLOT], calls)), (Who::Beadwork, make([SLOT, SLOT_COUNTED], calls))]
    };
    vec![Case::new("native calls", rows, move || only(made(), "has no native calls of its own"))]
}

/// The functions, by core: two callees, and three that call one in a loop. The direct call is one to the same code, by its address.
const PLAIN: usize = 0;
const COUNTED: usize = 1;
const DIRECT: usize = 2;
const SLOT: usize = 3;
const SLOT_COUNTED: usize = 4;

/// Never reached: budgets are large.
extern "C" fn spent(_bits: u64) {}

struct Native {
    mutator: Mutator,
    beads: Vec<Bead>,
    /// The function for each stage.
    stages: [usize; 2],
    calls: usize,
}

fn make(stages: [usize; 2], calls: usize) -> Made {
    let beads: Arc<OnceLock<Vec<Bead>>> = Arc::default();
    let entry = Arc::new(AtomicUsize::new(0));
    let (callees, called) = (beads.clone(), entry.clone());
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let frontend = move |unit: &mut FunctionUnit<'_, '_>| {
        build(unit, callees.get().map_or(&[], Vec::as_slice), called.load(Relaxed))
    };
    let backend = CraneliftBackend::builder()
        .symbol("spent", spent as *const u8)
        .build(frontend)
        .map_err(|error| failed(&error))?;
    let backend = Arc::new(backend);
    // There has to be a higher tier for anything to be counted.
    let engine = Engine::builder()
        .inline()
        .capacity(16)
        .tier(Tier::new(backend.clone()).policy(Manual).counts_itself(true))
        .tier(Tier::new(backend).policy(Manual))
        .build()
        .map_err(|error| failed(&error))?;
    let runs = engine.register_many((0..SLOT_COUNTED + 1).map(Core::new)).map_err(|error| failed(&error))?;
    let all: Vec<Bead> = runs.iter().collect();
    beads.set(all.clone()).ok();
    for &bead in &all {
        engine.promote(bead, TierId::BASELINE).map_err(|error| failed(&error))?;
        engine.run_pending(usize::MAX);
        if bead == all[PLAIN] {
            let code = engine.mutator().code(bead).ok_or("it was not compiled")?.as_ptr();
            entry.store(code.expose_provenance(), Relaxed);
        }
    }
    Ok(Box::new(Native { mutator: engine.mutator(), beads: all, stages, calls }))
}

fn build(unit: &mut FunctionUnit<'_, '_>, beads: &[Bead], plain: usize) -> Result<(), CompileError> {
    let core = unit.job().core()?.get();
    let mut signature = unit.new_signature();
    signature.params.push(AbiParam::new(I64));
    signature.returns.push(AbiParam::new(I64));
    let x = unit.begin(&signature)[0];
    match core {
        PLAIN | COUNTED => {
            if core == COUNTED {
                unit.count_call("spent", &[]);
            }
            let result = unit.builder().ins().iadd_imm_s(x, 1);
            unit.builder().ins().return_(&[result]);
        }
        _ => build_caller(unit, &signature, x, core, (beads, plain)),
    }
    Ok(())
}

/// Calls a function as often as the parameter says.
fn build_caller(
    unit: &mut FunctionUnit<'_, '_>,
    signature: &Signature,
    calls: beadwork_cranelift::ir::Value,
    core: usize,
    (beads, plain): (&[Bead], usize),
) {
    let b = unit.builder();
    let (header, end) = (b.create_block(), b.create_block());
    let [round, x] = [(); 2].map(|()| b.append_block_param(header, I64));
    let zero = b.ins().iconst(I64, 0);
    b.ins().jump(header, &[zero.into(), zero.into()]);
    b.switch_to_block(header);
    let call = match core {
        DIRECT => {
            let b = unit.builder();
            let (signature, callee) =
                (b.import_signature(signature.clone()), b.ins().iconst(I64, plain as i64));
            b.ins().call_indirect(signature, callee, &[x])
        }
        SLOT => unit.call_bead(beads[PLAIN], signature, &[x]),
        _ => unit.call_bead(beads[COUNTED], signature, &[x]),
    };
    let b = unit.builder();
    let next_x = b.inst_results(call)[0];
    let next = b.ins().iadd_imm_s(round, 1);
    let more = b.ins().icmp(IntCC::UnsignedLessThan, next, calls);
    b.ins().brif(more, header, &[next.into(), next_x.into()], end, &[]);
    b.switch_to_block(end);
    b.ins().return_(&[next_x]);
}

impl Subject for Native {
    fn sample(&mut self, stage: usize) -> Sample {
        let code = self.mutator.code(self.beads[self.stages[stage]]).ok_or("it was not compiled")?;
        // SAFETY: `build` gives every function this type, and no safepoint is passed in the call.
        let function: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(code.as_ptr()) };
        let calls = self.calls as u64;
        let mut result = 0;
        let nanos = busy_nanos(self.calls, || result = function(calls));
        if result == calls { Ok(vec![nanos]) } else { Err(format!("answered {result}")) }
    }
}
