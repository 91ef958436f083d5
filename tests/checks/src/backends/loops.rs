//! Loop entries: compiled with their function, entered with its live values, freed with it.

use super::{Ir, Rig, Tested, Value, With, unwind::raise};
use beadwork_arena::Arena;
use beadwork_object::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Asks for these loop entries, while the function's own is built.
fn ask(ir: &mut dyn Ir, sites: &[u64]) -> bool {
    let is_function = ir.entry() == Entry::Function;
    if is_function {
        sites.iter().for_each(|&site| ir.add_loop_entry(site));
    }
    is_function
}

/// A function that answers its argument, with loop entries.
fn identity<T: Tested>(
    sites: &'static [u64],
    build_loop: impl Fn(&mut dyn Ir, Value) -> Value + Send + Sync + 'static,
) -> T::Body {
    T::body(move |ir, x, _| Ok(if ask(ir, sites) { x } else { build_loop(ir, x) }))
}

pub fn a_nest_entered_at_any_iteration_of_any_loop_ends_with_the_functions_result<T: Tested>() {
    for (level, options) in T::levels() {
        let rig = Rig::<T>::compiled(options, vec![T::nest()]);
        let n = 9;
        let (mut sum, mut entered) = (0_i64, 0);
        for i in 0..n {
            assert_eq!(rig.enter(0, 1, &mut [n, sum, i]), rig.call(0, n), "{level}, outer loop at {i}");
            for j in 0..i {
                let end = rig.enter(0, 2, &mut [n, sum, i, j]);
                assert_eq!(end, rig.call(0, n), "{level}, inner loop at {i}, {j}");
                sum = sum.wrapping_mul(31).wrapping_add(j);
                entered += 1;
            }
        }
        assert_eq!((rig.call(0, n), entered), (sum, 36));
        let stats = rig.stats();
        assert_eq!((stats.compiled, stats.loop_entries, stats.loop_entries_failed), (1, 2, 0));
    }
}

pub fn all_entries_of_a_compile_are_one_block_and_go_with_it_once<T: Tested>() {
    let arena = Arena::builder().build().unwrap();
    let rig = Rig::<T>::compiled(T::with(T::options(), With::Arena(arena.clone())), vec![T::nest()]);
    let first = rig.stats();
    assert_eq!(first.arena.live_blocks, 1);
    for round in 2..10 {
        rig.engine.invalidate(rig.beads[0]).unwrap();
        assert!(!rig.has(0, 1) && !rig.has(0, 2), "entries of code that was taken back");
        rig.engine.reclaim();
        let stats = rig.stats();
        assert_eq!((stats.arena.live_blocks, stats.arena.live_bytes), (0, 0));
        assert_eq!(stats.arena.unwind_tables, 0);
        rig.compile([0]);
        assert_eq!(rig.enter(0, 2, &mut [3_i64, 0, 0, 0]), rig.call(0, 3));
        let stats = rig.stats();
        assert_eq!((stats.compiled, stats.loop_entries), (round, 2 * round));
        assert_eq!(stats.arena.live_bytes, first.arena.live_bytes, "the same place is used again");
    }
    drop(rig);
    assert_eq!(arena.stats().live_bytes, 0);
}

pub fn sites_are_any_numbers_and_asking_twice_is_asking_once<T: Tested>() {
    const SITES: [u64; 6] = [u64::MAX, 0, 1 << 63, 3, 0x1234_5678_9abc_def1, 2];
    let body = T::body(|ir, x, _| {
        if ask(ir, &SITES) {
            ask(ir, &SITES);
            return Ok(x);
        }
        // Changes nothing: a loop entry asks for no others.
        ir.add_loop_entry(99);
        let Entry::Loop(site) = ir.entry() else { unreachable!() };
        Ok(ir.number(site.cast_signed()))
    });
    let rig = Rig::<T>::compiled(T::options(), vec![body]);
    for site in SITES {
        assert_eq!(rig.enter(0, site, &mut [0_u8; 0]).cast_unsigned(), site);
    }
    assert!(!rig.has(0, 99) && !rig.has(0, 1) && !rig.has(0, 4));
    assert_eq!(rig.stats().loop_entries, SITES.len() as u64);
}

pub fn a_frontend_that_asks_for_no_loop_entry_is_asked_for_none<T: Tested>() {
    let body = T::body(|ir, x, _| {
        assert_eq!(ir.entry(), Entry::Function);
        Ok(x)
    });
    let rig = Rig::<T>::compiled(T::options(), vec![body]);
    assert_eq!((rig.call(0, 3), rig.has(0, 0)), (3, false));
}

