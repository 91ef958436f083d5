//! Failed speculation: what a bailout does to code, and what it leaves alone.

mod common;
use beadwork::*;
use common::rig::*;
use common::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};

const T1: TierId = TierId::BASELINE;
const T2: TierId = match TierId::new(2) {
    Some(tier) => tier,
    None => unreachable!(),
};
const T0: TierId = TierId::INTERPRETER;

// ---- what a bailout does

#[test]
fn the_failing_version_is_gone_when_the_bailout_returns_and_callers_in_it_finish() {
    let mut rig = Rig::new(&[10], |b| b);
    let (version, calls) = rig.warm();
    assert_eq!((calls, rig.alive.count()), (10, 1));
    let running = rig.m.code(rig.bead).unwrap();
    let info = BailoutInfo::new(version).guard(3).pc(77);
    assert_eq!(rig.engine.bailout(rig.bead, info), Ok(RECOMPILE));
    assert!(rig.m.code(rig.bead).is_none());
    rig.engine.reclaim();
    assert_eq!(rig.alive.count(), 1, "a caller is in it");
    assert_eq!(rig.versions.lock().unwrap()[&running.addr()], version);
    rig.m.safepoint();
    rig.engine.reclaim();
    assert_eq!(rig.alive.count(), 0);
    let history = rig.deopts();
    assert_eq!((history.bailouts, history.recompiles, history.tier), (1, 1, T1));
    assert_eq!((history.last.guard, history.last.pc, history.last.version), (3, 77, version));
    let told = rig.events.lock().unwrap().iter().any(|event| {
        matches!(event, Event::Deoptimized { tier: T1, guard: 3, pc: 77, version: v, decision: RECOMPILE, .. }
            if *v == version)
    });
    assert!(told);
}

#[test]
fn a_job_knows_the_version_its_code_will_have() {
    let mut rig = Rig::new(&[10, 1_000], |b| b);
    let first = rig.compile(T1);
    let second = rig.compile(T2);
    assert_eq!(*rig.compiled.lock().unwrap(), [(T1, first, Reason::Now), (T2, second, Reason::Now)]);
}

#[test]
fn a_recompile_is_asked_for_at_its_tier_before_what_is_merely_hot() {
    let mut rig = Rig::new(&[10], |b| b);
    let version = rig.warm().0;
    let hot = rig.engine.register(Core::new(1)).unwrap();
    rig.engine.promote(hot, T1).unwrap();
    (0..5).for_each(|_| rig.m.tick(hot));
    assert_eq!(rig.bail(version), RECOMPILE);
    assert_eq!(rig.engine.state(rig.bead).unwrap().pending, Some(PendingState::Queued(T1)));
    rig.engine.run_pending(usize::MAX);
    let compiled: Vec<_> = rig.compiled.lock().unwrap().iter().map(|&(tier, _, why)| (tier, why)).collect();
    assert_eq!(compiled[1..], [(T1, Reason::Deopt), (T1, Reason::Asked)]);
    assert_ne!(rig.warm().0, version);
}

#[test]
fn p11_counts_start_over_when_code_is_taken() {
    let mut rig = Rig::new(&[100], |b| b.deopt(|_: &DeoptHistory| Recovery::Pause { calls: 1 }));
    let (version, _) = rig.warm();
    assert_eq!(rig.bail(version), pause(1));
    assert_eq!(rig.engine.invocations(rig.bead), Ok(0));
    assert_eq!(rig.warm().1, 100, "it earns its threshold anew");
}

#[test]
fn callbacks_hear_once_that_code_was_taken_and_nothing_where_it_was_kept() {
    let heard = Arc::new(Mutex::new(vec![]));
    let sink = heard.clone();
    let rig = Rig::new(&[10], |b| {
        b.deopt(|h: &DeoptHistory| if h.last.guard == 0 { Recovery::Keep } else { Recovery::Recompile })
    });
    let info = BeadInfo::new().on_invalidate(move |bead, what| sink.lock().unwrap().push((bead, what)));
    let bead = rig.engine.register_with(Core::new(5), &info).unwrap();
    let version = rig.engine.install(bead, T1, code()).unwrap();
    assert_eq!(rig.engine.bailout(bead, BailoutInfo::new(version)), Ok(DeoptDecision::Keep));
    assert_eq!(*heard.lock().unwrap(), []);
    assert_eq!(rig.engine.bailout(bead, BailoutInfo::new(version).guard(1)), Ok(RECOMPILE));
    assert_eq!(rig.engine.bailout(bead, BailoutInfo::new(version).guard(1)), Ok(DeoptDecision::Outdated));
    assert_eq!(*heard.lock().unwrap(), [(bead, Invalidation::Invalidated)]);
}

