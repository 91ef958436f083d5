//! Code that contains the body of another function is gone when a call that changed what the function means has returned.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

/// What a caller without the body is entered at.
const THROUGH_THE_SLOT: usize = 7;

/// An engine whose compiles include the second function in all others, and enter them at the number of its body.
struct Rig {
    engine: Engine,
    caller: Bead,
    callee: Bead,
    body: Arc<AtomicUsize>,
}

impl Rig {
    fn new(builder: EngineBuilder) -> Rig {
        Rig::including(1, builder)
    }

    /// Of two functions, that of this index is the callee.
    fn including(index: usize, builder: EngineBuilder) -> Rig {
        let (body, included) = (Arc::new(AtomicUsize::new(100)), Arc::new(OnceLock::new()));
        let tier = || {
            let (body, included) = (body.clone(), included.clone());
            Tier::new(FnBackend::new(move |job: &mut Job<'_>| {
                let Some(&callee) = included.get() else { return Err(CompileError::Unfinished) };
                let includes = job.include(callee)?;
                let entry = if includes { body.load(Relaxed) } else { THROUGH_THE_SLOT };
                Ok(CompiledCode::new(std::ptr::without_provenance(entry)))
            }))
            .policy(Manual)
        };
        let engine = builder.capacity(64).tier(tier()).tier(tier()).build().unwrap();
        let group = engine.group().unwrap();
        let both: Vec<_> = engine.register_group(group, [0, 1].map(Core::new)).unwrap().iter().collect();
        let (caller, callee) = (both[1 - index], both[index]);
        included.set(callee).unwrap();
        Rig { engine, caller, callee, body }
    }

    fn inline() -> Rig {
        Rig::new(Engine::builder().inline())
    }

    fn compile(&self, bead: Bead, tier: TierId) {
        self.engine.promote(bead, tier).unwrap();
        self.engine.run_pending(usize::MAX);
        assert_eq!(self.engine.tier(bead), Ok(tier));
    }

    fn caller_runs(&self) -> Option<usize> {
        self.engine.mutator().code(self.caller).map(|code| code.addr() as usize)
    }
}

type Change = fn(&Engine, Bead);

#[test]
fn whatever_changes_what_a_call_means_takes_the_code_that_contains_the_body() {
    let changes: [(&str, Change); 12] = [
        ("invalidate", |engine, callee| engine.invalidate(callee).unwrap()),
        ("invalidate_matching", |engine, callee| {
            engine.invalidate_matching(|bead| bead == callee);
        }),
        ("reload", |engine, callee| {
            engine.reload(callee).unwrap();
        }),
        ("reload_matching", |engine, callee| {
            engine.reload_matching(|bead| bead == callee);
        }),
        ("remove", |engine, callee| {
            engine.remove(callee).unwrap();
        }),
        ("install", |engine, callee| {
            engine.install(callee, T1, code()).unwrap();
        }),
        ("swap_matching", |engine, callee| {
            engine.swap_matching(T2, |bead| (bead == callee).then(code));
        }),
        ("demote", |engine, callee| engine.demote(callee, T1).unwrap()),
        ("demote to where it is", |engine, callee| engine.demote(callee, T2).unwrap()),
        ("demote to the interpreter", |engine, callee| engine.demote(callee, TierId::INTERPRETER).unwrap()),
        ("set_tier_cap", |engine, callee| engine.set_tier_cap(callee, T1).unwrap()),
        ("blacklist", |engine, callee| engine.blacklist(callee).unwrap()),
    ];
    for (name, change) in changes {
        let rig = Rig::inline();
        rig.compile(rig.callee, T2);
        rig.compile(rig.caller, T2);
        assert_eq!(rig.caller_runs(), Some(100));
        change(&rig.engine, rig.callee);
        assert_eq!(rig.caller_runs(), None, "{name}");
    }
}

#[test]
fn a_function_without_code_of_its_own_is_contained_and_redefined_like_any_other() {
    let rig = Rig::inline();
    rig.compile(rig.caller, T1);
    rig.body.store(200, Relaxed);
    rig.engine.invalidate(rig.callee).unwrap();
    assert_eq!(rig.caller_runs(), None);
    rig.compile(rig.caller, T1);
    assert_eq!(rig.caller_runs(), Some(200));
}

