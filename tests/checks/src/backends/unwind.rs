//! Panics and backtraces reach through compiled frames.

use super::{Rig, Tested, With};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static TRACE: Cell<String> = const { Cell::new(String::new()) };
}

/// A function of the runtime: panics at 13.
pub extern "C-unwind" fn raise(x: i64) -> i64 {
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
fn calls<T: Tested>(symbol: &'static str) -> T::Body {
    T::body(move |ir, x, _| {
        let mut kept = Vec::new();
        for n in 1..=10 {
            let factor = ir.number(n * 1001);
            kept.push(ir.mul(x, factor));
        }
        let result = ir.call_symbol(symbol, x);
        Ok(kept.into_iter().fold(result, |sum, value| ir.xor(sum, value)))
    })
}

/// Calls the function before it.
fn calls_bead<T: Tested>(number: usize) -> T::Body {
    T::body(move |ir, x, all| {
        let result = ir.call(all[number], x);
        Ok(ir.xor(result, x))
    })
}

fn rig<T: Tested>(options: T::Options) -> Rig<T> {
    let options = T::with(options, With::Symbol("raise", raise as *const u8));
    let options = T::with(options, With::Symbol("look_back", look_back as *const u8));
    let (raises, looks) = (calls::<T>("raise"), calls::<T>("look_back"));
    Rig::compiled(options, vec![raises, calls_bead::<T>(0), looks, calls_bead::<T>(2)])
}

fn expected(x: i64) -> i64 {
    (1..=10).fold(x + 1, |sum, n| sum ^ (x * n * 1001)) ^ x
}

pub fn a_panic_passes_through_compiled_frames_to_the_vms_catch<T: Tested>() {
    for (level, options) in T::levels() {
        let rig = rig::<T>(options);
        assert_eq!(rig.call(1, 12), expected(12));
        let caught = catch_unwind(AssertUnwindSafe(|| rig.call(1, 13))).unwrap_err();
        assert_eq!(caught.downcast_ref::<i64>(), Some(&13), "{level}");
        // The frames are as usable afterwards as before.
        assert_eq!(rig.call(1, 14), expected(14));
    }
}

#[inline(never)]
fn the_frame_below_compiled_code<T: Tested>(rig: &Rig<T>) -> i64 {
    std::hint::black_box(rig.call(3, 1))
}

pub fn a_backtrace_reaches_through_compiled_frames<T: Tested>() {
    for (level, options) in T::levels() {
        the_frame_below_compiled_code(&rig::<T>(options));
        let trace = TRACE.take();
        assert!(trace.contains("look_back"), "{trace}");
        assert!(trace.contains("the_frame_below_compiled_code"), "{level}: {trace}");
    }
}

pub fn a_batch_is_one_unwind_table_and_none_is_left_when_its_code_is_gone<T: Tested>() {
    let rig = rig::<T>(T::options());
    let stats = rig.stats();
    assert!((1..=stats.batches).contains(&(stats.arena.unwind_tables as u64)), "{stats:?}");
    assert!(stats.arena.unwind_tables < rig.beads.len(), "{stats:?}");
    for &bead in &rig.beads {
        rig.engine.remove(bead).unwrap();
    }
    rig.engine.reclaim();
    assert_eq!(rig.stats().arena.unwind_tables, 0);
}
