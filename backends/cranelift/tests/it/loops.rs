//! Loop entries: compiled with their function, entered with its live values, freed with it, and left out if they fail.

use crate::rig::{Body, Rig, options, signature, whole};
use beadwork::CompileError;
use beadwork_checks::backends::loops;
use beadwork_cranelift::ir::condcodes::IntCC;
use beadwork_cranelift::ir::{StackSlotData, StackSlotKind, Type, Value, types as t};
use beadwork_cranelift::types::I64;
use beadwork_cranelift::{Entry, FunctionUnit, InstBuilder, LiveValue, OptLevel};

/// A function that answers its argument, with these loop entries.
fn identity(
    sites: &'static [u64],
    build_loop: impl Fn(&mut FunctionUnit<'_, '_>, u64) -> Result<(), CompileError> + Send + Sync + 'static,
) -> Body {
    whole(move |unit, _| match unit.entry() {
        Entry::Function => {
            sites.iter().for_each(|&site| unit.add_loop_entry(site));
            let x = begin(unit);
            answer(unit, x)
        }
        Entry::Loop(site) => build_loop(unit, site),
    })
}

/// For calls and for loop entries alike: a frame's address is an `i64`, too.
fn begin(unit: &mut FunctionUnit<'_, '_>) -> Value {
    unit.begin(&signature(unit))[0]
}

fn answer(unit: &mut FunctionUnit<'_, '_>, value: Value) -> Result<(), CompileError> {
    unit.builder().ins().return_(&[value]);
    Ok(())
}

const TYPES: [Type; 12] = [
    t::I8,
    t::I16,
    t::I32,
    t::I64,
    t::I128,
    t::F32,
    t::F64,
    t::I8X16,
    t::I16X8,
    t::I32X4,
    t::F32X4,
    t::F64X2,
];

/// The types over and over, one after the other without padding from `start` on; answers the end, too.
fn packed(count: usize, start: i32) -> (Vec<LiveValue>, i32) {
    let mut end = start;
    let mut place = |ty: Type| {
        let live = LiveValue::new(ty, end);
        end += ty.bytes() as i32;
        live
    };
    let live = TYPES.into_iter().cycle().take(count).map(&mut place).collect();
    (live, end)
}

#[test]
fn live_values_of_every_type_and_number_cross_over_bit_by_bit_from_and_to_unaligned_places() {
    for level in [OptLevel::None, OptLevel::Speed] {
        for count in [0, 1, 2, 3, 12, 13, 60, 200] {
            // Odd, so that nothing is aligned.
            let (from, middle) = packed(count, 1);
            let (to, end) = packed(count, middle + 1);
            let body = identity(&[7], move |unit, _| {
                let frame = begin(unit);
                let values = unit.load_live(frame, &from);
                assert_eq!(values.len(), count);
                unit.store_live(frame, &to, &values);
                let count = unit.builder().ins().iconst(I64, count as i64);
                answer(unit, count)
            });
            let rig = Rig::compiled(options().opt_level(level), vec![body]);
            let mut frame: Vec<u8> = (0..end).map(|i| (i * 37 + 11) as u8).collect();
            let mut expected = frame.clone();
            expected.copy_within(1..middle as usize, middle as usize + 1);
            assert_eq!(rig.enter(0, 7, &mut frame), count as i64);
            assert_eq!(frame, expected, "{count} values, {level:?}");
            assert_eq!(rig.call(0, 5), 5);
        }
    }
}

/// `for i in 0..n { for j in 0..i { sum = sum * 31 + j } }`, as a function of `n` or from the frame `[n, sum, i, j]` at the
/// header of the outer (site 1) or the inner loop (site 2).
pub(crate) fn nest() -> Body {
    whole(|unit, _| build_nest(unit))
}

fn build_nest(unit: &mut FunctionUnit<'_, '_>) -> Result<(), CompileError> {
    if unit.entry() == Entry::Function {
        unit.add_loop_entry(2);
        unit.add_loop_entry(1);
    }
    let entry = unit.entry();
    let argument = begin(unit);
    let live: Vec<_> = (0..4).map(|n| LiveValue::new(I64, n * 8)).collect();
    let zero = unit.builder().ins().iconst(I64, 0);
    let values = match entry {
        Entry::Function => vec![argument, zero, zero, zero],
        Entry::Loop(1) => {
            let mut values = unit.load_live(argument, &live[..3]);
            values.push(zero);
            values
        }
        Entry::Loop(_) => unit.load_live(argument, &live),
    };
    let b = unit.builder();
    let variables: Vec<_> = values.iter().map(|_| b.declare_var(I64)).collect();
    variables.iter().zip(values).for_each(|(&variable, value)| b.def_var(variable, value));
    let [n, sum, i, j] = variables[..] else { unreachable!() };
    let [outer, start, inner, body, next, end] = [(); 6].map(|()| b.create_block());
    b.ins().jump(if entry == Entry::Loop(2) { inner } else { outer }, &[]);

    b.switch_to_block(outer);
    let (now, limit) = (b.use_var(i), b.use_var(n));
    let more = b.ins().icmp(IntCC::SignedLessThan, now, limit);
    b.ins().brif(more, start, &[], end, &[]);
    b.switch_to_block(start);
    b.def_var(j, zero);
    b.ins().jump(inner, &[]);

    b.switch_to_block(inner);
    let (now, limit) = (b.use_var(j), b.use_var(i));
    let more = b.ins().icmp(IntCC::SignedLessThan, now, limit);
    b.ins().brif(more, body, &[], next, &[]);
    b.switch_to_block(body);
    let (old, now) = (b.use_var(sum), b.use_var(j));
    let scaled = b.ins().imul_imm_s(old, 31);
    let new = b.ins().iadd(scaled, now);
    b.def_var(sum, new);
    let now = b.ins().iadd_imm_s(now, 1);
    b.def_var(j, now);
    b.ins().jump(inner, &[]);

    b.switch_to_block(next);
    let now = b.use_var(i);
    let now = b.ins().iadd_imm_s(now, 1);
    b.def_var(i, now);
    b.ins().jump(outer, &[]);
    b.switch_to_block(end);
    let result = b.use_var(sum);
    b.ins().return_(&[result]);
    Ok(())
}

#[test]
fn each_loop_entry_fails_for_itself_and_says_why() {
    let body = identity(&[0, 1, 2, 3, 4, 5, 6, 7], |unit, site| {
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
    let rig = Rig::compiled(options().max_frame_bytes(1 << 10), vec![body]);
    let reasons = [
        "no such loop",
        "a bug in loop 2",
        "missing_thing",
        "function_0@4",
        "no instruction",
        "limit is 1024",
    ];
    loops::each_fails_for_itself_and_says_why(&rig, reasons);
}
