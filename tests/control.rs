//! Direct control: compile now, submit, demote, cap, blacklist, filter, pause, switches, timeouts.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();
const NO_TIME: Duration = Duration::ZERO;

/// Runs `check` on an engine with a pool, on one with a pool handed in, and on an inline one.
fn on_all_executors(tiers: impl Fn(EngineBuilder) -> EngineBuilder, check: impl Fn(Engine)) {
    check(tiers(Engine::builder().capacity(1 << 10).workers(2)).build().unwrap());
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    check(tiers(Engine::builder().capacity(1 << 10).pool(pool)).build().unwrap());
    check(tiers(Engine::builder().capacity(1 << 10).inline()).build().unwrap());
}

fn two_tiers(builder: EngineBuilder) -> EngineBuilder {
    let second = FnBackend::new(|_: &mut Job<'_>| Ok(CompiledCode::new(addr(two))));
    builder.tier(Tier::new(trivial())).tier(Tier::new(second))
}

#[test]
fn compile_now_answers_the_version_of_the_code_or_the_error_of_the_compile() {
    on_all_executors(
        |builder| {
            builder.tier(Tier::new(FnBackend::new(|job| match job.core()?.get() {
                0 => Ok(code()),
                1 => Err(CompileError::failed("no")),
                _ => panic!("never"),
            })))
        },
        |engine| {
            let [good, bad, worse] = [0, 1, 2].map(|core| engine.register(Core::new(core)).unwrap());
            let version = engine.compile_now(good, T1, LONG).unwrap();
            assert_eq!(engine.version(good), Ok(version));
            assert_eq!(engine.compile_now(good, T1, NO_TIME), Ok(version), "it is there already");
            let failed = CompileNowError::Compile(CompileError::Failed("no".into()));
            assert_eq!(engine.compile_now(bad, T1, LONG), Err(failed));
            let panicked = engine.compile_now(worse, T1, LONG);
            assert!(matches!(panicked, Err(CompileNowError::Compile(CompileError::Panicked(_)))));
            let none = CompileNowError::Refused(PromoteError::NoSuchTier { tier: T2, tiers: 1 });
            assert_eq!(engine.compile_now(good, T2, LONG), Err(none));
        },
    );
}

#[test]
fn compile_now_on_a_paused_engine_waits_for_the_resume_or_its_timeout() {
    on_all_executors(two_tiers, |engine| {
        let bead = engine.register(Core::new(0)).unwrap();
        let pause = engine.pause();
        let timeout = engine.compile_now(bead, T1, Duration::from_millis(1));
        assert!(matches!(timeout, Err(CompileNowError::Timeout { .. })), "{timeout:?}");
        assert!(engine.state(bead).unwrap().pending.is_some(), "the request stays");
        let waiter = std::thread::spawn({
            let engine = engine.clone();
            move || engine.compile_now(bead, T1, LONG)
        });
        drop(pause);
        assert!(waiter.join().unwrap().is_ok());
        assert_eq!(engine.tier(bead), Ok(T1));
    });
}

#[test]
fn compile_now_from_a_pool_thread_does_not_deadlock() {
    let slot: Arc<Mutex<Option<Engine>>> = Arc::default();
    let inner = slot.clone();
    let engine = Engine::builder()
        .workers(1)
        .tier(Tier::new(FnBackend::new(move |job| {
            // The first function needs the second compiled, on the only thread there is.
            let first = inner.lock().unwrap().take();
            if let Some(engine) = first {
                let callee = engine.register(Core::new(1)).unwrap();
                engine.compile_now(callee, T1, LONG).map_err(CompileError::failed)?;
            }
            let _ = job;
            Ok(code())
        })))
        .build()
        .unwrap();
    *slot.lock().unwrap() = Some(engine.clone());
    let bead = engine.register(Core::new(0)).unwrap();
    assert!(engine.compile_now(bead, T1, LONG).is_ok());
    assert_eq!(engine.stats().installed, 2);
}

#[test]
fn a_cancelled_request_ends_the_wait_for_it() {
    on_all_executors(two_tiers, |engine| {
        let bead = engine.register(Core::new(0)).unwrap();
        let pause = engine.pause();
        let waiter = std::thread::spawn({
            let engine = engine.clone();
            move || engine.compile_now(bead, T1, LONG)
        });
        while engine.state(bead).unwrap().pending.is_none() {
            std::thread::yield_now();
        }
        engine.remove(bead).unwrap();
        let ended = waiter.join().unwrap();
        let stale = CompileNowError::Refused(PromoteError::Stale(Stale(bead)));
        assert!(ended == Err(CompileNowError::Superseded(bead)) || ended == Err(stale), "{ended:?}");
        drop(pause);
    });
}

#[test]
fn p38_a_submitted_compile_replaces_the_backend_once_also_on_a_compiled_function() {
    on_all_executors(two_tiers, |engine| {
        let bead = engine.register(Core::new(0)).unwrap();
        engine.compile_now(bead, T1, LONG).unwrap();
        #[inline(never)] // one address
        extern "C" fn three() -> u64 {
            3
        }
        engine
            .submit(bead, T2, |job| {
                assert_eq!(job.tier(), T2);
                Ok(CompiledCode::new(addr(three)))
            })
            .unwrap();
        engine.drain(LONG).unwrap();
        assert_eq!(engine.mutator().dispatch(bead).unwrap().as_ptr(), addr(three));
        engine.invalidate(bead).unwrap();
        engine.compile_now(bead, T2, LONG).unwrap();
        assert_eq!(engine.mutator().dispatch(bead).unwrap().as_ptr(), addr(two), "only once");
    });
}

#[test]
fn a_refused_submit_hands_the_closure_back_and_says_why() {
    let engine = two_tiers(Engine::builder().inline()).build().unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    let mine = Arc::new(());
    let compile = |mine: Arc<()>| {
        move |_: &mut Job<'_>| {
            drop(mine);
            Ok(code())
        }
    };
    engine.submit(bead, T1, compile(mine.clone())).unwrap();
    let refused = engine.submit(bead, T1, compile(mine.clone())).unwrap_err();
    assert_eq!(refused.reason, PromoteError::Pending { bead, tier: T1 });
    assert_eq!(Arc::strong_count(&mine), 3, "one waits, one was handed back");
    drop(refused);
    engine.remove(bead).unwrap();
    assert_eq!(Arc::strong_count(&mine), 1, "dropped with its request");
    let stale = engine.submit(bead, T1, compile(mine.clone())).unwrap_err();
    assert_eq!(stale.reason, PromoteError::Stale(Stale(bead)));
}

