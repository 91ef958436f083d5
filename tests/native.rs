//! Counting in native code: budgets, loops, and who counts what.

#![allow(unsafe_code)]

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

const T1: TierId = TierId::BASELINE;

fn t2() -> TierId {
    TierId::new(2).unwrap()
}

/// What emitted code does at a function's entry.
fn native_entry(m: &Mutator, bead: Bead, budget: BudgetSlot) {
    // SAFETY: the engine that owns the cell is alive: the mutator keeps it.
    let cell = unsafe { &*budget.as_ptr() };
    let left = cell.load(Relaxed).wrapping_sub(1);
    cell.store(left, Relaxed);
    if left.cast_signed() <= 0 {
        m.native_call(bead);
    }
}

/// Two tiers on an inline engine; code of the first counts itself and tells where.
fn counting(thresholds: [u32; 2]) -> (Engine, Arc<Mutex<Vec<BudgetSlot>>>) {
    let budgets = Arc::<Mutex<Vec<_>>>::default();
    let sink = budgets.clone();
    let first = FnBackend::new(move |job: &mut Job<'_>| {
        assert!(job.counts());
        let bead = job.bead();
        sink.lock().unwrap().push(job.budget_slot(bead)?);
        Ok(code())
    });
    let second = FnBackend::new(|job: &mut Job<'_>| {
        assert!(!job.counts(), "nobody waits for the counts of the highest tier");
        Ok(CompiledCode::new(addr(two)))
    });
    let engine = Engine::builder()
        .capacity(64)
        .inline()
        .tier(Tier::new(first).policy(Threshold::new(thresholds[0])).counts_itself(true))
        .tier(Tier::new(second).policy(Threshold::new(thresholds[1])).counts_itself(true))
        .build()
        .unwrap();
    (engine, budgets)
}

#[test]
fn p35_a_hot_function_called_only_from_native_code_reaches_the_next_tier() {
    let (engine, budgets) = counting([10, 5_000]);
    let (callee, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    engine.promote(callee, T1).unwrap();
    engine.run_pending(usize::MAX);
    let budget = budgets.lock().unwrap()[0];
    let mut calls = 0;
    while engine.tier(callee).unwrap() == T1 {
        calls += 1;
        assert!(calls <= 5_000, "never promoted");
        native_entry(&m, callee, budget);
        engine.run_pending(usize::MAX);
    }
    assert_eq!((calls, engine.tier(callee).unwrap()), (5_000, t2()));
    assert_eq!(engine.invocations(callee), Ok(5_000));
}

#[test]
fn a_call_is_counted_once_by_the_code_or_by_its_dispatch() {
    for itself in [false, true] {
        let tier = |counts| Tier::new(trivial()).policy(Threshold::new(1_000_000)).counts_itself(counts);
        let engine =
            Engine::builder().capacity(64).inline().tier(tier(itself)).tier(tier(false)).build().unwrap();
        let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
        for install in [false, true] {
            if install {
                engine.install(bead, T1, code()).unwrap();
            } else {
                engine.promote(bead, T1).unwrap();
                engine.run_pending(usize::MAX);
            }
            (0..10).for_each(|_| assert!(m.dispatch(bead).is_some()));
        }
        assert_eq!(engine.invocations(bead), Ok(if itself { 0 } else { 20 }));
    }
}

#[test]
fn a_native_loop_that_runs_long_has_its_function_promoted_though_it_is_called_once() {
    let (engine, _) = counting([10, 1_000]);
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    engine.promote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    let mut iterations = 0u32;
    while engine.tier(bead).unwrap() == T1 {
        m.native_iterations(bead, 7, 256);
        iterations += 256;
        assert!(iterations <= 1_000 * ITERATIONS_PER_CALL + 256, "never promoted");
        engine.run_pending(usize::MAX);
    }
    assert!(iterations >= 1_000 * ITERATIONS_PER_CALL);
    assert_eq!(engine.tier(bead), Ok(t2()));
    m.native_iterations(bead, 7, u32::MAX);
    assert_eq!(engine.state(bead).unwrap().pending, None, "there is no higher tier");
}

/// A function at T2 whose loop was still going round in code of T1, and then fails in T2's code and has T1's again.
fn failed_after_its_native_loop_ran(m: &Mutator, engine: &Engine, bead: Bead) {
    engine.promote(bead, t2()).unwrap();
    engine.run_pending(usize::MAX);
    (0..100).for_each(|_| m.native_iterations(bead, 7, 1_024));
    let info = BailoutInfo::new(engine.version(bead).unwrap());
    assert_eq!(engine.bailout(bead, info), Ok(DeoptDecision::Revert { at_once: false }));
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(bead), Ok(T1));
}

