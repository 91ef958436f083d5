//! An engine against its model, see `beadwork_checks`.
#![no_main]

use beadwork_checks::{Op, Setup, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Setup, Vec<Op>)| {
    run(input.0, &input.1);
});