#[test]
fn a_submitted_compile_that_panics_is_an_outcome_and_its_batch_goes_on() {
    let engine = Engine::builder().inline().tier(Tier::new(trivial())).build().unwrap();
    let all = beads(&engine, 10);
    engine.submit(all[4], T1, |_| panic!("submitted")).unwrap();
    all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    engine.drain(LONG).unwrap();
    assert_eq!((engine.stats().installed, engine.stats().failed), (9, 1));
    assert!(matches!(engine.fault(all[4], T1).unwrap().last, CompileError::Panicked(_)));
}

#[test]
fn demoting_takes_code_back_to_the_tier_asked_for() {
    on_all_executors(two_tiers, |engine| {
        let bead = engine.register(Core::new(0)).unwrap();
        engine.compile_now(bead, T2, LONG).unwrap();
        engine.demote(bead, T1).unwrap();
        engine.drain(LONG).unwrap();
        assert_eq!(engine.tier(bead), Ok(T1));
        assert_eq!(engine.mutator().dispatch(bead).unwrap().as_ptr(), addr(one));
        engine.demote(bead, TierId::INTERPRETER).unwrap();
        engine.drain(LONG).unwrap();
        assert_eq!(engine.tier(bead), Ok(TierId::INTERPRETER));
        assert!(engine.mutator().dispatch(bead).is_none());
        assert!(engine.invocations(bead).unwrap() <= 1);
    });
}

#[test]
fn a_cap_takes_back_what_lies_above_it_and_bars_requests() {
    let engine = two_tiers(Engine::builder().inline()).build().unwrap();
    let [compiled, queued] = [0, 1].map(|core| engine.register(Core::new(core)).unwrap());
    engine.compile_now(compiled, T2, LONG).unwrap();
    engine.promote(queued, T2).unwrap();
    for bead in [compiled, queued] {
        engine.set_tier_cap(bead, T1).unwrap();
        assert_eq!(engine.tier(bead), Ok(TierId::INTERPRETER));
        assert_eq!(engine.state(bead).unwrap().pending, None);
        assert_eq!(engine.promote(bead, T2), Err(PromoteError::Barred { bead, tier: T2, cap: T1 }));
        engine.promote(bead, T1).unwrap();
    }
    engine.drain(LONG).unwrap();
    assert_eq!(engine.tier(queued), Ok(T1));
    engine.set_tier_cap(queued, TierId::MAX).unwrap();
    engine.promote(queued, T2).unwrap();
}

