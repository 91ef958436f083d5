//! Dispatch, counting and promotion, seen from a mutator.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

#[test]
fn a_function_is_interpreted_until_its_threshold_and_native_after_the_compile() {
    let engine = inline(10, |_| Ok(code()));
    let (bead, m) = (engine.register(Core::new(7)).unwrap(), engine.mutator());
    for call in 1..=10 {
        assert!(m.dispatch(bead).is_none());
        assert_eq!(engine.invocations(bead).unwrap(), call);
        let pending = engine.state(bead).unwrap().pending;
        assert_eq!(pending, (call == 10).then_some(PendingState::Queued(TierId::BASELINE)));
    }
    assert_eq!(engine.run_pending(usize::MAX), 1);
    assert_eq!(m.dispatch(bead).unwrap().as_ptr(), addr(one));
    assert_eq!(m.code(bead).unwrap().addr(), addr(one) as u64);
    assert_eq!(engine.tier(bead).unwrap(), TierId::BASELINE);
}

#[test]
fn tick_counts_like_dispatch_and_code_does_not_count() {
    let engine = inline(100, |_| Ok(code()));
    let (bead, m) = (engine.register(Core::new(7)).unwrap(), engine.mutator());
    for _ in 0..30 {
        m.tick(bead);
        assert!(m.code(bead).is_none());
        m.dispatch(bead);
    }
    assert_eq!(engine.invocations(bead).unwrap(), 60);
}

#[test]
fn p40_a_threshold_is_crossed_not_hit() {
    // The policy is asked only every 64 calls, so no count it sees equals the threshold.
    let engine = Engine::builder()
        .inline()
        .tier(Tier::new(trivial()).policy(|activity: &Activity| {
            if activity.calls >= 100 { Verdict::Promote } else { Verdict::wait(64) }
        }))
        .build()
        .unwrap();
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    (0..200).for_each(|_| m.tick(bead));
    assert_eq!(engine.run_pending(usize::MAX), 1);
    assert!(m.dispatch(bead).is_some());
}

#[test]
fn queueing_ahead_asks_for_the_compile_that_many_calls_early() {
    let engine = Engine::builder()
        .inline()
        .tier(Tier::new(trivial()).policy(Threshold::new(100).queue_ahead(40)))
        .build()
        .unwrap();
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    (0..59).for_each(|_| m.tick(bead));
    assert_eq!(engine.state(bead).unwrap().pending, None);
    m.tick(bead);
    assert!(engine.state(bead).unwrap().pending.is_some());
}

#[test]
fn one_compile_per_function_however_many_threads_cross_together() {
    for _ in 0..1_000 {
        let compiles = Arc::new(AtomicU32::new(0));
        let counted = compiles.clone();
        let engine = Engine::builder()
            .capacity(1 << 10)
            .workers(2)
            .tier(
                Tier::new(FnBackend::new(move |_| {
                    counted.fetch_add(1, SeqCst);
                    Ok(code())
                }))
                .policy(Threshold::new(50)),
            )
            .build()
            .unwrap();
        let bead = engine.register(Core::new(0)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let m = engine.mutator();
                    (0..200).for_each(|_| {
                        m.dispatch(bead);
                    });
                });
            }
        });
        engine.drain(LONG).unwrap();
        assert_eq!(compiles.load(SeqCst), 1);
    }
}

#[test]
fn p1_every_request_is_compiled_when_requests_meet_workers_going_idle() {
    let engine = Engine::builder().workers(2).tier(Tier::new(trivial()).batch(1)).build().unwrap();
    let beads = beads(&engine, 20_000);
    for pair in beads.chunks(2) {
        // Small bursts, so that workers go idle between them all the time.
        std::thread::scope(|scope| {
            scope.spawn(|| engine.promote(pair[0], TierId::BASELINE).unwrap());
            engine.promote(pair[1], TierId::BASELINE).unwrap();
        });
    }
    // Only looked at: a drain, or one more request, would wake a worker for what was lost.
    eventually("every request is compiled", || engine.stats().installed == 20_000);
    assert_eq!(engine.stats().queued, 0);
}