// ---- outdated versions

#[test]
fn an_outdated_version_changes_and_records_nothing() {
    let mut rig = Rig::new(&[10], |b| b);
    let bead = rig.bead;
    assert_eq!(rig.bail(0), DeoptDecision::Outdated, "there is no code");
    let first = rig.compile(T1);
    let second = rig.engine.install(bead, T1, code()).unwrap();
    let before = rig.engine.state(bead).unwrap();
    assert_eq!(rig.bail(first), DeoptDecision::Outdated);
    assert_eq!(rig.bail(second + 1), DeoptDecision::Outdated, "not there yet");
    assert_eq!(rig.engine.state(bead), Ok(before));
    assert_eq!(rig.engine.deopts(bead), None);
    assert_eq!((rig.stats().outdated, rig.stats().bailouts, rig.stats().functions), (3, 0, 0));
    assert!(rig.m.code(bead).is_some());
    rig.engine.invalidate(bead).unwrap();
    assert_eq!(rig.bail(second), DeoptDecision::Outdated);
}

#[test]
fn the_version_of_the_code_counts_whatever_was_cancelled_since() {
    let mut rig = Rig::new(&[10, 1_000_000], |b| b);
    let version = rig.compile(T1);
    // Requests come and go, and each moves the version of the state.
    rig.engine.promote(rig.bead, T2).unwrap();
    rig.engine.set_tier_cap(rig.bead, T1).unwrap();
    rig.engine.set_tier_cap(rig.bead, T2).unwrap();
    assert_ne!(rig.engine.version(rig.bead), Ok(version));
    assert_eq!(rig.bail(version), RECOMPILE);
    assert!(rig.m.code(rig.bead).is_none());
}

#[test]
fn a_bailout_ends_a_compile_in_flight_that_began_before() {
    let (started, go) = (Latch::default(), Latch::default());
    let (told, held) = (started.clone(), go.clone());
    let alive = Alive::default();
    let compiled = alive.clone();
    let engine = Engine::builder()
        .capacity(64)
        .workers(1)
        .tier(Tier::new(trivial()))
        .tier(Tier::new(FnBackend::new(move |_| {
            told.open();
            held.wait();
            Ok(compiled.code())
        })))
        .build()
        .unwrap();
    let _go = Finally(|| go.open());
    let bead = engine.register(Core::new(0)).unwrap();
    let version = engine.install(bead, T1, code()).unwrap();
    engine.promote(bead, T2).unwrap();
    started.wait();
    assert_eq!(engine.bailout(bead, BailoutInfo::new(version)), Ok(RECOMPILE));
    go.open();
    engine.drain(LONG).unwrap();
    assert_eq!((engine.stats().discarded, alive.count(), engine.tier(bead)), (1, 0, Ok(T1)));
}

