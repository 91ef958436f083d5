//! An engine against its model, see `beadwork_checks`.
#![no_main]

use beadwork_checks::{Op, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|operations: Vec<Op>| drop(run(&operations)));
