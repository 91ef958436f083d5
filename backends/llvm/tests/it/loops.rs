//! Loop entries: compiled with their function, entered with its live values, freed with it, and left out if they fail.

use crate::rig::{Body, Rig, all_passes, options, whole};
use beadwork_checks::backends::loops;
use beadwork_llvm::inkwell::AddressSpace;
use beadwork_llvm::inkwell::IntPredicate;
use beadwork_llvm::inkwell::values::{IntValue, PointerValue};
use beadwork_llvm::{BuildError, Entry, FunctionUnit, LiveValue};

/// `i64 -> i64`.
fn begin<'c>(unit: &mut FunctionUnit<'c, '_>) -> IntValue<'c> {
    let word = unit.context().i64_type();
    unit.begin(word.fn_type(&[word.into()], false))[0].into_int_value()
}

/// `frame -> i64`.
fn begin_loop<'c>(unit: &mut FunctionUnit<'c, '_>) -> PointerValue<'c> {
    let frame = unit.context().ptr_type(AddressSpace::default());
    unit.begin(unit.context().i64_type().fn_type(&[frame.into()], false))[0].into_pointer_value()
}

fn answer<'c>(unit: &FunctionUnit<'c, '_>, value: IntValue<'c>) -> Result<(), BuildError> {
    unit.builder().build_return(Some(&value))?;
    Ok(())
}

