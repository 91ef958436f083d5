//! Code is freed function by function, and contexts are replaced.

use crate::rig::{Rig, options, plus};

#[test]
fn a_context_is_replaced_after_the_number_of_functions_asked_for() {
    for (after, contexts) in [(1, 20), (5, 4), (6, 4), (20, 1), (0, 20)] {
        let rig = Rig::new(options().contexts_recycled_after(after), (0..20).map(plus).collect());
        rig.compile(0..20);
        assert_eq!(rig.backend.contexts(), contexts, "after {after}");
        for number in 0..20 {
            assert_eq!(rig.call(number, 1), 1 + number as i64);
        }
    }
}
