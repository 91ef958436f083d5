//! How requests end: every wait for one is told, and what came with it goes with it.

mod common;
use beadwork::*;
use common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();
const AT_ONCE: Duration = Duration::ZERO;

fn builder() -> EngineBuilder {
    Engine::builder().capacity(1 << 12)
}

fn manual(backend: impl Backend) -> Tier {
    Tier::new(backend).policy(Manual)
}

fn failing() -> impl Backend {
    FnBackend::new(|_: &mut Job<'_>| Err(CompileError::failed("no")))
}

fn wait_until_pending(engine: &Engine, bead: Bead) {
    while engine.state(bead).unwrap().pending.is_none() {
        thread::yield_now();
    }
}

/// A closure to submit, and a count of how often it ran; the count's references tell whether the closure is alive.
fn counted(
    runs: &Arc<AtomicUsize>,
) -> impl FnOnce(&mut Job<'_>) -> Result<CompiledCode, CompileError> + use<> {
    let runs = runs.clone();
    move |_: &mut Job<'_>| {
        runs.fetch_add(1, SeqCst);
        Ok(code())
    }
}

#[test]
fn a_wait_hears_of_the_failure_of_the_higher_tier_that_replaced_its_request() {
    let engine = builder().workers(1).tier(manual(trivial())).tier(manual(failing())).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let pause = engine.pause();
    let waiter = thread::spawn({
        let engine = engine.clone();
        move || engine.compile_now(bead, T1, LONG)
    });
    wait_until_pending(&engine, bead);
    engine.promote(bead, T2).unwrap();
    drop(pause);
    let failed = CompileNowError::Compile(CompileError::failed("no"));
    assert_eq!(waiter.join().unwrap(), Err(failed));
}

#[test]
fn a_wait_hears_that_code_of_a_lower_tier_has_overtaken_it() {
    let (backend, inside, go) = held();
    let engine = builder().workers(2).tier(manual(trivial())).tier(manual(backend)).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let waiter = thread::spawn({
        let engine = engine.clone();
        move || engine.compile_now(bead, T2, LONG)
    });
    inside.wait();
    engine.install(bead, T1, code()).unwrap();
    assert_eq!(waiter.join().unwrap(), Err(CompileNowError::Superseded(bead)));
    go.open();
}

#[test]
fn p4_a_result_that_comes_too_late_leaves_the_newer_request_and_its_wait_alone() {
    let (backend, inside, go) = held();
    let engine = builder().workers(1).tier(manual(backend)).build().unwrap();
    let (bead, runs) = (engine.register(Core::ZERO).unwrap(), Arc::default());
    engine.promote(bead, T1).unwrap();
    inside.wait();
    engine.invalidate(bead).unwrap();
    // The newer request, with a closure and a wait of its own, while the older one's compile goes on.
    engine.submit(bead, T1, counted(&runs)).unwrap();
    let waiter = thread::spawn({
        let engine = engine.clone();
        move || engine.compile_now(bead, T1, LONG)
    });
    go.open();
    let version = waiter.join().unwrap().unwrap();
    engine.drain(LONG).unwrap();
    assert_eq!(engine.version(bead), Ok(version));
    let stats = engine.stats();
    assert_eq!((runs.load(SeqCst), stats.installed, stats.discarded), (1, 1, 1));
}

#[test]
fn a_wait_hears_of_a_cap_and_of_the_end_of_its_group() {
    let engine = builder().workers(1).tier(manual(trivial())).build().unwrap();
    let group = engine.group().unwrap();
    let all: Vec<_> = engine.register_group(group, [Core::ZERO; 2]).unwrap().iter().collect();
    let _pause = engine.pause();
    let waiters = all.iter().map(|&bead| {
        let engine = engine.clone();
        thread::spawn(move || engine.compile_now(bead, T1, LONG))
    });
    let waiters: Vec<_> = waiters.collect();
    all.iter().for_each(|&bead| wait_until_pending(&engine, bead));
    engine.set_tier_cap(all[0], TierId::INTERPRETER).unwrap();
    engine.remove_group(group);
    for waiter in waiters {
        assert!(waiter.join().unwrap().is_err());
    }
}

#[test]
fn compile_now_answers_the_version_of_the_code_that_is_there() {
    let engine = builder().inline().tier(manual(trivial())).tier(manual(failing())).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let version = engine.compile_now(bead, T1, LONG).unwrap();
    engine.compile_now(bead, T2, LONG).unwrap_err();
    assert_eq!(engine.compile_now(bead, T1, AT_ONCE), Ok(version));
}

