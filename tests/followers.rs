//! Requests that follow a compile in flight: what ends that compile, replaces it or bars it, and what becomes of them. And whose turn it is.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const T0: TierId = TierId::INTERPRETER;
const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();
const T3: TierId = TierId::new(3).unwrap();

/// What happens once, inside of the first compile.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce(&mut Job<'_>) + Send>>>>;

/// An inline engine of three tiers that notes what its backend compiled, a function, and what happens inside the first compile.
fn noting() -> (Engine, Bead, Meanwhile, Arc<Mutex<Vec<TierId>>>) {
    let (meanwhile, compiled) = (Meanwhile::default(), Arc::new(Mutex::new(Vec::new())));
    let tier = || {
        let (happens, note) = (meanwhile.clone(), compiled.clone());
        let backend = move |job: &mut Job<'_>| {
            note.lock().unwrap().push(job.tier());
            let happens = happens.lock().unwrap().take();
            happens.into_iter().for_each(|happens| happens(job));
            Ok(code())
        };
        Tier::new(FnBackend::new(backend)).policy(Manual)
    };
    let builder = Engine::builder().capacity(64).inline();
    let engine = builder.tier(tier()).tier(tier()).tier(tier()).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    (engine, bead, meanwhile, compiled)
}

/// Compiles for `tier`; meanwhile the function is asked for at the next tier, by a closure of the VM's, and then `what` is done.
/// Answers what the backend compiled, and whether the closure ran and whether it is still kept.
fn followed(tier: TierId, what: fn(&Engine, Bead)) -> (Engine, Bead, Vec<TierId>, [bool; 2]) {
    let (engine, bead, meanwhile, compiled) = noting();
    let (runs, on) = (Arc::new(AtomicUsize::new(0)), engine.clone());
    let count = runs.clone();
    *meanwhile.lock().unwrap() = Some(Box::new(move |job| {
        let above = TierId::new(job.tier().get() + 1).unwrap_or(T3);
        let closure = move |_: &mut Job<'_>| {
            count.fetch_add(1, SeqCst);
            Ok(code())
        };
        on.submit(job.bead(), above, closure).map_err(|refused| refused.reason).unwrap();
        what(&on, job.bead());
    }));
    engine.promote(bead, tier).unwrap();
    engine.run_pending(usize::MAX);
    let compiled = compiled.lock().unwrap().clone();
    let kept = Arc::strong_count(&runs) > 1;
    (engine, bead, compiled, [runs.load(SeqCst) > 0, kept])
}

#[test]
fn what_follows_a_compile_is_compiled_after_it() {
    let (engine, bead, compiled, closure) = followed(T1, |_, _| ());
    assert_eq!((engine.tier(bead), compiled, closure), (Ok(T2), vec![T1], [true, false]));
}

#[test]
fn what_follows_a_compile_that_code_of_the_vms_own_overtakes_is_compiled_all_the_same() {
    let (engine, bead, compiled, closure) =
        followed(T1, |engine, bead| _ = engine.install(bead, T1, code()).unwrap());
    assert_eq!((engine.tier(bead), compiled, closure), (Ok(T2), vec![T1], [true, false]));
}

#[test]
fn what_follows_a_compile_ends_with_a_bar_to_all_code() {
    let bars: [fn(&Engine, Bead); 2] = [
        |engine, bead| engine.blacklist(bead).unwrap(),
        |engine, bead| engine.set_tier_cap(bead, T0).unwrap(),
    ];
    for bar in bars {
        let (engine, bead, compiled, closure) = followed(T1, bar);
        assert_eq!((engine.tier(bead), compiled, closure), (Ok(T0), vec![T1], [false, false]));
        assert_eq!(engine.state(bead).unwrap().pending, None);
    }
}

#[test]
fn what_follows_a_compile_and_is_capped_to_its_tier_is_served_by_it() {
    let (engine, bead, compiled, closure) =
        followed(T2, |engine, bead| engine.set_tier_cap(bead, T2).unwrap());
    assert_eq!((engine.tier(bead), compiled, closure), (Ok(T2), vec![T2], [false, false]));
    assert_eq!(engine.state(bead).unwrap().pending, None);
}

