//! Assumptions: code that relies on one is gone when the call that broke it has returned.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

type Log = Arc<Mutex<Vec<Event>>>;

fn logged(builder: EngineBuilder) -> (EngineBuilder, Log) {
    let log = Log::default();
    let heard = log.clone();
    (builder.on_event(move |event| heard.lock().unwrap().push(event.clone())), log)
}

fn heard(log: &Log, wanted: impl Fn(&Event) -> bool) -> usize {
    log.lock().unwrap().iter().filter(|event| wanted(event)).count()
}

fn plain() -> Engine {
    inline(10, |_| Ok(code()))
}

#[test]
fn breaking_an_assumption_takes_back_all_code_that_relied_on_it_and_nothing_else() {
    let engine = plain();
    let [one, other] = [engine.assumption(), engine.assumption()];
    let all = beads(&engine, 9);
    for (position, &bead) in all.iter().enumerate() {
        let code = match position % 3 {
            0 => code(),
            1 => code().assumes(one),
            _ => code().assumes(one).assumes(other),
        };
        engine.install(bead, T1, code).unwrap();
    }
    let m = engine.mutator();
    assert_eq!(engine.invalidate_assumption(other), 3);
    let native = || all.iter().filter(|&&bead| m.code(bead).is_some()).count();
    assert_eq!(native(), 6);
    assert_eq!(engine.invalidate_assumption(one), 3, "three had gone before");
    assert_eq!(native(), 3);
    assert_eq!(engine.invalidate_assumption(one), 0);
    assert!(!engine.is_valid(one));
}

#[test]
fn the_owner_of_code_that_relied_in_vain_is_dropped_once() {
    let (engine, alive) = (plain(), Alive::default());
    let (bead, assumption) = (beads(&engine, 1)[0], engine.assumption());
    engine.install(bead, T1, alive.code().assumes(assumption)).unwrap();
    engine.invalidate_assumption(assumption);
    engine.reclaim();
    assert_eq!((alive.count(), alive.ever()), (0, 1));
    let refused = engine.install(bead, T1, alive.code().assumes(assumption));
    assert_eq!(refused, Err(InstallError::AssumptionBroken(assumption)));
    assert_eq!((alive.count(), alive.ever()), (0, 2), "what was not installed is dropped at once");
    assert_eq!(engine.tier(bead), Ok(TierId::INTERPRETER));
}

#[test]
fn what_a_result_that_came_too_late_relied_on_is_not_held_against_the_code_that_overtook_it() {
    let known: Arc<OnceLock<(Engine, Assumption)>> = Arc::default();
    let knows = known.clone();
    let engine = inline(10, move |job| {
        let Some((engine, assumption)) = knows.get() else { return Err(CompileError::Unfinished) };
        engine.install(job.bead(), T1, code()).unwrap();
        Ok(code().assumes(*assumption))
    });
    let assumption = engine.assumption();
    // The engine holds its backend, which holds the engine: it is never dropped.
    assert!(known.set((engine.clone(), assumption)).is_ok());
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(1);
    let version = engine.version(bead).unwrap();
    assert_eq!(engine.invalidate_assumption(assumption), 0);
    assert_eq!(engine.state(bead).map(|state| (state.tier, state.version)), Ok((T1, version)));
    assert_eq!(
        engine.invalidate_version(bead, version),
        Ok(true),
        "the code has the version its install answered"
    );
}

#[test]
fn an_assumption_of_another_engine_does_not_hold() {
    let (engine, other) = (plain(), plain());
    let (bead, foreign) = (beads(&engine, 1)[0], other.assumption());
    assert!(!engine.is_valid(foreign) && other.is_valid(foreign));
    let refused = engine.install(bead, T1, code().assumes(foreign));
    assert_eq!(refused, Err(InstallError::AssumptionBroken(foreign)));
    assert_eq!(engine.invalidate_assumption(foreign), 0);
    assert!(other.is_valid(foreign));
}

#[test]
fn code_that_was_replaced_does_not_drag_its_successor_down() {
    let engine = plain();
    let (bead, assumption) = (beads(&engine, 1)[0], engine.assumption());
    engine.install(bead, T1, code().assumes(assumption)).unwrap();
    let version = engine.install(bead, T1, code()).unwrap();
    assert_eq!(engine.invalidate_assumption(assumption), 0);
    assert_eq!((engine.tier(bead), engine.version(bead)), (Ok(T1), Ok(version)));
    let removed = beads(&engine, 1)[0];
    let assumption = engine.assumption();
    engine.install(removed, T1, code().assumes(assumption)).unwrap();
    engine.remove(removed).unwrap();
    assert_eq!(engine.invalidate_assumption(assumption), 0);
}

