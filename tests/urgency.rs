//! What cannot wait goes first, nothing waits for ever, and nobody looks again and again for what cannot be done yet.

mod common;
use beadwork::*;
use common::*;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

type Order = Arc<Mutex<Vec<Bead>>>;

/// A backend that notes what it compiles.
fn noting(order: &Order) -> impl Backend + use<> {
    let order = order.clone();
    FnBackend::new(move |job: &mut Job<'_>| {
        order.lock().unwrap().push(job.bead());
        Ok(code())
    })
}

fn place(order: &Order, bead: Bead) -> Option<usize> {
    order.lock().unwrap().iter().position(|&of| of == bead)
}

/// One tier, one compile at a time, and a thousand functions that wait, of which one has been compiled.
fn crowded(order: &Order) -> (Engine, Vec<Bead>) {
    let tier = Tier::new(noting(order)).batch(1);
    let engine = Engine::builder().capacity(1 << 12).inline().tier(tier).build().unwrap();
    let all = beads(&engine, 1_000);
    all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    assert_eq!(engine.run_pending(1), 1);
    (engine, all)
}

#[test]
fn compile_now_of_a_function_that_waits_already_goes_before_all_others() {
    let order = Order::default();
    let (engine, all) = crowded(&order);
    engine.compile_now(all[900], T1, LONG).unwrap();
    assert_eq!(place(&order, all[900]), Some(1));
}

#[test]
fn compile_now_of_a_new_function_goes_before_all_that_wait() {
    let order = Order::default();
    let (engine, _) = crowded(&order);
    let late = engine.register(Core::ZERO).unwrap();
    engine.compile_now(late, T1, LONG).unwrap();
    assert_eq!(place(&order, late), Some(1));
}

#[test]
fn what_a_helper_took_with_it_is_compiled_however_much_comes_later() {
    let slot: Arc<Mutex<Option<(Engine, Bead)>>> = Arc::default();
    let inner = slot.clone();
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        // The first compile needs a callee, for which it helps.
        let first = inner.lock().unwrap().take();
        if let Some((engine, callee)) = first {
            engine.compile_now(callee, T1, LONG).map_err(CompileError::failed)?;
        }
        Ok(code())
    });
    let tier = Tier::new(backend).batch(1);
    let engine = Engine::builder().capacity(1 << 13).inline().tier(tier).build().unwrap();
    let all = beads(&engine, 100);
    all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    let callee = engine.register(Core::ZERO).unwrap();
    *slot.lock().unwrap() = Some((engine.clone(), callee));
    // For each compile there is a new request, so that there is always something else to do.
    for _ in 0..2_000 {
        let bead = engine.register(Core::ZERO).unwrap();
        engine.promote(bead, T1).unwrap();
        engine.run_pending(1);
    }
    assert!(engine.stats().queued > 0);
    let starved = all.iter().filter(|&&bead| engine.tier(bead) != Ok(T1)).count();
    assert_eq!(starved, 0, "of the first hundred");
}

/// Loops ask for T2 at 1,000 iterations; nothing else does.
fn looping(order: &Order) -> (Engine, Vec<Bead>) {
    let loops =
        |seen: &Activity| if seen.iterations >= 1_000 { Verdict::Promote } else { Verdict::wait(125) };
    let engine = Engine::builder()
        .capacity(1 << 12)
        .inline()
        .tier(Tier::new(noting(order)).policy(Manual).batch(1))
        .tier(Tier::new(noting(order)).policy(loops).max_parallel(1))
        .build()
        .unwrap();
    let all = beads(&engine, 3_000);
    (engine, all)
}

/// Iterates until the loop asks.
fn ask(engine: &Engine, bead: Bead) {
    let m = engine.mutator();
    let asked = (0..1_000_000).any(|_| {
        m.back_edge(bead, 1);
        engine.state(bead).unwrap().pending.is_some()
    });
    assert!(asked);
}

#[test]
fn a_loop_is_as_urgent_as_the_baseline_although_others_wait_for_its_tier_already() {
    let order = Order::default();
    let (engine, all) = looping(&order);
    all[..100].iter().for_each(|&bead| engine.promote(bead, T2).unwrap());
    engine.run_pending(1);
    ask(&engine, all[2_999]);
    all[100..2_000].iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    engine.run_pending(usize::MAX);
    let place = place(&order, all[2_999]);
    assert!(place.is_some_and(|place| place <= 10), "{place:?}");
}

