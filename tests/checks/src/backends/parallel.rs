//! Several workers.

use super::{PATIENCE, Rig, Tested};
use beadwork::{Engine, TierId};
use std::sync::{Arc, Condvar, Mutex};

fn compiled_by<T: Tested>(workers: usize, options: T::Options, bodies: Vec<T::Body>) -> Rig<T> {
    let rig = Rig::<T>::with(Engine::builder().workers(workers), options, bodies);
    for &bead in &rig.beads {
        rig.engine.promote(bead, TierId::BASELINE).unwrap();
    }
    rig.engine.drain(PATIENCE * 2).unwrap();
    rig
}

/// Two workers compile at the same time.
pub fn two_at_the_same_time<T: Tested>() -> Rig<T> {
    // Each of the two functions waits, inside its frontend, for the other one to be there too.
    let inside = Arc::new((Mutex::new(0), Condvar::new()));
    let meeting = |inside: Arc<(Mutex<u32>, Condvar)>| {
        T::body(move |_, x, _| {
            let (count, arrived) = &*inside;
            let mut here = count.lock().unwrap();
            *here += 1;
            arrived.notify_all();
            let (_here, wait) = arrived.wait_timeout_while(here, PATIENCE, |here| *here < 2).unwrap();
            assert!(!wait.timed_out(), "the other worker never came");
            Ok(x)
        })
    };
    let rig = compiled_by::<T>(2, T::options(), vec![meeting(inside.clone()), meeting(inside)]);
    assert_eq!((rig.call(0, 5), rig.call(1, 6)), (5, 6));
    rig
}

/// What so many workers compile is right.
pub fn so_many<T: Tested>(workers: usize, functions: usize, options: T::Options) {
    let arithmetic = |n: i64| {
        T::body(move |ir, x, _| {
            let mut value = x;
            for step in 0..20 {
                let factor = ir.number(n + step);
                let product = ir.mul(value, factor);
                value = ir.xor(product, x);
            }
            Ok(value)
        })
    };
    let expected = |n: i64, x: i64| (0..20).fold(x, |value: i64, step| value.wrapping_mul(n + step) ^ x);
    let rig = compiled_by::<T>(workers, options, (0..functions as i64).map(arithmetic).collect());
    let stats = rig.stats();
    assert_eq!((stats.compiled, stats.failed), (functions as u64, 0));
    assert_eq!(stats.arena.live_blocks, functions);
    for n in 0..functions {
        assert_eq!(rig.call(n, 12345), expected(n as i64, 12345), "function {n}");
    }
}
