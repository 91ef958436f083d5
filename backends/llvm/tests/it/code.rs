//! What is compiled computes what it should: loops, constants, tables, calls LLVM makes by itself.

use crate::rig::{Body, Rig, all_passes, body, number, options, plus, signature, word};
use beadwork_llvm::inkwell::values::IntValue;
use beadwork_llvm::inkwell::{AddressSpace, IntPredicate};
use beadwork_llvm::{BuildError, FunctionUnit, LlvmBackend, OptimizationLevel};

/// `for i in 0..x { sum = sum * 31 + i }`, by a variable in memory and one in registers.
fn sum<'c>(unit: &mut FunctionUnit<'c, '_>, x: IntValue<'c>) -> Result<IntValue<'c>, BuildError> {
    let [head, body, end] =
        [unit.append_block("head")?, unit.append_block("body")?, unit.append_block("end")?];
    let b = unit.builder();
    let place = b.build_alloca(word(unit), "sum")?;
    b.build_store(place, number(unit, 0))?;
    let entry = b.get_insert_block().expect("the entry block");
    b.build_unconditional_branch(head)?;
    b.position_at_end(head);
    let i = b.build_phi(word(unit), "i")?;
    let now = i.as_basic_value().into_int_value();
    let more = b.build_int_compare(IntPredicate::SLT, now, x, "")?;
    b.build_conditional_branch(more, body, end)?;
    b.position_at_end(body);
    let old = b.build_load(word(unit), place, "")?.into_int_value();
    let scaled = b.build_int_mul(old, number(unit, 31), "")?;
    b.build_store(place, b.build_int_add(scaled, now, "")?)?;
    let next = b.build_int_add(now, number(unit, 1), "")?;
    b.build_unconditional_branch(head)?;
    i.add_incoming(&[(&number(unit, 0), entry), (&next, body)]);
    b.position_at_end(end);
    Ok(b.build_load(word(unit), place, "")?.into_int_value())
}

fn expected_sum(x: i64) -> i64 {
    (0..x).fold(0_i64, |sum, i| sum.wrapping_mul(31).wrapping_add(i))
}

/// A choice among values that make a table of constants, and among blocks that make a jump table.
fn switch<'c>(unit: &mut FunctionUnit<'c, '_>, x: IntValue<'c>) -> Result<IntValue<'c>, BuildError> {
    let blocks: Vec<_> = (0..12).map(|_| unit.append_block("case")).collect::<Result<_, _>>()?;
    let (other, done) = (unit.append_block("other")?, unit.append_block("done")?);
    let b = unit.builder();
    let cases: Vec<_> = blocks.iter().zip(0..).map(|(&block, n)| (number(unit, n), block)).collect();
    b.build_switch(x, other, &cases)?;
    let mut results = Vec::new();
    for (&block, n) in blocks.iter().zip(0..) {
        b.position_at_end(block);
        // Alternately constants and computations, so that a table of constants does not do.
        let scaled = b.build_int_mul(x, number(unit, 77 + n * n), "")?;
        let value =
            if n % 2 == 0 { b.build_xor(scaled, number(unit, n), "")? } else { number(unit, n * 1001) };
        b.build_unconditional_branch(done)?;
        results.push((value, block));
    }
    b.position_at_end(other);
    b.build_unconditional_branch(done)?;
    results.push((number(unit, -1), other));
    b.position_at_end(done);
    let result = b.build_phi(word(unit), "")?;
    for (value, block) in &results {
        result.add_incoming(&[(value, *block)]);
    }
    Ok(result.as_basic_value().into_int_value())
}

fn expected_switch(x: i64) -> i64 {
    match x {
        0..12 if x % 2 == 0 => (x * (77 + x * x)) ^ x,
        0..12 => x * 1001,
        _ => -1,
    }
}

