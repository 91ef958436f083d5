//! Forks and refusals: everything here runs in child processes, one test at a time, because a fork seals the
//! regions of every arena in the process.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code)]

mod common;

use std::sync::Mutex;

use beadwork_arena::{Aliasing, Arena, ArenaError, CodeBlock};
use common::{call, function, in_child, place_one, returns, wait};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `body` alone in a child of its own, which may fork further.
fn alone(body: impl FnOnce()) {
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let status = in_child(body);
    drop(guard);
    assert_eq!(status, 0);
}

fn arena() -> Arena {
    Arena::builder().build().expect("Linux")
}

fn place_many(arena: &Arena, count: u32) -> Vec<CodeBlock> {
    let codes: Vec<_> = (0..count).map(|value| returns(value, 70)).collect();
    let batch: Vec<_> = codes.iter().map(|code| function("f", code)).collect();
    arena.place(&batch).expect("room")
}

fn check(blocks: &[CodeBlock]) {
    for (value, block) in blocks.iter().enumerate() {
        assert_eq!(call(block.entry()), value as u32);
    }
}

#[test]
fn blocks_keep_their_arena_alive_and_the_last_one_unmaps_it() {
    alone(|| {
        let before = common::code_mappings();
        let block = place_one(&arena(), &returns(8, 6));
        assert_eq!(call(block.entry()), 8);
        assert_eq!(common::code_mappings(), before + 2);
        drop(block);
        assert_eq!(common::code_mappings(), before);
    });
}

/// What either process does after the fork: old code runs, new code goes elsewhere, old code can be freed.
fn use_after_fork(arena: &Arena, mut old: Vec<CodeBlock>, salt: u32) {
    let stats = arena.stats();
    assert_eq!((stats.regions, stats.sealed_regions), (1, 1));
    assert_eq!(stats.mappings, 1, "the writable view is gone");
    let sealed = common::line_of(old[0].entry()).expect("still mapped");
    for round in 0..200 {
        check(&old);
        let new = place_many(arena, 20);
        assert!(new.iter().all(|block| !(sealed.from..sealed.to).contains(&block.entry().addr())));
        check(&new);
        let own = place_one(arena, &returns(salt + round, 40));
        assert_eq!(call(own.entry()), salt + round);
        if old.len() > 1 {
            // From the end, so that what stays still answers its index.
            old.pop();
        }
    }
    check(&old);
    drop(old);
    assert!(common::line_of(sealed.from as *const u8).is_none_or(|line| line.from != sealed.from));
    assert_eq!((arena.stats().sealed_regions, arena.stats().live_bytes), (0, 0));
    assert!(common::writable_and_executable().is_empty());
}

#[test]
fn parent_and_child_run_old_code_place_new_and_free_old() {
    alone(|| {
        let arena = arena();
        let old = place_many(&arena, 100);
        // SAFETY: the child leaves by _exit below.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        let salt = if child == 0 { 1 << 20 } else { 1 << 21 };
        use_after_fork(&arena, old, salt);
        if child == 0 {
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        assert_eq!(wait(child), 0);
    });
}

#[test]
fn a_fork_while_other_threads_place_and_free_leaves_both_working() {
    alone(|| {
        let arena = arena();
        let kept = place_many(&arena, 50);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for salt in 0..2 {
                let (arena, stop) = (&arena, &stop);
                scope.spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let block = place_one(arena, &returns(salt, 90));
                        assert_eq!(call(block.entry()), salt);
                        // A second arena comes and goes: its lock, too, must be free in the child.
                        drop(place_one(&self::arena(), &returns(salt, 6)));
                    }
                });
            }
            let mut failed = Vec::new();
            for round in 0..20 {
                let status = in_child(|| {
                    check(&kept);
                    let new = place_many(&arena, 10);
                    check(&new);
                    let other = place_one(&self::arena(), &returns(round, 6));
                    assert_eq!(call(other.entry()), round);
                });
                failed.extend((status != 0).then_some(status));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(failed, []);
        });
        check(&kept);
    });
}

