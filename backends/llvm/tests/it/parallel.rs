//! Several workers.

use crate::rig::{Body, PATIENCE, Rig, body, number, options};
use beadwork::{Engine, TierId};
use std::sync::{Arc, Condvar, Mutex};

#[test]
fn two_workers_compile_at_the_same_time() {
    // Each of the two functions waits, inside its frontend, for the other one to be there too.
    let inside = Arc::new((Mutex::new(0), Condvar::new()));
    let meeting = |inside: Arc<(Mutex<u32>, Condvar)>| -> Body {
        body(move |_, x, _| {
            let (count, arrived) = &*inside;
            let mut here = count.lock().unwrap();
            *here += 1;
            arrived.notify_all();
            let (_here, wait) = arrived.wait_timeout_while(here, PATIENCE, |here| *here < 2).unwrap();
            assert!(!wait.timed_out(), "the other worker never came");
            Ok(x)
        })
    };
    let bodies = vec![meeting(inside.clone()), meeting(inside)];
    let rig = Rig::with(Engine::builder().workers(2), options(), bodies);
    for &bead in &rig.beads {
        rig.engine.promote(bead, TierId::BASELINE).unwrap();
    }
    rig.engine.drain(PATIENCE * 2).unwrap();
    assert_eq!((rig.call(0, 5), rig.call(1, 6)), (5, 6));
    assert_eq!(rig.backend.contexts(), 2, "one for each worker");
}

#[test]
fn what_several_workers_compile_is_right() {
    let arithmetic = |n: i64| {
        body(move |unit, x, _| {
            let mut value = x;
            for step in 0..20 {
                let product = unit.builder().build_int_mul(value, number(unit, n + step), "")?;
                value = unit.builder().build_xor(product, x, "")?;
            }
            Ok(value)
        })
    };
    let expected = |n: i64, x: i64| (0..20).fold(x, |value: i64, step| value.wrapping_mul(n + step) ^ x);
    let bodies = (0..300).map(arithmetic).collect();
    let rig = Rig::with(Engine::builder().workers(4), options().contexts_recycled_after(7), bodies);
    for &bead in &rig.beads {
        rig.engine.promote(bead, TierId::BASELINE).unwrap();
    }
    rig.engine.drain(PATIENCE).unwrap();
    let stats = rig.backend.stats();
    assert_eq!((stats.compiled, stats.failed, stats.arena.live_blocks), (300, 0, 300));
    for n in 0..300 {
        assert_eq!(rig.call(n, 12345), expected(n as i64, 12345), "function {n}");
    }
}