#[test]
fn baseline_code_that_is_held_for_a_revert_does_not_come_back_once_its_assumption_is_broken() {
    for (breaks, after) in [(false, Some(addr(one))), (true, None)] {
        let second = FnBackend::new(|_: &mut Job<'_>| Ok(CompiledCode::new(addr(two))));
        let builder = Engine::builder().capacity(256).inline().tier(Tier::new(trivial()));
        let engine = builder
            .tier(Tier::new(second))
            .deopt(|_: &DeoptHistory| Recovery::Revert)
            .delivery(true)
            .build()
            .unwrap();
        let (bead, assumption) = (beads(&engine, 1)[0], engine.assumption());
        let baseline = engine.install(bead, T1, code().assumes(assumption)).unwrap();
        // Recompiled so often that what is listed is looked through.
        for _ in 0..100 {
            engine.install(beads(&engine, 1)[0], T1, code().assumes(assumption)).unwrap_or_default();
        }
        let version = engine.install(bead, T2, CompiledCode::new(addr(two))).unwrap();
        if breaks {
            engine.invalidate_assumption(assumption);
            assert_eq!(engine.tier(bead), Ok(T2), "the code that runs did not rely on it");
        }
        engine.bailout(bead, BailoutInfo::new(version)).unwrap();
        assert_eq!(engine.mutator().code(bead).map(|code| code.as_ptr()), after);
        let mut reverted = None;
        engine.deliver(|delivery| {
            if let Delivery::Reverted { version, .. } = delivery {
                reverted = Some(version);
            }
        });
        assert_eq!(reverted, (!breaks).then_some(baseline));
        if !breaks {
            assert!(engine.invalidate_assumption(assumption) > 0);
            assert!(engine.mutator().code(bead).is_none(), "it came back, and goes with what it relied on");
        }
    }
}

#[test]
fn code_that_is_held_for_a_revert_stays_listed_however_much_comes_and_goes_beside_it() {
    let builder = Engine::builder().capacity(16).inline().deopt(TieredDeopt::default());
    let manual = || Tier::new(trivial()).policy(Manual);
    let engine = builder.tier(manual()).tier(manual()).build().unwrap();
    let all = beads(&engine, 2);
    let (held, other, assumption) = (all[0], all[1], engine.assumption());
    engine.install(held, T1, code().assumes(assumption)).unwrap();
    let above = engine.install(held, T2, code()).unwrap();
    // The list doubles again and again, and what is gone is struck off.
    for _ in 0..1_000 {
        engine.install(other, T1, code().assumes(assumption)).unwrap();
    }
    assert_eq!(engine.stats().deopts.held, 1);
    engine.invalidate_assumption(assumption);
    assert_eq!(engine.stats().deopts.held, 0);
    engine.bailout(held, BailoutInfo::new(above)).unwrap();
    assert!(engine.mutator().code(held).is_none(), "what it relied on is broken");
}

#[test]
fn callbacks_and_events_come_once_for_each_function_and_after_all_code_is_gone() {
    let (builder, log) = logged(Engine::builder().capacity(64).inline());
    let engine = builder.build().unwrap();
    let (assumption, called) = (engine.assumption(), Arc::new(AtomicUsize::new(0)));
    // Not an engine of its own, which would keep itself alive.
    let looks = Arc::new(engine.clone());
    let register = |core| {
        let (looks, called) = (Arc::downgrade(&looks), called.clone());
        let callback = move |bead, what| {
            assert_eq!(what, Invalidation::Invalidated);
            called.fetch_add(1, SeqCst);
            let engine = looks.upgrade().unwrap();
            engine.walk(|other| assert_eq!(engine.tier(other), Ok(TierId::INTERPRETER)));
            panic!("p31 {bead}");
        };
        engine.register_with(Core::new(core), &BeadInfo::new().on_invalidate(callback)).unwrap()
    };
    let all: Vec<_> = (0..4).map(register).collect();
    for &bead in &all {
        engine.install(bead, T1, code().assumes(assumption)).unwrap();
    }
    assert_eq!(engine.invalidate_assumption(assumption), 4);
    assert_eq!(called.load(SeqCst), 4);
    assert_eq!(heard(&log, |event| matches!(event, Event::Invalidated { .. })), 4);
    let broken = |event: &Event| matches!(event, Event::AssumptionBroken { functions: 4, .. });
    assert!(broken(log.lock().unwrap().last().unwrap()), "after the others");
    engine.invalidate_assumption(assumption);
    assert_eq!(heard(&log, |event| matches!(event, Event::AssumptionBroken { .. })), 1);
    all.into_iter().for_each(|bead| engine.invalidate(bead).unwrap());
    assert_eq!(called.load(SeqCst), 4, "there was no code any more");
}

/// An engine whose compiles name `assumption` in the way `name` does, stop in the middle, and go on when the second latch is open.
fn stopping(
    name: impl Fn(&mut Job<'_>, Assumption, &mut dyn FnMut()) -> Result<CompiledCode, CompileError>
    + Send
    + Sync
    + 'static,
) -> (Engine, Log, Assumption, Latch, Latch) {
    let (inside, go, named) = (Latch::default(), Latch::default(), Arc::new(Mutex::new(None)));
    let (at, until, assumption) = (inside.clone(), go.clone(), named.clone());
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        let assumption = assumption.lock().unwrap().unwrap();
        name(job, assumption, &mut || {
            at.open();
            until.wait();
        })
    });
    let (builder, log) = logged(Engine::builder().capacity(64).workers(1));
    let engine = builder.tier(Tier::new(backend).policy(Threshold::new(100))).build().unwrap();
    let assumption = engine.assumption();
    *named.lock().unwrap() = Some(assumption);
    (engine, log, assumption, inside, go)
}

