//! Snapshots: what the frontend notes when a compile is asked for goes to that compile, or ends with its request.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

/// What was known of a function.
struct Profile {
    core: usize,
    number: usize,
    thread: ThreadId,
    _alive: Arc<()>,
}

/// An engine that notes profiles, how many are alive, and what its compiles saw: numbers of profiles.
struct Rig {
    engine: Engine,
    alive: Arc<()>,
    taken: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Option<usize>>>>,
}

impl Rig {
    fn new(builder: EngineBuilder) -> Rig {
        Rig::with(builder, |_| Ok(code()))
    }

    fn with(
        builder: EngineBuilder,
        compile: impl Fn(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Clone + Send + Sync + 'static,
    ) -> Rig {
        let (alive, taken, seen) = (Arc::new(()), Arc::new(AtomicUsize::new(0)), Arc::default());
        let backend = |seen: &Arc<Mutex<Vec<_>>>| {
            let (seen, compile) = (seen.clone(), compile.clone());
            FnBackend::new(move |job: &mut Job<'_>| {
                let profile = job.snapshot::<Profile>();
                assert!(profile.is_none_or(|profile| Core::new(profile.core) == job.core().unwrap()));
                assert!(job.snapshot::<String>().is_none(), "of another type");
                seen.lock().unwrap().push(profile.map(|profile| profile.number));
                compile(job)
            })
        };
        let (held, number) = (alive.clone(), taken.clone());
        let engine = builder
            .capacity(64)
            .tier(Tier::new(backend(&seen)).policy(Threshold::new(10)))
            .tier(Tier::new(backend(&seen)).policy(Manual))
            .snapshot(move |_, core| {
                let number = number.fetch_add(1, SeqCst) + 1;
                let thread = thread::current().id();
                Some(Profile { core: core.get(), number, thread, _alive: held.clone() })
            })
            .build()
            .unwrap();
        Rig { engine, alive, taken, seen }
    }

    fn bead(&self) -> Bead {
        self.engine.register(Core::new(7)).unwrap()
    }

    /// Profiles that wait for a compile. One reference is ours, one the engine's.
    fn waiting(&self) -> usize {
        Arc::strong_count(&self.alive) - 2
    }

