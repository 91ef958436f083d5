//! Who waits is woken by whatever it waits for, and by the end of its time.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

/// Longer than any test runs: a wait that ends only with its time is one that does not end.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);

const ROUNDS: usize = 100;

fn builder() -> EngineBuilder {
    Engine::builder().capacity(1 << 12).tier(Tier::new(trivial()).max_parallel(1))
}

fn single() -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap())
}

/// A wait on another thread that this one ends by `release`, a bit later in each round.
fn woken<H>(
    engine: &Engine,
    hold: impl Fn() -> H,
    wait: impl Fn(&Engine, Bead) + Clone + Send + 'static,
    release: impl Fn(H),
) {
    for round in 0..ROUNDS {
        let bead = engine.register(Core::ZERO).unwrap();
        let held = hold();
        engine.promote(bead, T1).unwrap();
        let (says, hears) = channel();
        let (waiter, on) = (wait.clone(), engine.clone());
        thread::spawn(move || {
            waiter(&on, bead);
            says.send(()).unwrap();
        });
        (0..round).for_each(|_| thread::yield_now());
        release(held);
        hears.recv_timeout(LONG).expect("not woken, or the wait failed");
        assert_eq!(engine.tier(bead), Ok(T1));
    }
}

#[test]
fn a_drain_that_found_its_engine_paused_ends_after_the_resume() {
    let engine = builder().inline().build().unwrap();
    woken(&engine, || engine.pause(), |engine, _| engine.drain(FOR_EVER).unwrap(), drop);
}

#[test]
fn a_drain_on_the_only_pool_thread_ends_after_the_resume() {
    let pool = single();
    let engine = builder().pool(pool.clone()).build().unwrap();
    let drain = move |engine: &Engine, _: Bead| pool.install(|| engine.drain(FOR_EVER)).unwrap();
    woken(&engine, || engine.pause(), drain, drop);
}

#[test]
fn compile_now_ends_after_its_tier_is_switched_on() {
    let engine = builder().inline().build().unwrap();
    let set = |on| engine.set_tier_enabled(T1, on).unwrap();
    let compile = |engine: &Engine, bead| assert!(engine.compile_now(bead, T1, FOR_EVER).is_ok());
    woken(&engine, || set(false), compile, |()| set(true));
}

#[test]
fn workers_come_back_for_what_waited_for_a_tier_that_was_off() {
    let engine = Engine::builder().workers(2).tier(Tier::new(trivial())).tier(Tier::new(trivial()));
    let engine = engine.capacity(16).build().unwrap();
    for round in 0..ROUNDS {
        let (bead, tier) = (engine.register(Core::ZERO).unwrap(), [T1, T2][round % 2]);
        engine.set_tier_enabled(tier, false).unwrap();
        engine.promote(bead, tier).unwrap();
        engine.set_tier_enabled(tier, true).unwrap();
        engine.drain(LONG).unwrap();
        assert_eq!(engine.tier(bead), Ok(tier));
        engine.remove(bead).unwrap();
    }
}

#[test]
fn a_raised_limit_brings_more_workers_at_once() {
    let (says, hears) = channel();
    let (says, go) = (Mutex::new(says), Latch::default());
    let until = go.clone();
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        says.lock().unwrap().send(()).unwrap();
        until.wait();
        Ok(code())
    });
    let tier = Tier::new(backend).batch(1).max_parallel(1);
    let engine = Engine::builder().capacity(64).workers(3).tier(tier).build().unwrap();
    let _go = Finally(|| go.open());
    beads(&engine, 32).iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    hears.recv_timeout(LONG).unwrap();
    assert!(hears.try_recv().is_err(), "one at a time");
    engine.set_max_parallel(T1, 3).unwrap();
    (0..2).for_each(|_| hears.recv_timeout(LONG).expect("a worker did not come"));
    go.open();
    engine.drain(LONG).unwrap();
    assert_eq!(engine.stats().installed, 32);
}

#[test]
fn a_drain_ends_in_time_beside_work_that_never_ends() {
    let slot: Arc<Mutex<Option<Engine>>> = Arc::default();
    let inner = slot.clone();
    let engine = Engine::builder()
        .capacity(16)
        .inline()
        .tier(Tier::new(trivial()).batch(1))
        .on_event(move |event| {
            if let Event::Installed { bead, .. } = event
                && let Some(engine) = inner.lock().unwrap().clone()
            {
                engine.invalidate(*bead).unwrap();
                engine.promote(*bead, T1).unwrap();
            }
        })
        .build()
        .unwrap();
    *slot.lock().unwrap() = Some(engine.clone());
    let _break = Finally(|| drop(slot.lock().unwrap().take()));
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    let drained = ends(move || engine.drain(Duration::from_millis(1)));
    assert!(drained.is_err(), "{drained:?}");
}

