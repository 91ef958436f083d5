//! Slots: stable addresses of code pointers, for native callers.

#![allow(unsafe_code)]

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicPtr, Ordering::Acquire};
use std::sync::{Arc, Mutex};

extern "C" fn stub() -> u64 {
    0
}

fn engine(
    compile: impl Fn(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + Sync + 'static,
) -> Engine {
    Engine::builder()
        .capacity(1 << 10)
        .inline()
        .tier(Tier::new(FnBackend::new(compile)))
        .fallback(addr(stub))
        .build()
        .unwrap()
}

/// What a native caller would load.
fn load(slot: Slot) -> *const u8 {
    let cell: *const AtomicPtr<u8> = slot.as_ptr();
    // SAFETY: the engine that owns the cell is alive in every test that calls this.
    unsafe { (*cell).load(Acquire) }
}

#[test]
fn a_slot_holds_the_fallback_until_there_is_code_and_follows_every_install() {
    let engine = engine(|_| Ok(code()));
    let bead = engine.register(Core::new(0)).unwrap();
    let slot = engine.slot(bead).unwrap();
    assert_eq!(load(slot), addr(stub));
    engine.promote(bead, TierId::BASELINE).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(load(slot), addr(one));
    engine.install(bead, TierId::BASELINE, CompiledCode::new(addr(two))).unwrap();
    assert_eq!(load(slot), addr(two));
    assert_eq!(engine.slot(bead), Ok(slot), "the address is stable");
    engine.invalidate(bead).unwrap();
    assert_eq!(load(slot), addr(stub));
    engine.remove(bead).unwrap();
    assert_eq!(load(slot), addr(stub));
}

#[test]
fn a_slot_asked_for_after_the_install_holds_the_code() {
    let engine = engine(|_| Ok(code()));
    let bead = engine.register(Core::new(0)).unwrap();
    engine.install(bead, TierId::BASELINE, code()).unwrap();
    assert_eq!(load(engine.slot(bead).unwrap()), addr(one));
}

#[test]
fn without_a_fallback_an_empty_slot_is_null() {
    let engine = inline(10, |_| Ok(code()));
    let bead = engine.register(Core::new(0)).unwrap();
    assert!(load(engine.slot(bead).unwrap()).is_null());
}

#[test]
fn an_index_whose_slot_the_vm_holds_is_reused_only_after_it_is_released() {
    let engine = engine(|_| Ok(code()));
    let bead = engine.register(Core::new(0)).unwrap();
    let slot = engine.slot(bead).unwrap();
    engine.remove(bead).unwrap();
    assert_ne!(engine.register(Core::new(0)).unwrap().index(), bead.index());
    assert_eq!(load(slot), addr(stub));
    // SAFETY: this test has forgotten the address.
    unsafe { engine.release_slot(bead) };
    let new = engine.register(Core::new(0)).unwrap();
    assert_eq!(new.index(), bead.index());
    engine.install(new, TierId::BASELINE, code()).unwrap();
    assert_eq!(load(engine.slot(new).unwrap()), addr(one));
}

#[test]
fn an_index_is_pinned_by_the_code_that_embeds_its_slot_until_that_code_is_reclaimed() {
    let callee_of: Arc<Mutex<Option<Bead>>> = Arc::default();
    let inner = callee_of.clone();
    let engine = engine(move |job| {
        let callee = inner.lock().unwrap().unwrap();
        job.slot(callee)?;
        Ok(code())
    });
    let mut m = engine.mutator();
    let (caller, callee) = (engine.register(Core::new(0)).unwrap(), engine.register(Core::new(1)).unwrap());
    *callee_of.lock().unwrap() = Some(callee);
    engine.promote(caller, TierId::BASELINE).unwrap();
    engine.run_pending(usize::MAX);
    engine.remove(callee).unwrap();
    m.safepoint();
    assert_ne!(engine.register(Core::new(2)).unwrap().index(), callee.index(), "embedded");
    engine.invalidate(caller).unwrap();
    assert_ne!(engine.register(Core::new(2)).unwrap().index(), callee.index(), "not reclaimed yet");
    m.safepoint();
    assert_eq!(engine.reclaim(), 1);
    m.safepoint();
    assert_eq!(engine.register(Core::new(2)).unwrap().index(), callee.index());
}

#[test]
fn a_compile_that_embeds_a_removed_callee_fails_by_name_and_pins_nothing() {
    let callee_of: Arc<Mutex<Option<Bead>>> = Arc::default();
    let inner = callee_of.clone();
    let engine = engine(move |job| {
        job.slot(inner.lock().unwrap().unwrap())?;
        Ok(code())
    });
    let (caller, callee) = (engine.register(Core::new(0)).unwrap(), engine.register(Core::new(1)).unwrap());
    *callee_of.lock().unwrap() = Some(callee);
    engine.remove(callee).unwrap();
    engine.promote(caller, TierId::BASELINE).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.fault(caller, TierId::BASELINE).unwrap().last, CompileError::Stale(Stale(callee)));
    assert_eq!(engine.register(Core::new(2)).unwrap().index(), callee.index());
}

#[test]
fn code_that_embeds_the_held_slot_of_a_removed_function_pins_its_index() {
    let engine = Engine::builder().capacity(2).inline().tier(Tier::new(trivial())).build().unwrap();
    let (callee, caller) = (engine.register(Core::new(0)).unwrap(), engine.register(Core::new(1)).unwrap());
    engine.slot(callee).unwrap();
    engine.remove(callee).unwrap();
    engine.install(caller, TierId::BASELINE, code().embeds(callee)).unwrap();
    // SAFETY: this test has forgotten the address; the caller's code, which embeds it, is declared above.
    unsafe { engine.release_slot(callee) };
    assert!(engine.register(Core::new(2)).is_err(), "embedded");
    engine.remove(caller).unwrap();
    engine.reclaim();
    assert_eq!(engine.register_many((0..2).map(Core::new)).map(|runs| runs.len()), Ok(2));
}
