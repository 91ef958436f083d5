//! Reload, invalidate and swap: one, all, matching, by group.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

type Log = Arc<Mutex<Vec<Event>>>;

/// Two tiers: T1 answers `one`, T2 answers `two`.
fn two_tiers(builder: EngineBuilder) -> (Engine, Log) {
    let log = Log::default();
    let heard = log.clone();
    let engine = builder
        .capacity(1 << 10)
        .tier(Tier::new(trivial()))
        .tier(Tier::new(FnBackend::new(|_| Ok(CompiledCode::new(addr(two))))))
        .on_event(move |event| heard.lock().unwrap().push(event.clone()))
        .build()
        .unwrap();
    (engine, log)
}

fn heard(log: &Log, wanted: impl Fn(&Event) -> bool) -> usize {
    log.lock().unwrap().iter().filter(|event| wanted(event)).count()
}

fn invalidated(log: &Log) -> usize {
    heard(log, |event| matches!(event, Event::Invalidated { .. }))
}

fn pending(engine: &Engine, bead: Bead) -> Option<PendingState> {
    engine.state(bead).unwrap().pending
}

#[test]
fn a_reload_takes_code_back_and_asks_again_for_the_tier_it_had_or_waited_for() {
    let (engine, log) = two_tiers(Engine::builder().inline());
    let [cold, had, waited, both] = [0, 1, 2, 3].map(|core| engine.register(Core::new(core)).unwrap());
    engine.compile_now(had, T2, LONG).unwrap();
    engine.compile_now(both, T1, LONG).unwrap();
    engine.promote(waited, T1).unwrap();
    engine.promote(both, T2).unwrap();
    assert_eq!(engine.reload(cold), Ok(Reloaded::Nothing));
    assert_eq!(engine.reload(had), Ok(Reloaded::Queued(T2)));
    assert_eq!(engine.reload(waited), Ok(Reloaded::Queued(T1)));
    assert_eq!(engine.reload(both), Ok(Reloaded::Queued(T2)));
    assert!([cold, had, waited, both].iter().all(|&bead| engine.mutator().code(bead).is_none()));
    assert_eq!(invalidated(&log), 2);
    engine.drain(LONG).unwrap();
    let tiers = [cold, had, waited, both].map(|bead| engine.tier(bead).unwrap());
    assert_eq!(tiers, [TierId::INTERPRETER, T2, T1, T2]);
    engine.remove(had).unwrap();
    assert_eq!(engine.reload(had), Err(Stale(had)));
}

#[test]
fn a_reload_that_may_not_be_compiled_again_takes_the_code_back_and_says_why() {
    let (engine, log) = two_tiers(Engine::builder().inline());
    let bead = engine.register(Core::new(0)).unwrap();
    engine.compile_now(bead, T1, LONG).unwrap();
    engine.set_enabled(false);
    assert_eq!(engine.reload(bead), Ok(Reloaded::Refused(PromoteError::Disabled)));
    assert_eq!((engine.tier(bead), pending(&engine, bead)), (Ok(TierId::INTERPRETER), None));
    engine.set_enabled(true);
    engine.compile_now(bead, T1, LONG).unwrap();
    engine.blacklist(bead).unwrap();
    assert_eq!(engine.reload(bead), Ok(Reloaded::Nothing), "its code went with the blacklisting");
    engine.unblacklist(bead).unwrap();
    engine.compile_now(bead, T1, LONG).unwrap();
    engine.shutdown(LONG).unwrap();
    assert_eq!(engine.reload(bead), Ok(Reloaded::Refused(PromoteError::Closed)));
    assert!(engine.mutator().code(bead).is_none());
    assert_eq!(invalidated(&log), 3);
}

#[test]
fn a_reload_comes_before_what_is_merely_hot() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let engine = inline(10, move |job| {
        seen.lock().unwrap().push((job.bead(), job.reason()));
        Ok(code())
    });
    let all = beads(&engine, 4);
    engine.compile_now(all[3], T1, LONG).unwrap();
    order.lock().unwrap().clear();
    let pause = engine.pause();
    let m = engine.mutator();
    all[..3].iter().for_each(|&bead| (0..20).for_each(|_| m.tick(bead)));
    assert_eq!(engine.reload(all[3]), Ok(Reloaded::Queued(T1)));
    drop(pause);
    engine.drain(LONG).unwrap();
    let order = order.lock().unwrap();
    assert_eq!((order.len(), order[0]), (4, (all[3], Reason::Reload)));
}

