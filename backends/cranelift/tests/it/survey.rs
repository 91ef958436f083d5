//! One function per feature that may need a relocation, a library call or data, with and without the processor's help.

use crate::rig::{Body, Rig, body, options};
use beadwork_cranelift::ir::condcodes::IntCC;
use beadwork_cranelift::ir::{
    BlockArg, JumpTableData, MemFlagsData, StackSlotData, StackSlotKind, TrapCode, Value,
};
use beadwork_cranelift::types::{F32, F64, I8X16, I32, I64};
use beadwork_cranelift::{AbiParam, CraneliftBuilder, FunctionUnit, InstBuilder, OptLevel};

/// A body, what it is called with, and what it has to answer.
struct Case {
    name: &'static str,
    body: Body,
    inputs: Vec<i64>,
    expected: fn(i64) -> i64,
}

fn bits(x: f64) -> i64 {
    x.to_bits().cast_signed()
}

fn float(bits: i64) -> f64 {
    f64::from_bits(bits.cast_unsigned())
}

/// A function over `f64`, with its parameter and result as bits.
fn over_floats(build: fn(&mut FunctionUnit<'_, '_>, Value) -> Value) -> Body {
    body(move |unit, x, _| {
        let x = unit.builder().ins().bitcast(F64, MemFlagsData::new(), x);
        let result = build(unit, x);
        Ok(unit.builder().ins().bitcast(I64, MemFlagsData::new(), result))
    })
}

fn floats() -> Vec<i64> {
    [0.0, -0.0, 0.1, 0.5, 1.5, 2.5, -0.5, -1.5, -2.7, 3.2, 1e18, -1e300, f64::INFINITY].map(bits).into()
}

/// A rounding instruction at both widths.
macro_rules! rounding {
    ($instruction:ident, $rust:ident) => {
        [
            Case {
                name: stringify!($instruction),
                body: over_floats(|unit, x| unit.builder().ins().$instruction(x)),
                inputs: floats(),
                expected: |x| bits(float(x).$rust()),
            },
            Case {
                name: concat!(stringify!($instruction), ".f32"),
                body: over_floats(|unit, x| {
                    let x = unit.builder().ins().fdemote(F32, x);
                    let result = unit.builder().ins().$instruction(x);
                    unit.builder().ins().fpromote(F64, result)
                }),
                inputs: floats(),
                expected: |x| bits((float(x) as f32).$rust().into()),
            },
        ]
    };
}

fn float_cases() -> Vec<Case> {
    let case = |name, build, expected| Case { name, body: over_floats(build), inputs: floats(), expected };
    let rounding = [
        rounding!(floor, floor),
        rounding!(ceil, ceil),
        rounding!(trunc, trunc),
        rounding!(nearest, round_ties_even),
    ];
    let others = [
        case(
            "f64const",
            |unit, x| {
                let c = unit.builder().ins().f64const(1.234567);
                unit.builder().ins().fadd(x, c)
            },
            |x| bits(float(x) + 1.234567),
        ),
        case("fneg", |unit, x| unit.builder().ins().fneg(x), |x| bits(-float(x))),
        case(
            "fma",
            |unit, x| unit.builder().ins().fma(x, x, x),
            |x| bits(float(x).mul_add(float(x), float(x))),
        ),
        case(
            "fma.f32",
            |unit, x| {
                let x = unit.builder().ins().fdemote(F32, x);
                let result = unit.builder().ins().fma(x, x, x);
                unit.builder().ins().fpromote(F64, result)
            },
            |x| {
                let x = float(x) as f32;
                bits(x.mul_add(x, x).into())
            },
        ),
        case(
            "fcvt_to_sint_sat",
            |unit, x| {
                let n = unit.builder().ins().fcvt_to_sint_sat(I64, x);
                unit.builder().ins().fcvt_from_sint(F64, n)
            },
            |x| bits(float(x) as i64 as f64),
        ),
    ];
    rounding.into_iter().flatten().chain(others).collect()
}

