//! P34: the LLVM context dropped before its engine; a context tied to a dead thread.
#![cfg(feature = "_llvm")]
#![allow(unsafe_code)] // Calling compiled code is what is tested.

use beadwork::{Bead, Engine, Manual, Tier, TierId};
use beadwork_llvm::inkwell::values::BasicValue;
use beadwork_llvm::{FunctionUnit, LlvmBackend, Passes};
use std::sync::Arc;

fn build(unit: &mut FunctionUnit<'_, '_>) -> Result<(), beadwork_llvm::BuildError> {
    let n = unit.job().core()?.get() as u64;
    let word = unit.context().i64_type();
    let x = unit.begin(word.fn_type(&[word.into()], false))[0].into_int_value();
    // A constant in memory, which has to live as long as the code.
    let table = unit.data(&n.to_le_bytes(), 8);
    let n = unit.builder().build_load(word, table, "")?;
    // Or else the constant would be part of the instruction.
    n.as_instruction_value().expect("a load").set_volatile(true)?;
    let sum = unit.builder().build_int_add(x, n.into_int_value(), "")?;
    unit.builder().build_return(Some(&sum))?;
    Ok(())
}

fn call(engine: &Engine, bead: Bead, x: i64) -> i64 {
    let pinned = engine.pin();
    let code = pinned.code(bead).expect("compiled");
    // SAFETY: the frontend builds `i64 -> i64`, and the mutator is pinned during the call.
    let f: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
    f(x)
}

fn promote(engine: &Engine, bead: Bead) {
    engine.promote(bead, TierId::BASELINE).unwrap();
    engine.run_pending(usize::MAX);
}

#[test]
fn p34_code_runs_after_its_context_its_thread_and_its_backend_are_gone() {
    let options = LlvmBackend::builder().passes(Passes::O1).contexts_recycled_after(1);
    let backend = Arc::new(options.build(build).unwrap());
    let tier = Tier::new(backend.clone()).policy(Manual);
    let engine = Engine::builder().inline().capacity(64).tier(tier).build().unwrap();
    let beads: Vec<_> = (0..32).map(|n| engine.register(n.into()).unwrap()).collect();
    // Every function is compiled on a thread of its own, which ends, and its context with it.
    for &bead in &beads[..16] {
        let engine = engine.clone();
        std::thread::spawn(move || promote(&engine, bead)).join().unwrap();
    }
    // The others on this thread, where each compile throws the context of the one before away.
    beads[16..].iter().for_each(|&bead| promote(&engine, bead));
    assert_eq!(backend.contexts(), 32);
    drop(backend);
    for (n, &bead) in beads.iter().enumerate() {
        assert_eq!(call(&engine, bead, 1000), 1000 + n as i64);
    }
}

#[test]
fn p34_engines_backends_and_threads_end_in_any_order() {
    for order in 0..6 {
        let backend = Arc::new(LlvmBackend::builder().passes(Passes::Fast).build(build).unwrap());
        let arena = backend.arena().clone();
        let tier = Tier::new(backend.clone()).policy(Manual);
        let engine = Engine::builder().inline().capacity(64).tier(tier).build().unwrap();
        let bead = engine.register(7.into()).unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (ready, compiled) = std::sync::mpsc::channel();
        let worker = engine.clone();
        let thread = std::thread::spawn(move || {
            promote(&worker, bead);
            drop(worker);
            ready.send(()).unwrap();
            // Keeps its context until it is told to end.
            let _ = wait.recv();
        });
        compiled.recv().unwrap();
        assert_eq!(call(&engine, bead, 1), 8);
        let mut steps: [Option<Box<dyn FnOnce()>>; 3] = [
            Some(Box::new(move || drop(engine))),
            Some(Box::new(move || drop(backend))),
            Some(Box::new(move || {
                drop(go);
                thread.join().unwrap();
            })),
        ];
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for step in orders[order] {
            steps[step].take().expect("once each")();
        }
        assert_eq!(arena.stats().live_blocks, 0, "order {order}");
    }
}

#[test]
fn p34_a_thread_keeps_no_context_of_a_backend_that_is_gone_once_it_compiles_for_another() {
    // Each backend is compiled for once on this thread. Contexts of all of them would be hundreds of megabytes.
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let mut before = 0;
    for round in 0..300 {
        let options = LlvmBackend::builder().passes(Passes::Fast);
        let backend = Arc::new(options.build(build).unwrap());
        let engine =
            Engine::builder().inline().capacity(64).tier(Tier::new(backend).policy(Manual)).build().unwrap();
        let bead = engine.register(round.into()).unwrap();
        promote(&engine, bead);
        assert_eq!(call(&engine, bead, 1), 1 + round as i64);
        if round == 50 {
            before = resident();
        }
    }
    assert!(resident() < before + (8 << 20), "{} bytes, {before} after 50 backends", resident());
}
