//! Edges REUSE and CORE: an index that is used again shows nothing of its former function.

use beadwork::{Bead, BeadInfo, CompileError, Core, Engine, TierId};
use beadwork_loom_tests::*;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread;

const T1: TierId = TierId::BASELINE;

#[test]
fn a_stale_handle_never_sees_the_next_functions_code() {
    model(|| {
        let engine = engine(1, unused);
        let (old, memory) = (bead(&engine), [Memory::new(), Memory::new()]);
        engine.install(old, T1, memory[0].compile(1)).unwrap();
        let mut m = engine.mutator();
        let recycler = {
            let (engine, memory) = (engine.clone(), memory.clone());
            thread::spawn(move || {
                engine.remove(old).unwrap();
                let new = engine.register(Core::new(9)).unwrap();
                assert_ne!(new, old);
                engine.install(new, T1, memory[1].compile(2)).unwrap();
                assert_eq!(entry(engine.mutator().code(new)), 2, "a valid new handle answers its own code");
            })
        };
        let seen = entry(m.code(old));
        assert_ne!(seen, 2);
        if seen == 1 {
            memory[0].run();
        }
        m.safepoint();
        engine.reclaim();
        recycler.join().unwrap();
        assert_eq!(entry(m.code(old)), 0);
    });
}

#[test]
fn an_index_that_is_used_again_as_it_is_removed_is_a_live_function() {
    both_ways(
        || {
            let engine = engine(1, unused);
            let old = [bead(&engine), bead(&engine)][0];
            (engine, old)
        },
        |(engine, old)| {
            engine.remove(*old).unwrap();
            assert!(!engine.is_live(*old));
        },
        |(engine, _)| {
            // Refused as long as the index is not free.
            if let Ok(new) = engine.register(Core::new(9)) {
                assert!(engine.is_live(new));
                engine.install(new, T1, at(3)).unwrap();
                assert_eq!(entry(engine.mutator().code(new)), 3);
            }
        },
        |(engine, _)| assert!((1..=2).contains(&engine.stats().beads)),
    );
}

#[test]
fn a_late_count_of_a_stale_handle_is_not_inherited() {
    model(|| {
        let engine = engine(1, unused);
        let old = bead(&engine);
        let mut m = engine.mutator();
        m.tick(old);
        let recycler = {
            let engine = engine.clone();
            thread::spawn(move || {
                engine.remove(old).unwrap();
                engine.register(Core::new(9)).unwrap()
            })
        };
        m.tick(old);
        m.safepoint();
        let new = recycler.join().unwrap();
        assert_eq!(engine.invocations(new), Ok(0));
        m.tick(new);
        assert_eq!(engine.invocations(new), Ok(1), "its own handle counts");
    });
}

#[test]
fn the_core_of_a_removed_function_never_lands_in_the_next_one() {
    model(|| {
        let engine = engine(1, unused);
        let old = bead(&engine);
        let collector = {
            let engine = engine.clone();
            thread::spawn(move || engine.set_core(old, Core::new(7)))
        };
        engine.remove(old).unwrap();
        let new = engine.register(Core::new(9)).unwrap();
        let _ = collector.join().unwrap();
        assert_eq!(engine.core(new), Ok(Core::new(9)));
        assert!(engine.core(old).is_err());
    });
}

#[test]
fn a_reader_of_a_stale_core_never_gets_the_next_functions() {
    both_ways(
        || {
            let engine = engine(1, unused);
            let old = bead(&engine);
            (engine, old)
        },
        |(engine, old)| assert_ne!(engine.core(*old), Ok(Core::new(9))),
        |(engine, old)| {
            engine.remove(*old).unwrap();
            engine.register(Core::new(9)).unwrap();
        },
        |_| (),
    );
}