pub fn a_frontend_that_does_not_look_which_entry_it_builds_gets_no_loop_entry<T: Tested>() {
    let body = T::body(|ir, x, _| {
        ir.add_loop_entry(1);
        Ok(x)
    });
    let rig = Rig::<T>::compiled(T::options(), vec![body]);
    assert_eq!((rig.call(0, 4), rig.has(0, 1)), (4, false));
    let failed = rig.failed_loops();
    assert!(matches!(&failed[..], [(1, error)] if error.contains("ask FunctionUnit::entry")), "{failed:?}");
}

pub fn a_loop_entry_that_has_no_place_leaves_the_function_its_own<T: Tested>() {
    let arena = Arena::builder().max_bytes(Some(8192)).region_bytes(4096).build().unwrap();
    let body = identity::<T>(&[1], |ir, _| ir.data(&[7; 9000]));
    let rig = Rig::<T>::compiled(T::with(T::options(), With::Arena(arena)), vec![body]);
    assert_eq!((rig.call(0, 4), rig.has(0, 1)), (4, false));
    let failed = rig.failed_loops();
    assert!(matches!(&failed[..], [(1, error)] if error.contains("function_0@1")), "{failed:?}");
    assert_eq!(rig.stats().failed, 0);
}

/// Of eight loop entries of a function, those at sites 1 to 6 fail, for these reasons in order.
pub fn each_fails_for_itself_and_says_why<T: Tested>(rig: &Rig<T>, reasons: [&str; 6]) {
    assert_eq!(rig.call(0, 17), 17);
    let entries: Vec<_> = (0..8).filter(|&site| rig.has(0, site)).collect();
    assert_eq!(entries, [0, 7]);
    let failed = rig.failed_loops();
    assert_eq!(failed.len(), reasons.len(), "{failed:?}");
    for ((site, error), (expected, reason)) in failed.iter().zip((1..).zip(reasons)) {
        assert_eq!(*site, expected);
        assert!(error.contains(reason), "{site}: {error}");
    }
    let stats = rig.stats();
    assert_eq!((stats.compiled, stats.failed), (1, 0));
    assert_eq!((stats.loop_entries, stats.loop_entries_failed), (2, 6));
}

pub fn a_panic_passes_through_a_loop_entry_and_profilers_know_its_name<T: Tested>() {
    let arena = Arena::builder().perf_map(true).build().unwrap();
    let body = identity::<T>(&[5, 6], |ir, frame| {
        // Many values are alive, so callee-saved registers are in use and have to be restored.
        let values = ir.load_live(frame, &std::array::from_fn::<_, 12, _>(|n| n as i32 * 8));
        let result = ir.call_symbol("raise", values[0]);
        values.into_iter().fold(result, |sum, value| ir.add(sum, value))
    });
    let options = T::with(T::options(), With::Symbol("raise", raise as *const u8));
    let rig = Rig::<T>::compiled(T::with(options, With::Arena(arena)), vec![body]);
    for site in [5, 6] {
        assert_eq!(rig.enter(0, site, &mut [1_i64; 12]), 14);
        let caught = catch_unwind(AssertUnwindSafe(|| rig.enter(0, site, &mut [13_i64; 12]))).unwrap_err();
        assert_eq!(caught.downcast_ref::<i64>(), Some(&13));
    }
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let map = std::fs::read_to_string(&path).unwrap();
    let _ = std::fs::remove_file(path);
    for name in [" function_0[T1]\n", " function_0@5[T1]\n", " function_0@6[T1]\n"] {
        assert!(map.contains(name), "{map}");
    }
}

pub fn loop_entries_call_through_slots_and_take_the_hidden_argument_like_functions<T: Tested>() {
    let body = T::body(|ir, x, all| {
        if ask(ir, &[1]) {
            // Its address is asked for by both entries.
            ir.code_pointer(all[0]);
            return Ok(x);
        }
        let value = ir.load_live(x, &[8])[0];
        Ok(ir.call(all[0], value))
    });
    let rig = Rig::<T>::compiled(T::with(T::options(), With::CalleeBits), vec![body]);
    let pinned = rig.engine.pin();
    let code = pinned.osr_entry(rig.beads[0], 1).expect("an entry");
    // SAFETY: with callee bits every entry is `(u64, i64) -> i64`; the mutator is pinned during the call.
    let f: extern "C" fn(u64, *const i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
    assert_eq!(f(rig.beads[0].to_bits(), [0, 77].as_ptr()), 77);
}