#[test]
fn what_follows_a_compile_of_the_old_source_is_not_compiled_with_its_closure() {
    let (engine, bead, compiled, closure) =
        followed(T1, |engine, bead| assert_eq!(engine.reload(bead), Ok(Reloaded::Queued(T2))));
    assert_eq!((engine.tier(bead), compiled, closure), (Ok(T2), vec![T1, T2], [false, false]));
}

#[test]
fn what_came_with_a_request_goes_with_it_however_often_code_of_lower_tiers_is_installed_before() {
    let taken = Arc::new(Mutex::new(None));
    let take = taken.clone();
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        *take.lock().unwrap() = job.snapshot::<u32>().copied();
        Ok(code())
    });
    let builder = Engine::builder().capacity(16).inline().snapshot(|_, _| Some(7u32));
    let tiers = builder.tier(Tier::new(trivial()).policy(Manual)).tier(Tier::new(backend).policy(Manual));
    let engine = tiers.build().unwrap();
    let all = beads(&engine, 2);
    let ran = Arc::new(AtomicUsize::new(0));
    let runs = ran.clone();
    let closure = move |_: &mut Job<'_>| {
        runs.fetch_add(1, SeqCst);
        Ok(code())
    };
    engine.promote(all[0], T2).unwrap();
    assert!(engine.submit(all[1], T2, closure).is_ok());
    for _ in 0..3 {
        all.iter().for_each(|&bead| _ = engine.install(bead, T1, code()).unwrap());
    }
    engine.run_pending(usize::MAX);
    assert_eq!([engine.tier(all[0]), engine.tier(all[1])], [Ok(T2); 2]);
    assert_eq!((taken.lock().unwrap().take(), ran.load(SeqCst)), (Some(7), 1));
}

/// Notes what it is given, as a whole batch.
struct Whole(Arc<Mutex<Vec<Bead>>>);

impl Backend for Whole {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        for job in jobs {
            self.0.lock().unwrap().push(job.bead());
            let _ = job.finish(Ok(code()));
        }
    }
}

#[test]
fn what_another_job_of_its_batch_has_cancelled_is_not_compiled() {
    let compiled = Arc::new(Mutex::new(Vec::new()));
    let backend = Whole(compiled.clone());
    let builder = Engine::builder().capacity(16).inline();
    let engine = builder.tier(Tier::new(backend).policy(Manual).batch(8)).build().unwrap();
    let all = beads(&engine, 3);
    let (on, cancelled) = (engine.clone(), all[1]);
    let cancels = move |_: &mut Job<'_>| {
        on.invalidate(cancelled)?;
        Ok(code())
    };
    assert!(engine.submit(all[0], T1, cancels).is_ok());
    all[1..].iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    engine.run_pending(usize::MAX);
    assert_eq!(*compiled.lock().unwrap(), [all[2]]);
    assert_eq!(all.iter().map(|&bead| engine.tier(bead).unwrap()).collect::<Vec<_>>(), [T1, T0, T1]);
}

#[test]
fn urgent_requests_for_a_higher_tier_take_turns_with_the_baseline() {
    let compiled = Arc::new(Mutex::new(Vec::new()));
    let tier = |policy: u32| {
        let note = compiled.clone();
        let backend = FnBackend::new(move |job: &mut Job<'_>| {
            note.lock().unwrap().push(job.tier());
            Ok(code())
        });
        Tier::new(backend).policy(Threshold::new(policy))
    };
    let engine = Engine::builder().capacity(64).inline().tier(tier(1 << 30)).tier(tier(10)).build().unwrap();
    let (all, m) = (beads(&engine, 16), engine.mutator());
    let (loops, plain) = all.split_at(8);
    for &bead in loops {
        (0..1_000).for_each(|_| assert!(m.back_edge(bead, 1).is_none()));
        assert_eq!(engine.state(bead).unwrap().pending, Some(PendingState::Queued(T2)));
    }
    plain.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    (0..6).for_each(|_| _ = engine.run_pending(1));
    let order = compiled.lock().unwrap().clone();
    assert!(order.windows(3).all(|three| three.contains(&T1) && three.contains(&T2)), "{order:?}");
}

