//! Errors, nulls and panics of backends and policies are outcomes, not ends.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

fn with_events(
    workers: usize,
    compile: impl Fn(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + Sync + 'static,
) -> (Engine, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(vec![]));
    let sink = events.clone();
    let engine = Engine::builder()
        .capacity(1 << 16)
        .workers(workers)
        .tier(Tier::new(FnBackend::new(compile)).policy(Threshold::new(10)))
        .on_event(move |event| sink.lock().unwrap().push(event.clone()))
        .build()
        .unwrap();
    (engine, events)
}

fn failures(events: &Mutex<Vec<Event>>) -> Vec<(Bead, CompileError, u32, u32)> {
    let failed = |event: &Event| match event {
        Event::Failed { bead, error, failures, retry_after, .. } => {
            Some((*bead, error.clone(), *failures, *retry_after))
        }
        _ => None,
    };
    events.lock().unwrap().iter().filter_map(failed).collect()
}

#[test]
fn p37_a_failed_compile_leaves_the_function_interpreted_and_is_retried_after_a_doubling_pause() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let (engine, events) = with_events(0, move |_| match counted.fetch_add(1, SeqCst) {
        0 => Err(CompileError::failed("no registers left")),
        1 => Ok(CompiledCode::new(std::ptr::null())),
        _ => Ok(code()),
    });
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    let mut asked_at = vec![];
    for call in 1..=4_000 {
        if m.dispatch(bead).is_some() {
            break;
        }
        if engine.run_pending(usize::MAX) > 0 {
            asked_at.push(call);
        }
    }
    assert_eq!(asked_at, [10, 1_010, 3_010]);
    assert_eq!(
        failures(&events),
        [
            (bead, CompileError::Failed("no registers left".into()), 1, 1_000),
            (bead, CompileError::NullEntry, 2, 2_000)
        ]
    );
    assert!(m.dispatch(bead).is_some());
    assert_eq!(engine.fault(bead, TierId::BASELINE), None, "forgotten after the success");
}

#[test]
fn p17_p18_a_panic_on_a_pool_thread_is_an_outcome_and_the_next_job_on_that_worker_succeeds() {
    let (engine, events) = with_events(1, |job| {
        assert!(job.core().unwrap() != Core::new(1), "core 1 is cursed");
        Ok(code())
    });
    let (bad, good) = (engine.register(Core::new(1)).unwrap(), engine.register(Core::new(2)).unwrap());
    engine.promote(bad, TierId::BASELINE).unwrap();
    engine.drain(LONG).unwrap();
    engine.promote(good, TierId::BASELINE).unwrap();
    engine.drain(LONG).unwrap();
    let m = engine.mutator();
    assert!(m.dispatch(bad).is_none());
    assert!(m.dispatch(good).is_some());
    assert_eq!(engine.state(bad).unwrap().pending, None, "not stuck compiling");
    let failures = failures(&events);
    assert!(
        matches!(&failures[..], [(b, CompileError::Panicked(why), 1, _)] if *b == bad && why.contains("cursed"))
    );
    assert!(matches!(engine.fault(bad, TierId::BASELINE).unwrap().last, CompileError::Panicked(_)));
}

#[test]
fn in_a_batch_only_the_culprit_pays_for_a_panic() {
    let (engine, events) = with_events(0, |job| {
        assert!(job.core().unwrap().get() % 10 != 3, "cursed");
        Ok(code())
    });
    let all = beads(&engine, 100);
    all.iter().for_each(|&bead| engine.promote(bead, TierId::BASELINE).unwrap());
    engine.run_pending(usize::MAX);
    let m = engine.mutator();
    for (core, &bead) in all.iter().enumerate() {
        assert_eq!(m.dispatch(bead).is_some(), core % 10 != 3);
    }
    assert_eq!(failures(&events).len(), 10);
}