#[test]
fn a_loop_stays_urgent_while_its_lane_is_full() {
    let order = Order::default();
    let (engine, all) = looping(&order);
    let (inside, go) = (Latch::default(), Latch::default());
    let _go = Finally(|| go.open());
    let (at, until) = (inside.clone(), go.clone());
    let held = move |_: &mut Job<'_>| {
        at.open();
        until.wait();
        Ok(code())
    };
    assert!(engine.submit(all[0], T2, held).is_ok());
    let helper = thread::spawn({
        let engine = engine.clone();
        move || engine.run_pending(1)
    });
    inside.wait();
    ask(&engine, all[2_999]);
    all[100..2_000].iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    engine.run_pending(2); // of the baseline's meanwhile
    go.open();
    helper.join().unwrap();
    engine.run_pending(usize::MAX);
    let place = place(&order, all[2_999]);
    assert!(place.is_some_and(|place| place <= 10), "{place:?}");
}

#[test]
fn a_loop_that_goes_on_asking_takes_nothing_else_of_its_tier_before_the_baseline() {
    let order = Order::default();
    let (engine, all) = looping(&order);
    let m = engine.mutator();
    (0..1_000_000).for_each(|_| _ = m.back_edge(all[2_999], 1));
    all[..100].iter().for_each(|&bead| engine.promote(bead, T2).unwrap());
    all[100..300].iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    engine.run_pending(200);
    assert!(place(&order, all[2_999]).is_some());
    let early = all[..100].iter().filter(|&&bead| place(&order, bead).is_some()).count();
    assert_eq!(early, 0, "merely asked for at T2, and compiled while T1 waited");
}

#[test]
fn a_request_for_a_tier_that_is_off_returns_in_the_foreground() {
    let builder =
        (0..3).fold(Engine::builder().capacity(16), |builder, _| builder.tier(Tier::new(trivial())));
    let engine = builder.foreground().build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.set_tier_enabled(T2, false).unwrap();
    ends(move || engine.promote(bead, T2)).unwrap();
}

/// Most readings of the clock while nothing changes: each look for work is one.
const LOOKS: usize = 10_000;

/// Waits until the clock is left alone for a while.
fn become_quiet<R>(
    configure: impl FnOnce(EngineBuilder) -> EngineBuilder,
    disturb: impl FnOnce(&Engine) -> R,
) {
    let (reads, heard) = channel();
    let reads = Mutex::new(reads);
    let builder = configure(Engine::builder().capacity(16)).clock(move || {
        let _ = reads.lock().unwrap().send(());
        Duration::ZERO
    });
    let engine = builder.build().unwrap();
    let _until_the_end = disturb(&engine);
    let (start, mut looks) = (Instant::now(), 0);
    while heard.recv_timeout(Duration::from_millis(100)).is_ok() {
        looks += 1;
        assert!(looks < LOOKS && start.elapsed() < LONG, "{looks} looks, and none found anything");
    }
}

#[test]
fn workers_come_to_rest_beside_a_tier_at_its_limit() {
    let (slow, inside, go) = held();
    let tiers = |builder: EngineBuilder| {
        let limited = Tier::new(slow).max_parallel(1);
        builder.workers(3).tier(Tier::new(trivial())).tier(limited).tier(Tier::new(trivial()))
    };
    become_quiet(tiers, |engine| {
        let all = beads(engine, 2);
        engine.promote(all[0], T2).unwrap();
        inside.wait();
        engine.promote(all[1], T2).unwrap();
        Finally(move || go.open())
    });
}

#[test]
fn workers_come_to_rest_beside_a_tier_that_is_off() {
    let tiers = |builder: EngineBuilder| {
        builder.workers(1).tier(Tier::new(trivial())).tier(Tier::new(trivial())).tier(Tier::new(trivial()))
    };
    become_quiet(tiers, |engine| {
        let bead = engine.register(Core::ZERO).unwrap();
        engine.set_tier_enabled(T2, false).unwrap();
        engine.promote(bead, T2).unwrap();
    });
}