#[test]
fn p39_no_thread_starts_before_the_first_request() {
    let named = || {
        std::fs::read_dir("/proc/self/task").map_or(0, |tasks| {
            tasks
                .flatten()
                .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
                .filter(|name| name.starts_with("p39-pool"))
                .count()
        })
    };
    let on_pool = Arc::new(Mutex::new(None));
    let seen = on_pool.clone();
    let engine = Engine::builder()
        .workers(3)
        .thread_names("p39-pool")
        .tier(Tier::new(FnBackend::new(move |_| {
            *seen.lock().unwrap() = std::thread::current().name().map(String::from);
            Ok(code())
        })))
        .build()
        .unwrap();
    let (bead, mut m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    for _ in 0..999 {
        m.dispatch(bead);
        m.safepoint();
    }
    assert_eq!(named(), 0);
    m.dispatch(bead);
    engine.drain(LONG).unwrap();
    assert!(on_pool.lock().unwrap().as_ref().unwrap().starts_with("p39-pool"));
}

#[test]
fn an_engine_without_tiers_counts_and_serves_what_the_vm_installs() {
    let engine = Engine::builder().build().unwrap();
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    (0..10).for_each(|_| assert!(m.dispatch(bead).is_none()));
    assert_eq!(engine.invocations(bead).unwrap(), 10);
    engine.install(bead, TierId::BASELINE, code()).unwrap();
    assert!(m.dispatch(bead).is_some());
}

#[test]
fn code_of_a_lower_tier_is_counted_for_the_next_one_and_keeps_running_meanwhile() {
    let engine = Engine::builder()
        .inline()
        .tier(Tier::new(trivial()).policy(Threshold::new(10)))
        .tier(Tier::new(FnBackend::new(|_| Ok(CompiledCode::new(addr(two))))).policy(Threshold::new(30)))
        .build()
        .unwrap();
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    (0..10).for_each(|_| m.tick(bead));
    engine.run_pending(usize::MAX);
    (0..20).for_each(|_| assert_eq!(m.dispatch(bead).unwrap().as_ptr(), addr(one)));
    assert_eq!(engine.state(bead).unwrap().pending, Some(PendingState::Queued(TierId::new(2).unwrap())));
    assert_eq!(m.dispatch(bead).unwrap().as_ptr(), addr(one), "native while it waits");
    engine.run_pending(usize::MAX);
    assert_eq!(m.dispatch(bead).unwrap().as_ptr(), addr(two));
    let calls = engine.invocations(bead).unwrap();
    m.dispatch(bead);
    assert_eq!(engine.invocations(bead).unwrap(), calls, "the top tier is not counted");
}

#[test]
fn a_higher_request_follows_a_compile_in_flight() {
    let engine_cell: Arc<Mutex<Option<Engine>>> = Arc::default();
    let inner = engine_cell.clone();
    let top = TierId::new(2).unwrap();
    let engine = Engine::builder()
        .inline()
        .tier(Tier::new(FnBackend::new(move |job: &mut Job<'_>| {
            let engine = inner.lock().unwrap().clone().unwrap();
            engine.promote(job.bead(), top).unwrap();
            assert_eq!(
                engine.state(job.bead()).unwrap().pending,
                Some(PendingState::CompilingThenQueued(top))
            );
            Ok(code())
        })))
        .tier(Tier::new(FnBackend::new(|_| Ok(CompiledCode::new(addr(two))))))
        .build()
        .unwrap();
    *engine_cell.lock().unwrap() = Some(engine.clone());
    let bead = engine.register(Core::new(0)).unwrap();
    engine.promote(bead, TierId::BASELINE).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(bead).unwrap(), top);
    *engine_cell.lock().unwrap() = None;
}