#[test]
fn a_slot_asked_for_during_an_install_holds_what_was_installed() {
    model(|| {
        let engine = engine(1, unused);
        let (bead, memory) = (bead(&engine), Memory::new());
        let installer = {
            let (engine, memory) = (engine.clone(), memory.clone());
            thread::spawn(move || drop(engine.install(bead, T1, memory.compile(3))))
        };
        let slot = engine.slot(bead).unwrap();
        installer.join().unwrap();
        assert_eq!(engine.slot_value(slot), 3);
    });
}

#[test]
fn a_compile_of_a_removed_function_is_dropped_and_its_memory_freed() {
    model(|| {
        let memory = Memory::new();
        let compiled = memory.clone();
        let engine = engine(1, move |_| Ok(compiled.compile(1)));
        let old = bead(&engine);
        engine.promote(old, T1).unwrap();
        let worker = {
            let engine = engine.clone();
            thread::spawn(move || engine.work_if_started())
        };
        engine.remove(old).unwrap();
        let new = engine.register(Core::new(9)).unwrap();
        worker.join().unwrap();
        engine.reclaim();
        assert_eq!(entry(engine.mutator().code(new)), 0);
        assert!(memory.is_freed() || !memory.is_written(), "nobody frees it any more");
    });
}

#[test]
fn a_reader_of_a_stale_key_never_gets_the_next_functions() {
    let model_of = |reader_is_spawned: bool| {
        model(move || {
            let engine = engine(1, unused);
            let old = engine.register_with(Core::new(0), &BeadInfo::new().key(1)).unwrap();
            let other = {
                let engine = engine.clone();
                thread::spawn(move || {
                    if reader_is_spawned { read_key(&engine, old) } else { reuse_key(&engine, old) }
                })
            };
            if reader_is_spawned {
                reuse_key(&engine, old)
            } else {
                read_key(&engine, old)
            }
            other.join().unwrap();
        });
    };
    model_of(true);
    model_of(false);
}

fn read_key(engine: &Engine, old: Bead) {
    assert_ne!(engine.key(old), Some(2));
}

fn reuse_key(engine: &Engine, old: Bead) {
    engine.remove(old).unwrap();
    engine.register_with(Core::new(0), &BeadInfo::new().key(2)).unwrap();
}

#[test]
fn a_job_of_a_removed_function_never_reads_the_name_of_the_next_one() {
    let model_of = |worker_is_spawned: bool| {
        model(move || {
            let wrong = Arc::new(AtomicBool::new(false));
            let saw = wrong.clone();
            let engine = engine(1, move |job| {
                saw.fetch_or(job.name().is_some_and(|name| &*name != "old"), Relaxed);
                Err(CompileError::NullEntry)
            });
            let old = engine.register_with(Core::new(0), &BeadInfo::named("old")).unwrap();
            engine.promote(old, T1).unwrap();
            let work = |engine: &Engine| _ = engine.work_if_started();
            let reuse = move |engine: &Engine| {
                engine.remove(old).unwrap();
                engine.register_with(Core::new(0), &BeadInfo::named("new")).unwrap();
            };
            let other = {
                let engine = engine.clone();
                thread::spawn(move || if worker_is_spawned { work(&engine) } else { reuse(&engine) })
            };
            if worker_is_spawned {
                reuse(&engine)
            } else {
                work(&engine)
            }
            other.join().unwrap();
            assert!(!wrong.load(Relaxed));
        });
    };
    model_of(true);
    model_of(false);
}

#[test]
fn an_invalidation_of_a_stale_handle_never_calls_the_next_functions_callback() {
    let model_of = |invalidator_is_spawned: bool| {
        model(move || {
            let called = Arc::new(AtomicBool::new(false));
            let engine = engine(1, unused);
            let old = bead(&engine);
            engine.install(old, T1, Memory::new().compile(1)).unwrap();
            let invalidate = move |engine: &Engine| _ = engine.invalidate(old);
            let reuse = {
                let called = called.clone();
                move |engine: &Engine| {
                    engine.remove(old).unwrap();
                    let listener = move |heard, _| _ = called.fetch_or(heard == old, Relaxed);
                    engine.register_with(Core::new(0), &BeadInfo::new().on_invalidate(listener)).unwrap();
                }
            };
            let other = {
                let (engine, reuse) = (engine.clone(), reuse.clone());
                thread::spawn(
                    move || if invalidator_is_spawned { invalidate(&engine) } else { reuse(&engine) },
                )
            };
            if invalidator_is_spawned {
                reuse(&engine)
            } else {
                invalidate(&engine)
            }
            other.join().unwrap();
            assert!(!called.load(Relaxed));
        });
    };
    model_of(true);
    model_of(false);
}

