//! Units of several functions: bodies in the module of another function, and what becomes of them.

use crate::rig::{Body, Llvm, Rig, body, call, number, options, plus, signature, whole, word};
use beadwork::Bead;
use beadwork_checks::backends::units::parity;
use beadwork_llvm::inkwell::IntPredicate;
use beadwork_llvm::inkwell::values::IntValue;
use beadwork_llvm::{BuildError, Entry, FunctionUnit, LlvmBackend, Passes};

/// Calls function 1, which is included if `includes`, and adds 1000.
fn caller(includes: bool) -> Body {
    body(move |unit, x, all| {
        if all.first() == Some(&unit.bead()) && includes {
            assert!(unit.include(all[1]) && unit.include(all[1]), "asked twice, it is there once");
        }
        let value = call(unit, all[1], x)?;
        Ok(unit.builder().build_int_add(value, number(unit, 1000), "")?)
    })
}

#[test]
fn a_small_included_callee_is_inlined() {
    let size = |includes| {
        let rig = Rig::new(LlvmBackend::builder().passes(Passes::O3), vec![caller(includes), plus(3)]);
        rig.compile([0, 1]);
        assert_eq!(rig.call(0, 4), 1007);
        rig.installs()[0].1
    };
    let (inlined, called) = (size(true), size(false));
    assert!(inlined < called && inlined <= 16, "{inlined} bytes, {called} with a call");
}

#[test]
fn deep_recursion_within_a_unit_becomes_a_loop() {
    let options = LlvmBackend::builder().passes(Passes::O3);
    let rig = Rig::compiled(options, vec![parity::<Llvm>(1, 1), parity::<Llvm>(0, 0)]);
    assert_eq!((rig.call(0, 1_000_000), rig.call(1, 1_000_001)), (1, 1));
}

#[test]
fn the_body_of_another_signature_is_refused_and_the_function_compiled_without() {
    let caller = body(|unit, x, all| if unit.include(all[1]) { call(unit, all[1], x) } else { Ok(x) });
    let other = whole(|unit, _| {
        let word = word(unit);
        let x = unit.begin(word.fn_type(&[word.into(), word.into()], false))[1];
        unit.builder().build_return(Some(&x))?;
        Ok(())
    });
    let rig = Rig::new(options(), vec![caller, other]);
    rig.compile([0]);
    assert_eq!(rig.stats().units_failed, 1, "calling it so would mean anything");
    assert_eq!(rig.call(0, 5), 5);
}

/// Counts down from `x`, adding what function 1 answers each time; a loop entry gets `x` and the sum.
fn looped(unit: &mut FunctionUnit<'_, '_>, callee: Bead) -> Result<(), BuildError> {
    let word = word(unit);
    let (start, sum): (IntValue<'_>, IntValue<'_>) = match unit.entry() {
        Entry::Function => {
            unit.add_loop_entry(9);
            let x = unit.begin(signature(unit))[0].into_int_value();
            (x, number(unit, 0))
        }
        Entry::Loop(_) => {
            let params = unit.begin(word.fn_type(&[word.into(), word.into()], false));
            (params[0].into_int_value(), params[1].into_int_value())
        }
    };
    assert!(unit.include(callee));
    let before = unit.builder().get_insert_block().expect("begin opened a block");
    let (header, more, done) =
        (unit.append_block("header")?, unit.append_block("more")?, unit.append_block("done")?);
    unit.builder().build_unconditional_branch(header)?;
    unit.builder().position_at_end(header);
    let (i, total) = (unit.builder().build_phi(word, "")?, unit.builder().build_phi(word, "")?);
    let (i_now, total_now) = (i.as_basic_value().into_int_value(), total.as_basic_value().into_int_value());
    let end = unit.builder().build_int_compare(IntPredicate::EQ, i_now, number(unit, 0), "")?;
    unit.builder().build_conditional_branch(end, done, more)?;
    unit.builder().position_at_end(more);
    let value = call(unit, callee, i_now)?;
    let next_total = unit.builder().build_int_add(total_now, value, "")?;
    let next = unit.builder().build_int_sub(i_now, number(unit, 1), "")?;
    unit.builder().build_unconditional_branch(header)?;
    i.add_incoming(&[(&start, before), (&next, more)]);
    total.add_incoming(&[(&sum, before), (&next_total, more)]);
    unit.builder().position_at_end(done);
    unit.builder().build_return(Some(&total_now))?;
    Ok(())
}

#[test]
fn a_loop_entry_contains_bodies_too_and_goes_with_the_function() {
    let doubles = body(|unit, x, _| Ok(unit.builder().build_int_add(x, x, "")?));
    let rig = Rig::new(options(), vec![whole(|unit, all| looped(unit, all[1])), doubles]);
    rig.compile([0]);
    let stats = rig.stats();
    assert_eq!((stats.included, stats.loop_entries), (2, 1));
    let m = rig.engine.mutator();
    let entry = m.osr_entry(rig.beads[0], 9).expect("a loop entry");
    // SAFETY: built above with this signature; `m` passes no safepoint during the call.
    let entry: extern "C" fn(i64, i64) -> i64 = unsafe { std::mem::transmute(entry.as_ptr()) };
    assert_eq!(entry(3, 100), 112);
    rig.engine.reload(rig.beads[1]).unwrap();
    assert!(!rig.has(0, 9) && !rig.is_native(0));
}
