//! The life of code: freed once, after the grace period, and never before.

mod common;
use beadwork::*;
use common::*;
use std::sync::{Arc, Mutex};

#[test]
fn superseded_code_is_freed_after_every_mutator_passed_a_safepoint_and_not_before() {
    let (alive, engine) = (Alive::default(), inline(10, |_| Ok(code())));
    let (mut a, mut b) = (engine.mutator(), engine.mutator());
    let bead = engine.register(Core::new(0)).unwrap();
    engine.install(bead, TierId::BASELINE, alive.code()).unwrap();
    let held = a.dispatch(bead).unwrap();
    engine.install(bead, TierId::BASELINE, alive.code()).unwrap();
    assert_eq!((engine.reclaim(), alive.count()), (0, 2));
    assert_eq!(
        (engine.stats().retired, engine.stats().retired_bytes, engine.stats().code_bytes),
        (1, 16, 32)
    );
    b.safepoint();
    assert_eq!((engine.reclaim(), alive.count()), (0, 2));
    assert_eq!(held.as_ptr(), addr(one));
    a.safepoint();
    assert_eq!((engine.reclaim(), alive.count()), (1, 1));
    assert_eq!((engine.stats().retired, engine.stats().code_bytes), (0, 16));
}

#[test]
fn an_offline_mutator_holds_nothing_back_and_comes_back_even_if_the_wait_panics() {
    let (alive, engine) = (Alive::default(), inline(10, |_| Ok(code())));
    let mut m = engine.mutator();
    let bead = engine.register(Core::new(0)).unwrap();
    engine.install(bead, TierId::BASELINE, alive.code()).unwrap();
    m.offline(|| {
        engine.invalidate(bead).unwrap();
        engine.reclaim();
        assert_eq!(alive.count(), 0);
    });
    engine.install(bead, TierId::BASELINE, alive.code()).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| m.offline(|| panic!("wait"))));
    assert!(caught.is_err());
    engine.invalidate(bead).unwrap();
    assert_eq!(engine.reclaim(), 0, "online again");
    m.safepoint();
    assert_eq!(engine.reclaim(), 1);
}

#[test]
fn a_mutator_put_aside_offline_holds_nothing_back_until_it_comes_online() {
    let (alive, engine) = (Alive::default(), inline(10, |_| Ok(code())));
    let m = engine.mutator();
    let bead = engine.register(Core::new(0)).unwrap();
    engine.install(bead, TierId::BASELINE, alive.code()).unwrap();
    let put_aside = m.go_offline();
    engine.invalidate(bead).unwrap();
    engine.reclaim();
    assert_eq!(alive.count(), 0);
    let m = put_aside.come_online();
    engine.install(bead, TierId::BASELINE, alive.code()).unwrap();
    engine.invalidate(bead).unwrap();
    engine.reclaim();
    assert_eq!(alive.count(), 1, "online again");
    // Native frames that were left open are not denied.
    let _depth = m.enter_native();
    let m = m.go_offline().come_online();
    engine.reclaim();
    assert_eq!((alive.count(), m.depth()), (1, 1));
    drop(m.go_offline());
    engine.reclaim();
    assert_eq!((alive.count(), engine.stats().mutators), (0, 0));
}

#[test]
fn dispatch_after_invalidate_is_cold_and_counts_from_zero() {
    let engine = inline(10, |_| Ok(code()));
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    (0..10).for_each(|_| m.tick(bead));
    engine.run_pending(usize::MAX);
    assert!(m.dispatch(bead).is_some());
    engine.invalidate(bead).unwrap();
    assert!(m.dispatch(bead).is_none());
    assert_eq!(engine.tier(bead), Ok(TierId::INTERPRETER));
    (0..8).for_each(|_| m.tick(bead));
    assert_eq!(engine.state(bead).unwrap().pending, None, "P11: not compiled again at once");
    m.tick(bead);
    assert!(engine.state(bead).unwrap().pending.is_some());
}

