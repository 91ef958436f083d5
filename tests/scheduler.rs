//! Who is compiled first. Deterministic: a virtual clock, an inline engine, or backends that wait for events.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

/// A backend that notes what it compiled.
fn noting(
    order: &Arc<Mutex<Vec<Bead>>>,
) -> FnBackend<impl Fn(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + Sync + use<>> {
    let order = order.clone();
    FnBackend::new(move |job: &mut Job<'_>| {
        order.lock().unwrap().push(job.bead());
        Ok(code())
    })
}

#[test]
fn what_is_called_while_it_waits_is_compiled_before_thousands_that_are_not() {
    let order = Arc::new(Mutex::new(vec![]));
    let engine =
        Engine::builder().capacity(1 << 14).workers(1).tier(Tier::new(noting(&order))).build().unwrap();
    let all = beads(&engine, 10_000);
    let pause = engine.pause();
    all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    let (hot, m) = (all[7_777], engine.mutator());
    (0..1_000).for_each(|_| m.tick(hot));
    drop(pause);
    engine.drain(LONG).unwrap();
    let order = order.lock().unwrap();
    let place = order.iter().position(|&bead| bead == hot).unwrap();
    assert!(place < 100, "compiled as number {place}");
    assert_eq!(order.len(), 10_000);
}

#[test]
fn what_becomes_hot_later_overtakes_because_ranks_are_renewed() {
    let (order, now) = (Arc::new(Mutex::new(vec![])), Arc::new(AtomicU64::new(0)));
    let clock = now.clone();
    let engine = Engine::builder()
        .capacity(1 << 12)
        .inline()
        .tier(Tier::new(noting(&order)))
        .clock(move || Duration::from_millis(clock.load(SeqCst)))
        .build()
        .unwrap();
    let all = beads(&engine, 2_000);
    all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    engine.run_pending(100);
    now.store(100, SeqCst);
    let (late, m) = (all[1_999], engine.mutator());
    (0..500).for_each(|_| m.tick(late));
    engine.run_pending(usize::MAX);
    let place = order.lock().unwrap().iter().position(|&bead| bead == late).unwrap();
    assert!(place <= 1_100, "compiled as number {place}");
}

#[test]
fn equals_are_compiled_in_order_of_arrival_and_what_somebody_waits_for_comes_first() {
    let order = Arc::new(Mutex::new(vec![]));
    let engine = Engine::builder()
        .capacity(1 << 10)
        .inline()
        .tier(Tier::new(noting(&order)).batch(1))
        .build()
        .unwrap();
    let all = beads(&engine, 100);
    all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    engine.compile_now(all[60], T1, LONG).unwrap();
    assert_eq!(order.lock().unwrap()[0], all[60]);
    engine.run_pending(usize::MAX);
    let rest: Vec<_> = order.lock().unwrap().iter().copied().filter(|&bead| bead != all[60]).collect();
    let expected: Vec<_> = all.iter().copied().filter(|&bead| bead != all[60]).collect();
    assert_eq!(rest, expected);
}

#[test]
fn a_request_gone_cold_is_dropped_and_the_function_has_to_earn_its_threshold_anew() {
    let (time, cooled) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(vec![])));
    let (clock, sink) = (time.clone(), cooled.clone());
    let engine = Engine::builder()
        .inline()
        .clock(move || Duration::from_millis(clock.load(SeqCst)))
        .cold_after(Duration::from_millis(50))
        .tier(Tier::new(trivial()).policy(Threshold::new(10)))
        .on_event(move |event| {
            if let Event::Cooled { bead, .. } = event {
                sink.lock().unwrap().push(*bead);
            }
        })
        .build()
        .unwrap();
    let [cold, warm, asked] = [0, 1, 2].map(|core| engine.register(Core::new(core)).unwrap());
    let m = engine.mutator();
    for _ in 0..10 {
        m.tick(cold);
        m.tick(warm);
    }
    engine.promote(asked, T1).unwrap();
    time.store(51, SeqCst);
    m.tick(warm);
    engine.run_pending(usize::MAX);
    assert_eq!(*cooled.lock().unwrap(), [cold]);
    assert_eq!([cold, warm, asked].map(|bead| engine.tier(bead).unwrap()), [TierId::INTERPRETER, T1, T1]);
    assert_eq!(engine.state(cold).unwrap().pending, None);
    (0..9).for_each(|_| m.tick(cold));
    assert_eq!(engine.state(cold).unwrap().pending, None);
    m.tick(cold);
    assert!(engine.state(cold).unwrap().pending.is_some());
}