#[test]
fn what_changes_only_how_fast_a_function_runs_leaves_the_code_that_contains_it() {
    let rig = Rig::inline();
    rig.compile(rig.caller, T2);
    rig.compile(rig.callee, T1);
    rig.compile(rig.callee, T2);
    let version = rig.engine.version(rig.callee).unwrap();
    rig.engine.bailout(rig.callee, BailoutInfo::new(version)).unwrap();
    rig.engine.run_pending(usize::MAX);
    let version = rig.engine.version(rig.callee).unwrap();
    rig.engine.invalidate_version(rig.callee, version).unwrap();
    rig.engine.set_tier_cap(rig.callee, TierId::MAX).unwrap();
    assert_eq!(rig.caller_runs(), Some(100));
}

#[test]
fn each_function_of_a_unit_is_taken_back_for_itself() {
    let rig = Rig::inline();
    rig.compile(rig.callee, T2);
    rig.compile(rig.caller, T2);
    rig.engine.invalidate(rig.caller).unwrap();
    assert!(rig.engine.mutator().code(rig.callee).is_some(), "it is contained, and contains nothing");
    rig.compile(rig.caller, T2);
    let version = rig.engine.version(rig.caller).unwrap();
    let decision = rig.engine.bailout(rig.caller, BailoutInfo::new(version)).unwrap();
    assert_ne!(decision, DeoptDecision::Outdated, "a guard in the contained body is the caller's");
    assert!(rig.caller_runs().is_none() && rig.engine.mutator().code(rig.callee).is_some());
}

#[test]
fn a_function_contains_itself_without_relying_on_anything() {
    let rig = Rig::inline();
    rig.compile(rig.callee, T1);
    assert_eq!(rig.engine.mutator().code(rig.callee).map(|code| code.addr()), Some(100));
    rig.engine.set_tier_cap(rig.callee, T1).unwrap();
    assert!(rig.engine.mutator().code(rig.callee).is_some(), "it would be gone if it relied on a standing");
    assert_eq!(rig.engine.reload(rig.callee), Ok(Reloaded::Queued(T1)));
    rig.engine.run_pending(usize::MAX);
    assert!(rig.engine.mutator().code(rig.callee).is_some());
    assert_eq!(rig.engine.stats().discarded, 0);
}

#[test]
fn a_redefinition_within_a_compile_ends_it_without_a_failure() {
    let (callee, engine) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::<Engine>::new()));
    let (known, itself) = (callee.clone(), engine.clone());
    let made = inline(10, move |job| {
        let callee = *known.get().unwrap();
        assert!(job.include(callee)?);
        itself.get().unwrap().invalidate(callee).unwrap();
        assert!(!job.is_current());
        assert!(job.include(callee)? || !job.is_current(), "asked again, it is of no more use");
        Ok(code())
    });
    let engine = engine.get_or_init(|| made.clone());
    let [caller, second] = beads(engine, 2)[..] else { unreachable!() };
    callee.set(second).unwrap();
    engine.promote(caller, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert!(engine.mutator().code(caller).is_none());
    let stats = engine.stats();
    assert_eq!((stats.failed, stats.discarded), (0, 1));
}

#[test]
fn what_is_not_live_is_not_included_and_the_next_function_there_is_another() {
    let rig = Rig::inline();
    rig.engine.remove(rig.callee).unwrap();
    rig.engine.reclaim();
    let mut later = (0..64).map_while(|core| rig.engine.register(Core::new(core)).ok());
    assert!(later.any(|bead| bead.index() == rig.callee.index()), "its index was not used again");
    rig.engine.promote(rig.caller, T1).unwrap();
    rig.engine.run_pending(usize::MAX);
    assert_eq!((rig.caller_runs(), rig.engine.stats().failed), (None, 1));
    let fault = rig.engine.fault(rig.caller, T1).map(|fault| fault.last);
    assert_eq!(fault, Some(Stale(rig.callee).into()));
}

