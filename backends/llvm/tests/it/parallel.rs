//! Several workers.

use crate::rig::{Llvm, options};
use beadwork_checks::backends::parallel;

#[test]
fn two_workers_compile_at_the_same_time() {
    let rig = parallel::two_at_the_same_time::<Llvm>();
    assert_eq!(rig.backend.contexts(), 2, "one for each worker");
}

#[test]
fn what_several_workers_compile_is_right() {
    parallel::so_many::<Llvm>(4, 300, options().contexts_recycled_after(7));
}