#[test]
fn p21_baseline_compiles_never_wait_for_optimizing_ones_while_a_worker_is_free() {
    for workers in [2, 4] {
        let (release, inside) = (Latch::default(), Latch::default());
        let _release = Finally(|| release.open());
        let (blocked, running) = (release.clone(), Arc::new(AtomicUsize::new(0)));
        let (entered, begun) = (running.clone(), inside.clone());
        let slow = FnBackend::new(move |_| {
            if entered.fetch_add(1, SeqCst) + 1 == workers - 1 {
                begun.open();
            }
            blocked.wait();
            Ok(CompiledCode::new(addr(two)))
        });
        let builder = Engine::builder().workers(workers);
        let engine = builder.tier(Tier::new(trivial())).tier(Tier::new(slow)).build().unwrap();
        let all = beads(&engine, 1_000);
        // More optimizing requests than workers; they leave one worker to the baseline.
        all[..10].iter().for_each(|&bead| engine.promote(bead, T2).unwrap());
        inside.wait();
        all[10..].iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
        for &bead in &all[10..] {
            engine.compile_now(bead, T1, LONG).unwrap();
        }
        assert_eq!(running.load(SeqCst), workers - 1, "optimizing compiles of {workers} workers");
        release.open();
        engine.drain(LONG).unwrap();
        assert!(all[..10].iter().all(|&bead| engine.tier(bead) == Ok(T2)), "with {workers} workers");
    }
}

#[test]
fn p21_baseline_compiles_wait_for_one_optimizing_one_at_the_most_where_there_is_one_worker() {
    let (release, inside) = (Latch::default(), Latch::default());
    let _release = Finally(|| release.open());
    let (order, blocked, begun) = (Arc::new(Mutex::new(vec![])), release.clone(), inside.clone());
    let [note, notes] = [(); 2].map(|()| order.clone());
    let quick = FnBackend::new(move |job: &mut Job<'_>| {
        note.lock().unwrap().push(job.tier());
        Ok(code())
    });
    let slow = FnBackend::new(move |job: &mut Job<'_>| {
        notes.lock().unwrap().push(job.tier());
        begun.open();
        blocked.wait();
        Ok(code())
    });
    let engine = Engine::builder().workers(1).tier(Tier::new(quick)).tier(Tier::new(slow)).build().unwrap();
    let all = beads(&engine, 110);
    all[..10].iter().for_each(|&bead| engine.promote(bead, T2).unwrap());
    inside.wait();
    // The one worker is at the first of ten, and all that are asked for now are before the other nine.
    all[10..].iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    release.open();
    engine.drain(LONG).unwrap();
    let expected: Vec<_> = [vec![T2; 1], vec![T1; 100], vec![T2; 9]].concat();
    assert_eq!(*order.lock().unwrap(), expected);
}

#[test]
fn with_one_worker_lower_tiers_go_first_between_jobs() {
    let order = Arc::new(Mutex::new(vec![]));
    let note = |order: &Arc<Mutex<Vec<TierId>>>| {
        let order = order.clone();
        FnBackend::new(move |job: &mut Job<'_>| {
            order.lock().unwrap().push(job.tier());
            Ok(code())
        })
    };
    let engine = Engine::builder()
        .inline()
        .tier(Tier::new(note(&order)))
        .tier(Tier::new(note(&order)))
        .build()
        .unwrap();
    let all = beads(&engine, 20);
    all[..10].iter().for_each(|&bead| engine.promote(bead, T2).unwrap());
    engine.run_pending(3);
    all[10..].iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    engine.run_pending(usize::MAX);
    let expected: Vec<_> = [vec![T2; 3], vec![T1; 10], vec![T2; 7]].concat();
    assert_eq!(*order.lock().unwrap(), expected);
}

