//! Panics and backtraces reach through compiled frames.

use crate::rig::{Clif, Rig, options, plus};

beadwork_checks::properties! { Clif:
    unwind::{
        a_panic_passes_through_compiled_frames_to_the_vms_catch,
        a_backtrace_reaches_through_compiled_frames,
        a_batch_is_one_unwind_table_and_none_is_left_when_its_code_is_gone,
    },
}

#[test]
fn no_table_is_registered_for_code_compiled_without_unwind_information() {
    let rig = Rig::new(options().flag("unwind_info", "false"), vec![plus(1)]);
    rig.compile([0]);
    assert_eq!((rig.call(0, 1), rig.backend.stats().arena.unwind_tables), (2, 0));
}
