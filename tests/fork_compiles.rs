//! What a forked child makes of a compile that a worker of its parent was in: it compiles that anew, and everything else.
//!
//! One test, since a fork copies whatever the other threads of a test binary are doing.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "forks, and ends the child without running what belongs to the parent")]

mod common;
use beadwork::*;
use common::*;

const T2: TierId = TierId::new(2).unwrap();

/// A child that takes longer than this many seconds hangs.
const CHILD_SECONDS: u32 = 60;

/// Ends the child with the number of what failed first, from 1, or with 0.
fn end_child(done: &[bool]) -> ! {
    let failed = done.iter().position(|&done| !done).map_or(0, |number| number as i32 + 1);
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(failed) }
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
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    child
}

/// What the child says failed.
fn failed<'a>(child: libc::pid_t, what: &[&'a str]) -> Option<&'a str> {
    let mut status = 0;
    // SAFETY: the status is a local that is alive during the call.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    if !libc::WIFEXITED(status) {
        return Some("it hangs");
    }
    what.get((libc::WEXITSTATUS(status) as usize).wrapping_sub(1)).copied()
}

#[test]
fn a_forked_child_compiles_anew_what_a_worker_of_its_parent_was_compiling_and_whatever_else_it_is_asked_for()
{
    // The only worker, and the only place for optimizing compiles; and two workers.
    for workers in [1, 2] {
        let (inside, go) = (Latch::default(), Latch::default());
        let (entered, may_go, parent) = (inside.clone(), go.clone(), std::process::id());
        let optimizing = FnBackend::new(move |_: &mut Job<'_>| {
            if std::process::id() == parent {
                entered.open();
                may_go.wait();
            }
            Ok(code())
        });
        let builder = Engine::builder().capacity(16).workers(workers);
        let baseline = Tier::new(trivial()).policy(Threshold::new(10));
        let engine = builder.tier(baseline).tier(Tier::new(optimizing).policy(Manual)).build().unwrap();
        let all = beads(&engine, 4);
        let _open = Finally(|| go.open());
        engine.promote(all[0], T2).unwrap();
        inside.wait();
        let child = fork();
        if child == 0 {
            let other = engine.compile_now(all[1], T2, LONG).is_ok();
            let drained = engine.drain(LONG).is_ok();
            let anew = engine.tier(all[0]) == Ok(T2);
            let lower = engine.compile_now(all[2], TierId::BASELINE, LONG).is_ok();
            end_child(&[other, drained, anew, lower, engine.shutdown(LONG).is_ok()]);
        }
        let steps = ["another compile", "the drain", "the compile anew", "a lower tier's", "the shutdown"];
        assert_eq!(failed(child, &steps), None, "with {workers}");

        // Nothing but calls of what is queued already.
        let pause = engine.pause();
        let m = engine.mutator();
        (0..10).for_each(|_| m.tick(all[3]));
        assert!(engine.state(all[3]).unwrap().pending.is_some());
        let child = fork();
        if child == 0 {
            while m.code(all[3]).is_none() {
                m.tick(all[3]);
            }
            end_child(&[]);
        }
        assert_eq!(failed(child, &[]), None, "calls alone, with {workers}");
        drop(pause);
        go.open();
        engine.drain(LONG).unwrap();
        assert_eq!([engine.tier(all[0]), engine.tier(all[3])], [Ok(T2), Ok(TierId::BASELINE)]);
    }
}
