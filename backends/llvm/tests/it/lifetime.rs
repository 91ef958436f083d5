//! Code is freed function by function, and contexts are replaced.

use crate::rig::{Llvm, Rig, options, plus};

beadwork_checks::properties! { Llvm:
    lifetime::{
        the_engine_hears_the_size_and_compile_time_of_each_function,
        code_is_freed_per_function_while_its_batch_lives_on,
        code_waits_for_every_mutator_before_it_is_freed,
        a_superseded_result_frees_its_code_at_once,
        a_request_superseded_while_its_batch_is_compiled_costs_no_compile,
        code_outlives_the_backend_and_goes_with_the_engine,
    },
}

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
