//! Calls between functions of the engine, and of the VM's runtime.

use crate::rig::{Body, Rig, all_passes, body, call, call_symbol, number, options, plus, word};
use beadwork::{Bead, Engine};
use beadwork_llvm::inkwell::IntPredicate;
use beadwork_llvm::inkwell::values::IntValue;
use beadwork_llvm::{BuildError, FunctionUnit, LlvmBackend};
use std::cell::RefCell;

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

/// `if x == 0 { at_zero } else { other(x - 1) }`
fn step_down(at_zero: i64, other: usize) -> Body {
    body(move |unit, x, all| {
        let less = unit.builder().build_int_sub(x, number(unit, 1), "")?;
        unless_zero(unit, x, at_zero, |unit| call(unit, all[other], less))
    })
}

/// `if x == 0 { at_zero } else { otherwise() }`
fn unless_zero<'c>(
    unit: &mut FunctionUnit<'c, '_>,
    x: IntValue<'c>,
    at_zero: i64,
    otherwise: impl FnOnce(&mut FunctionUnit<'c, '_>) -> Result<IntValue<'c>, BuildError>,
) -> Result<IntValue<'c>, BuildError> {
    let (more, done) = (unit.append_block("more")?, unit.append_block("done")?);
    let entry = unit.builder().get_insert_block().expect("begin opened a block");
    let zero = unit.builder().build_int_compare(IntPredicate::EQ, x, number(unit, 0), "")?;
    unit.builder().build_conditional_branch(zero, done, more)?;
    unit.builder().position_at_end(more);
    let other = otherwise(unit)?;
    unit.builder().build_unconditional_branch(done)?;
    unit.builder().position_at_end(done);
    let result = unit.builder().build_phi(word(unit), "")?;
    result.add_incoming(&[(&number(unit, at_zero), entry), (&other, more)]);
    Ok(result.as_basic_value().into_int_value())
}

fn parity() -> Rig {
    let engine = Engine::builder().inline().fallback(stub as *const u8);
    let options = LlvmBackend::builder().pass_callee_bits(true);
    Rig::with(engine, options, vec![step_down(1, 1), step_down(0, 0)])
}

#[test]
fn a_callee_without_code_is_interpreted_and_learns_who_it_is() {
    let rig = parity();
    rig.compile([0]);
    assert_eq!((rig.call_with_bits(0, 0), rig.call_with_bits(0, 7)), (1, 0));
    assert_eq!(interpreted(), [(rig.beads[1].to_bits(), 6)]);
}

#[test]
fn mutual_recursion_runs_natively_once_both_are_compiled() {
    let rig = parity();
    rig.compile([0, 1]);
    assert_eq!((rig.call_with_bits(0, 1000), rig.call_with_bits(1, 1000)), (1, 0));
    assert_eq!(interpreted(), []);
}

#[test]
fn a_callee_is_retargeted_and_removed_under_callers_that_stay_as_they_are() {
    let rig = parity();
    rig.compile([0, 1]);
    let version = rig.engine.version(rig.beads[0]);
    rig.engine.invalidate(rig.beads[1]).unwrap();
    assert_eq!(rig.call_with_bits(0, 4), 1);
    assert_eq!(interpreted(), [(rig.beads[1].to_bits(), 3)]);
    rig.compile([1]);
    assert_eq!((rig.call_with_bits(0, 4), interpreted().len()), (1, 0));
    rig.engine.remove(rig.beads[1]).unwrap();
    rig.engine.reclaim();
    // A new function does not get the index whose slot is embedded.
    let newcomer = rig.engine.register(1.into()).unwrap();
    assert_ne!(newcomer.index(), rig.beads[1].index());
    assert_eq!(rig.call_with_bits(0, 4), 1);
    assert_eq!(interpreted(), [(rig.beads[1].to_bits(), 3)]);
    assert_eq!(rig.engine.version(rig.beads[0]), version);
}

/// Calls the function after it twice, each time followed by the runtime.
fn caller() -> Body {
    body(|unit, x, all| {
        let mut value = x;
        for _ in 0..2 {
            value = call(unit, all[1], value)?;
            value = call_symbol(unit, "between", value)?;
        }
        Ok(value)
    })
}

#[test]
fn a_slot_is_read_at_every_call() {
    thread_local!(static BETWEEN: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) });
    extern "C" fn between(x: i64) -> i64 {
        if let Some(between) = BETWEEN.take() {
            between();
        }
        x
    }
    for passes in all_passes() {
        let engine = Engine::builder().inline().fallback(stub as *const u8);
        let options = LlvmBackend::builder().passes(passes).pass_callee_bits(true);
        let rig =
            Rig::with(engine, options.symbol("between", between as *const u8), vec![caller(), plus(100)]);
        rig.compile([0, 1]);
        let (engine, callee) = (rig.engine.clone(), rig.beads[1]);
        BETWEEN.set(Some(Box::new(move || {
            engine.invalidate(callee).unwrap();
        })));
        // The first call runs the code, the second one finds the stub, which knows 101 as odd.
        assert_eq!(rig.call_with_bits(0, 1), 1);
        assert_eq!(interpreted(), [(callee.to_bits(), 101)]);
    }
}