#[test]
fn who_compiles_anew_on_hearing_of_the_loss_has_the_body_in_it_again() {
    let itself = Arc::new(OnceLock::<(Engine, Bead)>::new());
    let known = itself.clone();
    let rig = Rig::new(Engine::builder().inline().on_event(move |event| {
        let Some((engine, caller)) = known.get() else { return };
        if matches!(event, Event::Invalidated { bead } if bead == caller) {
            engine.promote(*caller, T1).unwrap();
            engine.run_pending(usize::MAX);
        }
    }));
    rig.compile(rig.caller, T1);
    itself.set((rig.engine.clone(), rig.caller)).ok();
    rig.engine.invalidate(rig.callee).unwrap();
    assert_eq!(rig.caller_runs(), Some(100));
}

#[test]
fn a_redefinition_tells_of_no_assumption_that_the_vm_never_made() {
    let events = Arc::new(AtomicUsize::new(0));
    let heard = events.clone();
    let rig = Rig::new(Engine::builder().inline().on_event(move |event| {
        heard.fetch_add(usize::from(matches!(event, Event::AssumptionBroken { .. })), SeqCst);
    }));
    rig.compile(rig.caller, T1);
    rig.engine.invalidate(rig.callee).unwrap();
    assert_eq!((rig.caller_runs(), events.load(SeqCst)), (None, 0));
    rig.engine.invalidate_assumption(rig.engine.assumption());
    assert_eq!(events.load(SeqCst), 1);
}

#[test]
fn a_function_that_may_not_be_compiled_at_the_tier_is_called_through_its_slot() {
    let bars: [Change; 2] = [
        |engine, callee| engine.blacklist(callee).unwrap(),
        |engine, callee| engine.set_tier_cap(callee, T1).unwrap(),
    ];
    for bar in bars {
        let rig = Rig::inline();
        bar(&rig.engine, rig.callee);
        rig.compile(rig.caller, T2);
        assert_eq!(rig.caller_runs(), Some(THROUGH_THE_SLOT));
    }
    let capped = Rig::inline();
    capped.engine.set_tier_cap(capped.callee, T1).unwrap();
    capped.compile(capped.caller, T1);
    assert_eq!(capped.caller_runs(), Some(100), "at a tier it may have");
}

#[test]
fn a_function_that_the_tiers_filter_refuses_is_called_through_its_slot() {
    let other = Arc::new(OnceLock::new());
    let (known, refused) = (other.clone(), other.clone());
    let compile = FnBackend::new(move |job: &mut Job<'_>| {
        let entry = if job.include(*known.get().unwrap())? { 100 } else { THROUGH_THE_SLOT };
        Ok(CompiledCode::new(std::ptr::without_provenance(entry)))
    });
    let tier = Tier::new(compile).policy(Manual).filter(move |it| Some(&it.bead) != refused.get());
    let engine = Engine::builder().capacity(64).inline().tier(tier).build().unwrap();
    let [caller, callee] = beads(&engine, 2)[..] else { unreachable!() };
    other.set(callee).unwrap();
    engine.promote(caller, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.mutator().code(caller).map(|code| code.addr()), Some(THROUGH_THE_SLOT as u64));
}

/// The callee is met first, and the caller has lost its code by the time it is met itself.
#[test]
fn calls_for_many_count_and_queue_what_loses_code_within_them() {
    type Bulk = fn(&Engine, Group) -> usize;
    let reloads: [Bulk; 3] = [
        |engine, _| engine.reload_all(),
        |engine, _| engine.reload_matching(|_| true),
        |engine, group| engine.reload_group(group).unwrap(),
    ];
    let invalidations: [Bulk; 3] = [
        |engine, _| engine.invalidate_all(),
        |engine, _| engine.invalidate_matching(|_| true),
        |engine, group| engine.invalidate_group(group).unwrap(),
    ];
    let bulks = reloads.map(|bulk| (bulk, T2)).into_iter();
    for (bulk, after) in bulks.chain(invalidations.map(|bulk| (bulk, TierId::INTERPRETER))) {
        let rig = Rig::including(0, Engine::builder().inline());
        let group = rig.engine.group_of(rig.caller).unwrap();
        [rig.callee, rig.caller].iter().for_each(|&bead| rig.compile(bead, T2));
        assert_eq!(bulk(&rig.engine, group), 2);
        rig.engine.run_pending(usize::MAX);
        assert_eq!((rig.engine.tier(rig.callee), rig.engine.tier(rig.caller)), (Ok(after), Ok(after)));
    }
}