/// Nothing is ever asked for.
fn drained_beside_a_helper(engine: Engine) {
    let stop = Arc::new(AtomicBool::new(false));
    let helper = thread::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        move || {
            while !stop.load(SeqCst) {
                engine.run_pending(1);
            }
        }
    });
    let _stop = Finally(|| stop.store(true, SeqCst));
    ends(move || (0..5_000).for_each(|_| engine.drain(FOR_EVER).unwrap()));
    stop.store(true, SeqCst);
    helper.join().unwrap();
}

#[test]
fn drains_end_beside_a_helper_that_finds_nothing_without_workers() {
    drained_beside_a_helper(builder().inline().build().unwrap());
}

#[test]
fn drains_end_beside_a_helper_that_finds_nothing_and_a_worker() {
    drained_beside_a_helper(builder().workers(1).build().unwrap());
}

thread_local! {
    /// This thread stops at its next reading of the clock.
    static STOPS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[test]
fn a_drain_that_saw_a_helper_busy_hears_that_it_left_without_finding_anything() {
    for round in 0..ROUNDS {
        let (inside, go, looked) = (Latch::default(), Latch::default(), Latch::default());
        let (at, until, looks) = (inside.clone(), go.clone(), looked.clone());
        // Who sits down reads the clock for the sake of the time limit, also where nothing is queued.
        let limited = Tier::new(trivial()).timeout(LONG);
        let engine = Engine::builder()
            .capacity(1 << 12)
            .tier(limited)
            .inline()
            .clock(move || {
                if STOPS.replace(false) {
                    at.open();
                    until.wait();
                } else if at.is_open() {
                    looks.open();
                }
                Duration::ZERO
            })
            .build()
            .unwrap();
        let helper = thread::spawn({
            let engine = engine.clone();
            move || {
                STOPS.set(true);
                engine.run_pending(1)
            }
        });
        inside.wait();
        let (says, hears) = channel();
        thread::spawn(move || says.send(engine.drain(FOR_EVER)));
        looked.wait();
        (0..round).for_each(|_| thread::yield_now());
        go.open();
        assert_eq!(hears.recv_timeout(LONG).expect("not woken"), Ok(()));
        assert_eq!(helper.join().unwrap(), 0);
    }
}

#[test]
fn compile_now_ends_beside_a_helper_that_is_called_once() {
    let engine = builder().inline().build().unwrap();
    let start = Arc::new(Barrier::new(2));
    let helper = thread::spawn({
        let (engine, start) = (engine.clone(), start.clone());
        move || {
            for _ in 0..1_000 {
                start.wait();
                engine.run_pending(1);
            }
        }
    });
    ends(move || {
        for round in 0..1_000 {
            let bead = engine.register(Core::ZERO).unwrap();
            start.wait();
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            assert!(engine.compile_now(bead, T1, FOR_EVER).is_ok());
        }
    });
    helper.join().unwrap();
}

#[test]
fn what_is_asked_for_in_the_foreground_is_compiled_at_once_beside_a_helper() {
    let engine = builder().foreground().build().unwrap();
    let turn = Barrier::new(2);
    thread::scope(|s| {
        s.spawn(|| {
            for _ in 0..1_000 {
                turn.wait();
                engine.run_pending(1);
                turn.wait();
            }
        });
        let mut waiting = 0;
        for round in 0..1_000 {
            let bead = engine.register(Core::ZERO).unwrap();
            turn.wait();
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            engine.promote(bead, T1).unwrap();
            turn.wait();
            waiting += usize::from(engine.tier(bead) != Ok(T1));
        }
        assert_eq!(waiting, 0);
    });
}

#[test]
fn the_longest_time_there_is_can_be_waited() {
    let engine = builder().workers(1).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    ends(move || {
        engine.compile_now(bead, T1, Duration::MAX).unwrap();
        engine.drain(Duration::MAX).unwrap();
        engine.shutdown(Duration::MAX).unwrap();
    });
}
