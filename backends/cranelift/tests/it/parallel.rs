//! Several workers.

use crate::rig::{Clif, options};
use beadwork_checks::backends::parallel;
use beadwork_cranelift::OptLevel;

#[test]
fn two_workers_compile_at_the_same_time() {
    parallel::two_at_the_same_time::<Clif>();
}

#[test]
fn what_two_workers_compile_is_right() {
    parallel::so_many::<Clif>(2, 1000, options().opt_level(OptLevel::None));
}
