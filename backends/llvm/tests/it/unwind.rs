//! Panics and backtraces reach through compiled frames.

use crate::rig::{Body, Rig, body, number, signature};
use beadwork_checks::backends::unwind::raise;
use beadwork_llvm::inkwell::attributes::{Attribute, AttributeLoc};
use beadwork_llvm::{LlvmBackend, Passes};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `chain` helpers that call each other with values alive, the last one the runtime; `section` for the entry.
fn with_helpers(chain: usize, section: Option<&'static str>) -> Body {
    body(move |unit, x, _| {
        let signature = signature(unit);
        let mut callee = unit.symbol("raise", signature);
        let noinline = Attribute::get_named_enum_kind_id("noinline");
        let uwtable = Attribute::get_named_enum_kind_id("uwtable");
        for level in 0..chain {
            let helper = unit.module().add_function(&format!("helper{level}"), signature, None);
            for (kind, value) in [(noinline, 0), (uwtable, 2)] {
                let attribute = unit.context().create_enum_attribute(kind, value);
                helper.add_attribute(AttributeLoc::Function, attribute);
            }
            let b = unit.context().create_builder();
            b.position_at_end(unit.context().append_basic_block(helper, "entry"));
            let y = helper.get_nth_param(0).expect("it has one").into_int_value();
            // More values in each, so that each saves other registers.
            let mut kept = Vec::new();
            for n in 0..=level as i64 * 2 {
                kept.push(b.build_int_mul(y, number(unit, n + 3), "")?);
            }
            let call = b.build_call(callee, &[y.into()], "")?;
            let mut result = call.try_as_basic_value().unwrap_basic().into_int_value();
            for value in kept {
                result = b.build_xor(result, value, "")?;
            }
            b.build_return(Some(&result))?;
            callee = helper;
        }
        let entry = unit.function()?;
        entry.as_global_value().set_section(section);
        let call = unit.builder().build_call(callee, &[x.into()], "")?;
        let result = call.try_as_basic_value().unwrap_basic().into_int_value();
        Ok(unit.builder().build_int_add(result, x, "")?)
    })
}

fn expected_with_helpers(chain: usize, x: i64) -> i64 {
    (0..chain as i64).fold(x + 1, |sum, level| (0..=level * 2).fold(sum, |sum, n| sum ^ (x * (n + 3)))) + x
}

#[test]
fn a_panic_passes_through_helpers_that_stay_functions_of_their_own() {
    for (chain, section) in [(1, None), (4, None), (4, Some(".text.entries"))] {
        for passes in [Passes::Fast, Passes::O2] {
            let options = LlvmBackend::builder().passes(passes).symbol("raise", raise as *const u8);
            let rig = Rig::new(options, vec![with_helpers(chain, section)]);
            rig.compile([0]);
            assert_eq!(rig.call(0, 5), expected_with_helpers(chain, 5));
            let caught = catch_unwind(AssertUnwindSafe(|| rig.call(0, 13))).unwrap_err();
            assert_eq!(caught.downcast_ref::<i64>(), Some(&13));
            assert_eq!(rig.call(0, 6), expected_with_helpers(chain, 6));
        }
    }
}