    fn seen(&self) -> Vec<Option<usize>> {
        self.engine.drain(LONG).unwrap();
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn inline_rig() -> Rig {
    Rig::new(Engine::builder().inline())
}

#[test]
fn a_compile_gets_what_was_noted_on_the_thread_that_asked_for_it() {
    let asked_on = Arc::new(Mutex::new(None));
    let noted = asked_on.clone();
    let rig = Rig::with(Engine::builder().workers(1), move |job| {
        *noted.lock().unwrap() = job.snapshot::<Profile>().map(|profile| profile.thread);
        Ok(code())
    });
    let (bead, m) = (rig.bead(), rig.engine.mutator());
    (0..10).for_each(|_| m.tick(bead));
    assert_eq!(rig.seen(), [Some(1)]);
    assert_eq!(*asked_on.lock().unwrap(), Some(thread::current().id()));
    rig.engine.compile_now(bead, T2, LONG).unwrap();
    rig.engine.reload(bead).unwrap();
    rig.engine.drain(LONG).unwrap();
    rig.engine.demote(bead, T1).unwrap();
    assert_eq!(rig.seen(), [Some(2), Some(3), Some(4)]);
    assert_eq!((rig.waiting(), rig.taken.load(SeqCst)), (0, 4));
}

#[test]
fn nothing_is_noted_where_nothing_is_asked_for() {
    let rig = inline_rig();
    let bead = rig.bead();
    rig.engine.promote(bead, T1).unwrap();
    (0..5).for_each(|_| rig.engine.promote(bead, T1).unwrap());
    rig.engine.drain(LONG).unwrap();
    (0..5).for_each(|_| rig.engine.promote(bead, T1).unwrap());
    rig.engine.blacklist(bead).unwrap();
    rig.engine.promote(bead, T1).unwrap_err();
    rig.engine.reload(bead).unwrap();
    assert_eq!(rig.taken.load(SeqCst), 1);
    let without = inline(10, |job| {
        assert!(job.snapshot::<Profile>().is_none());
        Ok(code())
    });
    let bead = beads(&without, 1)[0];
    assert!(without.compile_now(bead, T1, LONG).is_ok());
}

#[test]
fn a_snapshot_ends_with_its_request_however_that_ends() {
    type End = fn(&Engine, Bead);
    let ends: [(&str, End); 8] = [
        ("invalidated", |engine, bead| engine.invalidate(bead).unwrap()),
        ("removed", |engine, bead| _ = engine.remove(bead).unwrap()),
        ("blacklisted", |engine, bead| engine.blacklist(bead).unwrap()),
        ("capped", |engine, bead| engine.set_tier_cap(bead, TierId::INTERPRETER).unwrap()),
        ("overtaken", |engine, bead| _ = engine.install(bead, T1, code()).unwrap()),
        ("shut down", |engine, _| engine.shutdown(LONG).unwrap()),
        ("compiled", |engine, _| engine.drain(LONG).unwrap()),
        ("dropped cold", |engine, _| engine.drain(LONG).unwrap()),
    ];
    for (name, end) in ends {
        let time = Time::default();
        let rig = Rig::new(Engine::builder().inline().clock(time.clock()));
        let (bead, m) = (rig.bead(), rig.engine.mutator());
        (0..10).for_each(|_| m.tick(bead));
        assert_eq!(rig.waiting(), 1, "{name}");
        if name == "dropped cold" {
            time.set(60_000);
        }
        end(&rig.engine, bead);
        assert_eq!(rig.waiting(), 0, "{name}");
        assert_eq!(rig.seen.lock().unwrap().len(), usize::from(name == "compiled"), "{name}");
    }
    let rig = inline_rig();
    rig.engine.promote(rig.bead(), T1).unwrap();
    let Rig { engine, alive, .. } = rig;
    drop(engine);
    assert_eq!(Arc::strong_count(&alive), 1, "it went with the engine");
}

#[test]
fn a_snapshot_of_the_old_source_or_of_a_replaced_request_is_never_compiled_with() {
    let rig = inline_rig();
    let bead = rig.bead();
    rig.engine.promote(bead, T1).unwrap();
    rig.engine.reload(bead).unwrap();
    assert_eq!((rig.waiting(), rig.seen()), (1, vec![Some(2)]));
    let bead = rig.bead();
    rig.engine.promote(bead, T1).unwrap();
    rig.engine.promote(bead, T2).unwrap();
    assert_eq!((rig.waiting(), rig.seen()), (1, vec![Some(4)]));
}

#[test]
fn a_snapshot_stays_with_a_request_that_outlives_other_changes() {
    let rig = inline_rig();
    let (insisted, overtaken, m) = (rig.bead(), rig.bead(), rig.engine.mutator());
    (0..10).for_each(|_| m.tick(insisted));
    rig.engine.promote(insisted, T1).unwrap();
    assert_eq!(rig.seen(), [Some(1)], "somebody insisted on what was merely hot");
    rig.engine.promote(overtaken, T2).unwrap();
    rig.engine.install(overtaken, T1, code()).unwrap();
    assert_eq!(rig.seen(), [Some(2)], "the VM installed code of a lower tier");
    assert_eq!(rig.waiting(), 0);
}

#[test]
fn a_request_that_follows_a_compile_keeps_its_snapshot_and_so_does_a_job_that_is_tried_alone() {
    let slot: Arc<Mutex<Option<(Engine, Bead)>>> = Arc::default();
    let inner = slot.clone();
    let rig = Rig::with(Engine::builder().inline(), move |_| {
        if let Some((engine, bead)) = inner.lock().unwrap().take() {
            engine.promote(bead, T2).unwrap();
            panic!("in a batch");
        }
        Ok(code())
    });
    let (first, second) = (rig.bead(), rig.bead());
    *slot.lock().unwrap() = Some((rig.engine.clone(), first));
    rig.engine.promote(first, T1).unwrap();
    rig.engine.promote(second, T1).unwrap();
    let mut seen = rig.seen();
    seen.sort();
    // The batch panicked with its first job, each was tried again alone, and then the request that followed.
    assert_eq!(seen, [Some(1), Some(1), Some(2), Some(3)]);
    assert_eq!(rig.waiting(), 0);
}

#[test]
fn a_request_that_follows_a_compile_and_is_lowered_takes_its_snapshot_along_or_ends_with_it() {
    const T3: TierId = TierId::new(3).unwrap();
    // Lowered to a tier above the one that is being compiled, and to that one.
    for (compiling, expected) in [(T1, vec![(T1, true), (T2, true)]), (T2, vec![(T2, true)])] {
        let (alive, seen) = (Arc::new(()), Arc::new(Mutex::new(Vec::new())));
        let slot: Arc<Mutex<Option<(Engine, Bead)>>> = Arc::default();
        let (held, inner, noted) = (alive.clone(), slot.clone(), seen.clone());
        let backend = Arc::new(FnBackend::new(move |job: &mut Job<'_>| {
            noted.lock().unwrap().push((job.tier(), job.snapshot::<Arc<()>>().is_some()));
            if let Some((engine, bead)) = inner.lock().unwrap().take() {
                engine.promote(bead, T3).unwrap();
                engine.set_tier_cap(bead, T2).unwrap();
            }
            Ok(code())
        }));
        let tiers = [(); 3].map(|()| Tier::new(backend.clone()).policy(Manual));
        let builder = Engine::builder().capacity(16).inline().snapshot(move |_, _| Some(held.clone()));
        let engine = tiers.into_iter().fold(builder, EngineBuilder::tier).build().unwrap();
        let bead = beads(&engine, 1)[0];
        *slot.lock().unwrap() = Some((engine.clone(), bead));
        let all = Arc::strong_count(&alive);
        engine.promote(bead, compiling).unwrap();
        engine.run_pending(usize::MAX);
        assert_eq!(*seen.lock().unwrap(), expected);
        assert_eq!((engine.tier(bead), Arc::strong_count(&alive)), (Ok(T2), all), "none is left behind");
    }
}

#[test]
fn a_snapshot_whose_taking_or_drop_panics_costs_nothing_but_itself() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("snapshot");
        }
    }
    for takes in [false, true] {
        let backend = FnBackend::new(move |job: &mut Job<'_>| {
            assert_eq!(job.snapshot::<Bomb>().is_some(), takes);
            Ok(code())
        });
        let builder = Engine::builder().capacity(64).inline().tier(Tier::new(backend));
        let engine = builder.snapshot(move |_, _| if takes { Some(Bomb) } else { panic!("taking") });
        let engine = engine.build().unwrap();
        let all = beads(&engine, 2);
        assert!(engine.compile_now(all[0], T1, LONG).is_ok());
        engine.promote(all[1], T1).unwrap();
        engine.invalidate(all[1]).unwrap();
        engine.promote(all[1], T1).unwrap();
    }
}

