//! Panics and backtraces reach through compiled frames.

use crate::rig::{Body, Rig, all_passes, body, call, call_symbol, number, signature};
use beadwork_llvm::inkwell::attributes::{Attribute, AttributeLoc};
use beadwork_llvm::{LlvmBackend, Passes};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static TRACE: Cell<String> = const { Cell::new(String::new()) };
}

extern "C-unwind" fn raise(x: i64) -> i64 {
    if x == 13 {
        std::panic::panic_any(x);
    }
    x + 1
}

extern "C-unwind" fn look_back(x: i64) -> i64 {
    TRACE.set(Backtrace::force_capture().to_string());
    x
}

/// Calls a runtime function with many values alive, so that callee-saved registers are in use and have to be restored.
fn calls(symbol: &'static str) -> Body {
    body(move |unit, x, _| {
        let kept: Result<Vec<_>, _> =
            (1..=10).map(|n| unit.builder().build_int_mul(x, number(unit, n * 1001), "")).collect();
        let kept = kept?;
        let mut result = call_symbol(unit, symbol, x)?;
        for value in kept {
            result = unit.builder().build_xor(result, value, "")?;
        }
        Ok(result)
    })
}

/// Calls the function before it.
fn calls_bead(number: usize) -> Body {
    body(move |unit, x, all| {
        let result = call(unit, all[number], x)?;
        Ok(unit.builder().build_xor(result, x, "")?)
    })
}

fn rig(passes: Passes) -> Rig {
    let options = LlvmBackend::builder()
        .passes(passes)
        .symbol("raise", raise as *const u8)
        .symbol("look_back", look_back as *const u8);
    let rig = Rig::new(options, vec![calls("raise"), calls_bead(0), calls("look_back"), calls_bead(2)]);
    rig.compile(0..4);
    rig
}

fn expected(x: i64) -> i64 {
    (1..=10).fold(x + 1, |sum, n| sum ^ (x * n * 1001)) ^ x
}

#[test]
fn a_panic_passes_through_compiled_frames_to_the_vms_catch() {
    for passes in all_passes() {
        let rig = rig(passes.clone());
        assert_eq!(rig.call(1, 12), expected(12));
        let caught = catch_unwind(AssertUnwindSafe(|| rig.call(1, 13))).unwrap_err();
        assert_eq!(caught.downcast_ref::<i64>(), Some(&13), "{passes:?}");
        // The frames are as usable afterwards as before.
        assert_eq!(rig.call(1, 14), expected(14));
    }
}

#[inline(never)]
fn the_frame_below_compiled_code(rig: &Rig) -> i64 {
    std::hint::black_box(rig.call(3, 1))
}

#[test]
fn a_backtrace_reaches_through_compiled_frames() {
    for passes in all_passes() {
        the_frame_below_compiled_code(&rig(passes.clone()));
        let trace = TRACE.take();
        assert!(trace.contains("look_back"), "{trace}");
        assert!(trace.contains("the_frame_below_compiled_code"), "{passes:?}: {trace}");
    }
}

#[test]
fn a_batch_is_one_unwind_table_and_none_is_left_when_its_code_is_gone() {
    let rig = rig(Passes::O2);
    let stats = rig.backend.stats();
    assert!((1..=stats.batches).contains(&(stats.arena.unwind_tables as u64)), "{stats:?}");
    assert!(stats.arena.unwind_tables < rig.beads.len(), "{stats:?}");
    for &bead in &rig.beads {
        rig.engine.remove(bead).unwrap();
    }
    rig.engine.reclaim();
    assert_eq!(rig.backend.stats().arena.unwind_tables, 0);
}

/// `chain` helpers that call each other with values alive, the last one the runtime; `section` for the entry.
fn with_helpers(chain: usize, section: Option<&'static str>) -> Body {
    body(move |unit, x, _| {
        let signature = signature(unit);
        let mut callee = unit.symbol("raise", signature);
        let noinline = Attribute::get_named_enum_kind_id("noinline");
        let uwtable = Attribute::get_named_enum_kind_id("uwtable");
        for level in 0..chain {
            let helper = unit.module().add_function(&format!("helper{level}"), signature, None);
            for (kind, value) in [(noinline, 0), (uwtable, 2)] {
                let attribute = unit.context().create_enum_attribute(kind, value);
                helper.add_attribute(AttributeLoc::Function, attribute);
            }
            let b = unit.context().create_builder();
            b.position_at_end(unit.context().append_basic_block(helper, "entry"));
            let y = helper.get_nth_param(0).expect("it has one").into_int_value();
            // More values in each, so that each saves other registers.
            let mut kept = Vec::new();
            for n in 0..=level as i64 * 2 {
                kept.push(b.build_int_mul(y, number(unit, n + 3), "")?);
            }
            let call = b.build_call(callee, &[y.into()], "")?;
            let mut result = call.try_as_basic_value().unwrap_basic().into_int_value();
            for value in kept {
                result = b.build_xor(result, value, "")?;
            }
            b.build_return(Some(&result))?;
            callee = helper;
        }
        let entry = unit.function()?;
        entry.as_global_value().set_section(section);
        let call = unit.builder().build_call(callee, &[x.into()], "")?;
        let result = call.try_as_basic_value().unwrap_basic().into_int_value();
        Ok(unit.builder().build_int_add(result, x, "")?)
    })
}

fn expected_with_helpers(chain: usize, x: i64) -> i64 {
    (0..chain as i64).fold(x + 1, |sum, level| (0..=level * 2).fold(sum, |sum, n| sum ^ (x * (n + 3)))) + x
}

#[test]
fn a_panic_passes_through_helpers_that_stay_functions_of_their_own() {
    for (chain, section) in [(1, None), (4, None), (4, Some(".text.entries"))] {
        for passes in [Passes::Fast, Passes::O2] {
            let options = LlvmBackend::builder().passes(passes).symbol("raise", raise as *const u8);
            let rig = Rig::new(options, vec![with_helpers(chain, section)]);
            rig.compile([0]);
            assert_eq!(rig.call(0, 5), expected_with_helpers(chain, 5));
            let caught = catch_unwind(AssertUnwindSafe(|| rig.call(0, 13))).unwrap_err();
            assert_eq!(caught.downcast_ref::<i64>(), Some(&13));
            assert_eq!(rig.call(0, 6), expected_with_helpers(chain, 6));
        }
    }
}