#[test]
fn what_a_worker_took_along_is_compiled_by_others_while_it_is_stuck() {
    const FUNCTIONS: usize = 24;
    let (inside, go, first) = (Latch::default(), Latch::default(), Arc::new(AtomicUsize::new(0)));
    let (entered, may_go, number) = (inside.clone(), go.clone(), first.clone());
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        if number.fetch_add(1, SeqCst) == 0 {
            entered.open();
            may_go.wait();
        }
        Ok(code())
    });
    let builder = Engine::builder().capacity(64).workers(2);
    let engine = builder.tier(Tier::new(backend).policy(Manual).batch(1)).build().unwrap();
    let all = beads(&engine, FUNCTIONS);
    let _go = Finally(|| go.open());
    let pause = engine.pause();
    all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    drop(pause);
    inside.wait();
    let done = || all.iter().filter(|&&bead| engine.tier(bead) == Ok(T1)).count();
    eventually("they wait for the one that is stuck", || done() == FUNCTIONS - 1);
    go.open();
    engine.drain(LONG).unwrap();
    assert_eq!(done(), FUNCTIONS);
}

#[test]
fn an_engine_that_is_shut_down_inside_of_anothers_compile_is_waited_for_all_the_same() {
    let (backend, inside, go) = held();
    let stuck = Engine::builder().capacity(16).workers(1).tier(Tier::new(backend)).build().unwrap();
    let _go = Finally(|| go.open());
    let bead = stuck.register(Core::ZERO).unwrap();
    stuck.promote(bead, T1).unwrap();
    inside.wait();
    let (ends, answer) = (stuck.clone(), Arc::new(Mutex::new(None)));
    let note = answer.clone();
    let engine = inline(10, move |_| {
        *note.lock().unwrap() = Some(ends.shutdown(Duration::ZERO).map_err(|error| error.stuck));
        Ok(code())
    });
    let other = engine.register(Core::ZERO).unwrap();
    engine.compile_now(other, T1, LONG).unwrap();
    assert_eq!(answer.lock().unwrap().take(), Some(Err(vec![(bead, T1)])));
}

#[test]
fn a_helper_that_leaves_the_only_place_of_the_optimizing_tiers_calls_a_worker_for_the_rest() {
    let (inside, go) = (Latch::default(), Latch::default());
    let (baseline, entered, may_go) = (Latch::default(), inside.clone(), go.clone());
    let held_up = baseline.clone();
    let lower = FnBackend::new(move |_: &mut Job<'_>| {
        held_up.wait();
        Ok(code())
    });
    let higher = FnBackend::new(move |_: &mut Job<'_>| {
        entered.open();
        may_go.wait();
        Ok(code())
    });
    // Two workers, one of which never compiles above the baseline.
    let builder = Engine::builder().capacity(16).workers(2).tier(Tier::new(lower).policy(Manual));
    let engine = builder.tier(Tier::new(higher).policy(Manual)).build().unwrap();
    let all = beads(&engine, 4);
    let _go = Finally(|| {
        go.open();
        baseline.open();
    });
    all[..2].iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    let compiling = |bead| engine.state(bead).unwrap().pending == Some(PendingState::Compiling(T1));
    eventually("both are in a compile", || all[..2].iter().all(|&bead| compiling(bead)));
    all[2..].iter().for_each(|&bead| engine.promote(bead, T2).unwrap());
    std::thread::scope(|scope| {
        let helper = scope.spawn(|| engine.run_pending(1));
        inside.wait();
        baseline.open();
        // The workers find no place for what is left, and go. If one has not yet, it finds the place itself.
        eventually("the baseline is done", || all[..2].iter().all(|&bead| engine.tier(bead) == Ok(T1)));
        (0..1_000).for_each(|_| std::thread::yield_now());
        go.open();
        assert_eq!(helper.join().unwrap(), 1);
    });
    eventually("nobody comes for the rest", || all[2..].iter().all(|&bead| engine.tier(bead) == Ok(T2)));
}