#[test]
fn a_job_the_backend_forgets_to_finish_counts_as_failed() {
    struct Lazy;
    impl Backend for Lazy {
        fn compile(&self, jobs: &mut [Job<'_>]) {
            for job in jobs.iter_mut().filter(|job| job.core().is_ok_and(|core| core.get() % 2 == 0)) {
                job.finish(Ok(code()));
                assert_eq!(job.finish(Ok(code())), Outcome::AlreadyFinished);
            }
        }
    }
    let engine = Engine::builder().inline().tier(Tier::new(Lazy)).build().unwrap();
    let all = beads(&engine, 10);
    all.iter().for_each(|&bead| engine.promote(bead, TierId::BASELINE).unwrap());
    engine.run_pending(usize::MAX);
    assert_eq!((engine.stats().installed, engine.stats().failed), (5, 5));
    assert_eq!(engine.fault(all[1], TierId::BASELINE).unwrap().last, CompileError::Unfinished);
}

#[test]
fn an_entry_wider_than_a_code_word_is_refused_and_its_owner_dropped() {
    let alive = Alive::default();
    let compiled = alive.clone();
    let (engine, events) = with_events(0, move |_| {
        let wide = CompiledCode::new(std::ptr::without_provenance(1 << 50));
        let kept = compiled.clone();
        let _ = kept.code();
        Ok(wide.owner(CodeOwner::boxed(kept)))
    });
    let bead = engine.register(Core::new(0)).unwrap();
    engine.promote(bead, TierId::BASELINE).unwrap();
    engine.run_pending(usize::MAX);
    assert!(
        matches!(failures(&events)[..], [(_, CompileError::EntryTooWide { entry }, ..)] if entry == 1 << 50)
    );
    assert!(engine.install(bead, TierId::BASELINE, CompiledCode::new(std::ptr::null())).is_err());
    assert_eq!(engine.tier(bead), Ok(TierId::INTERPRETER));
}

#[test]
fn no_promotion_is_lost_when_compiles_fail_and_panic_at_random() {
    let functions = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let tries = AtomicU32::new(0);
    let engine = Engine::builder()
        .capacity(functions)
        .workers(2)
        // Here every failure is to be tried again.
        .fault_limit(u32::MAX)
        .tier(Tier::new(FnBackend::new(move |_| match tries.fetch_add(1, SeqCst) {
            n if n % 100 == 7 => panic!("one in a hundred"),
            n if n % 50 == 3 => Err(CompileError::failed("one in fifty")),
            _ => Ok(code()),
        })))
        .build()
        .unwrap();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let all = beads(&engine, functions);
    let mut rounds = 0;
    loop {
        let missing: Vec<_> = all.iter().filter(|&&bead| engine.tier(bead) != Ok(TierId::BASELINE)).collect();
        if missing.is_empty() {
            break;
        }
        rounds += 1;
        assert!(rounds < 20, "{} promotions lost", missing.len());
        missing.iter().for_each(|&&bead| engine.promote(bead, TierId::BASELINE).unwrap());
        engine.drain(LONG).unwrap();
    }
    std::panic::set_hook(hook);
    assert_eq!(engine.stats().installed, functions as u64);
    assert!(engine.stats().failed as usize > functions / 50);
}

#[test]
fn a_policy_or_filter_that_panics_is_contained_and_asked_again_later() {
    let asked = AtomicU32::new(0);
    let engine = Engine::builder()
        .inline()
        .tier(Tier::new(trivial()).policy(move |_: &Activity| {
            assert!(asked.fetch_add(1, SeqCst) > 0, "first question");
            Verdict::Promote
        }))
        .tier(Tier::new(trivial()).filter(|_| panic!("filter")))
        .build()
        .unwrap();
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    assert!(m.dispatch(bead).is_none());
    assert_eq!(engine.state(bead).unwrap().pending, None);
    let questions = (0..20_000).filter(|_| m.dispatch(bead).is_none() && engine.run_pending(usize::MAX) == 1);
    assert_eq!(questions.count(), 1);
    assert_eq!(engine.tier(bead), Ok(TierId::BASELINE));
    let tier = TierId::new(2).unwrap();
    assert_eq!(engine.promote(bead, tier), Err(PromoteError::Filtered { bead, tier }));
}

#[test]
fn a_failed_compile_beside_a_running_function_counts_no_calls_that_were_not_made() {
    let (engine, _) = with_events(1, |_| Err(CompileError::NullEntry));
    for _ in 0..300 {
        let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
        let mut calls = 0;
        while engine.fault(bead, TierId::BASELINE).is_none() {
            (0..64).for_each(|_| m.tick(bead));
            calls += 64;
        }
        (0..64).for_each(|_| m.tick(bead));
        assert!(engine.invocations(bead).unwrap() <= calls + 64);
        drop(m);
        engine.drain(LONG).unwrap();
        engine.remove(bead).unwrap();
    }
}

#[derive(Debug)]
struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("all pages are taken")
    }
}

impl std::error::Error for Full {}

#[test]
fn p7_a_function_that_found_no_room_for_its_code_however_often_is_compiled_when_there_is_some() {
    let room = Arc::new(AtomicBool::new(false));
    let seen = room.clone();
    let (engine, events) = with_events(0, move |_| match seen.load(SeqCst) {
        true => Ok(code()),
        false => Err(CompileError::no_room(Full)),
    });
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    let calls_until_compiled = |most: u32| {
        (0..most).find(|_| {
            engine.run_pending(usize::MAX);
            m.dispatch(bead).is_some()
        })
    };
    assert_eq!(calls_until_compiled(200_000), None);
    let pauses: Vec<_> = failures(&events).iter().map(|&(.., retry_after)| retry_after).collect();
    assert!(pauses.len() > 2 * DEFAULT_FAULT_LIMIT as usize, "{pauses:?}");
    assert_eq!(pauses[..6], [1_000, 2_000, 4_000, 8_000, 16_000, 16_000]);
    assert!(!events.lock().unwrap().iter().any(|event| matches!(event, Event::GaveUp { .. })));
    let said = engine.fault(bead, TierId::BASELINE).unwrap().to_string();
    assert!(said.contains("no room for the code: all pages are taken"), "{said}");
    room.store(true, SeqCst);
    assert!(calls_until_compiled(17_000).is_some());
}

#[test]
fn p7_failures_for_want_of_room_do_not_count_among_others() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let (engine, events) = with_events(0, move |_| match counted.fetch_add(1, SeqCst) {
        number if number % 2 == 0 => Err(CompileError::no_room(Full)),
        _ => Err(CompileError::failed("no registers left")),
    });
    let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
    let given_up = |events: &Mutex<Vec<Event>>| {
        events.lock().unwrap().iter().any(|event| matches!(event, Event::GaveUp { .. }))
    };
    for _ in 0..1_000_000 {
        let _ = m.dispatch(bead);
        engine.run_pending(usize::MAX);
        if given_up(&events) {
            break;
        }
    }
    assert!(given_up(&events));
    assert_eq!(tries.load(SeqCst), 2 * DEFAULT_FAULT_LIMIT);
}
