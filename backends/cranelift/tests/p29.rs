//! P29: memory accounting counts sections, not pages; the map count runs out. Alone in its process, since it counts the
//! process's mappings.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)] // Calling compiled code is what is tested.

use beadwork::{Engine, Manual, Tier, TierId};
use beadwork_cranelift::types::I64;
use beadwork_cranelift::{AbiParam, CraneliftBackend, FunctionUnit, InstBuilder, OptLevel};
use std::sync::Arc;

/// A debug build of Cranelift takes 20 times as long.
const FUNCTIONS: usize = if cfg!(debug_assertions) { 20_000 } else { 100_000 };

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn p29_a_hundred_thousand_small_functions_compile_run_and_are_freed_within_64_mappings() {
    let frontend = |unit: &mut FunctionUnit<'_, '_>| {
        let n = unit.job().core()?.get() as i64;
        let mut signature = unit.new_signature();
        signature.params.push(AbiParam::new(I64));
        signature.returns.push(AbiParam::new(I64));
        let x = unit.begin(&signature)[0];
        let sum = unit.builder().ins().iadd_imm_s(x, n);
        unit.builder().ins().return_(&[sum]);
        Ok(())
    };
    let options = CraneliftBackend::builder().opt_level(OptLevel::None).flag("enable_verifier", "false");
    let backend = Arc::new(options.build(frontend).unwrap());
    let tier = Tier::new(backend.clone()).policy(Manual);
    let engine = Engine::builder().inline().capacity(1 << 17).tier(tier).build().unwrap();
    let before = mappings();
    let beads: Vec<_> = (0..FUNCTIONS).map(|n| engine.register(n.into()).unwrap()).collect();
    for &bead in &beads {
        engine.promote(bead, TierId::BASELINE).unwrap();
    }
    engine.run_pending(usize::MAX);

    let stats = backend.stats();
    assert_eq!((stats.compiled, stats.arena.live_blocks), (FUNCTIONS as u64, FUNCTIONS));
    assert!(stats.arena.mappings <= 64, "{stats:?}");
    // The heap grows too, hence the margin; two mappings per function would be thousands.
    assert!(mappings() <= before + 64, "{} mappings, {before} before", mappings());
    let mut m = engine.mutator();
    for (n, &bead) in beads.iter().enumerate() {
        let code = m.code(bead).expect("compiled");
        // SAFETY: the frontend builds `i64 -> i64`, and `m` passes no safepoint during the call.
        let f: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        assert_eq!(f(7), 7 + n as i64);
    }

    for bead in beads {
        engine.remove(bead).unwrap();
    }
    m.safepoint();
    engine.reclaim();
    let arena = backend.stats().arena;
    assert_eq!((arena.live_bytes, arena.live_blocks, arena.unwind_tables), (0, 0, 0));
    assert!(arena.regions <= 1 && arena.mappings <= 64, "{arena:?}");
}