#[test]
fn a_loop_that_ran_natively_is_entered_again_soon_after_its_code_was_taken_back() {
    let backend = FnBackend::new(|job: &mut Job<'_>| {
        Ok(job.osr_sites().into_iter().fold(code(), |code, site| code.osr(site, addr(two))))
    });
    let tier = |backend, calls| Tier::new(backend).policy(Threshold::new(calls)).counts_itself(true);
    let backend = Arc::new(backend);
    let builder = Engine::builder().capacity(64).inline();
    let engine = builder.tier(tier(backend.clone(), 100)).tier(tier(backend, 1_000)).build().unwrap();
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    failed_after_its_native_loop_ran(&m, &engine, bead);
    let mut iterations = 0;
    while m.back_edge(bead, 7).is_none() {
        iterations += 1;
        assert!(iterations <= 200 * ITERATIONS_PER_CALL, "interpreted on and on");
        engine.run_pending(usize::MAX);
    }
}

#[test]
fn a_native_loop_has_its_function_promoted_again_after_a_higher_tiers_code_was_taken_back() {
    let (engine, _) = counting([10, 1_000]);
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    failed_after_its_native_loop_ran(&m, &engine, bead);
    let mut iterations = 0;
    while engine.tier(bead) == Ok(T1) {
        m.native_iterations(bead, 7, 1_024);
        iterations += 1_024;
        assert!(iterations <= 100_000, "never promoted again");
        engine.run_pending(usize::MAX);
    }
}