#[test]
fn promoting_to_a_tier_that_does_not_exist_is_refused_by_name() {
    let engine = inline(10, |_| Ok(code()));
    let bead = engine.register(Core::new(0)).unwrap();
    let tier = TierId::new(2).unwrap();
    assert_eq!(engine.promote(bead, tier), Err(PromoteError::NoSuchTier { tier, tiers: 1 }));
    assert!(engine.promote(bead, TierId::INTERPRETER).is_err());
    assert!(engine.install(bead, tier, code()).is_err());
}

#[test]
fn p23_sampled_counts_are_right_for_every_seed() {
    for seed in 0..100 {
        let engine = Engine::builder().capacity(64).seed(seed).sampling(10).build().unwrap();
        let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
        (0..100_000).for_each(|_| m.tick(bead));
        let estimate = engine.invocations(bead).unwrap();
        assert!((99_000..=101_000).contains(&estimate), "seed {seed}: {estimate}");
    }
}

#[test]
fn sampling_counts_each_of_several_functions_called_in_a_fixed_pattern() {
    // Ten functions in turn: a fixed stride of 10 would count one of them and never the others.
    let engine = Engine::builder().capacity(64).seed(3).sampling(10).build().unwrap();
    let (all, m) = (beads(&engine, 10), engine.mutator());
    (0..10_000).for_each(|_| all.iter().for_each(|&bead| m.tick(bead)));
    for &bead in &all {
        let estimate = engine.invocations(bead).unwrap();
        assert!((9_000..=11_000).contains(&estimate), "{bead}: {estimate}");
    }
}

#[test]
fn a_foreground_engine_has_compiled_when_the_request_returns() {
    let engine =
        Engine::builder().foreground().tier(Tier::new(trivial()).policy(Threshold::new(10))).build().unwrap();
    let (hot, asked, m) =
        (engine.register(Core::new(0)).unwrap(), engine.register(Core::new(1)).unwrap(), engine.mutator());
    (0..10).for_each(|_| assert!(m.dispatch(hot).is_none()));
    assert!(m.dispatch(hot).is_some());
    engine.promote(asked, TierId::BASELINE).unwrap();
    assert_eq!(engine.tier(asked), Ok(TierId::BASELINE));
}

#[test]
fn code_words_read_as_documented_answer_what_a_dispatch_answers() {
    use std::sync::atomic::Ordering::Acquire;
    let tier =
        || Tier::new(FnBackend::new(|_: &mut Job<'_>| Err(CompileError::failed("none")))).policy(Manual);
    let engine = Engine::builder().inline().capacity(64).tier(tier()).tier(tier()).build().unwrap();
    let mut m = engine.mutator();
    // `Ok` where the words alone are enough.
    let documented = |m: &beadwork::Mutator, bead: Bead| {
        let words = m.code_words();
        // SAFETY: the masked index is inside of the column, which lives as long as the engine.
        #[allow(unsafe_code)]
        let word = unsafe { (*words.base.add((bead.index() & words.mask) as usize)).load(Acquire) };
        let rest = word ^ u64::from(bead.generation().get() - 1) << 49;
        if rest > 0 && rest < 1 << 48 { Ok(rest) } else { Err(rest) }
    };
    let (mut ready, mut asked) = (0, 0);
    for generation in 1..=3 {
        let bead = engine.register(Core::ZERO).unwrap();
        assert_eq!(bead.generation().get(), generation);
        for tier in [None, Some(TierId::BASELINE), TierId::new(2)] {
            if let Some(tier) = tier {
                engine.install(bead, tier, code()).unwrap();
            }
            match documented(&m, bead) {
                Ok(entry) => {
                    ready += 1;
                    assert_eq!(m.dispatch(bead).map(|code| code.addr()), Some(entry));
                }
                Err(_) => asked += 1,
            }
        }
        engine.remove(bead).unwrap();
        assert!(documented(&m, bead).is_err() && m.dispatch(bead).is_none());
        m.safepoint();
        engine.reclaim();
    }
    // Cold code and counted baseline code are for `dispatch`; code of the highest tier is not.
    assert_eq!((ready, asked), (3, 6));
}
