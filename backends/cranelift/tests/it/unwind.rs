//! Panics and backtraces reach through compiled frames.

use crate::rig::{Rig, options, plus};

#[test]
fn no_table_is_registered_for_code_compiled_without_unwind_information() {
    let rig = Rig::new(options().flag("unwind_info", "false"), vec![plus(1)]);
    rig.compile([0]);
    assert_eq!((rig.call(0, 1), rig.backend.stats().arena.unwind_tables), (2, 0));
}