#[test]
fn no_snapshot_is_left_behind_or_goes_astray_whatever_races() {
    let rig = Rig::new(Engine::builder().workers(2));
    let all: Vec<_> = (0..4).map(|_| rig.bead()).collect();
    thread::scope(|scope| {
        for thread in 0..4usize {
            let (engine, all) = (&rig.engine, &all);
            scope.spawn(move || {
                for round in 0..4_000usize {
                    let bead = all[(round * 7 + thread) % all.len()];
                    match (thread, round % 5) {
                        (0, _) => _ = engine.reload(bead).unwrap(),
                        (1, 0) => engine.invalidate(bead).unwrap(),
                        (1, 1) => engine.demote(bead, T1).unwrap(),
                        (2, 0) => _ = engine.install(bead, T1, code()).unwrap(),
                        (_, 2) => engine.promote(bead, T2).unwrap(),
                        _ => engine.promote(bead, T1).unwrap(),
                    }
                }
            });
        }
    });
    rig.engine.drain(Duration::from_secs(60)).unwrap();
    assert_eq!(rig.waiting(), 0);
    let seen = rig.seen();
    let with: Vec<_> = seen.iter().flatten().collect();
    let mut once = with.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), with.len(), "a snapshot was compiled with twice");
    assert!(
        with.len() * 10 > seen.len() * 9,
        "{} of {} compiles had none",
        seen.len() - with.len(),
        seen.len()
    );
}

