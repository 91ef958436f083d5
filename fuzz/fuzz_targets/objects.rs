//! Objects nobody would write: linking and placing one ends with code or an error, and code that is placed is what the object says, see
//! `beadwork_checks::objects`.
#![no_main]

use beadwork_arena::Arena;
use beadwork_checks::objects::run;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// Small, so that it is full now and then.
static ARENA: LazyLock<Arena> = LazyLock::new(|| {
    let builder = Arena::builder().region_bytes(1 << 20).max_bytes(Some(1 << 24));
    builder.build().expect("executable memory")
});

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (whole, knows, object) = input;
    run(&ARENA, (whole, knows), object, |_, _| ());
});