fn jump_table(unit: &mut FunctionUnit<'_, '_>, x: Value) -> Value {
    let builder = unit.builder();
    let done = builder.create_block();
    let result = builder.append_block_param(done, I64);
    let cases: Vec<_> = (0..8).map(|_| builder.create_block()).collect();
    let calls: Vec<_> = cases.iter().map(|&case| builder.func.dfg.block_call(case, &[])).collect();
    let other = builder.ins().iconst(I64, 99);
    let default = builder.func.dfg.block_call(done, &[BlockArg::Value(other)]);
    let table = builder.create_jump_table(JumpTableData::new(default, &calls));
    let index = builder.ins().ireduce(I32, x);
    builder.ins().br_table(index, table);
    for (case, n) in cases.into_iter().zip(0..) {
        builder.switch_to_block(case);
        let value = builder.ins().iconst(I64, n * 1_000_003);
        builder.ins().jump(done, &[BlockArg::Value(value)]);
    }
    builder.switch_to_block(done);
    result
}

/// Stores to the far end of a frame of 64 KiB, which the prologue has to probe.
fn large_frame(unit: &mut FunctionUnit<'_, '_>, x: Value) -> Value {
    let pointer = unit.pointer_type();
    let builder = unit.builder();
    let slot = builder.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 1 << 16, 3));
    builder.ins().stack_store(pointer, x, slot, 8);
    builder.ins().stack_load(pointer, I64, slot, 8)
}

fn shuffle(unit: &mut FunctionUnit<'_, '_>, x: Value) -> Value {
    let builder = unit.builder();
    let lanes =
        builder.func.dfg.constants.insert((0..16).map(|lane| 7 - lane % 8).collect::<Vec<u8>>().into());
    let lanes = builder.ins().vconst(I8X16, lanes);
    let vector = builder.ins().scalar_to_vector(beadwork_cranelift::types::I64X2, x);
    let little = MemFlagsData::new().with_endianness(beadwork_cranelift::ir::Endianness::Little);
    let bytes = builder.ins().bitcast(I8X16, little, vector);
    let swapped = builder.ins().swizzle(bytes, lanes);
    let result = builder.ins().bitcast(beadwork_cranelift::types::I64X2, little, swapped);
    builder.ins().extractlane(result, 0)
}

/// `memcpy` from a constant of the function itself into its frame.
fn copy(unit: &mut FunctionUnit<'_, '_>, x: Value) -> Value {
    let (config, pointer) = (unit.isa().frontend_config(), unit.pointer_type());
    let table: Vec<u8> = (0..64i64).flat_map(|n| (n * n).to_le_bytes()).collect();
    unit.data(b"odd", 1);
    let source = unit.data(&table, 64);
    let builder = unit.builder();
    let slot = builder.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 512, 3));
    let target = builder.ins().stack_addr(pointer, slot, 0);
    let size = builder.ins().iconst(pointer, 512);
    builder.call_memcpy(config, target, source, size);
    let index = builder.ins().band_imm_u(x, 63);
    let offset = builder.ins().ishl_imm_u(index, 3);
    let address = builder.ins().iadd(target, offset);
    builder.ins().load(I64, MemFlagsData::trusted(), address, 0)
}

extern "C" fn triple(x: i64) -> i64 {
    x.wrapping_mul(3)
}
static TABLE: [i64; 4] = [2, 3, 5, 7];

fn runtime(unit: &mut FunctionUnit<'_, '_>, x: Value) -> Value {
    let mut signature = unit.new_signature();
    signature.params.push(AbiParam::new(I64));
    signature.returns.push(AbiParam::new(I64));
    let triple = unit.symbol("triple", &signature);
    let call = unit.builder().ins().call(triple, &[x]);
    let tripled = unit.builder().inst_results(call)[0];
    let table = unit.symbol_address("table");
    let seven = unit.builder().ins().load(I64, MemFlagsData::trusted(), table, 24);
    unit.builder().ins().iadd(tripled, seven)
}

