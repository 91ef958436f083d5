//! Every request has one outcome, which is told once and counted once, and failures cost what they are said to cost.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

/// An engine that a backend or listener finds once.
type Slot = Arc<Mutex<Option<Engine>>>;

fn builder() -> EngineBuilder {
    Engine::builder().capacity(1 << 12)
}

fn manual(backend: impl Backend) -> Tier {
    Tier::new(backend).policy(Manual)
}

fn failed() -> Result<CompiledCode, CompileError> {
    Err(CompileError::failed("not this time"))
}

#[test]
fn a_compile_that_takes_too_long_fails_once_however_often_it_is_looked_at() {
    let (time, told) = (Time::default(), Arc::new(AtomicUsize::new(0)));
    let (backend, inside, go) = held();
    let tell = told.clone();
    let engine = builder()
        .workers(1)
        .clock(time.clock())
        .tier(manual(backend).timeout(Duration::from_millis(50)))
        .on_event(move |event| {
            if let Event::Failed { .. } | Event::Discarded { .. } = event {
                tell.fetch_add(1, SeqCst);
            }
        })
        .build()
        .unwrap();
    let _go = Finally(|| go.open());
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    inside.wait();
    time.set(1_000);
    (0..100).for_each(|_| _ = engine.run_pending(1));
    let stats = engine.stats();
    assert_eq!((told.load(SeqCst), stats.failed, stats.discarded), (1, 1, 0), "it has not come back yet");
}

#[test]
fn what_a_batch_has_installed_is_not_discarded_when_the_rest_takes_too_long() {
    let (time, done) = (Time::default(), AtomicU64::new(0));
    let passes = time.clone();
    let (installed, discarded) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(vec![])));
    let (i, d) = (installed.clone(), discarded.clone());
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        passes.set(40 * (done.fetch_add(1, SeqCst) + 1));
        Ok(code())
    });
    let engine = builder()
        .inline()
        .clock(time.clock())
        .tier(manual(backend).timeout(Duration::from_millis(50)).batch(3))
        .on_event(move |event| match event {
            Event::Installed { bead, .. } => i.lock().unwrap().push(*bead),
            Event::Discarded { bead, .. } => d.lock().unwrap().push(*bead),
            _ => (),
        })
        .build()
        .unwrap();
    beads(&engine, 3).iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    engine.run_pending(usize::MAX);
    let (installed, discarded) = (installed.lock().unwrap(), discarded.lock().unwrap());
    assert!(!installed.is_empty());
    assert!(installed.iter().all(|bead| !discarded.contains(bead)), "{installed:?}, {discarded:?}");
}

#[test]
fn a_shutdown_names_of_a_batch_only_what_is_stuck() {
    let (inside, go) = (Latch::default(), Latch::default());
    let (at, until) = (inside.clone(), go.clone());
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        if job.core()?.get() == 2 {
            at.open();
            until.wait();
        }
        Ok(code())
    });
    let engine = builder().workers(1).tier(Tier::new(backend)).build().unwrap();
    let _go = Finally(|| go.open());
    let all = beads(&engine, 3);
    let pause = engine.pause();
    all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    drop(pause);
    inside.wait();
    assert_eq!([engine.tier(all[0]), engine.tier(all[1])], [Ok(T1), Ok(T1)]);
    let compiling = engine.stats().compiling;
    let error = engine.shutdown(Duration::from_millis(1)).unwrap_err();
    assert_eq!((error.stuck, compiling), (vec![(all[2], T1)], 1));
}

#[test]
fn the_pause_after_a_failure_does_not_grow_with_an_invalidation() {
    let tries = Arc::new(AtomicU32::new(0));
    let count = tries.clone();
    let fails_once = FnBackend::new(move |_: &mut Job<'_>| match count.fetch_add(1, SeqCst) {
        0 => failed(),
        _ => Ok(code()),
    });
    let engine = builder()
        .inline()
        .tier(Tier::new(trivial()).policy(Threshold::new(10)))
        .tier(Tier::new(fails_once).policy(Threshold::new(100_000)))
        .build()
        .unwrap();
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    let call = || {
        m.tick(bead);
        engine.run_pending(usize::MAX);
    };
    (0..100_000).for_each(|_| call());
    assert_eq!(tries.load(SeqCst), 1);
    engine.set_threshold_scale(0.001); // T2 at 100 calls from now on
    engine.invalidate(bead).unwrap();
    let again = (1..=2_000).find(|_| {
        call();
        tries.load(SeqCst) == 2
    });
    assert!(again.is_some());
}

#[test]
fn sampling_counts_the_calls_of_short_visits() {
    let engine = builder().inline().sampling(10).tier(manual(trivial())).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    (0..10_000).for_each(|_| engine.pin().tick(bead));
    let counted = engine.invocations(bead).unwrap();
    assert!((9_000..=11_000).contains(&counted), "{counted}");
}