#[test]
fn a_submitted_closure_goes_with_its_request_and_serves_no_later_one() {
    let cancel: [fn(&Engine, Bead); 5] = [
        |engine, bead| assert!(engine.install(bead, T2, code()).is_ok()),
        |engine, bead| engine.invalidate(bead).unwrap(),
        |engine, bead| engine.promote(bead, T2).unwrap(),
        |engine, bead| engine.blacklist(bead).and_then(|()| engine.unblacklist(bead)).unwrap(),
        |engine, bead| {
            engine.set_tier_cap(bead, TierId::INTERPRETER).unwrap();
            engine.set_tier_cap(bead, TierId::MAX).unwrap();
        },
    ];
    for cancel in cancel {
        let engine = builder().inline().tier(manual(trivial())).tier(manual(trivial())).build().unwrap();
        let (bead, runs) = (engine.register(Core::ZERO).unwrap(), Arc::default());
        engine.submit(bead, T1, counted(&runs)).unwrap();
        cancel(&engine, bead);
        assert_eq!(Arc::strong_count(&runs), 1, "dropped with its request");
        engine.drain(LONG).unwrap();
        engine.invalidate(bead).unwrap();
        engine.compile_now(bead, T1, LONG).unwrap();
        assert_eq!(runs.load(SeqCst), 0);
        engine.invalidate(bead).unwrap();
        engine.submit(bead, T1, counted(&runs)).unwrap();
        engine.drain(LONG).unwrap();
        assert_eq!(runs.load(SeqCst), 1, "the next one is accepted and runs");
    }
}

#[test]
fn a_submitted_closure_runs_although_a_higher_tier_is_asked_for_while_it_is_claimed() {
    for _ in 0..300 {
        let engine = builder().workers(1).tier(manual(failing())).tier(manual(trivial())).build().unwrap();
        let (bead, runs) = (engine.register(Core::ZERO).unwrap(), Arc::default());
        engine.submit(bead, T1, counted(&runs)).unwrap();
        let claimed = || engine.state(bead).unwrap().pending != Some(PendingState::Queued(T1));
        while !claimed() {}
        engine.promote(bead, T2).unwrap();
        engine.drain(LONG).unwrap();
        assert_eq!((runs.load(SeqCst), engine.stats().failed), (1, 0), "never its backend");
    }
}

#[test]
fn a_submitted_closure_outlives_code_of_a_lower_tier_that_the_vm_installs() {
    let engine = builder().inline().tier(manual(trivial())).tier(manual(trivial())).build().unwrap();
    let (bead, runs) = (engine.register(Core::ZERO).unwrap(), Arc::default());
    engine.submit(bead, T2, counted(&runs)).unwrap();
    engine.install(bead, T1, code()).unwrap();
    engine.install(bead, T1, code()).unwrap();
    engine.drain(LONG).unwrap();
    assert_eq!((runs.load(SeqCst), engine.tier(bead)), (1, Ok(T2)));
}

#[test]
fn every_accepted_closure_runs_or_is_cancelled_and_the_backend_never_stands_in_for_it() {
    let compiled = Arc::new(AtomicUsize::new(0));
    let by_backend = compiled.clone();
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        by_backend.fetch_add(1, SeqCst);
        Ok(code())
    });
    let engine = builder().workers(1).tier(manual(backend)).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let (stop, runs) = (AtomicBool::new(false), Arc::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                engine.invalidate(bead).unwrap();
            }
        });
        let mut accepted = 0;
        while accepted < 3_000 {
            accepted += usize::from(engine.submit(bead, T1, counted(&runs)).is_ok());
        }
        stop.store(true, SeqCst);
    });
    engine.drain(LONG).unwrap();
    assert_eq!(compiled.load(SeqCst), 0);
    engine.invalidate(bead).unwrap();
    assert_eq!(Arc::strong_count(&runs), 1);
}

#[test]
fn a_cap_leaves_a_compile_in_flight_alone_that_it_allows() {
    let (backend, inside, go) = held();
    let engine = builder().workers(1).tier(manual(backend)).tier(manual(trivial())).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    inside.wait();
    engine.promote(bead, T2).unwrap();
    engine.set_tier_cap(bead, T1).unwrap();
    go.open();
    engine.drain(LONG).unwrap();
    assert_eq!((engine.tier(bead), engine.state(bead).unwrap().pending), (Ok(T1), None));
}