#[test]
fn code_that_calls_through_a_slot_never_calls_the_next_function_of_the_index() {
    both_ways(
        || {
            let engine = engine(1, unused);
            let (callee, caller) = (bead(&engine), bead(&engine));
            engine.install(callee, T1, at(1)).unwrap();
            let slot = engine.slot(callee).unwrap();
            engine.install(caller, T1, at(2).embeds(callee)).unwrap();
            // From here on only the caller's code keeps the address.
            // SAFETY: nobody else in this model calls through it.
            #[allow(unsafe_code)]
            unsafe {
                engine.release_slot(callee)
            };
            (engine, callee, slot)
        },
        |(engine, _, slot)| assert_ne!(engine.slot_value(*slot), 3),
        |(engine, callee, slot)| {
            engine.remove(*callee).unwrap();
            if let Ok(new) = engine.register(Core::new(9)) {
                engine.slot(new).unwrap();
                engine.install(new, T1, at(3)).unwrap();
            }
            assert_ne!(engine.slot_value(*slot), 3);
        },
        |_| (),
    );
}

#[test]
fn who_sees_a_function_gone_finds_no_code_of_it() {
    both_ways(
        || {
            let engine = engine(1, unused);
            let old = bead(&engine);
            engine.install(old, T1, at(1)).unwrap();
            (engine, old)
        },
        |(engine, old)| _ = engine.remove(*old).unwrap(),
        |(engine, old)| {
            let m = engine.mutator();
            if !engine.is_live(*old) {
                assert_eq!(entry(m.code(*old)), 0, "the code of a function that has ended");
            }
        },
        |_| (),
    );
}

type Ending = (Engine, Bead, Memory);

/// A function with code, whose tier compiles 3.
fn compiled() -> Ending {
    let engine = engine(1, |_| Ok(at(3)));
    let (old, memory) = (bead(&engine), Memory::new());
    engine.install(old, T1, at(1)).unwrap();
    (engine, old, memory)
}

fn ends((engine, old, _): &Ending) {
    engine.remove(*old).unwrap();
}

/// The index can be used again, and shows nothing of what was done to its former function meanwhile.
fn nothing_is_left((engine, old, memory): &Ending) {
    while engine.work_if_started() {}
    assert_eq!(entry(engine.mutator().code(*old)), 0, "code of a function that has ended");
    assert!(engine.state(*old).is_err());
    let new = engine.register(Core::new(9)).unwrap();
    let state = engine.state(new).unwrap();
    assert_eq!((state.tier, state.pending), (TierId::INTERPRETER, None));
    assert_eq!(entry(engine.mutator().code(new)), 0, "code of the function before");
    engine.reclaim();
    assert!(memory.is_freed() || !memory.is_written(), "an owner was lost");
}

#[test]
fn code_the_vm_installs_as_its_function_ends_is_freed_and_found_by_nobody() {
    both_ways(
        compiled,
        ends,
        |(engine, old, memory)| drop(engine.install(*old, T1, memory.compile(2))),
        nothing_is_left,
    );
}

#[test]
fn a_reload_of_a_function_that_ends_asks_for_no_compile_of_the_next_one() {
    both_ways(
        compiled,
        ends,
        |(engine, old, _)| {
            let _ = engine.reload(*old);
            engine.work_if_started();
        },
        nothing_is_left,
    );
}

#[test]
fn an_invalidation_of_a_function_that_ends_leaves_nothing_of_it() {
    both_ways(compiled, ends, |(engine, old, _)| _ = engine.invalidate(*old), nothing_is_left);
}
