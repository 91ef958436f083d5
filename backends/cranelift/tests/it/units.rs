//! Units of several functions: bodies beside the code of another function, called directly, and what becomes of them.

use crate::rig::{Rig, body, call, options, plus, signature, whole};
use beadwork_cranelift::types::I64;
use beadwork_cranelift::{AbiParam, Entry, InstBuilder};

#[test]
fn the_body_of_another_signature_is_refused_and_the_function_compiled_without() {
    let caller = body(|unit, x, all| Ok(if unit.include(all[1]) { call(unit, all[1], x) } else { x }));
    let other = whole(|unit, _| {
        let mut of_two = signature(unit);
        of_two.params.push(AbiParam::new(I64));
        let x = unit.begin(&of_two)[1];
        unit.builder().ins().return_(&[x]);
        Ok(())
    });
    let rig = Rig::new(options(), vec![caller, other]);
    rig.compile([0]);
    assert_eq!(rig.stats().units_failed, 1, "calling it so would mean anything");
    assert_eq!(rig.call(0, 5), 5);
}

#[test]
fn a_loop_entry_calls_the_bodies_of_its_function_directly() {
    let function = body(|unit, x, all| {
        let adds = if unit.entry() == Entry::Function { 100 } else { 200 };
        unit.add_loop_entry(9);
        assert!(unit.include(all[1]));
        let value = call(unit, all[1], x);
        Ok(unit.builder().ins().iadd_imm_s(value, adds))
    });
    let rig = Rig::new(options(), vec![function, plus(1)]);
    rig.compile([0]);
    let stats = rig.stats();
    assert_eq!((stats.included, stats.loop_entries), (1, 1), "one body serves both");
    let mut frame = [0_u8];
    let address = frame.as_ptr().addr() as i64;
    assert_eq!((rig.call(0, 5), rig.enter(0, 9, &mut frame)), (106, address + 201));
}
