//! Calls between functions of the engine.

use crate::rig::{Clif, Rig, options, plus, signature};
use beadwork::Engine;
use beadwork_cranelift::{FunctionUnit, InstBuilder};

beadwork_checks::properties! { Clif:
    calls::{
        recursion_goes_through_the_functions_own_slot,
        a_callee_without_code_is_reached_through_the_fallback_and_learned_from_its_bits,
        mutual_recursion_runs_natively_once_both_are_compiled,
        an_invalidated_callee_is_interpreted_again_by_callers_that_stay_as_they_are,
        a_recompiled_callee_is_reached_by_callers_that_stay_as_they_are,
        a_removed_callee_leaves_the_fallback_to_callers_that_embed_its_slot,
        a_slot_is_read_at_every_call,
        without_a_fallback_a_code_pointer_is_null_until_there_is_code,
        two_tiers_of_one_engine_share_an_arena,
    },
}

#[test]
fn a_frontends_function_runs_natively() {
    let rig = Rig::new(options(), vec![plus(40)]);
    rig.compile([0]);
    assert_eq!(rig.call(0, 2), 42);
    assert_eq!(rig.backend.stats().compiled, 1);
}

#[test]
fn a_closure_is_a_frontend() {
    let backend = options().build(|unit: &mut FunctionUnit<'_, '_>| {
        unit.begin(&unit.new_signature());
        unit.builder().ins().return_(&[]);
        Ok(())
    });
    assert_eq!(backend.unwrap().stats().compiled, 0);
}

#[test]
fn a_frontend_may_set_the_signature_and_open_the_entry_block_itself() {
    let frontend = |unit: &mut FunctionUnit<'_, '_>| {
        let native = unit.native_signature(&signature(unit));
        let builder = unit.builder();
        builder.func.signature = native;
        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);
        builder.switch_to_block(entry);
        builder.seal_block(entry);
        let bits_and_x = builder.block_params(entry).to_vec();
        let sum = builder.ins().iadd(bits_and_x[0], bits_and_x[1]);
        builder.ins().return_(&[sum]);
        Ok(())
    };
    let backend = options().pass_callee_bits(true).name("by hand").build(frontend).unwrap();
    assert_eq!(beadwork::Backend::name(&backend), "by hand");
    let engine = Engine::builder().inline().capacity(16).tier(beadwork::Tier::new(backend)).build().unwrap();
    let bead = engine.register(0.into()).unwrap();
    engine.promote(bead, beadwork::TierId::BASELINE).unwrap();
    engine.run_pending(1);
    let m = engine.mutator();
    // SAFETY: the signature above with the bits in front, and `m` passes no safepoint during the call.
    let f: extern "C" fn(u64, i64) -> i64 = unsafe { std::mem::transmute(m.code(bead).unwrap().as_ptr()) };
    assert_eq!(f(40, 2), 42);
}
