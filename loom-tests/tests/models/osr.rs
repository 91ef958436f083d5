//! Edges PUBLISH, RETIRE and REUSE, for native loop entries: a probe answers an entry of live code of its own function and
//! site, or none.

use beadwork::{Bead, CompiledCode, Core, Engine, Mutator, TierId};
use beadwork_loom_tests::*;
use loom::thread;

const T1: TierId = TierId::BASELINE;
const SITE: u64 = 7;

/// Code with an entry for `SITE`, both called `name`.
fn with_loop(memory: &Memory, name: usize) -> CompiledCode {
    memory.compile(name).osr(SITE, std::ptr::without_provenance(name))
}

fn in_loop(m: &Mutator, bead: Bead) -> usize {
    entry(m.osr_entry(bead, SITE))
}

/// Probes, runs what it found, and passes a safepoint.
fn run_loop(m: &mut Mutator, bead: Bead, memory: &[Memory]) -> usize {
    let name = in_loop(m, bead);
    if name > 0 {
        memory[name - 1].run();
    }
    m.safepoint();
    name
}

/// Runs `one` on a thread of its own and `other` here, and the other way round: loom's search depends on the order.
fn beside_swaps(
    one: fn(&Engine, Bead, &[Memory]),
    other: fn(&Engine, Bead, &[Memory]),
    end: fn(&Engine, Bead),
) {
    for swapped in [false, true] {
        model(move || {
            let engine = engine(1, unused);
            let (bead, memory) = (bead(&engine), [Memory::new(), Memory::new(), Memory::new()]);
            engine.install(bead, T1, with_loop(&memory[0], 1)).unwrap();
            let (there, here) = if swapped { (other, one) } else { (one, other) };
            let spawned = {
                let (engine, memory) = (engine.clone(), memory.clone());
                thread::spawn(move || there(&engine, bead, &memory))
            };
            here(&engine, bead, &memory);
            spawned.join().unwrap();
            end(&engine, bead);
        });
    }
}

#[test]
fn who_finds_a_loop_entry_sees_all_of_its_code() {
    both_ways(
        || {
            let engine = engine(1, unused);
            let bead = bead(&engine);
            (engine, bead, Memory::new())
        },
        |(engine, bead, memory)| _ = engine.install(*bead, T1, with_loop(memory, 1)).unwrap(),
        |(engine, bead, memory)| {
            if in_loop(&engine.mutator(), *bead) == 1 {
                memory.run();
            }
        },
        |(engine, bead, _)| assert_eq!(in_loop(&engine.mutator(), *bead), 1),
    );
}

#[test]
fn a_probe_beside_swaps_that_use_runs_of_cells_again_finds_live_code() {
    beside_swaps(
        |engine, bead, memory| {
            engine.install(bead, T1, with_loop(&memory[1], 2)).unwrap();
            engine.reclaim();
            // Where the first table lay, if the other thread is done with it.
            engine.install(bead, T1, with_loop(&memory[2], 3)).unwrap();
        },
        |engine, bead, memory| assert!(run_loop(&mut engine.mutator(), bead, memory) > 0),
        |engine, bead| assert_eq!(in_loop(&engine.mutator(), bead), 3),
    );
}

#[test]
fn a_probe_after_invalidate_returned_finds_nothing() {
    beside_swaps(
        |engine, bead, _| {
            engine.invalidate(bead).unwrap();
            assert_eq!(in_loop(&engine.mutator(), bead), 0);
        },
        |engine, bead, memory| {
            let mut m = engine.mutator();
            run_loop(&mut m, bead, memory);
            engine.reclaim();
        },
        |engine, bead| assert_eq!(in_loop(&engine.mutator(), bead), 0),
    );
}

#[test]
fn a_stale_handle_never_finds_the_next_functions_loop() {
    beside_swaps(
        |engine, old, memory| {
            engine.remove(old).unwrap();
            if let Ok(new) = engine.register(Core::new(9)) {
                engine.install(new, T1, with_loop(&memory[1], 2)).unwrap();
                assert_eq!(in_loop(&engine.mutator(), new), 2);
            }
        },
        |engine, old, memory| {
            let mut m = engine.mutator();
            assert_ne!(run_loop(&mut m, old, memory), 2);
            assert_ne!(run_loop(&mut m, old, memory), 2);
        },
        |engine, old| assert_eq!(in_loop(&engine.mutator(), old), 0),
    );
}

#[test]
fn an_entry_that_failed_is_suppressed_also_in_code_installed_meanwhile() {
    beside_swaps(
        |engine, bead, _| {
            engine.osr_failed(bead, SITE).unwrap();
        },
        |engine, bead, memory| {
            engine.install(bead, T1, with_loop(&memory[1], 2)).unwrap();
        },
        |engine, bead| assert_eq!(in_loop(&engine.mutator(), bead), 0),
    );
}

#[test]
fn a_count_of_a_loop_of_a_removed_function_is_kept_nowhere() {
    both_ways(
        || {
            let engine = engine(1, unused);
            let bead = bead(&engine);
            (engine, bead)
        },
        |(engine, bead)| {
            // Told as the mutator ends.
            let m = engine.mutator();
            assert!(m.back_edge(*bead, SITE).is_none());
        },
        |(engine, bead)| _ = engine.remove(*bead).unwrap(),
        |(engine, _)| assert!(!engine.notes_loops(), "nobody would ever forget it"),
    );
}