#[test]
fn of_many_threads_that_bail_out_of_one_version_one_counts() {
    let rig = Rig::new(&[10], |b| b);
    let (engine, bead) = (&rig.engine, rig.bead);
    for round in 1..=50 {
        let version = engine.install(bead, T1, rig.alive.code()).unwrap();
        let (barrier, counted) = (Barrier::new(4), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    // Another guard each round, so that nobody is capped for a cycle.
                    let info = BailoutInfo::new(version).guard(round);
                    if engine.bailout(bead, info).unwrap() != DeoptDecision::Outdated {
                        counted.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(counted.load(SeqCst), 1);
        assert_eq!(engine.stats().deopts.bailouts, u64::from(round));
        assert_eq!(engine.deopts(bead).unwrap().bailouts, 1, "remembered for each life of the function");
        engine.forget_deopts(bead);
        engine.unblacklist(bead).unwrap();
        engine.set_tier_cap(bead, TierId::MAX).unwrap();
    }
}

// ---- what else a bailout leaves

#[test]
fn a_bailout_of_a_loop_entry_suppresses_that_site_for_twice_as_long_each_time_and_no_other() {
    let mut rig = Rig::new(&[10], |b| b.deopt(Tolerate));
    let entries = || code().osr(1, addr(two)).osr(2, addr(two));
    let version = rig.engine.install(rig.bead, T1, entries()).unwrap();
    let answered = |rig: &Rig| [1, 2].map(|site| rig.m.osr_entry(rig.bead, site).is_some());
    assert_eq!(answered(&rig), [true, true]);
    assert_eq!(rig.bail_with(BailoutInfo::new(version).osr_site(1)), DeoptDecision::Keep);
    assert_eq!(answered(&rig), [false, true]);
    assert_eq!((rig.engine.osr_failures(rig.bead, 1), rig.engine.osr_failures(rig.bead, 2)), (1, 0));
    assert_eq!(rig.engine.osr_failed(rig.bead, 1), Ok(16_000), "the second time");
}

#[test]
fn p9_a_recompile_that_fails_goes_back_to_the_interpreter_and_backs_off() {
    let mut rig = Rig::new(&[10], |b| b);
    let version = rig.warm().0;
    rig.failing.store(true, SeqCst);
    assert_eq!(rig.bail(version), RECOMPILE);
    rig.engine.run_pending(usize::MAX);
    assert_eq!((rig.tier(), rig.engine.state(rig.bead).unwrap().pending), (T0, None));
    let mut asked_at = vec![];
    for call in 1..=5_000 {
        let before = rig.compiles();
        assert_eq!(rig.call(), None);
        if rig.compiles() > before {
            asked_at.push(call);
        }
    }
    assert_eq!(asked_at, [1_000, 3_000], "as after any failed compile");
    rig.failing.store(false, SeqCst);
    rig.warm();
    assert_eq!(rig.tier(), T1);
}

#[test]
fn p26_neither_a_bailout_nor_blacklisting_brings_a_removed_function_back() {
    let mut rig = Rig::new(&[10], |b| b.deopt(|_: &DeoptHistory| Recovery::Blacklist));
    let (version, _) = rig.warm();
    let (old, stale) = (rig.bead, Stale(rig.bead));
    rig.engine.remove(old).unwrap();
    assert_eq!(rig.engine.bailout(old, BailoutInfo::new(version)), Err(stale));
    assert_eq!(rig.engine.blacklist(old), Err(stale));
    assert_eq!(rig.engine.invalidate_version(old, version), Err(stale));
    rig.m.safepoint();
    rig.bead = rig.engine.register(Core::new(1)).unwrap();
    assert_eq!(rig.bead.index(), old.index());
    assert_eq!(rig.engine.bailout(old, BailoutInfo::new(version)), Err(stale));
    assert_eq!(rig.warm().1, 10, "the next function of that index is its own");
}

#[test]
fn p26_blacklisting_caps_and_bailouts_that_race_a_removal_leave_the_function_removed_and_its_successor_alone()
{
    let engine = Engine::builder().capacity(4).inline().deopt(|_: &DeoptHistory| Recovery::Blacklist);
    let engine = engine.tier(Tier::new(trivial())).build().unwrap();
    let (start, mut m) = (Barrier::new(2), engine.mutator());
    let bead = Mutex::new((engine.register(Core::new(0)).unwrap(), 0));
    const ROUNDS: usize = 3_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                start.wait();
                let (bead, version) = *bead.lock().unwrap();
                match round % 4 {
                    0 => drop(engine.blacklist(bead)),
                    1 => drop((engine.blacklist(bead), engine.unblacklist(bead))),
                    2 => drop(engine.set_tier_cap(bead, TierId::INTERPRETER)),
                    _ => drop(engine.bailout(bead, BailoutInfo::new(version))),
                }
                start.wait();
            }
        });
        for round in 0..ROUNDS {
            let old = {
                let mut bead = bead.lock().unwrap();
                *bead = (bead.0, engine.install(bead.0, T1, code()).unwrap());
                bead.0
            };
            start.wait();
            engine.remove(old).unwrap();
            start.wait();
            assert!(!engine.is_live(old) && m.dispatch(old).is_none(), "{round}");
            assert_eq!((engine.blacklist(old), engine.deopts(old)), (Err(Stale(old)), None), "{round}");
            m.safepoint();
            let new = engine.register(Core::new(1)).unwrap();
            engine.promote(new, T1).unwrap();
            engine.run_pending(1);
            assert!(m.dispatch(new).is_some(), "{new} of round {round} inherits a limit");
            bead.lock().unwrap().0 = new;
        }
    });
    assert!(engine.capacity() < 8, "indices were used again and again");
}

#[test]
fn a_function_removed_while_its_policy_thinks_is_forgotten() {
    let engine: Arc<Mutex<Option<(Engine, Bead)>>> = Arc::default();
    let remover = engine.clone();
    let rig = Rig::new(&[10], |b| {
        b.deopt(move |_: &DeoptHistory| {
            let (engine, bead) = remover.lock().unwrap().take().unwrap();
            engine.remove(bead).unwrap();
            Recovery::Recompile
        })
    });
    let version = rig.engine.install(rig.bead, T1, code()).unwrap();
    *engine.lock().unwrap() = Some((rig.engine.clone(), rig.bead));
    assert_eq!(rig.engine.bailout(rig.bead, BailoutInfo::new(version)), Err(Stale(rig.bead)));
    assert_eq!((rig.stats().functions, rig.stats().bailouts), (0, 0));
}

