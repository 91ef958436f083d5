//! Panics and backtraces reach through compiled frames.

use crate::rig::{Body, Rig, body, options, signature};
use beadwork_cranelift::{InstBuilder, OptLevel};
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
        let signature = signature(unit);
        let function = unit.symbol(symbol, &signature);
        let kept: Vec<_> = (1..=10).map(|n| unit.builder().ins().imul_imm_s(x, n * 1001)).collect();
        let call = unit.builder().ins().call(function, &[x]);
        let result = unit.builder().inst_results(call)[0];
        Ok(kept.into_iter().fold(result, |sum, value| unit.builder().ins().bxor(sum, value)))
    })
}

/// Calls the function before it.
fn calls_bead(number: usize) -> Body {
    body(move |unit, x, all| {
        let call = unit.call_bead(all[number], &signature(unit), &[x]);
        let result = unit.builder().inst_results(call)[0];
        Ok(unit.builder().ins().bxor(result, x))
    })
}

fn rig(level: OptLevel) -> Rig {
    let options = options()
        .opt_level(level)
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
    for level in [OptLevel::None, OptLevel::Speed] {
        let rig = rig(level);
        assert_eq!(rig.call(1, 12), expected(12));
        let caught = catch_unwind(AssertUnwindSafe(|| rig.call(1, 13))).unwrap_err();
        assert_eq!(caught.downcast_ref::<i64>(), Some(&13), "{level:?}");
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
    for level in [OptLevel::None, OptLevel::Speed] {
        the_frame_below_compiled_code(&rig(level));
        let trace = TRACE.take();
        assert!(trace.contains("look_back"), "{trace}");
        assert!(trace.contains("the_frame_below_compiled_code"), "{level:?}: {trace}");
    }
}

#[test]
fn a_batch_is_one_unwind_table_and_none_is_left_when_its_code_is_gone() {
    let rig = rig(OptLevel::Speed);
    let stats = rig.backend.stats();
    assert!((1..=stats.batches).contains(&(stats.arena.unwind_tables as u64)), "{stats:?}");
    assert!(stats.arena.unwind_tables < rig.beads.len(), "{stats:?}");
    for &bead in &rig.beads {
        rig.engine.remove(bead).unwrap();
    }
    rig.engine.reclaim();
    assert_eq!(rig.backend.stats().arena.unwind_tables, 0);
}

#[test]
fn no_table_is_registered_for_code_compiled_without_unwind_information() {
    let rig = Rig::new(options().flag("unwind_info", "false"), vec![crate::rig::plus(1)]);
    rig.compile([0]);
    assert_eq!((rig.call(0, 1), rig.backend.stats().arena.unwind_tables), (2, 0));
}
