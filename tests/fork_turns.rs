//! What a forked child finds of turns that threads of its parent were taking: none.
//!
//! One test, since a fork copies whatever the other threads of a test binary are doing.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "forks, and ends the child without running what belongs to the parent")]

mod common;
use beadwork::*;
use common::*;
use std::sync::Arc;

const T1: TierId = TierId::BASELINE;

/// A child that takes longer than this many seconds hangs.
const CHILD_SECONDS: u32 = 60;

/// What the child could do.
fn in_a_child(work: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child uses the engine, which is made for it, and the allocator, which the C library hands over; it
    // ends by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: sets a timer of this process.
        unsafe { libc::alarm(CHILD_SECONDS) };
        let done = work();
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(i32::from(!done)) }
    }
    assert!(child > 0, "{}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: the status is a local that is alive during the call.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

#[test]
fn a_forked_child_waits_for_no_pauses_no_look_at_a_core_and_no_delivery_of_other_threads() {
    let (inside, go) = (Latch::default(), Latch::default());
    let (at, until) = (inside.clone(), go.clone());
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        Ok(job.with_core(|core| {
            if core == Core::ZERO {
                at.open();
                until.wait();
            }
            code()
        })?)
    });
    let builder = Engine::builder().capacity(16).workers(1).delivery(true);
    let engine = Arc::new(builder.tier(Tier::new(backend)).build().unwrap());
    let all = beads(&engine, 2);
    let _open = Finally(|| go.open());

    // A job is inside.
    engine.promote(all[0], T1).unwrap();
    inside.wait();
    assert!(in_a_child(|| engine.try_gc_pause(LONG).is_ok()), "nobody is inside in the child");
    go.open();
    engine.drain(LONG).unwrap();

    // Another thread holds a pause.
    let (held, resume) = (Latch::default(), Latch::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _pause = engine.gc_pause().unwrap();
            held.open();
            resume.wait();
        });
        held.wait();
        let compiled = in_a_child(|| {
            engine.run_pending(usize::MAX);
            engine.compile_now(all[1], T1, LONG).is_ok()
        });
        resume.open();
        assert!(compiled, "nobody holds a pause in the child");
    });

    // Another thread keeps the workers from taking work.
    let (paused, resume) = (Latch::default(), Latch::default());
    let late = engine.register(Core::new(3)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _pause = engine.pause();
            paused.open();
            resume.wait();
        });
        paused.wait();
        let compiled = in_a_child(|| engine.compile_now(late, T1, LONG).is_ok());
        resume.open();
        assert!(compiled, "nobody pauses the child");
    });

    // Another thread hands over.
    let (taking, taken) = (Latch::default(), Latch::default());
    engine.install(all[1], T1, code()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut first = true;
            engine.deliver(|_| {
                if std::mem::take(&mut first) {
                    taking.open();
                    taken.wait();
                }
            });
        });
        taking.wait();
        let delivered = in_a_child(|| engine.deliver(|_| ()) == 1);
        taken.open();
        assert!(delivered, "nobody hands over in the child");
    });
}