fn integer_cases() -> Vec<Case> {
    let inputs = || vec![0, 1, 2, 7, 8, 63, 1 << 40, -1, i64::MIN];
    let case = |name, build: fn(&mut FunctionUnit<'_, '_>, Value) -> Value, expected| Case {
        name,
        body: body(move |unit, x, _| Ok(build(unit, x))),
        inputs: inputs(),
        expected,
    };
    vec![
        case("br_table", jump_table, |x| match x as u32 {
            n @ 0..8 => i64::from(n) * 1_000_003,
            _ => 99,
        }),
        case("64 KiB frame", large_frame, |x| x),
        case("swizzle", shuffle, i64::swap_bytes),
        case("memcpy and data", copy, |x| (x & 63).pow(2)),
        case("runtime symbols", runtime, |x| triple(x).wrapping_add(7)),
        case("popcnt", |unit, x| unit.builder().ins().popcnt(x), |x| x.count_ones().into()),
        case(
            "i128 multiplication",
            |unit, x| {
                let wide = unit.builder().ins().iconcat(x, x);
                let product = unit.builder().ins().imul(wide, wide);
                unit.builder().ins().isplit(product).1
            },
            |x| {
                let wide = i128::from(x) << 64 | i128::from(x.cast_unsigned());
                (wide.wrapping_mul(wide) >> 64) as i64
            },
        ),
        case(
            "a trap that is not taken",
            |unit, x| {
                let never = unit.builder().ins().icmp_imm_s(IntCC::Equal, x, 12345);
                unit.builder().ins().trapnz(never, TrapCode::unwrap_user(1));
                x
            },
            |x| x,
        ),
    ]
}

fn survey(options: CraneliftBuilder) {
    let options = options.symbol("triple", triple as *const u8).symbol("table", TABLE.as_ptr().cast());
    let cases: Vec<_> = float_cases().into_iter().chain(integer_cases()).collect();
    let checks: Vec<_> = cases.iter().map(|case| (case.name, case.inputs.clone(), case.expected)).collect();
    let rig = Rig::new(options, cases.into_iter().map(|case| case.body).collect());
    rig.compile(0..checks.len());
    for (number, (name, inputs, expected)) in checks.into_iter().enumerate() {
        assert!(rig.is_native(number), "{name}: {:?}", rig.failure(number));
        for input in inputs {
            assert_eq!(rig.call(number, input), expected(input), "{name} of {input} ({})", float(input));
        }
    }
}

#[test]
fn everything_that_needs_a_relocation_runs_right_optimized() {
    survey(options().opt_level(OptLevel::Speed));
}

#[test]
fn everything_that_needs_a_relocation_runs_right_unoptimized() {
    survey(options().opt_level(OptLevel::None));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn everything_runs_right_on_a_processor_that_needs_library_calls() {
    let features =
        ["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_avx", "has_avx2", "has_fma", "has_popcnt"];
    survey(features.into_iter().fold(options(), |options, feature| options.flag(feature, "false")));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_library_function_can_be_replaced_by_a_symbol_of_its_name() {
    extern "C" fn always_six(_: f64) -> f64 {
        6.0
    }
    let options = options()
        .flag("has_sse41", "false")
        .flag("has_avx", "false")
        .symbol("floor", always_six as *const u8);
    let rig = Rig::new(options, vec![over_floats(|unit, x| unit.builder().ins().floor(x))]);
    rig.compile([0]);
    assert_eq!(float(rig.call(0, bits(1.5))), 6.0);
}

#[test]
fn each_function_of_a_batch_refers_to_its_own_data() {
    let with_data = |number: i64| {
        body(move |unit, x, _| {
            let table: Vec<u8> = (0..4).flat_map(|n| (number * 100 + n).to_le_bytes()).collect();
            let table = unit.data(&table, 8);
            let offset = unit.builder().ins().ishl_imm_u(x, 3);
            let address = unit.builder().ins().iadd(table, offset);
            Ok(unit.builder().ins().load(I64, MemFlagsData::trusted(), address, 0))
        })
    };
    let rig = Rig::new(options(), (0..16).map(with_data).collect());
    rig.compile(0..16);
    assert!(rig.backend.stats().batches < 16);
    for number in 0..16 {
        assert_eq!(rig.call(number, 3), number as i64 * 100 + 3);
    }
}
