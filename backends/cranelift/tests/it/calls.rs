//! Calls between functions of the engine.

use crate::rig::{Rig, options, plus, signature};
use beadwork::Engine;
use beadwork_cranelift::{FunctionUnit, InstBuilder};

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