#[test]
fn a_blacklisted_function_is_interpreted_until_it_is_taken_off_the_list() {
    let engine =
        Engine::builder().inline().tier(Tier::new(trivial()).policy(Threshold::new(10))).build().unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    engine.compile_now(bead, T1, LONG).unwrap();
    engine.blacklist(bead).unwrap();
    let m = engine.mutator();
    (0..1_000).for_each(|_| assert!(m.dispatch(bead).is_none()));
    assert_eq!(engine.run_pending(usize::MAX), 0);
    let cap = TierId::INTERPRETER;
    assert_eq!(engine.promote(bead, T1), Err(PromoteError::Barred { bead, tier: T1, cap }));
    engine.unblacklist(bead).unwrap();
    (0..10).for_each(|_| m.tick(bead));
    assert_eq!(engine.run_pending(usize::MAX), 1);
}

#[test]
fn a_filter_keeps_functions_out_of_a_tier_by_name() {
    let tier = Tier::new(trivial())
        .policy(Threshold::new(5))
        .filter(|candidate| candidate.name.as_deref() != Some("secret"));
    let engine = Engine::builder().inline().tier(tier).build().unwrap();
    let secret = engine.register_with(Core::new(0), &BeadInfo::named("secret")).unwrap();
    let open = engine.register_with(Core::new(1), &BeadInfo::named("open")).unwrap();
    let m = engine.mutator();
    for _ in 0..100 {
        m.tick(secret);
        m.tick(open);
    }
    assert_eq!(engine.run_pending(usize::MAX), 1);
    assert_eq!(engine.tier(open), Ok(T1));
    assert_eq!(engine.promote(secret, T1), Err(PromoteError::Filtered { bead: secret, tier: T1 }));
}

#[test]
fn pauses_nest_and_requests_are_queued_meanwhile() {
    on_all_executors(two_tiers, |engine| {
        let all = beads(&engine, 100);
        let (outer, inner) = (engine.pause(), engine.pause());
        all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
        assert_eq!(engine.run_pending(usize::MAX), 0);
        drop(inner);
        assert!(engine.drain(Duration::from_millis(1)).is_err());
        assert_eq!(engine.stats().installed, 0);
        drop(outer);
        engine.drain(LONG).unwrap();
        assert_eq!(engine.stats().installed, 100);
    });
}

#[test]
fn p22_control_of_an_engine_that_never_started_never_blocks() {
    let engine = two_tiers(Engine::builder()).build().unwrap();
    for _ in 0..10_000 {
        drop(engine.pause());
        engine.set_enabled(false);
        engine.set_enabled(true);
        engine.set_tier_enabled(T2, false).unwrap();
        engine.set_max_parallel(T1, 1).unwrap();
        engine.set_batch(T1, 4).unwrap();
        engine.set_threshold_scale(2.0);
        engine.decay_tick();
        engine.reclaim();
    }
    engine.drain(LONG).unwrap();
    engine.shutdown(LONG).unwrap();
}

#[test]
fn a_disabled_engine_promotes_nothing_and_goes_on_when_it_is_enabled() {
    let engine =
        Engine::builder().inline().tier(Tier::new(trivial()).policy(Threshold::new(10))).build().unwrap();
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    engine.set_enabled(false);
    (0..500).for_each(|_| m.tick(bead));
    assert_eq!(engine.promote(bead, T1), Err(PromoteError::Disabled));
    assert_eq!(engine.run_pending(usize::MAX), 0);
    engine.set_enabled(true);
    (0..1_000).for_each(|_| m.tick(bead));
    assert_eq!(engine.run_pending(usize::MAX), 1);
}

#[test]
fn a_disabled_tier_is_passed_over_and_its_requests_wait() {
    let engine = two_tiers(Engine::builder().inline()).build().unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    engine.promote(bead, T2).unwrap();
    engine.set_tier_enabled(T2, false).unwrap();
    assert_eq!(engine.run_pending(usize::MAX), 0);
    engine.set_tier_enabled(T2, true).unwrap();
    assert_eq!(engine.run_pending(usize::MAX), 1);
    assert!(engine.set_tier_enabled(TierId::MAX, true).is_err());
}