/// `x * 1.5 + 0.25`, floored and remaindered by functions LLVM calls, unless the processor has instructions.
fn floats<'c>(unit: &mut FunctionUnit<'c, '_>, x: IntValue<'c>) -> Result<IntValue<'c>, BuildError> {
    let double = unit.context().f64_type();
    let floor = unit.module().add_function("llvm.floor.f64", double.fn_type(&[double.into()], false), None);
    let b = unit.builder();
    let value = b.build_signed_int_to_float(x, double, "")?;
    let value = b.build_float_mul(value, double.const_float(1.5), "")?;
    let value = b.build_float_add(value, double.const_float(0.25), "")?;
    let floored = b.build_call(floor, &[value.into()], "")?;
    let floored = floored.try_as_basic_value().unwrap_basic().into_float_value();
    let rest = b.build_float_rem(value, double.const_float(7.0), "")?;
    let sum = b.build_float_add(floored, b.build_float_mul(rest, double.const_float(1000.0), "")?, "")?;
    Ok(b.build_float_to_signed_int(sum, word(unit), "")?)
}

fn expected_floats(x: i64) -> i64 {
    let value = x as f64 * 1.5 + 0.25;
    (value.floor() + value % 7.0 * 1000.0) as i64
}

/// A byte of a text that lies with the code.
fn text<'c>(unit: &mut FunctionUnit<'c, '_>, x: IntValue<'c>) -> Result<IntValue<'c>, BuildError> {
    let data = unit.data(b"beadwork", 64);
    let b = unit.builder();
    let address = b.build_ptr_to_int(data, word(unit), "")?;
    let misplaced = b.build_and(address, number(unit, 63), "")?;
    let at = b.build_int_add(address, b.build_and(x, number(unit, 7), "")?, "")?;
    let at = b.build_int_to_ptr(at, unit.context().ptr_type(AddressSpace::default()), "")?;
    let byte = b.build_load(unit.context().i8_type(), at, "")?.into_int_value();
    let byte = b.build_int_z_extend(byte, word(unit), "")?;
    Ok(b.build_int_add(byte, b.build_int_mul(misplaced, number(unit, 1000), "")?, "")?)
}

/// The quotient of 128-bit numbers, for which there is no instruction.
fn wide<'c>(unit: &mut FunctionUnit<'c, '_>, x: IntValue<'c>) -> Result<IntValue<'c>, BuildError> {
    let i128 = unit.context().i128_type();
    let b = unit.builder();
    let wide = b.build_int_s_extend(x, i128, "")?;
    let wide = b.build_int_mul(wide, wide, "")?;
    let divisor = b.build_int_add(wide, i128.const_int(3, false), "")?;
    let dividend = b.build_left_shift(wide, i128.const_int(20, false), "")?;
    Ok(b.build_int_truncate(b.build_int_signed_div(dividend, divisor, "")?, word(unit), "")?)
}

fn expected_wide(x: i64) -> i64 {
    let wide = i128::from(x) * i128::from(x);
    ((wide << 20) / (wide + 3)) as i64
}

/// Fills and copies a large piece of stack, which LLVM does by the C library.
fn block_copy<'c>(unit: &mut FunctionUnit<'c, '_>, x: IntValue<'c>) -> Result<IntValue<'c>, BuildError> {
    let byte = unit.context().i8_type();
    let b = unit.builder();
    let (from, to) = (b.build_array_alloca(byte, x, "")?, b.build_array_alloca(byte, x, "")?);
    let seven = byte.const_int(7, false);
    b.build_memset(from, 1, seven, x)?;
    b.build_memcpy(to, 1, from, 1, x)?;
    Ok(b.build_int_z_extend(b.build_load(byte, to, "")?.into_int_value(), word(unit), "")?)
}

