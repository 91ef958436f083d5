//! Code and relocations nobody would write, given to an arena, see `beadwork_checks::arena`.
#![no_main]

use beadwork_arena::Aliasing;
use beadwork_checks::arena::{ArenaOp, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<ArenaOp>)| {
    let (private, operations) = input;
    run(&operations, if private { Aliasing::Private } else { Aliasing::DualMapped });
});