#[test]
fn who_waits_for_a_function_gets_the_code_of_the_new_source() {
    let (engine, _) = two_tiers(Engine::builder().workers(1));
    let bead = engine.register(Core::new(0)).unwrap();
    let pause = engine.pause();
    let waiter = std::thread::spawn({
        let engine = engine.clone();
        move || engine.compile_now(bead, T1, LONG)
    });
    while pending(&engine, bead).is_none() {
        std::thread::yield_now();
    }
    assert_eq!(engine.reload(bead), Ok(Reloaded::Queued(T1)));
    drop(pause);
    assert_eq!(waiter.join().unwrap(), Ok(engine.version(bead).unwrap()));
}

#[test]
fn a_submitted_compile_of_the_old_source_is_dropped() {
    let (engine, _) = two_tiers(Engine::builder().inline());
    let (bead, held) = (engine.register(Core::new(0)).unwrap(), Arc::new(()));
    let inside = held.clone();
    engine
        .submit(bead, T1, move |_| {
            let _held = inside;
            Ok(CompiledCode::new(addr(two)))
        })
        .unwrap();
    assert_eq!(engine.reload(bead), Ok(Reloaded::Queued(T1)));
    assert_eq!(Arc::strong_count(&held), 1);
    engine.drain(LONG).unwrap();
    assert_eq!(engine.mutator().code(bead).unwrap().as_ptr(), addr(one), "the backend's");
}

#[test]
fn p9_a_reload_whose_compile_fails_leaves_the_function_interpreted_and_is_tried_with_pauses() {
    let (fails, compiles) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (failing, counted) = (fails.clone(), compiles.clone());
    let engine = inline(10, move |_| {
        counted.fetch_add(1, SeqCst);
        if failing.load(SeqCst) {
            Err(CompileError::failed("the new source does not compile"))
        } else {
            Ok(code())
        }
    });
    let (bead, m) = (beads(&engine, 1)[0], engine.mutator());
    engine.compile_now(bead, T1, LONG).unwrap();
    fails.store(true, SeqCst);
    assert_eq!(engine.reload(bead), Ok(Reloaded::Queued(T1)));
    engine.drain(LONG).unwrap();
    assert_eq!((engine.tier(bead), pending(&engine, bead)), (Ok(TierId::INTERPRETER), None));
    assert!(m.code(bead).is_none(), "the old body does not come back");
    let failures = engine.fault(bead, T1).unwrap().failures;
    assert_eq!(failures, 1);
    for _ in 0..10_000 {
        m.tick(bead);
        engine.run_pending(1);
    }
    // Pauses of 1,000, 2,000, 4,000 calls.
    assert!((2..=5).contains(&compiles.load(SeqCst)), "{compiles:?}");
}

#[test]
fn p25_reloads_that_race_recompiles_end_with_code_that_can_be_called() {
    let (engine, _) = two_tiers(Engine::builder().workers(2));
    let all = beads(&engine, 4);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (engine, all) = (&engine, &all);
            scope.spawn(move || {
                let mut m = engine.mutator();
                for round in 0..5_000 {
                    let bead = all[(round + thread) % all.len()];
                    match thread {
                        0 => _ = engine.reload(bead).unwrap(),
                        1 => engine.promote(bead, if round % 2 == 0 { T1 } else { T2 }).unwrap(),
                        _ => _ = engine.install(bead, T1, code()).unwrap(),
                    }
                    // Never null: that is what being there means. Compiled means there.
                    assert!(m.code(bead).is_none_or(|code| !code.as_ptr().is_null()));
                    m.safepoint();
                }
            });
        }
    });
    engine.drain(LONG).unwrap();
    let m = engine.mutator();
    for bead in all {
        let state = engine.state(bead).unwrap();
        assert_eq!(state.pending, None);
        assert_eq!(m.code(bead).is_some(), state.tier != TierId::INTERPRETER);
        engine.compile_now(bead, T2, LONG).unwrap();
        assert_eq!(m.code(bead).unwrap().as_ptr(), addr(two));
    }
}

