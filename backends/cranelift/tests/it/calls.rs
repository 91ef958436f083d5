//! Calls between functions of the engine.

use crate::rig::{Body, Rig, body, options, plus, signature};
use beadwork::{Bead, Engine};
use beadwork_cranelift::ir::condcodes::IntCC;
use beadwork_cranelift::ir::{BlockArg, Value};
use beadwork_cranelift::types::I64;
use beadwork_cranelift::{CraneliftBackend, FunctionUnit, InstBuilder};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

thread_local! {
    /// What the stub below was called with.
    static INTERPRETED: RefCell<Vec<(u64, i64)>> = const { RefCell::new(Vec::new()) };
}

/// The interpreter of these tests: function 0 is "is even", function 1 is "is odd".
extern "C" fn stub(bits: u64, x: i64) -> i64 {
    INTERPRETED.with_borrow_mut(|calls| calls.push((bits, x)));
    let index = Bead::from_bits(bits).expect("the callee's bits").index();
    i64::from(x % 2 == i64::from(index))
}

fn interpreted() -> Vec<(u64, i64)> {
    INTERPRETED.take()
}

fn call(unit: &mut FunctionUnit<'_, '_>, callee: Bead, x: Value) -> Value {
    let call = unit.call_bead(callee, &signature(unit), &[x]);
    unit.builder().inst_results(call)[0]
}

/// `if x == 0 { at_zero } else { otherwise(x) }`
fn unless_zero(
    unit: &mut FunctionUnit<'_, '_>,
    x: Value,
    at_zero: i64,
    otherwise: impl FnOnce(&mut FunctionUnit<'_, '_>) -> Value,
) -> Value {
    let (more, done) = (unit.builder().create_block(), unit.builder().create_block());
    let result = unit.builder().append_block_param(done, I64);
    let zero = unit.builder().ins().iconst(I64, at_zero);
    unit.builder().ins().brif(x, more, &[], done, &[BlockArg::Value(zero)]);
    unit.builder().switch_to_block(more);
    let other = otherwise(unit);
    unit.builder().ins().jump(done, &[BlockArg::Value(other)]);
    unit.builder().switch_to_block(done);
    result
}

/// `if x == 0 { at_zero } else { other(x - 1) }`
fn step_down(at_zero: i64, other: usize) -> Body {
    body(move |unit, x, all| {
        Ok(unless_zero(unit, x, at_zero, |unit| {
            let less = unit.builder().ins().iadd_imm_s(x, -1);
            call(unit, all[other], less)
        }))
    })
}

fn parity() -> Rig {
    let engine = Engine::builder().inline().fallback(stub as *const u8);
    Rig::with(engine, options().pass_callee_bits(true), vec![step_down(1, 1), step_down(0, 0)])
}

#[test]
fn a_frontends_function_runs_natively() {
    let rig = Rig::new(options(), vec![plus(40)]);
    rig.compile([0]);
    assert_eq!(rig.call(0, 2), 42);
    assert_eq!(rig.backend.stats().compiled, 1);
}

#[test]
fn a_closure_is_a_frontend() {
    let backend = options().build(|unit: &mut FunctionUnit<'_, '_>| {
        unit.begin(&unit.new_signature());
        unit.builder().ins().return_(&[]);
        Ok(())
    });
    assert_eq!(backend.unwrap().stats().compiled, 0);
}

#[test]
fn a_frontend_may_set_the_signature_and_open_the_entry_block_itself() {
    let frontend = |unit: &mut FunctionUnit<'_, '_>| {
        let native = unit.native_signature(&signature(unit));
        let builder = unit.builder();
        builder.func.signature = native;
        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);
        builder.switch_to_block(entry);
        builder.seal_block(entry);
        let bits_and_x = builder.block_params(entry).to_vec();
        let sum = builder.ins().iadd(bits_and_x[0], bits_and_x[1]);
        builder.ins().return_(&[sum]);
        Ok(())
    };
    let backend = options().pass_callee_bits(true).name("by hand").build(frontend).unwrap();
    assert_eq!(beadwork::Backend::name(&backend), "by hand");
    let engine = Engine::builder().inline().capacity(16).tier(beadwork::Tier::new(backend)).build().unwrap();
    let bead = engine.register(0.into()).unwrap();
    engine.promote(bead, beadwork::TierId::BASELINE).unwrap();
    engine.run_pending(1);
    let m = engine.mutator();
    // SAFETY: the signature above with the bits in front, and `m` passes no safepoint during the call.
    let f: extern "C" fn(u64, i64) -> i64 = unsafe { std::mem::transmute(m.code(bead).unwrap().as_ptr()) };
    assert_eq!(f(40, 2), 42);
}

#[test]
fn recursion_goes_through_the_functions_own_slot() {
    let fibonacci = body(|unit, x, all| {
        let (more, done) = (unit.builder().create_block(), unit.builder().create_block());
        let result = unit.builder().append_block_param(done, I64);
        let small = unit.builder().ins().icmp_imm_s(IntCC::SignedLessThan, x, 2);
        unit.builder().ins().brif(small, done, &[BlockArg::Value(x)], more, &[]);
        unit.builder().switch_to_block(more);
        let (one, two) = (unit.builder().ins().iadd_imm_s(x, -1), unit.builder().ins().iadd_imm_s(x, -2));
        let (a, b) = (call(unit, all[0], one), call(unit, all[0], two));
        let sum = unit.builder().ins().iadd(a, b);
        unit.builder().ins().jump(done, &[BlockArg::Value(sum)]);
        unit.builder().switch_to_block(done);
        Ok(result)
    });
    let rig = Rig::new(options(), vec![fibonacci]);
    rig.compile([0]);
    assert_eq!(rig.call(0, 20), 6765);
}