#[test]
fn private_memory_is_copied_by_a_fork_and_not_sealed() {
    alone(|| {
        let arena = Arena::builder().aliasing(Aliasing::Private).build().expect("Linux");
        let mut old = place_many(&arena, 30);
        let entry = old[0].entry();
        let status = in_child(|| {
            assert_eq!(arena.stats().sealed_regions, 0);
            check(&old);
            old.clear();
            let new = place_one(&arena, &returns(77, 6));
            assert_eq!((call(new.entry()), new.entry()), (77, entry));
        });
        assert_eq!(status, 0);
        check(&old);
    });
}

/// Makes the kernel refuse PROT_EXEC in mmap and mprotect, for this thread and its future children.
fn refuse_executable_memory() {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equals = |k, jt, jf| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, k);
    let answer = |k| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    let mut filter = [
        load(0), // system call number
        equals(libc::SYS_mmap as u32, 1, 0),
        equals(libc::SYS_mprotect as u32, 0, 3),
        load(16 + 2 * 8), // third argument: protection
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, libc::PROT_EXEC as u32),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a valid program, alive during the call; only this thread is filtered.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

#[test]
fn executable_memory_refused_is_a_typed_error_and_asked_for_again_later() {
    for aliasing in [Aliasing::DualMapped, Aliasing::Private] {
        alone(move || {
            let arena = Arena::builder().aliasing(aliasing).build().expect("nothing is mapped yet");
            let denied = ArenaError::ExecMemoryDenied { call: "mprotect", errno: libc::EPERM };
            let code = returns(4, 6);
            std::thread::scope(|scope| {
                let filtered = scope.spawn(|| {
                    refuse_executable_memory();
                    let attempt = || {
                        assert_eq!(arena.place(&[function("f", &code)]).map(|_| ()), Err(denied.clone()));
                        common::maps().len()
                    };
                    let first = attempt();
                    let last = (0..20).fold(0, |_, _| attempt());
                    let stats = arena.stats();
                    assert_eq!((stats.live_blocks, stats.live_bytes, stats.resident_bytes), (0, 0, 0));
                    assert_eq!(last, first, "nothing piles up");
                });
                filtered.join().expect("the filtered thread's assertions hold");
            });
            // Only that thread was filtered: this one asks again and gets it.
            assert_eq!(call(place_one(&arena, &code).entry()), 4);
        });
    }
}

#[test]
fn address_space_refused_falls_back_to_less_and_then_says_how_much_was_asked_for() {
    alone(|| {
        let limit = |bytes: u64| {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: sets a limit of this child only.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
        };
        let used: u64 = common::maps().iter().map(|line| (line.to - line.from) as u64).sum();
        let arena = Arena::builder().region_bytes(1 << 30).build().expect("nothing is mapped yet");
        let huge = returns(4, 100 << 20);
        limit(used + (150 << 20));
        let block = place_one(&arena, &returns(3, 6));
        assert_eq!(call(block.entry()), 3);
        let reserved = arena.stats().reserved_bytes;
        assert!((1 << 20..1 << 28).contains(&reserved), "{reserved}");
        match arena.place(&[function("huge", &huge)]) {
            Err(ArenaError::ReservationRefused { asked, smallest, errno, .. }) => {
                assert_eq!((asked, errno), (1 << 30, libc::ENOMEM));
                assert!((100 << 20..101 << 20).contains(&smallest), "{smallest}");
            }
            other => panic!("{other:?}"),
        }
        limit(libc::RLIM_INFINITY);
        assert_eq!(call(place_one(&arena, &huge).entry()), 4);
    });
}

#[test]
fn a_process_that_denies_write_then_execute_gets_the_typed_error() {
    for aliasing in [Aliasing::DualMapped, Aliasing::Private] {
        alone(move || {
            const PR_SET_MDWE: i32 = 65;
            // SAFETY: a flag of this child only.
            if unsafe { libc::prctl(PR_SET_MDWE, 1, 0, 0, 0) } != 0 {
                return; // before Linux 6.3 there is no such flag
            }
            let arena = Arena::builder().aliasing(aliasing).build().expect("nothing is mapped yet");
            let code = returns(4, 6);
            let refused = arena.place(&[function("f", &code)]).map(|_| ());
            assert_eq!(refused, Err(ArenaError::ExecMemoryDenied { call: "mprotect", errno: libc::EACCES }));
            assert_eq!(arena.stats().live_blocks, 0);
        });
    }
}
