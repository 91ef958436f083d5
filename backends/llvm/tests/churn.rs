//! Memory and mappings while functions come and go, and while many live. Alone in its process, since it looks at the process.
#![cfg(feature = "_llvm")]
#![allow(unsafe_code)] // Calling compiled code is what is tested.

use beadwork::{Bead, Engine, Manual, Tier, TierId};
use beadwork_llvm::inkwell::IntPredicate;
use beadwork_llvm::{BuildError, FunctionUnit, LlvmBackend, LlvmBuilder, Passes};
use std::sync::Arc;

/// `x = x * n + i` and a few more instructions, in a loop with a call of the runtime now and then.
fn build(unit: &mut FunctionUnit<'_, '_>) -> Result<(), BuildError> {
    let n = unit.job().core()?.get() as u64;
    let word = unit.context().i64_type();
    let number = |n: u64| word.const_int(n, false);
    let signature = word.fn_type(&[word.into()], false);
    let x = unit.begin(signature)[0].into_int_value();
    let runtime = unit.symbol("runtime", signature);
    let names = ["head", "slow", "latch", "exit"];
    let blocks: Vec<_> = names.iter().map(|name| unit.append_block(name)).collect::<Result<_, _>>()?;
    let [head, slow, latch, exit] = blocks[..] else { unreachable!() };
    let b = unit.builder();
    let entry = b.get_insert_block().expect("begin opened it");
    b.build_unconditional_branch(head)?;
    b.position_at_end(head);
    let (i, acc) = (b.build_phi(word, "i")?, b.build_phi(word, "acc")?);
    let (now, old) = (i.as_basic_value().into_int_value(), acc.as_basic_value().into_int_value());
    let mut value = b.build_int_add(b.build_int_mul(old, number(31), "")?, now, "")?;
    for step in 0..8 {
        let shifted = b.build_right_shift(value, number(3 + step), false, "")?;
        value = b.build_int_add(b.build_xor(value, shifted, "")?, number(n.wrapping_mul(step + 1)), "")?;
    }
    let low = b.build_and(value, number(0xff), "")?;
    let rare = b.build_int_compare(IntPredicate::EQ, low, number(0), "")?;
    b.build_conditional_branch(rare, slow, latch)?;
    b.position_at_end(slow);
    let called = b.build_call(runtime, &[value.into()], "")?.try_as_basic_value().unwrap_basic();
    b.build_unconditional_branch(latch)?;
    b.position_at_end(latch);
    let new = b.build_phi(word, "new")?;
    new.add_incoming(&[(&value, head), (&called, slow)]);
    let next = b.build_int_add(now, number(1), "")?;
    let more = b.build_int_compare(IntPredicate::ULT, next, x, "")?;
    b.build_conditional_branch(more, head, exit)?;
    i.add_incoming(&[(&number(0), entry), (&next, latch)]);
    acc.add_incoming(&[(&number(n), entry), (&new.as_basic_value(), latch)]);
    b.position_at_end(exit);
    b.build_return(Some(&new.as_basic_value()))?;
    Ok(())
}

extern "C" fn runtime(x: u64) -> u64 {
    x ^ 0x5555
}

fn expected(n: u64, x: u64) -> u64 {
    (0..x).fold(n, |acc, i| {
        let mut value = acc.wrapping_mul(31).wrapping_add(i);
        for step in 0..8 {
            value = (value ^ (value >> (3 + step))).wrapping_add(n.wrapping_mul(step + 1));
        }
        if value & 0xff == 0 { runtime(value) } else { value }
    })
}

fn call(engine: &Engine, bead: Bead, x: u64) -> u64 {
    let pinned = engine.pin();
    let code = pinned.code(bead).expect("compiled");
    // SAFETY: the frontend builds `i64 -> i64`, and the mutator is pinned during the call.
    let f: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(code.as_ptr()) };
    f(x)
}

fn options(passes: Passes) -> LlvmBuilder {
    LlvmBackend::builder().passes(passes).symbol("runtime", runtime as *const u8)
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// One test, so that nothing else runs in the process meanwhile.
#[test]
fn memory_and_mappings_are_flat_while_code_comes_and_goes_and_many_functions_take_no_mappings() {
    come_and_go();
    live();
}

fn come_and_go() {
    const CYCLES: usize = 5000;
    let backend = Arc::new(options(Passes::Fast).build(build).unwrap());
    let tier = Tier::new(backend.clone()).policy(Manual);
    let engine = Engine::builder().inline().capacity(16).tier(tier).build().unwrap();
    let mut warm = (0, 0);
    for n in 0..CYCLES {
        let bead = engine.register(n.into()).unwrap();
        engine.promote(bead, TierId::BASELINE).unwrap();
        engine.run_pending(usize::MAX);
        if n % 50 == 0 {
            assert_eq!(call(&engine, bead, 300), expected(n as u64, 300));
        }
        engine.remove(bead).unwrap();
        engine.reclaim();
        if n == CYCLES / 5 {
            warm = (resident(), mappings());
        }
    }
    let stats = backend.stats();
    assert_eq!((stats.compiled, stats.arena.live_blocks, stats.arena.live_bytes), (CYCLES as u64, 0, 0));
    // A leak of a kilobyte per function would be four megabytes.
    let (bytes, count) = (resident(), mappings());
    assert!(bytes < warm.0 + (2 << 20), "{bytes} bytes, {} after a fifth", warm.0);
    assert!(count <= warm.1 + 4, "{count} mappings, {} after a fifth", warm.1);
}

fn live() {
    let functions = std::env::var("BEADWORK_LIVE").map_or(2000, |count| count.parse().unwrap());
    let backend = Arc::new(options(Passes::Fast).build(build).unwrap());
    let tier = Tier::new(backend.clone()).policy(Manual);
    let engine = Engine::builder().inline().capacity(1 << 16).tier(tier).build().unwrap();
    let before = mappings();
    let beads: Vec<_> = (0..functions).map(|n| engine.register(n.into()).unwrap()).collect();
    for &bead in &beads {
        engine.promote(bead, TierId::BASELINE).unwrap();
    }
    engine.run_pending(usize::MAX);
    let stats = backend.stats();
    assert_eq!((stats.compiled as usize, stats.arena.live_blocks), (functions, functions));
    assert!(stats.arena.mappings <= 16, "{stats:?}");
    // The heap grows too, hence the margin; a mapping per function would be thousands.
    assert!(mappings() <= before + 64, "{} mappings, {before} before", mappings());
    assert!(stats.arena.live_bytes / functions < 1024, "{stats:?}");
    for (n, &bead) in beads.iter().enumerate().step_by(17) {
        assert_eq!(call(&engine, bead, 10), expected(n as u64, 10));
    }
    for bead in beads {
        engine.remove(bead).unwrap();
    }
    engine.reclaim();
    let arena = backend.stats().arena;
    assert_eq!((arena.live_bytes, arena.live_blocks, arena.unwind_tables), (0, 0, 0));
}