#[test]
fn a_swap_of_caller_and_callee_leaves_no_time_at_which_the_caller_is_interpreted() {
    let losses = Arc::new(AtomicUsize::new(0));
    let heard = losses.clone();
    let builder = Engine::builder().inline().on_event(move |event| {
        heard.fetch_add(usize::from(matches!(event, Event::Invalidated { .. })), SeqCst);
    });
    let rig = Rig::including(0, builder);
    [rig.callee, rig.caller].iter().for_each(|&bead| rig.compile(bead, T2));
    let old = rig.engine.version(rig.caller).ok();
    let swapped = rig.engine.swap_matching(T2, |_| Some(code()));
    let caller = swapped.superseded.iter().find(|one| one.bead == rig.caller).unwrap();
    assert_eq!((caller.old_tier, caller.old_version), (T2, old));
    assert_eq!((rig.engine.tier(rig.caller), losses.load(SeqCst)), (Ok(T2), 0));
    let other = rig.engine.swap_matching(T2, |bead| (bead == rig.callee).then(code));
    assert_eq!((other.superseded.len(), rig.engine.tier(rig.caller)), (1, Ok(T2)), "it contains nothing now");
}

#[test]
fn the_core_of_an_included_function_is_followed_only_while_no_collector_moves_it() {
    let (callee, engine) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::<Engine>::new()));
    let (known, itself) = (callee.clone(), engine.clone());
    let made = inline(10, move |job| {
        let callee = *known.get().unwrap();
        let inside = job.with_core_of(callee, |core| {
            assert_eq!(core, Core::new(1));
            itself.get().unwrap().gc_pause().map(|_| ())
        });
        assert_eq!(inside, Ok(Err(GcPauseError::Inside)));
        Ok(code())
    });
    let engine = engine.get_or_init(|| made.clone());
    let [caller, second] = beads(engine, 2)[..] else { unreachable!() };
    callee.set(second).unwrap();
    engine.promote(caller, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(caller), Ok(T1));
}

/// Callers are compiled, and redefinitions go on, all at once. Whoever redefines finds no older body in any caller afterwards.
#[test]
fn under_load_no_older_body_is_found_after_a_redefinition() {
    const CALLERS: usize = 8;
    let changes = if cfg!(debug_assertions) { 300 } else { 3_000 };
    let rig = Rig::new(Engine::builder().workers(2));
    let callers = beads(&rig.engine, CALLERS);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _done = Finally(|| _ = done.fetch_add(1, SeqCst));
                // Bodies have growing numbers; two threads store them in one order, and redefine in any.
                for change in 0..changes {
                    // So that each change has something to take.
                    let m = rig.engine.mutator();
                    eventually("a caller is compiled", || {
                        callers.iter().any(|&caller| m.code(caller).is_some())
                    });
                    drop(m);
                    let body = 1 + rig.body.fetch_add(1, SeqCst);
                    match change % 3 {
                        0 => drop(rig.engine.reload(rig.callee)),
                        1 => drop(rig.engine.demote(rig.callee, T2)),
                        _ => drop(rig.engine.invalidate(rig.callee)),
                    }
                    let m = rig.engine.mutator();
                    for entry in callers.iter().filter_map(|&caller| m.code(caller)) {
                        let entry = entry.addr() as usize;
                        assert!(entry == THROUGH_THE_SLOT || entry >= body, "{entry}, and {body} came");
                    }
                }
            });
        }
        let mut turn = 0;
        while done.load(SeqCst) < 2 {
            let caller = callers[turn % CALLERS];
            let _ = rig.engine.promote(caller, if turn.is_multiple_of(2) { T1 } else { T2 });
            turn += 1;
        }
    });
    // Some of them may have been compiled while a redefinition was going on, and call through the slot.
    callers.iter().for_each(|&caller| rig.engine.invalidate(caller).unwrap());
    rig.engine.promote_many(callers.iter().copied(), T2);
    rig.engine.drain(LONG).unwrap();
    let m = rig.engine.mutator();
    let last = rig.body.load(SeqCst) as u64;
    assert!(callers.iter().all(|&caller| m.code(caller).map(|code| code.addr()) == Some(last)));
    assert_eq!(rig.engine.stats().failed, 0);
}