#[test]
fn any_number_can_be_the_sampling_interval() {
    for sampling in [u32::MAX, 1 << 31, (1 << 31) + 1] {
        let engine = builder().inline().sampling(sampling).tier(manual(trivial())).build().unwrap();
        let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
        (0..10).for_each(|_| m.tick(bead));
        assert_eq!(engine.state(bead).unwrap().pending, None);
    }
}

#[test]
fn a_policy_is_told_how_many_workers_may_compile_for_its_tier() {
    let seen = Arc::new(AtomicU32::new(0));
    let sink = seen.clone();
    let policy = move |activity: &Activity| {
        sink.store(activity.workers, SeqCst);
        Verdict::wait(1)
    };
    let tiers = builder().tier(manual(trivial())).tier(Tier::new(trivial()).policy(policy));
    let engine = tiers.workers(2).build().unwrap();
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    m.tick(bead);
    assert_eq!(seen.load(SeqCst), 1, "the other one is the baseline's");
}

#[test]
fn what_follows_a_compile_is_counted_as_requested() {
    let slot = Slot::default();
    let inner = slot.clone();
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        if let Some(engine) = inner.lock().unwrap().take() {
            engine.promote(job.bead(), T2).unwrap();
        }
        Ok(code())
    });
    let engine = builder().inline().tier(Tier::new(backend)).tier(Tier::new(trivial())).build().unwrap();
    *slot.lock().unwrap() = Some(engine.clone());
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    let stats = engine.stats();
    assert_eq!((stats.requested, stats.installed), (2, 2));
}

#[test]
fn a_demotion_that_asks_for_a_compile_is_told_and_counted() {
    let queued = Arc::new(AtomicU32::new(0));
    let sink = queued.clone();
    let tiers = builder().inline().tier(Tier::new(trivial())).tier(Tier::new(trivial()));
    let engine = tiers
        .on_event(move |event| {
            if let Event::Queued { .. } = event {
                sink.fetch_add(1, SeqCst);
            }
        })
        .build()
        .unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.compile_now(bead, T2, LONG).unwrap();
    engine.demote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    let stats = engine.stats();
    assert_eq!((stats.requested, stats.installed, queued.load(SeqCst)), (2, 2, 2));
}

#[test]
fn every_request_is_installed_failed_or_discarded() {
    let backend = FnBackend::new(|job: &mut Job<'_>| match job.version() % 5 {
        0 => panic!("told to"),
        1 => failed(),
        _ => Ok(code()),
    });
    let tier = Tier::new(backend).policy(Threshold::new(5));
    let engine = builder().workers(2).fault_limit(u32::MAX).tier(tier).build().unwrap();
    let all = beads(&engine, 300);
    thread::scope(|s| {
        for turn in 0..3 {
            let (engine, all) = (&engine, &all);
            s.spawn(move || {
                let m = engine.mutator();
                for round in 0..20 {
                    for &bead in all {
                        m.tick(bead);
                        if round % 3 == turn {
                            let _ = engine.promote(bead, T1);
                        }
                    }
                }
            });
        }
    });
    engine.drain(LONG).unwrap();
    let stats = engine.stats();
    assert_eq!(stats.requested, stats.installed + stats.failed + stats.discarded, "{stats}");
}

#[test]
fn loops_whose_compiles_fail_leave_the_code_that_runs() {
    let first = AtomicBool::new(true);
    let backend =
        FnBackend::new(move |_: &mut Job<'_>| if first.swap(false, SeqCst) { Ok(code()) } else { failed() });
    let engine = builder().inline().tier(Tier::new(backend).policy(Threshold::new(10))).build().unwrap();
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    engine.compile_now(bead, T1, LONG).unwrap();
    for _ in 0..1_000_000 {
        m.back_edge(bead, 7);
        if engine.state(bead).unwrap().pending.is_some() {
            engine.run_pending(1);
            if engine.stats().failed >= 6 {
                break;
            }
        }
    }
    assert!(engine.stats().failed > 0);
    assert_eq!(engine.tier(bead), Ok(T1), "{:?}", engine.fault(bead, T1));
}

#[test]
fn a_failed_compile_whose_follower_a_cap_lowered_is_not_tried_again_at_once() {
    let (slot, tries) = (Slot::default(), Arc::new(AtomicU32::new(0)));
    let (inner, count) = (slot.clone(), tries.clone());
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        count.fetch_add(1, SeqCst);
        if let Some(engine) = inner.lock().unwrap().take() {
            engine.promote(job.bead(), T2).unwrap();
            engine.set_tier_cap(job.bead(), T1).unwrap();
        }
        failed()
    });
    let engine = builder().inline().tier(Tier::new(backend)).tier(Tier::new(trivial())).build().unwrap();
    *slot.lock().unwrap() = Some(engine.clone());
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(tries.load(SeqCst), 1);
}