#[test]
fn what_is_remembered_goes_with_the_function_or_when_the_vm_says_so() {
    let mut rig = Rig::new(&[10], |b| b);
    let version = rig.warm().0;
    rig.bail(version);
    assert_eq!(rig.stats().functions, 1);
    assert_eq!(rig.engine.forget_deopts(rig.bead).unwrap().bailouts, 1);
    assert_eq!(rig.engine.forget_deopts(rig.bead), None);
    let version = rig.warm().0;
    assert_eq!(rig.bail(version), RECOMPILE, "at once, as the first");
    rig.engine.remove(rig.bead).unwrap();
    assert_eq!((rig.stats().functions, rig.engine.deopts(rig.bead)), (0, None));
}

#[test]
fn code_the_vm_installed_can_fail_where_nothing_compiles() {
    let engine = Engine::builder().capacity(64).inline().build().unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    let version = engine.install(bead, T1, code()).unwrap();
    assert_eq!(engine.bailout(bead, BailoutInfo::new(version)), Ok(pause(0)));
    assert_eq!(engine.state(bead).unwrap().pending, None);
    let mut rig = Rig::new(&[10], |b| b);
    let version = rig.warm().0;
    rig.engine.set_enabled(false);
    assert_eq!(rig.bail(version), pause(0), "promotion is switched off");
    rig.engine.set_enabled(true);
    rig.warm();
}

#[test]
fn a_bailout_in_the_foreground_recompiles_before_it_returns() {
    let mut rig = Rig::new(&[10], |b| b.foreground());
    let version = rig.warm().0;
    assert_eq!(rig.bail(version), RECOMPILE);
    assert_eq!((rig.tier(), rig.compiles()), (T1, 2));
}

#[test]
fn every_owner_is_dropped_once_under_four_threads_of_bailouts_and_tier_ups() {
    let rounds = if cfg!(debug_assertions) { 2_000 } else { 250_000 };
    let alive = Alive::default();
    let backend = || {
        let alive = alive.clone();
        Tier::new(FnBackend::new(move |_| Ok(alive.code()))).policy(Threshold::new(5))
    };
    let engine = Engine::builder()
        .capacity(1 << 10)
        .workers(1)
        .deopt(TieredDeopt::new(u32::MAX, u32::MAX))
        .deopt_governor(false)
        .tier(backend())
        .tier(backend())
        .build()
        .unwrap();
    let all = beads(&engine, 16);
    let slots: Vec<_> = all.iter().map(|&bead| Mutex::new(bead)).collect();
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (engine, slots, alive) = (engine.clone(), &slots, &alive);
            scope.spawn(move || {
                let mut m = engine.mutator();
                for round in 0..rounds {
                    let slot = &slots[(round * 7 + thread) % slots.len()];
                    let bead = *slot.lock().unwrap();
                    m.dispatch(bead);
                    match (round + thread) % 9 {
                        0 => drop(engine.install(bead, T1, alive.code())),
                        1 => drop(engine.install(bead, T2, alive.code())),
                        2 => drop(engine.promote(bead, T2)),
                        3 if round % 5 == 0 => drop(engine.invalidate(bead)),
                        4 if round % 11 == 0 => {
                            let mut slot = slot.lock().unwrap();
                            if engine.remove(*slot).is_ok() {
                                *slot = loop {
                                    m.safepoint();
                                    if let Ok(bead) = engine.register(Core::new(0)) {
                                        break bead;
                                    }
                                };
                            }
                        }
                        5 if round % 13 == 0 => drop(engine.drop_kept(bead)),
                        _ => {
                            // Some version of the last few; one of them runs.
                            let now = engine.version(bead).unwrap_or(0);
                            for version in now.saturating_sub(3)..=now {
                                let _ = engine.bailout(bead, BailoutInfo::new(version).guard(round as u32));
                            }
                        }
                    }
                    m.safepoint();
                }
            });
        }
    });
    engine.drain(LONG).unwrap();
    assert!(engine.stats().deopts.reverted_at_once > 0, "{}", engine.stats());
    // What is left is what runs and what is held.
    let running = slots.iter().filter(|slot| engine.tier(*slot.lock().unwrap()) != Ok(T0)).count();
    engine.reclaim();
    assert_eq!(alive.count(), running + engine.stats().deopts.held as usize);
    drop(engine);
    assert_eq!(alive.count(), 0);
}
