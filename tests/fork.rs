//! What a forked child can do with an engine of its parent.
//!
//! One test, since a fork copies whatever the other threads of a test binary are doing.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "forks, and ends the child without running what belongs to the parent")]

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

const T1: TierId = TierId::BASELINE;

/// A child that takes longer than this many seconds hangs.
const CHILD_SECONDS: u32 = 60;

/// Ends the child; `done` is what it was to achieve.
fn end_child(done: bool) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(i32::from(!done)) }
}

fn succeeded(child: libc::pid_t) -> bool {
    assert!(child > 0, "{}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: the status is a local that is alive during the call.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// Forks; the child is killed if it hangs.
fn fork() -> libc::pid_t {
    // SAFETY: the child uses the engine, which is made for it, and the allocator, which the C library hands over; it
    // ends by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: sets a timer of this process.
        unsafe { libc::alarm(CHILD_SECONDS) };
    }
    child
}

#[test]
fn a_forked_child_drops_compiles_and_frees_without_the_threads_of_its_parent() {
    dropping_an_engine_whose_worker_was_compiling_frees_its_code();
    a_fork_inside_a_compile_leaves_the_lane_open_in_both_processes();
    forgotten_mutators_of_threads_that_do_not_exist_hold_nothing_back();
    what_was_being_compiled_as_a_closed_engine_was_forked_is_not_waited_for();
    what_waits_on_an_engine_that_compiles_in_the_foreground_is_compiled_by_who_waits_for_it();
}

fn dropping_an_engine_whose_worker_was_compiling_frees_its_code() {
    let (starts, started) = mpsc::channel();
    let (starts, latch, alive) = (Mutex::new(starts), Latch::default(), Alive::default());
    let _open = Finally(|| latch.open());
    let wait = latch.clone();
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        let _ = starts.lock().unwrap().send(());
        wait.wait();
        Ok(code())
    });
    let engine = Engine::builder().capacity(16).workers(1).tier(Tier::new(backend)).build().unwrap();
    let all = beads(&engine, 2);
    engine.install(all[1], T1, alive.code()).unwrap();
    engine.promote(all[0], T1).unwrap();
    started.recv_timeout(LONG).unwrap();
    let child = fork();
    if child == 0 {
        drop(engine);
        end_child(alive.count() == 0);
    }
    // The parent's compile ends only after the child has.
    assert!(succeeded(child), "the child waits for a worker it does not have, or does not free");
    latch.open();
    engine.drain(LONG).unwrap();
    assert_eq!((engine.tier(all[0]), alive.count()), (Ok(T1), 1));
}

fn a_fork_inside_a_compile_leaves_the_lane_open_in_both_processes() {
    const PARENT: i32 = -1;
    const NOT_YET: i32 = -2;
    let child = Arc::new(AtomicI32::new(NOT_YET));
    let forked = child.clone();
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        if forked.compare_exchange(NOT_YET, PARENT, SeqCst, SeqCst).is_ok() {
            forked.store(fork(), SeqCst);
        }
        Ok(code())
    });
    let engine =
        Engine::builder().capacity(16).inline().tier(Tier::new(backend).max_parallel(1)).build().unwrap();
    let all = beads(&engine, 2);
    let run = |bead| {
        engine.promote(bead, T1).unwrap();
        engine.run_pending(usize::MAX);
    };
    run(all[0]);
    // The child requeued what was being compiled, since it could not know that this thread would go on.
    run(all[1]);
    let done = all.iter().all(|&bead| engine.tier(bead) == Ok(T1));
    match child.load(SeqCst) {
        0 => end_child(done),
        child => assert!(succeeded(child) && done),
    }
}

fn forgotten_mutators_of_threads_that_do_not_exist_hold_nothing_back() {
    let alive = Alive::default();
    let engine = Engine::builder().capacity(16).inline().build().unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    engine.install(bead, T1, alive.code()).unwrap();
    let latch = Latch::default();
    thread::scope(|scope| {
        let _open = Finally(|| latch.open());
        let (starts, started) = mpsc::channel();
        let (engine, latch) = (&engine, &latch);
        scope.spawn(move || {
            let _m = engine.mutator();
            starts.send(()).unwrap();
            latch.wait();
        });
        started.recv_timeout(LONG).unwrap();
        let mut own = engine.mutator();
        let child = fork();
        if child == 0 {
            engine.invalidate(bead).unwrap();
            own.safepoint();
            engine.reclaim();
            let held_back = alive.count() == 1;
            // SAFETY: the only other mutator belongs to a thread that does not exist here.
            unsafe { engine.forget_other_mutators(&[&own]) };
            engine.reclaim();
            let freed = alive.count() == 0;
            // The survivor is heeded still.
            engine.install(bead, T1, alive.code()).unwrap();
            engine.invalidate(bead).unwrap();
            engine.reclaim();
            let heeded = alive.count() == 1;
            own.safepoint();
            engine.reclaim();
            end_child(held_back && freed && heeded && alive.count() == 0);
        }
        assert!(succeeded(child));
    });
}

fn what_was_being_compiled_as_a_closed_engine_was_forked_is_not_waited_for() {
    let (starts, started) = mpsc::channel();
    let (starts, latch) = (Mutex::new(starts), Latch::default());
    let _open = Finally(|| latch.open());
    let wait = latch.clone();
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        let _ = starts.lock().unwrap().send(());
        wait.wait();
        Ok(code())
    });
    let engine = Engine::builder().capacity(16).workers(1).tier(Tier::new(backend)).build().unwrap();
    let bead = beads(&engine, 1)[0];
    engine.promote(bead, T1).unwrap();
    started.recv_timeout(LONG).unwrap();
    engine.shutdown(Duration::ZERO).unwrap_err();
    let child = fork();
    if child == 0 {
        // No worker takes it: the engine is closed.
        let drained = engine.drain(LONG).is_ok();
        end_child(drained && engine.state(bead).unwrap().pending.is_none() && engine.shutdown(LONG).is_ok());
    }
    assert!(succeeded(child), "the child waits for what nobody compiles");
    latch.open();
    engine.shutdown(LONG).unwrap();
}

fn what_waits_on_an_engine_that_compiles_in_the_foreground_is_compiled_by_who_waits_for_it() {
    let backend = FnBackend::new(|_: &mut Job<'_>| Ok(code()));
    let engine =
        Engine::builder().capacity(16).workers(1).foreground().tier(Tier::new(backend)).build().unwrap();
    let bead = beads(&engine, 1)[0];
    // A child is not paused.
    let pause = engine.pause();
    engine.promote(bead, T1).unwrap();
    let child = fork();
    if child == 0 {
        let drained = engine.drain(Duration::from_secs(2 * u64::from(CHILD_SECONDS))).is_ok();
        end_child(drained && engine.tier(bead) == Ok(T1));
    }
    assert!(succeeded(child), "the child compiles, and goes on waiting for it");
    drop(pause);
    assert_eq!(engine.tier(bead), Ok(T1));
}