/// The compile was discarded, is no failure, and the function counts from zero.
fn starts_over(engine: &Engine, bead: Bead, log: &Log, assumption: Assumption) {
    engine.drain(LONG).unwrap();
    let vain = |event: &Event| matches!(event, Event::AssumedInVain { assumption: which, .. } if *which == assumption);
    assert_eq!(heard(log, vain), 1);
    assert_eq!(heard(log, |event| matches!(event, Event::Discarded { .. } | Event::Failed { .. })), 0);
    let stats = engine.stats();
    assert_eq!((stats.discarded, stats.failed, stats.installed), (1, 0, 0));
    assert_eq!(engine.fault(bead, T1), None);
    let state = engine.state(bead).unwrap();
    assert_eq!((state.tier, state.pending, engine.invocations(bead)), (TierId::INTERPRETER, None, Ok(0)));
}

#[test]
fn an_assumption_broken_while_code_is_compiled_ends_the_compile_which_can_tell() {
    let (engine, log, assumption, inside, go) = stopping(|job, assumption, stop| {
        assert!(job.assume(assumption) && job.assume(assumption) && job.is_current());
        stop();
        assert!(!job.is_current() && !job.assume(assumption));
        Ok(code())
    });
    let bead = beads(&engine, 1)[0];
    engine.promote(bead, T1).unwrap();
    inside.wait();
    assert_eq!(engine.invalidate_assumption(assumption), 1, "the compile");
    assert_eq!(engine.state(bead).unwrap().pending, None, "free to be asked for again");
    go.open();
    starts_over(&engine, bead, &log, assumption);
}

#[test]
fn a_compile_that_names_a_broken_assumption_is_discarded_and_no_failure() {
    for gives_up in [false, true] {
        let (engine, log, assumption, inside, go) = stopping(move |job, assumption, stop| {
            stop();
            assert!(!job.assume(assumption));
            if gives_up {
                Err(CompileError::AssumptionBroken(assumption))
            } else {
                Ok(code().assumes(assumption))
            }
        });
        let bead = beads(&engine, 1)[0];
        let waiter = std::thread::spawn({
            let engine = engine.clone();
            move || engine.compile_now(bead, T1, LONG)
        });
        inside.wait();
        assert_eq!(engine.invalidate_assumption(assumption), 0, "nobody has named it yet");
        go.open();
        assert_eq!(waiter.join().unwrap(), Err(CompileNowError::Superseded(bead)));
        starts_over(&engine, bead, &log, assumption);
    }
}