/// An engine that accepts numbers with requests, and what its compiles saw of them.
fn accepting(threshold: u32) -> (Engine, Arc<Mutex<Vec<Option<u32>>>>) {
    let seen: Arc<Mutex<Vec<_>>> = Arc::default();
    let sees = seen.clone();
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        let given = job.snapshot::<u32>().copied();
        sees.lock().unwrap().push(given);
        given.map(|_| code()).ok_or(CompileError::Withdrawn("nothing was given"))
    });
    let tier = Tier::new(backend).policy(Threshold::new(threshold));
    (Engine::builder().inline().capacity(64).tier(tier).accept_snapshots().build().unwrap(), seen)
}

#[test]
fn what_a_call_gives_along_is_asked_for_when_it_makes_the_function_hot_and_goes_to_that_compile() {
    let (engine, seen) = accepting(10);
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    let asked = AtomicUsize::new(0);
    let call = |number: u32| {
        let note = || {
            asked.fetch_add(1, SeqCst);
            Some(number)
        };
        m.dispatch_with(bead, note).is_some()
    };
    assert!((1..10).all(|number| !call(number)));
    assert_eq!(asked.load(SeqCst), 0);
    assert!(!call(10));
    engine.drain(LONG).unwrap();
    assert!((11..100).all(call));
    assert_eq!((asked.load(SeqCst), &*seen.lock().unwrap()), (1, &vec![Some(10)]));
}

#[test]
fn requests_by_name_carry_what_they_are_given_and_one_that_is_there_keeps_its_own() {
    let (engine, seen) = accepting(10);
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote_with(bead, T1, || Some(1u32)).unwrap();
    engine.promote_with(bead, T1, || -> Option<u32> { unreachable!("it waits already") }).unwrap();
    engine.compile_now_with(bead, T1, LONG, || Some(2u32)).unwrap();
    engine.promote_with(bead, T1, || Some(3u32)).unwrap();
    assert_eq!(*seen.lock().unwrap(), [Some(1)]);
    let version = engine.version(bead).unwrap();
    engine.recompile_with(bead, T1, || Some(4u32)).unwrap();
    assert!(engine.mutator().dispatch(bead).is_some(), "it runs until the new code is there");
    engine.drain(LONG).unwrap();
    assert_eq!(*seen.lock().unwrap(), [Some(1), Some(4)]);
    assert!(engine.version(bead).unwrap() > version && engine.mutator().dispatch(bead).is_some());
}

#[test]
fn a_withdrawn_compile_is_no_failure_and_the_function_counts_from_zero() {
    let (engine, seen) = accepting(10);
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    for round in 1..=20 {
        (0..10).for_each(|_| assert!(m.dispatch(bead).is_none()));
        engine.drain(LONG).unwrap();
        assert_eq!(seen.lock().unwrap().len(), round);
    }
    assert_eq!((engine.stats().failed, engine.stats().discarded), (0, 20));
    assert!(engine.fault(bead, T1).is_none());
    (0..10).for_each(|_| assert!(m.dispatch_with(bead, || Some(7u32)).is_none()));
    engine.drain(LONG).unwrap();
    assert!(m.dispatch(bead).is_some());
}

#[test]
fn a_panic_in_what_is_given_leaves_the_request_without() {
    let (engine, seen) = accepting(1);
    let bead = engine.register(Core::ZERO).unwrap();
    engine.mutator().dispatch_with(bead, || -> Option<u32> { panic!("nothing to give") });
    engine.drain(LONG).unwrap();
    assert_eq!(*seen.lock().unwrap(), [None]);
}