#[test]
fn p2_a_function_is_not_queued_again_before_its_compile_is_installed_or_has_failed() {
    for fails in [false, true] {
        let (inside, go) = (Latch::default(), Latch::default());
        let _go = Finally(|| go.open());
        let (entered, may_go, compiles) = (inside.clone(), go.clone(), Arc::new(AtomicUsize::new(0)));
        let counts = compiles.clone();
        let backend = FnBackend::new(move |_: &mut Job<'_>| {
            let first = counts.fetch_add(1, SeqCst) == 0;
            entered.open();
            may_go.wait();
            if first && fails { Err(CompileError::failed("the first time")) } else { Ok(code()) }
        });
        let tier = Tier::new(backend).policy(Threshold::new(20)).batch(1).max_parallel(3);
        let engine = Engine::builder().capacity(4).workers(3).tier(tier).build().unwrap();
        let bead = engine.register(Core::new(0)).unwrap();
        engine.promote(bead, T1).unwrap();
        inside.wait();
        // It was dequeued, and is not installed; two workers have nothing to do.
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let m = engine.mutator();
                    for _ in 0..3_000 {
                        assert!(m.dispatch(bead).is_none());
                        assert_eq!(engine.promote(bead, T1), Ok(()));
                        let refused =
                            engine.submit(bead, T1, |_: &mut Job<'_>| Ok(code())).unwrap_err().reason;
                        assert!(matches!(refused, PromoteError::Pending { .. }), "{refused}");
                    }
                });
            }
        });
        assert_eq!(engine.state(bead).unwrap().pending, Some(PendingState::Compiling(T1)));
        let stats = engine.stats();
        assert_eq!((stats.requested, stats.queued, compiles.load(SeqCst)), (1, 0, 1));
        go.open();
        engine.drain(LONG).unwrap();
        assert_eq!((compiles.load(SeqCst), engine.tier(bead).unwrap() == T1), (1, !fails));
        engine.promote(bead, T1).unwrap();
        engine.drain(LONG).unwrap();
        assert_eq!((compiles.load(SeqCst), engine.tier(bead)), (1 + usize::from(fails), Ok(T1)));
    }
}

#[test]
fn p5_a_burst_of_any_size_is_queued_and_compiled() {
    let engine = Engine::builder().workers(1).tier(Tier::new(trivial())).build().unwrap();
    let all = beads(&engine, 100_000);
    all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    engine.drain(LONG).unwrap();
    assert_eq!(engine.stats().installed, 100_000);
}

#[test]
fn requests_are_made_while_the_only_worker_is_stuck_in_a_compile() {
    let release = Latch::default();
    let _release = Finally(|| release.open());
    let blocked = release.clone();
    let engine = Engine::builder()
        .workers(1)
        .tier(Tier::new(FnBackend::new(move |_| {
            blocked.wait();
            Ok(code())
        })))
        .build()
        .unwrap();
    let all = beads(&engine, 10_000);
    std::thread::scope(|scope| {
        for part in all.chunks(2_500) {
            let engine = &engine;
            scope.spawn(move || part.iter().for_each(|&bead| engine.promote(bead, T1).unwrap()));
        }
    });
    assert_eq!(engine.stats().requested, 10_000);
    release.open();
    engine.drain(LONG).unwrap();
    assert_eq!(engine.stats().installed, 10_000);
}

#[test]
fn nested_rayon_work_inside_a_backend_on_another_pool_is_fine() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let engine = Engine::builder()
        .workers(1)
        .tier(Tier::new(FnBackend::new(move |_| {
            let (a, b) = pool.install(|| rayon::join(|| 1, || 2));
            assert_eq!(a + b, 3);
            Ok(code())
        })))
        .build()
        .unwrap();
    let all = beads(&engine, 100);
    all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    engine.drain(LONG).unwrap();
    assert_eq!(engine.stats().installed, 100);
}

