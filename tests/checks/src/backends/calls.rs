//! Calls between functions of the engine.

use super::{Rig, Seen, Tested, With, plus};
use beadwork::{Bead, Engine, Manual, Tier, TierId};
use beadwork_arena::Arena;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

thread_local! {
    /// What the stub below was called with.
    static INTERPRETED: RefCell<Vec<(u64, i64)>> = const { RefCell::new(Vec::new()) };
    /// What the runtime does at its next call.
    static BETWEEN: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
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

extern "C" fn between(x: i64) -> i64 {
    if let Some(between) = BETWEEN.take() {
        between();
    }
    x
}

/// `if x == 0 { at_zero } else { other(x - 1) }`
fn step_down<T: Tested>(at_zero: i64, other: usize) -> T::Body {
    T::body(move |ir, x, all| {
        Ok(ir.unless_zero(x, at_zero, &mut |ir| {
            let less = ir.plus(x, -1);
            ir.call(all[other], less)
        }))
    })
}

fn with_fallback<T: Tested>(options: T::Options, bodies: Vec<T::Body>) -> Rig<T> {
    let engine = Engine::builder().inline().fallback(stub as *const u8);
    Rig::with(engine, T::with(options, With::CalleeBits), bodies)
}

fn parity<T: Tested>() -> Rig<T> {
    with_fallback(T::options(), vec![step_down::<T>(1, 1), step_down::<T>(0, 0)])
}

pub fn recursion_goes_through_the_functions_own_slot<T: Tested>() {
    let sum = T::body(|ir, x, all| {
        Ok(ir.unless_zero(x, 0, &mut |ir| {
            let less = ir.plus(x, -1);
            let below = ir.call(all[0], less);
            ir.add(below, x)
        }))
    });
    assert_eq!(Rig::<T>::compiled(T::options(), vec![sum]).call(0, 100), 5050);
}

pub fn a_callee_without_code_is_reached_through_the_fallback_and_learned_from_its_bits<T: Tested>() {
    let rig = parity::<T>();
    rig.compile([0]);
    assert_eq!((rig.call_with_bits(0, 10), rig.call_with_bits(0, 7)), (1, 0));
    let odd = rig.beads[1].to_bits();
    assert_eq!(interpreted(), [(odd, 9), (odd, 6)], "is_odd is interpreted, and nothing else");
}

pub fn mutual_recursion_runs_natively_once_both_are_compiled<T: Tested>() {
    let rig = parity::<T>();
    rig.compile([0, 1]);
    assert_eq!((rig.call_with_bits(0, 1000), rig.call_with_bits(1, 1000)), (1, 0));
    assert_eq!(interpreted(), []);
}

pub fn an_invalidated_callee_is_interpreted_again_by_callers_that_stay_as_they_are<T: Tested>() {
    let rig = parity::<T>();
    rig.compile([0, 1]);
    let version = rig.engine.version(rig.beads[0]);
    rig.engine.invalidate(rig.beads[1]).unwrap();
    assert_eq!(rig.call_with_bits(0, 4), 1);
    assert_eq!(interpreted(), [(rig.beads[1].to_bits(), 3)]);
    rig.compile([1]);
    assert_eq!((rig.call_with_bits(0, 4), interpreted().len()), (1, 0));
    assert_eq!(rig.engine.version(rig.beads[0]), version);
}

pub fn a_recompiled_callee_is_reached_by_callers_that_stay_as_they_are<T: Tested>() {
    let step = Arc::new(AtomicI64::new(1));
    let reads = step.clone();
    let callee = T::body(move |ir, x, _| Ok(ir.plus(x, reads.load(Relaxed))));
    let caller = T::body(|ir, x, all| Ok(ir.call(all[0], x)));
    let rig = Rig::<T>::compiled(T::options(), vec![callee, caller]);
    assert_eq!(rig.call(1, 10), 11);
    let before = (rig.engine.version(rig.beads[1]), rig.stats().compiled);
    for n in [5, 70] {
        step.store(n, Relaxed);
        rig.engine.invalidate(rig.beads[0]).unwrap();
        rig.compile([0]);
        assert_eq!(rig.call(1, 10), 10 + n);
    }
    assert_eq!((rig.engine.version(rig.beads[1]), rig.stats().compiled), (before.0, before.1 + 2));
}

pub fn a_removed_callee_leaves_the_fallback_to_callers_that_embed_its_slot<T: Tested>() {
    let rig = parity::<T>();
    rig.compile([0, 1]);
    rig.engine.remove(rig.beads[1]).unwrap();
    rig.engine.reclaim();
    // A new function does not get the index whose slot is embedded.
    let newcomer = rig.engine.register(1.into()).unwrap();
    assert_ne!(newcomer.index(), rig.beads[1].index());
    assert_eq!(rig.call_with_bits(0, 4), 1);
    assert_eq!(interpreted(), [(rig.beads[1].to_bits(), 3)]);
}

pub fn a_slot_is_read_at_every_call<T: Tested>() {
    // Calls the function after it twice, each time followed by the runtime.
    let caller = || {
        T::body(|ir, x, all| {
            let mut value = x;
            for _ in 0..2 {
                value = ir.call(all[1], value);
                value = ir.call_symbol("between", value);
            }
            Ok(value)
        })
    };
    for (level, options) in T::levels() {
        let options = T::with(options, With::Symbol("between", between as *const u8));
        let rig = with_fallback::<T>(options, vec![caller(), plus::<T>(100)]);
        rig.compile([0, 1]);
        let (engine, callee) = (rig.engine.clone(), rig.beads[1]);
        BETWEEN.set(Some(Box::new(move || {
            engine.invalidate(callee).unwrap();
        })));
        // The first call runs the code, the second one finds the stub, which knows 101 as odd.
        assert_eq!(rig.call_with_bits(0, 1), 1, "{level}");
        assert_eq!(interpreted(), [(callee.to_bits(), 101)]);
    }
}

pub fn without_a_fallback_a_code_pointer_is_null_until_there_is_code<T: Tested>() {
    let caller = T::body(|ir, x, all| {
        let code = ir.code_pointer(all[1]);
        Ok(ir.unless_zero(code, -1, &mut |ir| ir.call(all[1], x)))
    });
    let rig = Rig::<T>::new(T::options(), vec![caller, plus::<T>(1)]);
    rig.compile([0]);
    assert_eq!(rig.call(0, 5), -1);
    rig.compile([1]);
    assert_eq!(rig.call(0, 5), 6);
}

pub fn two_tiers_of_one_engine_share_an_arena<T: Tested>() {
    let arena = Arena::builder().build().unwrap();
    let tier = |n| {
        let options = T::with(T::options(), With::Arena(arena.clone()));
        Tier::new(T::backend(options, vec![plus::<T>(n)], Seen::default())).policy(Manual)
    };
    let engine = Engine::builder().inline().tier(tier(1)).tier(tier(2)).build().unwrap();
    let bead = engine.register(0.into()).unwrap();
    for number in [1, 2] {
        engine.promote(bead, TierId::new(number).unwrap()).unwrap();
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