#[test]
fn reloading_and_invalidating_many_answers_how_many_it_touched() {
    let (engine, log) = two_tiers(Engine::builder().inline());
    let group = engine.group().unwrap();
    let members: Vec<_> = engine.register_group(group, (0..10).map(Core::new)).unwrap().iter().collect();
    let others = beads(&engine, 10);
    for &bead in members.iter().chain(&others).step_by(2) {
        engine.compile_now(bead, T1, LONG).unwrap();
    }
    assert_eq!(engine.reload_group(group), Some(5));
    assert_eq!(engine.reload_matching(|bead| others.contains(&bead)), 5);
    engine.drain(LONG).unwrap();
    assert_eq!(engine.reload_all(), 10);
    engine.drain(LONG).unwrap();
    assert_eq!(invalidated(&log), 20);
    engine.promote(members[1], T1).unwrap();
    assert_eq!(engine.invalidate_group(group), Some(6), "code, or a request for it");
    assert_eq!(pending(&engine, members[1]), None);
    assert_eq!(engine.invalidate_matching(|bead| others.contains(&bead)), 5);
    assert_eq!((engine.invalidate_all(), engine.reload_all()), (0, 0));
    assert_eq!(invalidated(&log), 30);
    engine.remove_group(group);
    assert_eq!((engine.reload_group(group), engine.invalidate_group(group)), (None, None));
}

#[test]
fn a_swap_replaces_code_at_once_and_answers_what_was_superseded() {
    let (engine, log) = two_tiers(Engine::builder().inline());
    let (all, alive) = (beads(&engine, 3), Alive::default());
    let old = engine.install(all[0], T1, alive.code()).unwrap();
    engine.install(all[1], T1, alive.code()).unwrap();
    let null = CompiledCode::new(std::ptr::null());
    let mut codes = vec![Some(CompiledCode::new(addr(two))), None, Some(null)].into_iter();
    let swapped = engine.swap_matching(T2, |_| codes.next().unwrap());
    assert_eq!(swapped.refused, [(all[2], InstallError::Code(CompileError::NullEntry))]);
    let [superseded] = swapped.superseded[..] else { panic!("{swapped:?}") };
    assert_eq!((superseded.bead, superseded.old_tier, superseded.old_version), (all[0], T1, Some(old)));
    assert_eq!(engine.version(all[0]), Ok(superseded.version));
    let m = engine.mutator();
    assert_eq!(m.code(all[0]).unwrap().as_ptr(), addr(two));
    assert_eq!(m.code(all[1]).unwrap().as_ptr(), addr(one));
    assert_eq!(invalidated(&log), 0, "code was there all the time");
    let fresh = engine.swap_matching(T1, |bead| (bead == all[2]).then(code)).superseded[0];
    assert_eq!((fresh.old_tier, fresh.old_version), (TierId::INTERPRETER, None));
    engine.reclaim();
    assert_eq!(alive.count(), 1);
}

#[test]
fn p31_callbacks_come_once_for_each_code_taken_back_and_their_panics_are_contained() {
    let (engine, _) = two_tiers(Engine::builder().workers(2));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let info = BeadInfo::new().on_invalidate(move |_, what| {
        if what == Invalidation::Invalidated {
            counted.fetch_add(1, SeqCst);
        }
        panic!("p31");
    });
    let bead = engine.register_with(Core::new(0), &info).unwrap();
    // One piece of code, and several threads that would all take it back.
    for round in 1..=500 {
        let assumption = engine.assumption();
        engine.install(bead, T1, code().assumes(assumption)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| engine.invalidate(bead).unwrap());
            scope.spawn(|| engine.invalidate_assumption(assumption));
            engine.set_tier_cap(bead, TierId::INTERPRETER).unwrap();
        });
        assert_eq!(calls.load(SeqCst), round);
        engine.set_tier_cap(bead, TierId::MAX).unwrap();
    }
    engine.install(bead, T2, code()).unwrap();
    engine.demote(bead, T1).unwrap();
    assert_eq!(calls.load(SeqCst), 501);
    engine.drain(LONG).unwrap();
    engine.reload(bead).unwrap();
    assert_eq!(calls.load(SeqCst), 502);
    engine.remove(bead).unwrap();
    assert_eq!(calls.load(SeqCst), 502, "the last one says removed");
    engine.drain(LONG).unwrap();
}