#[test]
fn a_callee_without_code_is_reached_through_the_fallback_and_learned_from_its_bits() {
    let rig = parity();
    rig.compile([0]);
    assert_eq!((rig.call_with_bits(0, 10), rig.call_with_bits(0, 7)), (1, 0));
    let odd = rig.beads[1].to_bits();
    assert_eq!(interpreted(), [(odd, 9), (odd, 6)], "is_odd is interpreted, and nothing else");
}

#[test]
fn mutual_recursion_runs_natively_once_both_are_compiled() {
    let rig = parity();
    rig.compile([0, 1]);
    assert_eq!((rig.call_with_bits(0, 1000), rig.call_with_bits(1, 1000)), (1, 0));
    assert_eq!(interpreted(), []);
}

#[test]
fn an_invalidated_callee_is_interpreted_again_by_callers_that_stay_as_they_are() {
    let rig = parity();
    rig.compile([0, 1]);
    let version = rig.engine.version(rig.beads[0]);
    rig.engine.invalidate(rig.beads[1]).unwrap();
    assert_eq!(rig.call_with_bits(0, 4), 1);
    assert_eq!(interpreted(), [(rig.beads[1].to_bits(), 3)]);
    assert_eq!(rig.engine.version(rig.beads[0]), version);
}

#[test]
fn a_recompiled_callee_is_reached_by_callers_that_stay_as_they_are() {
    let step = Arc::new(AtomicI64::new(1));
    let reads = step.clone();
    let callee = body(move |unit, x, _| Ok(unit.builder().ins().iadd_imm_s(x, reads.load(Relaxed))));
    let rig = Rig::new(options(), vec![callee, body(|unit, x, all| Ok(call(unit, all[0], x)))]);
    rig.compile([0, 1]);
    assert_eq!(rig.call(1, 10), 11);
    let before = (rig.engine.version(rig.beads[1]), rig.backend.stats().compiled);
    for n in [5, 70] {
        step.store(n, Relaxed);
        rig.engine.invalidate(rig.beads[0]).unwrap();
        rig.compile([0]);
        assert_eq!(rig.call(1, 10), 10 + n);
    }
    assert_eq!((rig.engine.version(rig.beads[1]), rig.backend.stats().compiled), (before.0, before.1 + 2));
}

#[test]
fn a_removed_callee_leaves_the_fallback_to_callers_that_embed_its_slot() {
    let rig = parity();
    rig.compile([0, 1]);
    rig.engine.remove(rig.beads[1]).unwrap();
    rig.engine.reclaim();
    // A new function does not get the index whose slot is embedded.
    let newcomer = rig.engine.register(1.into()).unwrap();
    assert_ne!(newcomer.index(), rig.beads[1].index());
    assert_eq!(rig.call_with_bits(0, 4), 1);
    assert_eq!(interpreted(), [(rig.beads[1].to_bits(), 3)]);
}

#[test]
fn without_a_fallback_a_code_pointer_is_null_until_there_is_code() {
    let caller = body(|unit, x, all| {
        let code = unit.code_pointer(all[1]);
        Ok(unless_zero(unit, code, -1, |unit| call(unit, all[1], x)))
    });
    let rig = Rig::new(options(), vec![caller, plus(1)]);
    rig.compile([0]);
    assert_eq!(rig.call(0, 5), -1);
    rig.compile([1]);
    assert_eq!(rig.call(0, 5), 6);
}

#[test]
fn two_tiers_of_one_engine_share_an_arena() {
    let arena = beadwork_arena::Arena::builder().build().unwrap();
    let tier = |n: i64| {
        let options = CraneliftBackend::builder().arena(arena.clone());
        options
            .build(move |unit: &mut FunctionUnit<'_, '_>| {
                let x = unit.begin(&signature(unit))[0];
                let sum = unit.builder().ins().iadd_imm_s(x, n);
                unit.builder().ins().return_(&[sum]);
                Ok(())
            })
            .unwrap()
    };
    let manual = |n| beadwork::Tier::new(tier(n)).policy(beadwork::Manual);
    let engine = Engine::builder().inline().tier(manual(1)).tier(manual(2)).build().unwrap();
    let bead = engine.register(0.into()).unwrap();
    for number in [1, 2] {
        engine.promote(bead, beadwork::TierId::new(number).unwrap()).unwrap();
        engine.run_pending(usize::MAX);
        let m = engine.mutator();
        let code = m.code(bead).unwrap();
        // SAFETY: both tiers build `i64 -> i64`, and `m` passes no safepoint during the call.
        let f: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        assert_eq!(f(10), 10 + i64::from(number));
    }
    engine.reclaim();
    assert_eq!(arena.stats().live_blocks, 1, "the first tier's code was superseded and freed");
}