/// Looks a value up in a private table, as SimplifyCFG and frontends make them, and sums it as vectors can.
fn table<'c>(unit: &mut FunctionUnit<'c, '_>, x: IntValue<'c>) -> Result<IntValue<'c>, BuildError> {
    let values: Vec<_> = (0..64).map(|n| number(unit, n * n - 40)).collect();
    let values = word(unit).const_array(&values);
    let global = unit.module().add_global(values.get_type(), None, "squares");
    global.set_initializer(&values);
    global.set_constant(true);
    let [head, done] = [unit.append_block("head")?, unit.append_block("done")?];
    let b = unit.builder();
    let entry = b.get_insert_block().expect("the entry block");
    let start = b.build_ptr_to_int(global.as_pointer_value(), word(unit), "")?;
    b.build_unconditional_branch(head)?;
    b.position_at_end(head);
    let (i, sum) = (b.build_phi(word(unit), "i")?, b.build_phi(word(unit), "sum")?);
    let (now, old) = (i.as_basic_value().into_int_value(), sum.as_basic_value().into_int_value());
    let at = b.build_int_add(start, b.build_int_mul(now, number(unit, 8), "")?, "")?;
    let at = b.build_int_to_ptr(at, unit.context().ptr_type(AddressSpace::default()), "")?;
    let scaled = b.build_int_mul(b.build_load(word(unit), at, "")?.into_int_value(), x, "")?;
    let new = b.build_int_add(old, scaled, "")?;
    let next = b.build_int_add(now, number(unit, 1), "")?;
    let more = b.build_int_compare(IntPredicate::ULT, next, number(unit, 64), "")?;
    b.build_conditional_branch(more, head, done)?;
    i.add_incoming(&[(&number(unit, 0), entry), (&next, head)]);
    sum.add_incoming(&[(&number(unit, 0), entry), (&new, head)]);
    b.position_at_end(done);
    Ok(new)
}

fn expected_table(x: i64) -> i64 {
    (0..64).map(|n| (n * n - 40) * x).sum()
}

/// A function with what it should answer.
type Case = (Body, fn(i64) -> i64);

fn program() -> Vec<Case> {
    vec![
        (body(|unit, _, _| Ok(number(unit, -7_000_000_000))), |_| -7_000_000_000),
        (plus(1 << 40), |x| x + (1 << 40)),
        (body(|unit, x, _| sum(unit, x)), expected_sum),
        (body(|unit, x, _| switch(unit, x)), expected_switch),
        (body(|unit, x, _| floats(unit, x)), expected_floats),
        (body(|unit, x, _| text(unit, x)), |x| i64::from(b"beadwork"[x as usize & 7])),
        (body(|unit, x, _| wide(unit, x)), expected_wide),
        (body(|unit, x, _| block_copy(unit, x)), |_| 7),
        (body(|unit, x, _| table(unit, x)), expected_table),
    ]
}

fn check(rig: &Rig, context: &str) {
    for (number, (_, expected)) in program().iter().enumerate() {
        for x in [1, 2, 3, 7, 11, 12, 100, 4099] {
            assert_eq!(rig.call(number, x), expected(x), "{context}: function {number} of {x}");
        }
    }
}

#[test]
fn code_computes_the_same_by_every_pipeline() {
    for passes in all_passes() {
        let options = LlvmBackend::builder().passes(passes.clone());
        let rig = Rig::new(options, program().into_iter().map(|(body, _)| body).collect());
        rig.compile(0..rig.beads.len());
        check(&rig, passes.pipeline());
        assert_eq!(rig.backend.pipeline(), passes.pipeline());
        let stats = rig.backend.stats();
        assert_eq!((stats.compiled, stats.failed), (rig.beads.len() as u64, 0));
    }
}

#[test]
fn code_computes_the_same_by_every_level_of_code_generation() {
    use OptimizationLevel::{Aggressive, Default, Less, None};
    for level in [None, Less, Default, Aggressive] {
        let rig =
            Rig::new(options().codegen_level(level), program().into_iter().map(|(body, _)| body).collect());
        rig.compile(0..rig.beads.len());
        check(&rig, &format!("{level:?}"));
    }
}

