//! Code is freed function by function, and what a batch costs does not depend on what is there.

use crate::rig::{Rig, options, plus};
use beadwork_arena::ArenaStats;

/// P28: one finalize re-protects all memory.
#[test]
fn p28_the_cost_of_a_batch_does_not_depend_on_the_code_compiled_before() {
    const BATCH: usize = 16;
    let count = BATCH * 64;
    let rig = Rig::new(options(), (0..count).map(|_| plus(1)).collect());
    let cost = |number: usize| {
        let before = rig.backend.stats();
        rig.compile(number * BATCH..(number + 1) * BATCH);
        let after = rig.backend.stats();
        let batches = after.batches - before.batches;
        assert!(batches < BATCH as u64 / 2, "{BATCH} functions are few batches: {batches}");
        assert_eq!(
            after.arena.placements - before.arena.placements,
            batches,
            "a batch is placed by one call"
        );
        let (ArenaStats { bytes_written, protect_calls, .. }, before) = (after.arena, before.arena);
        (bytes_written - before.bytes_written, protect_calls - before.protect_calls)
    };
    cost(0); // maps the region
    let second = cost(1);
    assert_eq!(second.1, 0, "no protection is changed");
    for number in 2..64 {
        assert_eq!(cost(number), second, "round {number}");
    }
    // Unwind tables are merged like the runs of a merge sort: each record is copied a logarithmic number of times.
    let stats = rig.backend.stats().arena;
    assert!(stats.unwind_records_written <= (count * 10) as u64, "{stats:?}");
    assert!(stats.unwind_tables <= 10, "{stats:?}");
}