#[test]
fn without_a_fallback_a_code_pointer_is_null_until_there_is_code() {
    let caller = body(|unit, x, all| {
        let code = unit.code_pointer(all[1])?;
        let code = unit.builder().build_ptr_to_int(code, word(unit), "")?;
        let callee = all[1];
        unless_zero(unit, code, -1, |unit| call(unit, callee, x))
    });
    let rig = Rig::new(options(), vec![caller, plus(1)]);
    rig.compile([0]);
    assert_eq!(rig.call(0, 5), -1);
    rig.compile([1]);
    assert_eq!(rig.call(0, 5), 6);
}

#[test]
fn runtime_symbols_are_called_and_their_addresses_are_values() {
    extern "C" fn thirteen_times(x: i64) -> i64 {
        x * 13
    }
    extern "C" fn never(_: i64) -> i64 {
        unreachable!("was replaced")
    }
    static DATUM: i64 = 1 << 50;
    for passes in all_passes() {
        let options = LlvmBackend::builder()
            .passes(passes)
            .symbol("times", never as *const u8)
            .symbol("times", thirteen_times as *const u8)
            .symbol("datum", (&raw const DATUM).cast());
        let calls = body(|unit, x, _| {
            let once = call_symbol(unit, "times", x)?;
            let datum = unit.symbol_address("datum");
            let datum = unit.builder().build_load(word(unit), datum, "")?.into_int_value();
            let twice = call_symbol(unit, "times", once)?;
            Ok(unit.builder().build_int_add(twice, datum, "")?)
        });
        let rig = Rig::new(options, vec![calls]);
        rig.compile([0]);
        assert_eq!(rig.call(0, 3), 3 * 13 * 13 + DATUM);
    }
}

#[test]
fn a_library_function_given_as_a_symbol_is_the_one_that_is_called() {
    extern "C" fn floor(x: f64) -> f64 {
        x + 1000.0
    }
    let rounds = body(|unit, x, _| {
        let double = unit.context().f64_type();
        // Without SSE4.1 the intrinsic is a call of `floor`.
        let floor =
            unit.module().add_function("llvm.floor.f64", double.fn_type(&[double.into()], false), None);
        let value = unit.builder().build_signed_int_to_float(x, double, "")?;
        let value = unit.builder().build_float_mul(value, double.const_float(1.5), "")?;
        let value = unit.builder().build_call(floor, &[value.into()], "")?;
        let value = value.try_as_basic_value().unwrap_basic().into_float_value();
        Ok(unit.builder().build_float_to_signed_int(value, word(unit), "")?)
    });
    let plain = options().cpu("x86-64").symbol("floor", floor as *const u8);
    let rig = Rig::new(plain, vec![rounds]);
    rig.compile([0]);
    assert_eq!(rig.call(0, 4), 1006);
}

#[test]
fn two_tiers_of_one_engine_share_an_arena() {
    let arena = beadwork_arena::Arena::builder().build().unwrap();
    let tier = |n: u64| {
        let options = LlvmBackend::builder().arena(arena.clone());
        let frontend = move |unit: &mut FunctionUnit<'_, '_>| {
            let word = unit.context().i64_type();
            let x = unit.begin(word.fn_type(&[word.into()], false))[0].into_int_value();
            let sum = unit.builder().build_int_add(x, word.const_int(n, false), "")?;
            unit.builder().build_return(Some(&sum))?;
            Ok(())
        };
        beadwork::Tier::new(options.build(frontend).unwrap()).policy(beadwork::Manual)
    };
    let engine = Engine::builder().inline().tier(tier(1)).tier(tier(2)).build().unwrap();
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

#[test]
fn a_runtime_symbol_may_be_called_anything() {
    extern "C" fn plus_five(x: i64) -> i64 {
        x + 5
    }
    let names = [
        "data",
        "counted",
        "beadwork.entry",
        "beadwork.body.0",
        "beadwork.embed.0",
        "a b",
        "\u{e4}\"$",
        "\u{1}odd",
        "llvm.odd",
        "main",
        ".text",
        ".L0",
        "0",
        "",
    ];
    for name in names {
        let uses = body(move |unit, x, all| {
            let text = unit.data(&[7; 16], 8);
            let text = unit.builder().build_load(unit.context().i8_type(), text, "")?.into_int_value();
            let text = unit.builder().build_int_z_extend(text, word(unit), "")?;
            unit.include(all[1]);
            let x = call(unit, all[1], x)?;
            let x = unit.builder().build_int_add(x, text, "")?;
            call_symbol(unit, name, x)
        });
        let rig = Rig::new(options().symbol(name, plus_five as *const u8), vec![uses, plus(100)]);
        rig.compile([0]);
        assert!(rig.is_native(0), "{name:?}: {:?}", rig.failure(0));
        assert_eq!(rig.call(0, 1), 113, "{name:?}");
    }
}