#[test]
fn a_global_scale_moves_every_threshold() {
    for (scale, calls) in [(1.0, 100), (2.0, 200), (0.5, 50), (f64::NAN, 100), (-1.0, 100)] {
        let engine = Engine::builder()
            .inline()
            .tier(Tier::new(trivial()).policy(Threshold::new(100)))
            .build()
            .unwrap();
        engine.set_threshold_scale(scale);
        let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
        let asked = (1..=1_000).find(|_| {
            m.tick(bead);
            engine.state(bead).unwrap().pending.is_some()
        });
        assert_eq!(asked, Some(calls), "scale {scale}");
    }
}

#[test]
fn an_eager_engine_compiles_everything_at_the_baseline_first() {
    let engine = two_tiers(Engine::builder().inline().eager_baseline(true)).build().unwrap();
    let single = engine.register(Core::new(0)).unwrap();
    let bulk = beads(&engine, 50);
    engine.run_pending(usize::MAX);
    assert!(bulk.iter().chain([&single]).all(|&bead| engine.tier(bead) == Ok(T1)));
}

#[test]
fn a_late_result_after_a_timeout_is_dropped() {
    let time = Arc::new(AtomicU64::new(0));
    let (clock, passes) = (time.clone(), time.clone());
    let alive = Alive::default();
    let compiled = alive.clone();
    let slow = FnBackend::new(move |_| {
        passes.fetch_add(100, SeqCst);
        Ok(compiled.code())
    });
    let engine = Engine::builder()
        .inline()
        .clock(move || Duration::from_millis(clock.load(SeqCst)))
        .tier(Tier::new(slow).timeout(Duration::from_millis(50)))
        .build()
        .unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    let limit = Duration::from_millis(50);
    assert_eq!(
        engine.compile_now(bead, T1, LONG),
        Err(CompileNowError::Compile(CompileError::TimedOut { limit }))
    );
    assert_eq!((alive.count(), alive.ever(), engine.tier(bead)), (0, 1, Ok(TierId::INTERPRETER)));
    assert_eq!(engine.fault(bead, T1).unwrap().failures, 1);
}

#[test]
fn p10_a_tier_that_keeps_failing_is_given_up_with_its_reason_and_lower_tiers_go_on() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let given_up = Arc::new(Mutex::new(vec![]));
    let sink = given_up.clone();
    let engine = Engine::builder()
        .inline()
        .tier(Tier::new(trivial()).policy(Threshold::new(10)))
        .tier(
            Tier::new(FnBackend::new(move |_| {
                counted.fetch_add(1, SeqCst);
                Err(CompileError::failed("too hard"))
            }))
            .policy(Threshold::new(100)),
        )
        .on_event(move |event| {
            if let Event::GaveUp { bead, tier, .. } = event {
                sink.lock().unwrap().push((*bead, *tier));
            }
        })
        .build()
        .unwrap();
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    let mut asked_at = vec![];
    for call in 1..=200_000u32 {
        m.tick(bead);
        let before = tries.load(SeqCst);
        engine.run_pending(usize::MAX);
        if tries.load(SeqCst) > before {
            asked_at.push(call);
        }
    }
    // The pause doubles: 1,000, 2,000, 4,000, 8,000 calls; the fifth failure is the last.
    assert_eq!(asked_at, [100, 1_100, 3_100, 7_100, 15_100]);
    assert_eq!(*given_up.lock().unwrap(), [(bead, T2)]);
    assert_eq!(engine.tier(bead), Ok(T1), "the lower tier's code runs on");
    assert_eq!(engine.fault(bead, T2).unwrap().last, CompileError::Failed("too hard".into()));
    assert_eq!(engine.promote(bead, T2), Err(PromoteError::Barred { bead, tier: T2, cap: T1 }));
}

#[test]
fn p6_a_failing_compile_is_not_retried_in_a_storm() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let engine = inline(10, move |_| {
        counted.fetch_add(1, SeqCst);
        Err(CompileError::failed("never"))
    });
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    for _ in 0..1_000_000 {
        m.tick(bead);
        engine.run_pending(1);
    }
    assert_eq!(tries.load(SeqCst), DEFAULT_FAULT_LIMIT);
}