#[test]
fn p36_code_the_vm_installs_wins_over_a_compile_in_flight_whose_result_is_dropped_quietly() {
    let (alive, slot) = (Alive::default(), Arc::new(Mutex::new(None::<Engine>)));
    let (late, inner) = (alive.clone(), slot.clone());
    let outcomes = Arc::new(Mutex::new(vec![]));
    let seen = outcomes.clone();
    struct Slow<F>(F);
    impl<F: Fn(&mut Job<'_>) + Send + Sync + 'static> Backend for Slow<F> {
        fn compile(&self, jobs: &mut [Job<'_>]) {
            jobs.iter_mut().for_each(&self.0);
        }
    }
    let engine = Engine::builder()
        .inline()
        .tier(Tier::new(Slow(move |job: &mut Job<'_>| {
            let engine = inner.lock().unwrap().clone().unwrap();
            engine.install(job.bead(), TierId::BASELINE, CompiledCode::new(addr(two))).unwrap();
            assert!(!job.is_current());
            seen.lock().unwrap().push(job.finish(Ok(late.code())));
        })))
        .build()
        .unwrap();
    *slot.lock().unwrap() = Some(engine.clone());
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    engine.promote(bead, TierId::BASELINE).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(*outcomes.lock().unwrap(), [Outcome::Discarded]);
    assert_eq!(m.dispatch(bead).unwrap().as_ptr(), addr(two));
    assert_eq!((alive.count(), alive.ever()), (0, 1), "the late code was freed at once");
    assert_eq!(engine.stats().discarded, 1);
    *slot.lock().unwrap() = None;
}

#[test]
fn every_owner_is_dropped_once_under_install_invalidate_remove_and_dispatch_from_many_threads() {
    let alive = Alive::default();
    let compiled = alive.clone();
    let engine = Engine::builder()
        // Room for every removal, should one thread not come to its safepoint for the whole test.
        .capacity(1 << 14)
        .workers(1)
        .tier(Tier::new(FnBackend::new(move |_| Ok(compiled.code()))).policy(Threshold::new(5)))
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        for seed in 1..=3u64 {
            let (engine, alive) = (&engine, &alive);
            scope.spawn(move || {
                let mut m = engine.mutator();
                let mut mine: Vec<Bead> = beads(engine, 50);
                let mut random = seed;
                for _ in 0..30_000 {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(seed);
                    let at = (random >> 33) as usize % mine.len();
                    match random >> 60 {
                        0 => drop(engine.install(mine[at], TierId::BASELINE, alive.code())),
                        1 => drop(engine.invalidate(mine[at])),
                        2 => {
                            engine.remove(mine[at]).unwrap();
                            mine[at] = engine.register(Core::new(at)).unwrap();
                        }
                        _ => {
                            if let Some(code) = m.dispatch(mine[at]) {
                                assert_eq!(code.as_ptr(), addr(one));
                            }
                        }
                    }
                    m.safepoint();
                }
            });
        }
    });
    engine.drain(LONG).unwrap();
    engine.reclaim();
    let mut live = 0;
    let m = engine.mutator();
    engine.walk(|bead| live += usize::from(m.code(bead).is_some()));
    drop(m);
    assert_eq!(alive.count(), live, "what is neither installed nor freed leaked");
    drop(engine);
    assert_eq!(alive.count(), 0);
    assert!(alive.ever() > 1_000);
}

#[test]
fn dropping_an_engine_waits_for_the_compile_in_flight_and_frees_its_code() {
    let (started, proceed) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let (alive, permits) = (Alive::default(), Mutex::new(proceed.1));
    let (compiled, starting) = (alive.clone(), Mutex::new(started.0));
    let engine = Engine::builder()
        .workers(1)
        .tier(Tier::new(FnBackend::new(move |_| {
            let _ = starting.lock().unwrap().send(());
            // Goes on when the permit comes, or the test has ended.
            let _ = permits.lock().unwrap().recv();
            Ok(compiled.code())
        })))
        .build()
        .unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    engine.promote(bead, TierId::BASELINE).unwrap();
    started.1.recv_timeout(LONG).unwrap();
    let dropper = std::thread::spawn(move || drop(engine));
    assert_eq!(alive.ever(), 0, "the drop cannot have ended the compile");
    drop(proceed.0);
    dropper.join().unwrap();
    assert_eq!((alive.count(), alive.ever()), (0, 1), "the compile was waited for, and its code freed");
}

#[test]
fn p16_dropping_an_engine_drops_queued_work() {
    let alive = Alive::default();
    let compiled = alive.clone();
    let engine = inline(10, move |_| Ok(compiled.code()));
    for bead in beads(&engine, 100) {
        engine.promote(bead, TierId::BASELINE).unwrap();
    }
    drop(engine);
    assert_eq!(alive.ever(), 0);
}