/// A function that answers its argument, with these loop entries.
fn identity(
    sites: &'static [u64],
    build_loop: impl Fn(&mut FunctionUnit<'_, '_>, u64) -> Result<(), BuildError> + Send + Sync + 'static,
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

/// Types over and over, one after the other without padding from `start` on; answers the end, too.
fn packed<'c>(unit: &FunctionUnit<'c, '_>, count: usize, start: i32) -> (Vec<LiveValue<'c>>, i32) {
    let c = unit.context();
    let types: [(beadwork_llvm::inkwell::types::BasicTypeEnum<'c>, i32); 9] = [
        (c.i8_type().into(), 1),
        (c.i16_type().into(), 2),
        (c.i32_type().into(), 4),
        (c.i64_type().into(), 8),
        (c.i128_type().into(), 16),
        (c.f32_type().into(), 4),
        (c.f64_type().into(), 8),
        (c.i32_type().vec_type(4).into(), 16),
        (c.f64_type().vec_type(2).into(), 16),
    ];
    let mut end = start;
    let mut place = |(ty, bytes)| {
        let live = LiveValue { ty, offset: end };
        end += bytes;
        live
    };
    let live = types.into_iter().cycle().take(count).map(&mut place).collect();
    (live, end)
}

/// Where `packed` ends for these counts.
fn packed_bytes(count: usize) -> usize {
    [1, 2, 4, 8, 16, 4, 8, 16, 16].into_iter().cycle().take(count).sum()
}

#[test]
fn live_values_of_every_type_and_number_cross_over_bit_by_bit_from_and_to_unaligned_places() {
    for passes in all_passes() {
        for count in [0, 1, 2, 9, 10, 60] {
            let body = identity(&[7], move |unit, _| {
                let frame = begin_loop(unit);
                // Odd, so that nothing is aligned.
                let (from, middle) = packed(unit, count, 1);
                let (to, _) = packed(unit, count, middle + 1);
                let values = unit.load_live(frame, &from)?;
                assert_eq!(values.len(), count);
                unit.store_live(frame, &to, &values)?;
                answer(unit, unit.context().i64_type().const_int(count as u64, false))
            });
            let rig = Rig::compiled(options().passes(passes.clone()), vec![body]);
            let middle = 1 + packed_bytes(count);
            let mut frame: Vec<u8> = (0..2 * middle).map(|i| (i * 37 + 11) as u8).collect();
            let mut expected = frame.clone();
            expected.copy_within(1..middle, middle + 1);
            assert_eq!(rig.enter(0, 7, &mut frame), count as i64);
            assert_eq!(frame, expected, "{count} values, {passes:?}");
            assert_eq!(rig.call(0, 5), 5);
        }
    }
}

/// `for i in 0..n { for j in 0..i { sum = sum * 31 + j } }`, as a function of `n` or from the frame `[n, sum, i, j]` at the
/// header of the outer (site 1) or the inner loop (site 2).
pub(crate) fn nest() -> Body {
    whole(|unit, _| build_nest(unit))
}

fn build_nest(unit: &mut FunctionUnit<'_, '_>) -> Result<(), BuildError> {
    let entry = unit.entry();
    if entry == Entry::Function {
        unit.add_loop_entry(2);
        unit.add_loop_entry(1);
    }
    let word = unit.context().i64_type();
    let (zero, one) = (word.const_zero(), word.const_int(1, false));
    let live: Vec<_> = (0..4).map(|n| LiveValue::new(word, n * 8)).collect();
    let values: Vec<IntValue<'_>> = match entry {
        Entry::Function => vec![begin(unit), zero, zero, zero],
        Entry::Loop(_) => {
            let frame = begin_loop(unit);
            let count = if entry == Entry::Loop(1) { 3 } else { 4 };
            let loaded = unit.load_live(frame, &live[..count])?;
            let loaded = loaded.into_iter().map(|value| value.into_int_value());
            loaded.chain([zero]).take(4).collect()
        }
    };
    let names = ["outer", "start", "inner", "body", "next", "end"];
    let blocks: Vec<_> = names.iter().map(|name| unit.append_block(name)).collect::<Result<_, _>>()?;
    let [outer, start, inner, body, next, end] = blocks[..] else { unreachable!() };
    let b = unit.builder();
    let places: Vec<_> =
        names[..4].iter().map(|name| b.build_alloca(word, name)).collect::<Result<_, _>>()?;
    for (&place, &value) in places.iter().zip(&values) {
        b.build_store(place, value)?;
    }
    let [n, sum, i, j] = places[..] else { unreachable!() };
    let get = |place| b.build_load(word, place, "").map(|value| value.into_int_value());
    b.build_unconditional_branch(if entry == Entry::Loop(2) { inner } else { outer })?;

    b.position_at_end(outer);
    let more = b.build_int_compare(IntPredicate::SLT, get(i)?, get(n)?, "")?;
    b.build_conditional_branch(more, start, end)?;
    b.position_at_end(start);
    b.build_store(j, zero)?;
    b.build_unconditional_branch(inner)?;

    b.position_at_end(inner);
    let more = b.build_int_compare(IntPredicate::SLT, get(j)?, get(i)?, "")?;
    b.build_conditional_branch(more, body, next)?;
    b.position_at_end(body);
    let scaled = b.build_int_mul(get(sum)?, word.const_int(31, false), "")?;
    b.build_store(sum, b.build_int_add(scaled, get(j)?, "")?)?;
    b.build_store(j, b.build_int_add(get(j)?, one, "")?)?;
    b.build_unconditional_branch(inner)?;

    b.position_at_end(next);
    b.build_store(i, b.build_int_add(get(i)?, one, "")?)?;
    b.build_unconditional_branch(outer)?;
    b.position_at_end(end);
    b.build_return(Some(&get(sum)?))?;
    Ok(())
}

#[test]
fn each_loop_entry_fails_for_itself_and_says_why() {
    let body = identity(&[0, 1, 2, 3, 4, 5, 6, 7], |unit, site| {
        if site == 1 {
            return Err(BuildError::failed("no such loop"));
        }
        if site == 5 {
            return Ok(());
        }
        let frame = begin(unit);
        match site {
            2 => panic!("a bug in loop {site}"),
            3 => drop(unit.symbol_address("missing_thing")),
            4 => return Ok(()),
            6 => {
                let array = unit.context().i64_type().array_type(512);
                let place = unit.builder().build_alloca(array, "")?;
                // Holds its own address, so all of it has to be there.
                let address = unit.builder().build_ptr_to_int(place, frame.get_type(), "")?;
                unit.builder().build_store(place, address)?.set_volatile(true)?;
            }
            _ => {}
        }
        answer(unit, frame)
    });
    let rig = Rig::compiled(options().max_frame_bytes(1 << 10), vec![body]);
    let reasons =
        ["no such loop", "a bug in loop 2", "missing_thing", "function_0@4", "FunctionUnit::begin", "1024"];
    loops::each_fails_for_itself_and_says_why(&rig, reasons);
}
