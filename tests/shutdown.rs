//! The end of an engine: shutdown and drop, against whatever goes on.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

const T1: TierId = TierId::BASELINE;

#[test]
fn p16_shutdown_drops_queued_work_waits_for_what_runs_and_names_what_is_stuck() {
    let (started, go_on) = (mpsc::channel(), mpsc::channel::<()>());
    let (starting, permits) = (Mutex::new(started.0), Mutex::new(go_on.1));
    let engine = Engine::builder()
        .workers(1)
        .tier(
            Tier::new(FnBackend::new(move |_| {
                let _ = starting.lock().unwrap().send(());
                let _ = permits.lock().unwrap().recv();
                Ok(code())
            }))
            .batch(1),
        )
        .build()
        .unwrap();
    let all = beads(&engine, 1_000);
    all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    started.1.recv_timeout(LONG).unwrap();
    let error = engine.shutdown(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.stuck, [(all[0], T1)]);
    assert!(error.to_string().contains(&all[0].to_string()));
    drop(go_on.0);
    engine.shutdown(LONG).unwrap();
    assert_eq!(engine.stats().installed, 1);
    assert_eq!(engine.stats().queued, 0);
    assert_eq!(engine.promote(all[5], T1), Err(PromoteError::Closed));
    assert!(engine.mutator().dispatch(all[0]).is_some(), "what is there goes on running");
    assert_eq!(engine.state(all[5]).unwrap().pending, None);
}

#[test]
fn p15_submits_promotions_and_dispatches_against_shutdown_and_drop_do_not_crash_or_leak() {
    for round in 0..60 {
        let (alive, closures) = (Alive::default(), Arc::new(()));
        let compiled = alive.clone();
        let engine = Engine::builder()
            .capacity(1 << 10)
            .workers(2)
            .tier(Tier::new(FnBackend::new(move |_| Ok(compiled.code()))).policy(Threshold::new(3)))
            .build()
            .unwrap();
        let all = Arc::new(beads(&engine, 64));
        let start = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (engine, all, alive) = (engine.clone(), all.clone(), alive.clone());
                let (start, closures) = (start.clone(), closures.clone());
                std::thread::spawn(move || {
                    let mut m = engine.mutator();
                    let mut is_over = false;
                    start.wait();
                    for &bead in all.iter().cycle().take(640) {
                        let (submitted, counted) = (alive.clone(), closures.clone());
                        let submit = move |_: &mut Job<'_>| {
                            let _counted = &counted;
                            Ok(submitted.code())
                        };
                        let _ = engine.submit(bead, T1, submit);
                        // After the end it is refused, as everything from then on.
                        let closed = engine.promote(bead, T1) == Err(PromoteError::Closed);
                        assert!(closed || !is_over);
                        is_over = closed;
                        m.dispatch(bead);
                        m.safepoint();
                        let _ = engine.invalidate(bead);
                    }
                    // The last of them ends the engine, on whichever thread that is.
                    drop(m);
                })
            })
            .collect();
        start.wait();
        if round % 3 == 0 {
            engine.shutdown(LONG).unwrap();
            let refused = engine.submit(all[0], T1, |_: &mut Job<'_>| Ok(code())).unwrap_err().reason;
            assert_eq!(refused, PromoteError::Closed);
        }
        drop(engine);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((alive.count(), Arc::strong_count(&closures)), (0, 1));
    }
}

#[test]
fn the_end_of_an_engine_waits_no_longer_than_it_is_told_and_what_is_left_of_a_batch_is_not_compiled() {
    let (inside, go, compiled) = (Latch::default(), Latch::default(), Arc::new(AtomicUsize::new(0)));
    let (entered, may_go, counts) = (inside.clone(), go.clone(), compiled.clone());
    let alive = Arc::new(());
    let lives = alive.clone();
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        let _lives = &lives;
        counts.fetch_add(1, SeqCst);
        entered.open();
        may_go.wait();
        Ok(code())
    });
    let engine = Engine::builder()
        .workers(1)
        .capacity(64)
        .tier(Tier::new(backend))
        .close_timeout(Duration::from_millis(1))
        .build()
        .unwrap();
    {
        // So that they come as one batch.
        let _paused = engine.pause();
        beads(&engine, 10).into_iter().for_each(|bead| engine.promote(bead, TierId::BASELINE).unwrap());
    }
    inside.wait();
    ends(move || drop(engine));
    go.open();
    eventually("the worker leaves, and all is freed", || Arc::strong_count(&alive) == 1);
    assert_eq!(compiled.load(SeqCst), 1);
}