#[test]
fn a_function_that_is_called_no_more_while_its_native_loop_runs_keeps_its_place_in_the_queue() {
    let time = Arc::new(AtomicUsize::new(0));
    let clock = time.clone();
    let tier = |calls| {
        let tier = Tier::new(FnBackend::new(|_: &mut Job<'_>| Ok(code())));
        tier.policy(Threshold::new(calls)).counts_itself(true)
    };
    let builder = Engine::builder().capacity(64).inline().cold_after(Duration::from_millis(50));
    let builder = builder.clock(move || Duration::from_millis(clock.load(SeqCst) as u64));
    let engine = builder.tier(tier(10)).tier(tier(1_000)).build().unwrap();
    let (beads, m) = (beads(&engine, 2), engine.mutator());
    engine.promote_many(beads.iter().copied(), T1);
    engine.run_pending(usize::MAX);
    // Both loops ask for the next tier, and one goes on.
    beads.iter().for_each(|&bead| m.native_iterations(bead, 7, 2_000 * ITERATIONS_PER_CALL));
    assert!(beads.iter().all(|&bead| engine.state(bead).unwrap().pending.is_some()));
    time.store(200, SeqCst);
    m.native_iterations(beads[0], 7, 2_000 * ITERATIONS_PER_CALL);
    time.store(240, SeqCst);
    engine.run_pending(usize::MAX);
    assert_eq!([engine.tier(beads[0]), engine.tier(beads[1])], [Ok(t2()), Ok(T1)]);
}

#[test]
fn counting_for_a_removed_function_changes_nothing() {
    let (engine, budgets) = counting([10, 20]);
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    engine.promote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    engine.remove(bead).unwrap();
    let budget = budgets.lock().unwrap()[0];
    (0..100).for_each(|_| native_entry(&m, bead, budget));
    m.native_iterations(bead, 7, 1 << 20);
    assert_eq!(engine.run_pending(usize::MAX), 0);
    assert_eq!(engine.invocations(bead), Err(Stale(bead)));
}

#[test]
fn late_native_stores_into_a_removed_functions_budget_are_not_inherited() {
    let (engine, budgets) = counting([10, 20]);
    let (old, mut m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    engine.promote(old, T1).unwrap();
    engine.run_pending(usize::MAX);
    let budget = budgets.lock().unwrap()[0];
    engine.remove(old).unwrap();
    // SAFETY: the engine is alive.
    let store = || unsafe { &*budget.as_ptr() }.store(1 << 29, Relaxed);
    store();
    m.safepoint();
    assert_ne!(
        engine.register(Core::new(1)).unwrap().index(),
        old.index(),
        "its own code embeds the address"
    );
    store();
    assert_eq!(engine.reclaim(), 1);
    m.safepoint();
    let new = engine.register(Core::new(2)).unwrap();
    assert_eq!(new.index(), old.index());
    (0..10).for_each(|_| m.tick(new));
    assert!(engine.state(new).unwrap().pending.is_some(), "its tenth call");
}

#[test]
fn an_index_whose_budget_address_the_vm_holds_is_reused_only_after_it_is_released() {
    let engine = Engine::builder().capacity(16).inline().tier(Tier::new(trivial())).build().unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    let budget = engine.budget_slot(bead).unwrap();
    assert_eq!(engine.budget_slot(bead), Ok(budget), "the address is stable");
    assert_eq!(budget.addr() % 4, 0);
    engine.remove(bead).unwrap();
    assert_eq!(engine.budget_slot(bead), Err(Stale(bead)));
    assert_ne!(engine.register(Core::new(0)).unwrap().index(), bead.index());
    // SAFETY: this test has forgotten the address.
    unsafe { engine.release_slot(bead) };
    assert_eq!(engine.register(Core::new(0)).unwrap().index(), bead.index());
}

#[test]
fn a_job_asks_for_the_budget_of_another_function_and_pins_it_once_for_each_code() {
    let callee_of = Arc::<OnceLock<Bead>>::default();
    let inner = callee_of.clone();
    let engine = inline(10, move |job| {
        let callee = *inner.get().unwrap();
        assert_eq!(job.budget_slot(callee)?, job.budget_slot(callee)?);
        Ok(code())
    });
    let (caller, callee) = (engine.register(Core::new(0)).unwrap(), engine.register(Core::new(1)).unwrap());
    callee_of.set(callee).unwrap();
    engine.promote(caller, T1).unwrap();
    engine.run_pending(usize::MAX);
    engine.remove(callee).unwrap();
    assert_ne!(engine.register(Core::new(2)).unwrap().index(), callee.index());
    engine.invalidate(caller).unwrap();
    engine.reclaim();
    assert_eq!(engine.register(Core::new(2)).unwrap().index(), callee.index());
    engine.promote(caller, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.fault(caller, T1).unwrap().last, CompileError::Stale(Stale(callee)));
}

#[test]
fn code_that_counts_itself_is_evicted_when_native_code_calls_it_no_more_and_not_before() {
    let (time, budgets) = (Time::default(), Arc::<Mutex<Vec<_>>>::default());
    let (sink, alive) = (budgets.clone(), Alive::default());
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        let bead = job.bead();
        sink.lock().unwrap().push((bead, job.budget_slot(bead)?));
        Ok(alive.code().with_bytes(1024))
    });
    let engine = Engine::builder()
        .capacity(64)
        .inline()
        .clock(time.clock())
        .code_limit(8 * 1024)
        .evict_after(Duration::from_millis(100))
        .tier(Tier::new(backend).policy(Manual).counts_itself(true))
        .tier(Tier::new(trivial()).policy(Manual))
        .build()
        .unwrap();
    let beads = beads(&engine, 8);
    let mut m = engine.mutator();
    engine.promote_many(beads.iter().copied(), T1);
    engine.run_pending(usize::MAX);
    for step in 1..=20 {
        time.set(step * 60);
        for &(bead, budget) in budgets.lock().unwrap().iter().filter(|(bead, _)| bead.index() < 4) {
            native_entry(&m, bead, budget);
        }
        m.safepoint();
        engine.run_pending(usize::MAX);
    }
    let has_code: Vec<_> = beads.iter().map(|&bead| engine.tier(bead) == Ok(T1)).collect();
    assert_eq!(has_code[..4], [true; 4]);
    assert!(has_code[4..].contains(&false));
}

#[test]
fn with_threshold_1_a_slot_compiles_its_function_at_the_first_call() {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    static FALLBACKS: AtomicUsize = AtomicUsize::new(0);
    type Guest = extern "C" fn(&Mutator, u64) -> u64;

    /// The stub every slot without code holds; the callee's bits are the hidden argument.
    extern "C" fn interpret(m: &Mutator, bits: u64) -> u64 {
        FALLBACKS.fetch_add(1, SeqCst);
        let callee = Bead::from_bits(bits).unwrap();
        match m.dispatch(callee).or_else(|| m.code(callee)) {
            Some(code) => {
                // SAFETY: the backend below gives functions of this type.
                let native = unsafe { std::mem::transmute::<*const u8, Guest>(code.as_ptr()) };
                native(m, bits)
            }
            None => 1_000,
        }
    }
    extern "C" fn native(_: &Mutator, bits: u64) -> u64 {
        bits & 0xff
    }
    let engine = ENGINE.get_or_init(|| {
        let compile = FnBackend::new(|_: &mut Job<'_>| Ok(CompiledCode::new(native as *const u8)));
        let tier = Tier::new(compile).policy(Threshold::new(1));
        Engine::builder()
            .capacity(64)
            .foreground()
            .fallback(interpret as *const u8)
            .tier(tier)
            .build()
            .unwrap()
    });
    let (beads, m) = (beads(engine, 3), engine.mutator());
    let slots: Vec<_> = beads.iter().map(|&bead| engine.slot(bead).unwrap()).collect();
    let call = |callee: usize| {
        let cell: *const AtomicPtr<u8> = slots[callee].as_ptr();
        // SAFETY: the engine lives for ever, and slots hold the stub or the backend's function.
        let entry = unsafe { std::mem::transmute::<*mut u8, Guest>((*cell).load(Acquire)) };
        entry(&m, beads[callee].to_bits())
    };
    assert_eq!([call(0), call(0), call(2), call(0), call(2)], [0, 0, 2, 0, 2]);
    assert_eq!(FALLBACKS.load(SeqCst), 2, "one first call of each function");
    assert_eq!(engine.tier(beads[1]), Ok(TierId::INTERPRETER), "never called, never compiled");
}
