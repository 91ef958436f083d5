//! Threads that run requests themselves, beside a pool or without one: what they take, leave and hold up.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

/// A backend that says which core it compiles, and keeps those below `held` until the latch opens.
fn held(held: usize) -> (impl Backend, Receiver<usize>, Latch) {
    let (says, hears) = channel();
    let (says, latch) = (Mutex::new(says), Latch::default());
    let wait = latch.clone();
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        let core = job.core()?.get();
        let _ = says.lock().unwrap().send(core);
        if core < held {
            wait.wait();
        }
        Ok(code())
    });
    (backend, hears, latch)
}

/// A pool of one thread: what is run there after an engine's worker runs after that worker has left.
fn single() -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap())
}

fn installs(to: Sender<Bead>) -> impl Fn(&Event) + Send + Sync {
    let to = Mutex::new(to);
    move |event| {
        if let Event::Installed { bead, .. } = event {
            let _ = to.lock().unwrap().send(*bead);
        }
    }
}

#[test]
fn a_drain_waits_for_what_another_thread_runs() {
    let (backend, compiles, latch) = held(1);
    let _open = Finally(|| latch.open());
    let engine = Engine::builder().inline().tier(Tier::new(backend)).build().unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    engine.promote(bead, T1).unwrap();
    thread::scope(|scope| {
        let _open = Finally(|| latch.open());
        let helper = scope.spawn(|| engine.run_pending(usize::MAX));
        compiles.recv_timeout(LONG).unwrap();
        let timeout = engine.drain(Duration::from_millis(1)).unwrap_err();
        assert_eq!((timeout.queued, timeout.compiling), (0, 1));
        latch.open();
        engine.drain(LONG).unwrap();
        assert_eq!(engine.tier(bead), Ok(T1));
        assert_eq!(helper.join().unwrap(), 1);
    });
}

#[test]
fn a_drain_that_found_the_lane_full_ends_when_the_helper_is_done() {
    for _ in 0..20 {
        let (backend, compiles, latch) = held(1);
        let engine = Engine::builder()
            .capacity(16)
            .inline()
            .tier(Tier::new(backend).max_parallel(1).batch(1))
            .build()
            .unwrap();
        let all = beads(&engine, 2);
        all.iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
        let helper = thread::spawn({
            let engine = engine.clone();
            move || engine.run_pending(1)
        });
        compiles.recv_timeout(LONG).unwrap();
        let (ended, end) = channel();
        let drain = thread::spawn({
            let engine = engine.clone();
            move || {
                ended.send(None).unwrap();
                // Longer than the test waits, so that a wake-up that is lost shows.
                ended.send(Some(engine.drain(100 * LONG))).unwrap();
            }
        });
        assert_eq!(end.recv_timeout(LONG), Ok(None));
        latch.open();
        assert_eq!(end.recv_timeout(LONG), Ok(Some(Ok(()))));
        drain.join().unwrap();
        helper.join().unwrap();
        assert_eq!([engine.tier(all[0]), engine.tier(all[1])], [Ok(T1), Ok(T1)]);
    }
}

#[test]
fn what_a_worker_left_because_a_helper_filled_the_lane_is_compiled_after_the_helper_leaves() {
    let ((low, low_compiles, low_latch), (high, high_compiles, high_latch)) = (held(1), held(usize::MAX));
    let _open = Finally(|| [&low_latch, &high_latch].into_iter().for_each(Latch::open));
    let (installed, installs_heard) = channel();
    let pool = single();
    let engine = Engine::builder()
        .capacity(16)
        .pool(pool.clone())
        .tier(Tier::new(low).max_parallel(1).policy(Manual))
        .tier(Tier::new(high).policy(Manual))
        .on_event(installs(installed))
        .build()
        .unwrap();
    let all = beads(&engine, 3);
    engine.promote(all[2], T2).unwrap();
    assert_eq!(high_compiles.recv_timeout(LONG), Ok(2), "the only worker is busy");
    engine.promote(all[0], T1).unwrap();
    let helper = thread::spawn({
        let engine = engine.clone();
        move || engine.run_pending(1)
    });
    assert_eq!(low_compiles.recv_timeout(LONG), Ok(0));
    engine.promote(all[1], T1).unwrap();
    high_latch.open();
    assert_eq!(installs_heard.recv_timeout(LONG), Ok(all[2]));
    // The worker finds the lane full, and leaves.
    pool.install(|| ());
    low_latch.open();
    assert_eq!(helper.join().unwrap(), 1);
    assert_eq!(installs_heard.recv_timeout(LONG), Ok(all[0]));
    assert_eq!(installs_heard.recv_timeout(LONG), Ok(all[1]), "the helper has left, and nobody comes");
}