#[test]
fn p20_a_backlog_is_admitted_at_a_rate_bounded_by_what_waits() {
    let policy = || Threshold::new(100).scaled_by_load(5);
    let engine = Engine::builder()
        .capacity(1 << 14)
        .inline()
        .tier(Tier::new(trivial()).policy(policy()))
        .build()
        .unwrap();
    let (all, m) = (beads(&engine, 5_000), engine.mutator());
    // Nothing is compiled meanwhile, as at a slow start; every function gets ten times its threshold of calls.
    for _ in 0..1_000 {
        all.iter().for_each(|&bead| m.tick(bead));
    }
    // A request into a queue of q takes 100 * (q / 5 + 1) calls, so of 1,000 calls each, q is 45 at most.
    let backlog = engine.stats().queued;
    assert!((10..=46).contains(&backlog), "{backlog} wait");
    // Then a compile for each round of calls: what has waited so long is not let in all at once, and is let in.
    let mut rounds = 0;
    while engine.stats().installed < 5_000 {
        engine.run_pending(5);
        all.iter().for_each(|&bead| m.tick(bead));
        // Of N calls, q is N / 20 at most by the formula; but a wait is stretched to 1,000 calls at the most, so all ask that often.
        let (queued, calls) = (engine.stats().queued, 1_000 + rounds);
        assert!(queued <= calls / 20, "{queued} wait after {calls} calls");
        rounds += 1;
        assert!(rounds < 20_000, "{:?}", engine.stats());
    }
}

#[test]
fn a_group_is_promoted_in_one_call() {
    let engine = Engine::builder().inline().tier(Tier::new(trivial())).build().unwrap();
    let (group, other) = (engine.group().unwrap(), beads(&engine, 5));
    let members: Vec<_> = engine.register_group(group, (0..1_000).map(Core::new)).unwrap().iter().collect();
    engine.blacklist(members[3]).unwrap();
    let refused = engine.promote_group(group, T1).unwrap();
    assert_eq!(
        refused,
        [(members[3], PromoteError::Barred { bead: members[3], tier: T1, cap: TierId::INTERPRETER })]
    );
    engine.drain(LONG).unwrap();
    assert_eq!(engine.stats().installed, 999);
    assert!(other.iter().all(|&bead| engine.tier(bead) == Ok(TierId::INTERPRETER)));
    engine.remove_group(group);
    assert_eq!(engine.promote_group(group, T1), None);
}

/// An inline engine of one bead whose tier is entered at 5 calls, and whose requests are cold after 10 seconds.
fn cooling(time: &Time) -> Engine {
    Engine::builder()
        .capacity(1)
        .inline()
        .clock(time.clock())
        .cold_after(Duration::from_secs(10))
        .tier(Tier::new(trivial()).policy(Threshold::new(5)))
        .build()
        .unwrap()
}

const COLD: u64 = 60_000;

#[test]
fn what_is_asked_for_after_a_cancelled_hot_request_is_not_dropped_as_cold() {
    let time = Time::default();
    let engine = cooling(&time);
    let bead = engine.register(Core::new(0)).unwrap();
    let m = engine.mutator();
    (0..10).for_each(|_| m.tick(bead));
    time.set(COLD);
    engine.invalidate(bead).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(bead), Ok(T1));
}

#[test]
fn what_is_asked_for_of_a_reused_index_is_not_dropped_for_the_former_functions_age() {
    let time = Time::default();
    let engine = cooling(&time);
    let old = engine.register(Core::new(0)).unwrap();
    let mut m = engine.mutator();
    (0..10).for_each(|_| m.tick(old));
    time.set(COLD);
    engine.remove(old).unwrap();
    m.safepoint();
    let new = engine.register(Core::new(1)).unwrap();
    engine.promote(new, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(new), Ok(T1));
}

#[test]
fn a_hot_request_that_is_asked_for_explicitly_as_well_is_not_dropped_as_cold() {
    let time = Time::default();
    let engine = cooling(&time);
    let bead = engine.register(Core::new(0)).unwrap();
    let m = engine.mutator();
    (0..5).for_each(|_| m.tick(bead));
    assert!(engine.state(bead).unwrap().pending.is_some());
    time.set(COLD);
    engine.promote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(bead), Ok(T1));
}

#[test]
fn a_job_is_not_shown_why_the_former_function_of_its_index_was_asked_for() {
    let seen = Arc::new(Mutex::new(vec![]));
    let sink = seen.clone();
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        sink.lock().unwrap().push((job.bead(), job.reason(), job.calls()));
        Ok(code())
    });
    let engine = Engine::builder()
        .capacity(1)
        .inline()
        .tier(Tier::new(backend).policy(Threshold::new(500)))
        .build()
        .unwrap();
    let (old, mut m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    (0..600).for_each(|_| m.tick(old));
    engine.remove(old).unwrap();
    m.safepoint();
    let new = engine.register(Core::new(1)).unwrap();
    engine.promote(new, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(*seen.lock().unwrap(), [(new, Reason::Resumed, 0)]);
}
