//! Loop entries that cannot be built, compiled or placed are left out, and the rest goes on.

use crate::loops::{Rig, answer, begin, identity};
use crate::rig::options;
use beadwork::CompileError;
use beadwork_cranelift::ir::{StackSlotData, StackSlotKind, types as t};
use beadwork_cranelift::types::I64;
use beadwork_cranelift::{AbiParam, Entry, InstBuilder};

#[test]
fn each_loop_entry_fails_for_itself_and_says_why() {
    let limited = options().max_frame_bytes(1 << 10).symbol("near_null", std::ptr::without_provenance(16));
    let rig = Rig::new(limited, |unit, _| {
        let site = match unit.entry() {
            Entry::Function => return identity(unit, &[0, 1, 2, 3, 4, 5, 6, 7]),
            Entry::Loop(site) => site,
        };
        if site == 1 {
            return Err(CompileError::failed("no such loop"));
        }
        let frame = begin(unit);
        match site {
            2 => panic!("a bug in loop {site}"),
            3 => drop(unit.symbol_address("missing_thing")),
            4 => drop(unit.builder().ins().ireduce(t::I32, frame)),
            5 => return Ok(()),
            6 => {
                let data = StackSlotData::new(StackSlotKind::ExplicitSlot, 4096, 0);
                let slot = unit.builder().create_sized_stack_slot(data);
                unit.builder().ins().stack_store(I64, frame, slot, 0);
            }
            _ => {}
        }
        let value = if site == 4 { unit.builder().ins().ireduce(t::I32, frame) } else { frame };
        answer(unit, value)
    });
    assert_eq!(rig.call(17), 17);
    let entries: Vec<_> = (0..8).filter(|&site| rig.has(site)).collect();
    assert_eq!(entries, [0, 7]);
    let failed = rig.failed.lock().unwrap();
    let expected = [
        (1, "no such loop"),
        (2, "a bug in loop 2"),
        (3, "missing_thing"),
        (4, "looped@4"),
        (5, "no instruction"),
        (6, "limit is 1024"),
    ];
    assert_eq!(failed.len(), expected.len(), "{failed:?}");
    for ((site, error), (expected, text)) in failed.iter().zip(expected) {
        assert_eq!(*site, expected);
        assert!(error.contains(text), "{site}: {error}");
    }
    let stats = rig.backend.stats();
    assert_eq!((stats.compiled, stats.failed), (1, 0));
    assert_eq!((stats.loop_entries, stats.loop_entries_failed), (2, 6));
}

#[test]
fn a_frontend_that_does_not_look_which_entry_it_builds_gets_no_loop_entry() {
    let rig = Rig::new(options(), |unit, _| identity(unit, &[1]));
    assert_eq!((rig.call(4), rig.has(1)), (4, false));
    let failed = rig.failed.lock().unwrap();
    assert!(matches!(&failed[..], [(1, error)] if error.contains("ask FunctionUnit::entry")), "{failed:?}");
}

#[test]
fn a_loop_entry_that_has_no_place_leaves_the_function_its_own() {
    let options = options().symbol("near_null", std::ptr::without_provenance(16));
    let rig = Rig::new(options, |unit, _| {
        if unit.entry() == Entry::Function {
            return identity(unit, &[1]);
        }
        let x = begin(unit);
        let mut signature = unit.new_signature();
        signature.params.push(AbiParam::new(I64));
        // A 32-bit distance, which cannot reach it.
        let near_null = unit.symbol("near_null", &signature);
        unit.builder().func.dfg.ext_funcs[near_null].colocated = true;
        unit.builder().ins().call(near_null, &[x]);
        answer(unit, x)
    });
    assert_eq!((rig.call(4), rig.has(1)), (4, false));
    let failed = rig.failed.lock().unwrap();
    assert!(matches!(&failed[..], [(1, error)] if error.contains("looped@1")), "{failed:?}");
    assert_eq!(rig.backend.stats().failed, 0);
}