#[test]
fn what_a_helper_took_beyond_its_limit_is_compiled_after_it_leaves() {
    let ((low, low_compiles, low_latch), (high, high_compiles, high_latch)) =
        (held(usize::MAX), held(usize::MAX));
    let _open = Finally(|| [&low_latch, &high_latch].into_iter().for_each(Latch::open));
    let (installed, installs_heard) = channel();
    let pool = single();
    let engine = Engine::builder()
        .capacity(16)
        .pool(pool.clone())
        .tier(Tier::new(low).policy(Manual))
        .tier(Tier::new(high).policy(Manual).max_parallel(1).batch(1))
        .on_event(installs(installed))
        .build()
        .unwrap();
    let all = beads(&engine, 6);
    engine.promote(all[5], T1).unwrap();
    assert_eq!(low_compiles.recv_timeout(LONG), Ok(5), "the only worker is busy");
    all[..5].iter().for_each(|&bead| engine.promote(bead, T2).unwrap());
    let helper = thread::spawn({
        let engine = engine.clone();
        move || engine.run_pending(1)
    });
    assert_eq!(high_compiles.recv_timeout(LONG), Ok(0));
    low_latch.open();
    assert_eq!(installs_heard.recv_timeout(LONG), Ok(all[5]));
    // The worker finds the lane full, and leaves.
    pool.install(|| ());
    high_latch.open();
    assert_eq!(helper.join().unwrap(), 1);
    for _ in 0..5 {
        installs_heard.recv_timeout(LONG).expect("the helper has left, and nobody comes");
    }
    assert!(all[..5].iter().all(|&bead| engine.tier(bead) == Ok(T2)));
}

#[test]
fn a_safepoint_sends_no_worker_to_an_engine_that_was_asked_for_nothing() {
    let (pool, looks) = (single(), Arc::new(AtomicUsize::new(0)));
    let counted = looks.clone();
    let engine = Engine::builder()
        .capacity(16)
        .pool(pool.clone())
        .clock(move || {
            // A worker reads the clock before it looks for something to compile.
            counted.fetch_add(usize::from(rayon::current_thread_index().is_some()), SeqCst);
            Duration::ZERO
        })
        .tier(Tier::new(trivial()).policy(Manual))
        .build()
        .unwrap();
    let alive = Alive::default();
    let bead = engine.register(Core::new(0)).unwrap();
    let mut m = engine.mutator();
    engine.install(bead, T1, alive.code()).unwrap();
    engine.invalidate(bead).unwrap();
    m.safepoint();
    pool.install(|| ());
    assert_eq!(looks.load(SeqCst), 0);
    engine.promote(bead, T1).unwrap();
    engine.drain(LONG).unwrap();
    assert_ne!(looks.load(SeqCst), 0, "a worker that comes does show");
}

#[cfg(target_os = "linux")]
#[test]
fn drains_leave_nothing_behind() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let engine = inline(1, |_| Ok(code()));
    let drains = |count| (0..count).for_each(|_| engine.drain(LONG).unwrap());
    drains(1_000);
    let before = resident();
    // A word for each would be 4 MB.
    drains(500_000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 2 << 20, "grew by {grown} bytes");
}
