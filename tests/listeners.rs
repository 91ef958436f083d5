//! What is heard, and by whom: waits hear of their own compiles, listeners find what they hear of.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

/// An engine whose listener is given each of its events, until the guard ends that comes with it.
fn listening(
    configure: impl FnOnce(EngineBuilder) -> EngineBuilder,
    listen: impl Fn(&Engine, &Event) + Send + Sync + 'static,
) -> (Engine, Finally<impl FnMut()>) {
    let slot: Arc<Mutex<Option<Engine>>> = Arc::default();
    let inner = slot.clone();
    let builder = configure(Engine::builder().capacity(64)).on_event(move |event| {
        let engine = inner.lock().unwrap().clone();
        if let Some(engine) = engine {
            listen(&engine, event);
        }
    });
    let engine = builder.build().unwrap();
    *slot.lock().unwrap() = Some(engine.clone());
    (engine, Finally(move || drop(slot.lock().unwrap().take())))
}

#[test]
fn a_wait_hears_nothing_of_an_earlier_compile() {
    let compiles = [(); 2].map(|()| (Latch::default(), Latch::default()));
    let (held, begun) = (compiles.clone(), AtomicUsize::new(0));
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        let number = begun.fetch_add(1, SeqCst);
        if let Some((inside, go)) = held.get(number) {
            inside.open();
            go.wait();
        }
        if number == 0 { Err(CompileError::failed("the earlier one")) } else { Ok(code()) }
    });
    let tier = Tier::new(backend).policy(Manual);
    let engine = Engine::builder().capacity(16).workers(1).tier(tier).build().unwrap();
    let _go = Finally(|| compiles.iter().for_each(|(_, go)| go.open()));
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    compiles[0].0.wait();
    engine.invalidate(bead).unwrap();
    let waiter = thread::spawn({
        let engine = engine.clone();
        move || engine.compile_now(bead, T1, LONG)
    });
    eventually("the wait asks", || engine.state(bead).unwrap().pending.is_some());
    compiles[0].1.open();
    compiles[1].0.wait(); // its own, which is going to succeed
    engine.invalidate(bead).unwrap();
    assert_eq!(waiter.join().unwrap(), Err(CompileNowError::Superseded(bead)));
}

#[test]
fn a_listener_that_hears_of_code_is_answered_it_by_compile_now() {
    let answers = Arc::new(Mutex::new(vec![]));
    let sink = answers.clone();
    let (engine, _end) = listening(
        |builder| builder.inline().tier(Tier::new(trivial())),
        move |engine, event| {
            if let Event::Installed { bead, version, .. } = event {
                sink.lock().unwrap().push((engine.compile_now(*bead, T1, LONG), *version));
            }
        },
    );
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    let answers = answers.lock().unwrap();
    assert!(matches!(answers[..], [(Ok(answer), told)] if answer == told), "{answers:?}");
}

#[test]
fn a_submitted_compile_outlives_code_installed_below_it_by_whoever_hears_of_such() {
    let installs = AtomicUsize::new(0);
    let (engine, _end) = listening(
        |builder| builder.inline().tier(Tier::new(trivial())).tier(Tier::new(trivial()).policy(Manual)),
        move |engine, event| {
            if let Event::Installed { bead, tier: T1, .. } = event
                && installs.fetch_add(1, SeqCst) < 2
            {
                engine.install(*bead, T1, code()).unwrap();
            }
        },
    );
    let bead = engine.register(Core::ZERO).unwrap();
    let ran = Arc::new(AtomicBool::new(false));
    let runs = ran.clone();
    let submitted = move |_: &mut Job<'_>| {
        runs.store(true, SeqCst);
        Ok(code())
    };
    assert!(engine.submit(bead, T2, submitted).is_ok());
    engine.install(bead, T1, code()).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(bead), Ok(T2));
    assert!(ran.load(SeqCst), "the backend compiled in its place");
}

#[test]
fn nothing_is_heard_of_a_function_after_its_removal_by_a_listener() {
    let (engine, _end) = listening(
        |builder| builder,
        |engine, event| {
            if let Event::Invalidated { bead } = event
                && engine.is_live(*bead)
            {
                engine.remove(*bead).unwrap();
            }
        },
    );
    let log = Arc::new(Mutex::new(vec![]));
    let sink = log.clone();
    let info = BeadInfo::new().on_invalidate(move |_, what| sink.lock().unwrap().push(what));
    let bead = engine.register_with(Core::ZERO, &info).unwrap();
    engine.install(bead, T1, code()).unwrap();
    engine.invalidate(bead).unwrap();
    let log = log.lock().unwrap();
    assert_eq!(log.last(), Some(&Invalidation::Removed), "{log:?}");
}

/// A policy whose half-life cannot be had.
struct Fades;

impl Policy for Fades {
    fn decide(&self, _: &Activity) -> Verdict {
        Verdict::Promote
    }

    fn half_life(&self) -> Option<HalfLife> {
        panic!("half-life")
    }
}

#[test]
fn a_policy_whose_half_life_panics_does_not_unwind_into_the_guest() {
    let tier = Tier::new(trivial()).policy(Fades);
    let engine = Engine::builder().capacity(16).inline().tier(tier).build().unwrap();
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    assert!(m.dispatch(bead).is_none());
}