#[test]
fn a_request_that_followed_a_compile_survives_when_that_relied_in_vain() {
    let (inside, go, named) = (Latch::default(), Latch::default(), Arc::new(Mutex::new(None)));
    let (at, until, assumption) = (inside.clone(), go.clone(), named.clone());
    let first = FnBackend::new(move |job: &mut Job<'_>| {
        assert!(job.assume(assumption.lock().unwrap().unwrap()));
        at.open();
        until.wait();
        Ok(code())
    });
    let engine = Engine::builder()
        .capacity(64)
        .workers(1)
        .tier(Tier::new(first))
        .tier(Tier::new(FnBackend::new(|_| Ok(CompiledCode::new(addr(two))))))
        .build()
        .unwrap();
    let assumption = engine.assumption();
    *named.lock().unwrap() = Some(assumption);
    let bead = beads(&engine, 1)[0];
    engine.promote(bead, T1).unwrap();
    inside.wait();
    engine.promote(bead, T2).unwrap();
    assert_eq!(engine.invalidate_assumption(assumption), 1);
    go.open();
    engine.drain(LONG).unwrap();
    assert_eq!(engine.mutator().code(bead).unwrap().as_ptr(), addr(two));
}

#[test]
fn p11_a_function_that_lost_its_code_to_a_broken_assumption_earns_its_threshold_anew() {
    let engine = inline(100, |_| Ok(code()));
    let (bead, m) = (beads(&engine, 1)[0], engine.mutator());
    (0..99).for_each(|_| m.tick(bead));
    let assumption = engine.assumption();
    engine.install(bead, T1, code().assumes(assumption)).unwrap();
    engine.invalidate_assumption(assumption);
    (0..99).for_each(|_| m.tick(bead));
    assert_eq!(engine.state(bead).unwrap().pending, None);
    m.tick(bead);
    assert!(engine.state(bead).unwrap().pending.is_some());
}

#[test]
fn p3_a_result_that_relied_in_vain_does_not_overwrite_newer_code() {
    let (engine, _, assumption, inside, go) = stopping(|job, assumption, stop| {
        assert!(job.assume(assumption));
        stop();
        Ok(code())
    });
    let bead = beads(&engine, 1)[0];
    engine.promote(bead, T1).unwrap();
    inside.wait();
    engine.invalidate_assumption(assumption);
    engine.install(bead, T1, CompiledCode::new(addr(two))).unwrap();
    go.open();
    engine.drain(LONG).unwrap();
    assert_eq!(engine.mutator().code(bead).unwrap().as_ptr(), addr(two));
}

#[test]
fn a_dispatch_after_an_assumption_is_broken_never_finds_code_that_relied_on_it() {
    const ROUNDS: usize = 20_000;
    let engine = Engine::builder()
        .capacity(64)
        .workers(1)
        .tier(Tier::new(FnBackend::new(|_| Err(CompileError::Unfinished))))
        .build()
        .unwrap();
    let (all, broken) = (beads(&engine, 4), AtomicUsize::new(0));
    let entry = |round: usize| CompiledCode::new(std::ptr::without_provenance(round));
    std::thread::scope(|scope| {
        let finders: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut m = engine.mutator();
                    loop {
                        let gone = broken.load(SeqCst);
                        for &bead in &all {
                            let found = m.code(bead).map_or(usize::MAX, |code| code.addr() as usize);
                            assert!(found > gone, "found {found} after {gone} was broken");
                        }
                        m.safepoint();
                        if gone == ROUNDS {
                            return;
                        }
                    }
                })
            })
            .collect();
        for round in 1..=ROUNDS {
            let assumption = engine.assumption();
            std::thread::scope(|scope| {
                let (first, second) = all.split_at(2);
                let installs = |some: &[Bead]| {
                    for &bead in some {
                        // Refused if it is broken already.
                        let _ = engine.install(bead, T1, entry(round).assumes(assumption));
                    }
                };
                if round % 64 == 0 {
                    scope.spawn(move || installs(second));
                    installs(first);
                    engine.invalidate_assumption(assumption);
                } else {
                    installs(&all);
                    assert_eq!(engine.invalidate_assumption(assumption), all.len());
                }
            });
            broken.store(round, SeqCst);
        }
        finders.into_iter().for_each(|finder| finder.join().unwrap());
    });
}