#[test]
fn code_for_a_plainer_processor_computes_the_same_and_calls_what_it_has_no_instruction_for() {
    let options = options().cpu("x86-64").features("-sse4.1");
    let rig = Rig::new(options, program().into_iter().map(|(body, _)| body).collect());
    assert_eq!((rig.backend.cpu(), rig.backend.features()), ("x86-64", "-sse4.1"));
    rig.compile(0..rig.beads.len());
    check(&rig, "x86-64");
}

#[test]
fn the_processor_this_runs_on_is_the_default_and_features_are_added_to_its_own() {
    let rig = Rig::new(options(), vec![plus(1)]);
    let host = rig.backend.features().to_owned();
    assert!(!rig.backend.cpu().is_empty() && host.contains("+sse2"), "{host}");
    let rig = Rig::new(options().features("-avx2"), vec![plus(1)]);
    assert_eq!(rig.backend.features(), format!("{host},-avx2"));
}

#[test]
fn helpers_of_a_module_are_placed_with_their_function_wherever_they_stand() {
    for helpers_first in [true, false] {
        let helper = body(move |unit, x, _| {
            let signature = signature(unit);
            // Never inlined, so it stays a function of its own.
            let helper = unit.module().add_function("helper", signature, None);
            let kind = beadwork_llvm::inkwell::attributes::Attribute::get_named_enum_kind_id("noinline");
            let attribute = unit.context().create_enum_attribute(kind, 0);
            helper.add_attribute(beadwork_llvm::inkwell::attributes::AttributeLoc::Function, attribute);
            let inside = unit.context().append_basic_block(helper, "entry");
            let b = unit.context().create_builder();
            b.position_at_end(inside);
            let y = helper.get_nth_param(0).expect("it has one").into_int_value();
            let square = b.build_int_mul(y, y, "")?;
            b.build_return(Some(&square))?;
            if helpers_first {
                let first = unit.function()?;
                let entry = first.as_global_value();
                // Emitted in the order of the module, so the entry is no longer at the start.
                entry.set_section(Some(".text.last"));
            }
            let call = unit.builder().build_call(helper, &[x.into()], "")?;
            let square = call.try_as_basic_value().unwrap_basic().into_int_value();
            Ok(unit.builder().build_int_add(square, x, "")?)
        });
        let rig = Rig::new(options(), vec![helper]);
        rig.compile([0]);
        assert_eq!(rig.call(0, 9), 90, "helpers first: {helpers_first}");
    }
}

#[test]
fn weights_of_branches_and_the_entry_count_reach_the_optimizer_scaled_to_32_bits() {
    let text = std::sync::Arc::<std::sync::Mutex<String>>::default();
    let sink = text.clone();
    let body = body(move |unit, x, _| {
        let [often, never] = [unit.append_block("often")?, unit.append_block("never")?];
        let b = unit.builder();
        let odd = b.build_int_truncate(x, unit.context().bool_type(), "")?;
        let branch = b.build_conditional_branch(odd, never, often)?;
        unit.set_branch_weights(branch, &[0, u64::MAX])?;
        unit.set_entry_count(5)?;
        b.position_at_end(never);
        b.build_return(Some(&x))?;
        b.position_at_end(often);
        *sink.lock().unwrap() = unit.module().print_to_string().to_string();
        Ok(number(unit, 4))
    });
    let rig = Rig::new(options(), vec![body]);
    rig.compile([0]);
    assert_eq!((rig.call(0, 6), rig.call(0, 7)), (4, 7));
    let text = text.lock().unwrap();
    assert!(text.contains("!{!\"branch_weights\", i32 1, i32 -1}"), "{text}");
    assert!(text.contains("!{!\"function_entry_count\", i64 5}"), "{text}");
    assert_eq!(text.matches("!prof").count(), 2, "{text}");
}