#[test]
fn a_cap_below_a_compile_in_flight_drops_its_result_and_lowers_the_request_that_follows() {
    let (backend, inside, go) = held();
    let t3 = TierId::new(3).unwrap();
    let tiers = builder().workers(1).tier(manual(trivial())).tier(manual(backend)).tier(manual(trivial()));
    let engine = tiers.build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T2).unwrap();
    inside.wait();
    engine.promote(bead, t3).unwrap();
    engine.set_tier_cap(bead, T1).unwrap();
    go.open();
    engine.drain(LONG).unwrap();
    assert_eq!((engine.tier(bead), engine.stats().discarded), (Ok(T1), 1));
}

#[test]
fn demoting_respects_the_filter_of_the_lower_tier() {
    let lower = manual(trivial()).filter(|_| false);
    let engine = builder().inline().tier(lower).tier(manual(trivial())).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.compile_now(bead, T2, LONG).unwrap();
    engine.demote(bead, T1).unwrap();
    engine.drain(LONG).unwrap();
    assert_eq!(engine.tier(bead), Ok(TierId::INTERPRETER));
}

#[test]
fn a_function_hears_whenever_its_code_is_taken_back() {
    let take: [fn(&Engine, Bead); 4] = [
        |engine, bead| engine.invalidate(bead).unwrap(),
        |engine, bead| engine.demote(bead, TierId::INTERPRETER).unwrap(),
        |engine, bead| engine.set_tier_cap(bead, TierId::INTERPRETER).unwrap(),
        |engine, bead| engine.blacklist(bead).unwrap(),
    ];
    let engine = builder().inline().tier(manual(trivial())).build().unwrap();
    for take in take {
        let heard = Arc::new(AtomicUsize::new(0));
        let hear = heard.clone();
        let info = BeadInfo::new().on_invalidate(move |_, what| {
            assert_eq!(what, Invalidation::Invalidated);
            hear.fetch_add(1, SeqCst);
        });
        let bead = engine.register_with(Core::ZERO, &info).unwrap();
        engine.compile_now(bead, T1, LONG).unwrap();
        take(&engine, bead);
        assert_eq!(heard.load(SeqCst), 1);
    }
}

#[test]
fn a_submitted_closure_whose_drop_panics_does_not_unwind_out_of_the_engines_drop() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("closure");
        }
    }
    let engine = builder().inline().tier(manual(trivial())).build().unwrap();
    let (bead, bomb) = (engine.register(Core::ZERO).unwrap(), Bomb);
    let compile = move |_: &mut Job<'_>| {
        std::mem::forget(bomb);
        Ok(code())
    };
    engine.submit(bead, T1, compile).unwrap();
    drop(engine);
}

#[test]
fn waits_never_run_into_their_timeout_whatever_happens_to_the_function() {
    let backend = FnBackend::new(|job: &mut Job<'_>| match job.bead().index() % 3 {
        0 => Err(CompileError::failed("no")),
        _ => Ok(code()),
    });
    let tiers = builder().workers(2).tier(manual(trivial())).tier(manual(backend));
    let engine = tiers.fault_limit(u32::MAX).build().unwrap();
    let (all, stop) = (beads(&engine, 4), AtomicBool::new(false));
    thread::scope(|scope| {
        let disturb = scope.spawn(|| {
            for round in 0.. {
                let bead = all[round % 4];
                match round % 5 {
                    0 => engine.invalidate(bead).unwrap(),
                    1 => engine.demote(bead, T1).unwrap(),
                    2 => {
                        engine.set_tier_cap(bead, T1).unwrap();
                        engine.set_tier_cap(bead, TierId::MAX).unwrap();
                    }
                    3 => drop(engine.submit(bead, T2, |_: &mut Job<'_>| Ok(code()))),
                    _ => drop(engine.pause()),
                }
                if stop.load(SeqCst) {
                    break;
                }
            }
        });
        let waiters = (0..2).map(|offset| {
            let (engine, all) = (&engine, &all);
            scope.spawn(move || {
                for round in offset..2_000 {
                    let tier = if round / 4 % 2 == 0 { T1 } else { T2 };
                    let ended = engine.compile_now(all[round % 4], tier, LONG);
                    assert!(!matches!(ended, Err(CompileNowError::Timeout { .. })), "{ended:?}");
                }
            })
        });
        let waiters: Vec<_> = waiters.collect();
        let ended: Vec<_> = waiters.into_iter().map(|waiter| waiter.join()).collect();
        stop.store(true, SeqCst);
        disturb.join().unwrap();
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    engine.drain(LONG).unwrap();
}
