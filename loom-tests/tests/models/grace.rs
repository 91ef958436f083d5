//! Edges RETIRE and LEASE: frames and leases keep the code they are in, and nothing else.

use beadwork::{Bead, Engine, Mutator, TierId};
use beadwork_loom_tests::*;
use loom::thread;

const T1: TierId = TierId::BASELINE;

/// Runs `mine` on a mutator of its own beside `other`, which gets the engine; with either on the spawned thread.
fn on_a_mutator(
    mine: impl Fn(&Engine, Bead, &[Memory; 2], Mutator) + Copy + Send + Sync + 'static,
    other: impl Fn(&Engine, Bead, &[Memory; 2]) + Copy + Send + Sync + 'static,
    after: impl Fn(&Engine, &[Memory; 2]) + Copy + Send + Sync + 'static,
) {
    for mine_is_spawned in [true, false] {
        model(move || {
            let engine = engine(1, unused);
            let (bead, memory) = (bead(&engine), [Memory::new(), Memory::new()]);
            // Entries that a return address can lie in: 16 bytes from 0x100 and from 0x200.
            engine.install(bead, T1, memory[0].compile(0x100)).unwrap();
            let m = engine.mutator();
            let spawned = {
                let (engine, memory) = (engine.clone(), memory.clone());
                if mine_is_spawned {
                    thread::spawn(move || mine(&engine, bead, &memory, m))
                } else {
                    let main = (engine.clone(), memory.clone(), m);
                    let spawned = thread::spawn(move || other(&engine, bead, &memory));
                    mine(&main.0, bead, &main.1, main.2);
                    spawned
                }
            };
            if mine_is_spawned {
                other(&engine, bead, &memory);
            }
            spawned.join().unwrap();
            after(&engine, &memory);
        });
    }
}

fn run(memory: &[Memory; 2], entry: usize) {
    if entry > 0 {
        memory[entry / 0x100 - 1].run();
    }
}

#[test]
fn code_with_a_frame_is_not_freed_by_safepoints_that_name_it() {
    on_a_mutator(
        |engine, bead, memory, mut m| {
            let inside = entry(m.code(bead));
            run(memory, inside);
            // It called back; its frame is still there.
            m.safepoint_with(&[inside + 8]);
            run(memory, inside);
            m.safepoint();
            engine.reclaim();
        },
        |engine, bead, memory| {
            engine.install(bead, T1, memory[1].compile(0x200)).unwrap();
            engine.reclaim();
        },
        |engine, memory| {
            engine.reclaim();
            assert!(memory[0].is_freed() && !memory[1].is_freed());
        },
    );
}

#[test]
fn a_scan_with_an_older_list_of_addresses_frees_nothing_that_a_newer_one_keeps() {
    on_a_mutator(
        |engine, bead, memory, mut m| {
            let inside = entry(m.code(bead));
            engine.invalidate(bead).unwrap();
            m.safepoint_with(&[inside + 8]);
            engine.reclaim();
            run(memory, inside);
            m.safepoint();
        },
        |engine, _, _| {
            engine.reclaim();
        },
        |engine, memory| {
            engine.reclaim();
            assert!(memory[0].is_freed());
        },
    );
}

#[test]
fn code_that_was_left_before_a_safepoint_with_other_addresses_is_freed() {
    on_a_mutator(
        |engine, bead, memory, mut m| {
            run(memory, entry(m.code(bead)));
            m.safepoint_with(&[0x900]);
            engine.reclaim();
            run(memory, entry(m.code(bead)));
            m.safepoint_with(&[0x900]);
            engine.reclaim();
            assert_eq!(m.depth(), 0);
        },
        |engine, bead, _| engine.invalidate(bead).unwrap(),
        |engine, memory| {
            engine.reclaim();
            assert!(memory[0].is_freed());
        },
    );
}

#[test]
fn code_that_was_kept_for_a_frame_is_freed_after_its_last_use() {
    on_a_mutator(
        |engine, bead, memory, mut m| {
            let inside = entry(m.code(bead));
            engine.invalidate(bead).unwrap();
            m.safepoint_with(&[inside + 8]);
            run(memory, inside);
            m.safepoint();
        },
        |engine, _, _| _ = engine.reclaim(),
        |engine, memory| {
            engine.reclaim();
            assert!(memory[0].is_freed());
        },
    );
}

#[test]
fn two_mutators_with_frames_keep_code_until_both_have_left_it() {
    for first_is_spawned in [true, false] {
        model(move || {
            let engine = engine(1, unused);
            let (bead, memory) = (bead(&engine), Memory::new());
            engine.install(bead, T1, memory.compile(0x100)).unwrap();
            let (a, b) = (engine.mutator(), engine.mutator());
            let (mut first, mut second) = if first_is_spawned { (a, b) } else { (b, a) };
            let inside = [entry(first.code(bead)), entry(second.code(bead))];
            engine.invalidate(bead).unwrap();
            let spawned = {
                let (engine, memory) = (engine.clone(), memory.clone());
                thread::spawn(move || {
                    first.safepoint_with(&[inside[0] + 1]);
                    engine.reclaim();
                    memory.run();
                    first.safepoint();
                })
            };
            second.safepoint_with(&[inside[1] + 16]);
            memory.run();
            second.safepoint();
            engine.reclaim();
            spawned.join().unwrap();
            engine.reclaim();
            assert!(memory.is_freed());
        });
    }
}

#[test]
fn leased_code_is_not_freed_before_the_last_lease_is_dropped() {
    on_a_mutator(
        |engine, bead, memory, mut m| {
            let lease = m.lease(bead);
            m.safepoint();
            if let Some(lease) = &lease {
                run(memory, lease.addr() as usize);
            }
            drop(lease);
            drop(m);
            engine.reclaim();
        },
        |engine, bead, memory| {
            engine.install(bead, T1, memory[1].compile(0x200)).unwrap();
            engine.reclaim();
        },
        |engine, memory| {
            engine.reclaim();
            assert!(memory[0].is_freed() && !memory[1].is_freed());
        },
    );
}

#[test]
fn a_lease_taken_without_a_mutator_holds_what_it_names() {
    on_a_mutator(
        |engine, bead, memory, m| {
            drop(m);
            let lease = engine.lease(bead);
            if let Some(lease) = &lease {
                run(memory, lease.addr() as usize);
            }
            // A clone goes to another thread, and may be the last.
            let clone = lease.clone();
            drop(lease);
            if let Some(clone) = clone {
                run(memory, clone.addr() as usize);
            }
        },
        |engine, bead, _| {
            engine.invalidate(bead).unwrap();
            engine.reclaim();
        },
        |engine, memory| {
            engine.reclaim();
            assert!(memory[0].is_freed());
        },
    );
}

#[test]
fn a_safepoint_frees_nothing_before_the_scope_a_longjmp_left_open_is_closed() {
    on_a_mutator(
        |_, bead, memory, mut m| {
            let outside = m.enter_native();
            let inside = entry(m.code(bead));
            m.safepoint();
            run(memory, inside);
            // Two more scopes were skipped by the jump that ends up here.
            let _ = (m.enter_native(), m.enter_native());
            m.safepoint();
            run(memory, inside);
            m.unwind_to(outside);
            assert_eq!(m.depth(), 0);
            m.safepoint();
        },
        |engine, bead, _| {
            engine.invalidate(bead).unwrap();
            engine.reclaim();
        },
        |engine, memory| {
            engine.reclaim();
            assert!(memory[0].is_freed());
        },
    );
}
