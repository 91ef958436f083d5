//! Foreign code at its worst: payloads and errors with a drop of their own, clocks that panic, iterators that lie.

mod common;
use beadwork::*;
use common::*;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, mpsc};

const T1: TierId = TierId::BASELINE;

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

/// What panics with a bomb. A policy's panic unwinds out of the dispatch that asked it, so it is the VM's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Where {
    Backend,
    Listener,
    Callback,
    OneShot,
}

fn bombed(at: Where, workers: usize) {
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        if at == Where::Backend && job.core()?.get() == 0 { panic_any(Bomb) } else { Ok(code()) }
    });
    let engine = Engine::builder()
        .capacity(16)
        .workers(workers)
        .tier(Tier::new(backend).max_parallel(1))
        .on_event(move |_| {
            if at == Where::Listener {
                panic_any(Bomb);
            }
        })
        .build()
        .unwrap();
    let info = BeadInfo::new().on_invalidate(move |_, _| {
        if at == Where::Callback {
            panic_any(Bomb);
        }
    });
    let (first, second) =
        (engine.register_with(Core::new(0), &info).unwrap(), engine.register(Core::new(1)).unwrap());
    if at == Where::OneShot {
        engine.submit(first, T1, |_: &mut Job<'_>| panic_any(Bomb)).map_err(|_| ()).unwrap();
    } else {
        engine.promote(first, T1).unwrap();
    }
    engine.drain(LONG).unwrap();
    engine.invalidate(first).unwrap();
    engine.promote(second, T1).unwrap();
    engine.drain(LONG).unwrap();
    assert_eq!(engine.tier(second), Ok(T1), "{at:?}: the lane goes on");
}

#[test]
fn a_panic_whose_payload_panics_when_it_is_dropped_ends_where_it_began() {
    for at in [Where::Backend, Where::Listener, Where::Callback, Where::OneShot] {
        bombed(at, 0);
        bombed(at, 2);
    }
}

#[test]
fn an_error_may_ask_the_engine_while_it_is_dropped() {
    /// Asks the engine for the function's fault when it is dropped.
    struct Asks(Arc<OnceLock<Engine>>, Bead);
    impl std::fmt::Debug for Asks {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("asks")
        }
    }
    impl std::fmt::Display for Asks {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("asks")
        }
    }
    impl std::error::Error for Asks {}
    impl Drop for Asks {
        fn drop(&mut self) {
            if let Some(engine) = self.0.get() {
                engine.fault(self.1, T1);
                engine.stats();
            }
        }
    }

    let slot: Arc<OnceLock<Engine>> = Arc::default();
    let inner = slot.clone();
    let engine = inline(1, move |job| Err(CompileError::because(Asks(inner.clone(), job.bead()))));
    assert!(slot.set(engine.clone()).is_ok());
    let (done, ends) = mpsc::channel();
    let bead = engine.register(Core::new(0)).unwrap();
    // On a thread of its own, so that a deadlock ends the test.
    std::thread::spawn(move || {
        for _ in 0..2 {
            engine.promote(bead, T1).unwrap();
            engine.run_pending(1);
        }
        engine.remove(bead).unwrap();
        done.send(()).unwrap();
        // The engine holds its backend, which holds the engine: it is never dropped.
    });
    ends.recv_timeout(LONG).expect("an error was dropped under a lock");
}

#[test]
fn a_clock_that_panics_costs_no_request_and_no_place_in_a_lane() {
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = broken.clone();
    let engine = Engine::builder()
        .capacity(16)
        .inline()
        .clock(move || if breaks.load(SeqCst) { panic!("clock") } else { LONG })
        .tier(Tier::new(trivial()).policy(Manual).max_parallel(1))
        .build()
        .unwrap();
    let all = beads(&engine, 2);
    engine.promote(all[0], T1).unwrap();
    broken.store(true, SeqCst);
    assert_eq!(engine.run_pending(usize::MAX), 1, "a broken clock stands still");
    broken.store(false, SeqCst);
    engine.promote(all[1], T1).unwrap();
    assert_eq!(engine.run_pending(usize::MAX), 1);
    assert_eq!([engine.tier(all[0]), engine.tier(all[1])], [Ok(T1), Ok(T1)]);
}

#[test]
fn an_iterator_that_panics_in_a_bulk_registration_costs_no_capacity() {
    for at in [3, 64, 130] {
        let engine = Engine::builder().capacity(256).inline().build().unwrap();
        // Once over fresh indices, once over those that came back.
        for _ in 0..2 {
            let cores = (0..256).map(|core| if core == at { panic!("iterator") } else { Core::new(core) });
            assert!(catch_unwind(AssertUnwindSafe(|| engine.register_many(cores))).is_err());
            assert_eq!(engine.stats().beads, 0);
        }
        assert!((0..256).all(|core| engine.register(Core::new(core)).is_ok()));
        assert!(engine.register(Core::new(0)).is_err());
    }
}

/// Says `len`, gives `gives`, and is not to be asked again.
struct Lies {
    len: usize,
    gives: usize,
    over: bool,
}

impl Iterator for Lies {
    type Item = Core;
    fn next(&mut self) -> Option<Core> {
        assert!(!self.over, "asked again");
        self.over = self.gives == 0;
        self.gives = self.gives.checked_sub(1)?;
        Some(Core::new(self.gives))
    }
}

impl ExactSizeIterator for Lies {
    fn len(&self) -> usize {
        self.len
    }
}

#[test]
fn an_iterator_that_lies_of_its_length_gets_no_more_than_it_said_and_wastes_nothing() {
    let engine = Engine::builder().capacity(16).inline().build().unwrap();
    let many =
        |len, gives| engine.register_many(Lies { len, gives, over: false }).map(|runs| runs.len()).ok();
    assert_eq!(many(usize::MAX, 3), None);
    assert_eq!(many(17, 3), None);
    assert_eq!(many(2, 5), Some(2));
    assert_eq!(many(0, 5), Some(0));
    assert_eq!(many(10, 2), Some(2));
    assert_eq!(engine.stats().beads, 4);
    assert!((0..12).all(|core| engine.register(Core::new(core)).is_ok()));
    assert!(engine.register(Core::new(0)).is_err());
}
