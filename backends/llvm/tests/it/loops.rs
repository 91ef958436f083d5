//! Loop entries: compiled with their function, entered with its live values, freed with it.

use crate::rig::{all_passes, options};
use beadwork::{Bead, BeadInfo, CompileError, Core, Engine, Manual, Tier, TierId};
use beadwork_arena::Arena;
use beadwork_llvm::inkwell::AddressSpace;
use beadwork_llvm::inkwell::IntPredicate;
use beadwork_llvm::inkwell::values::{IntValue, PointerValue};
use beadwork_llvm::{BuildError, Entry, Frontend, FunctionUnit, LiveValue, LlvmBackend, LlvmBuilder};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

type Build = Box<dyn Fn(&mut FunctionUnit<'_, '_>, Bead) -> Result<(), BuildError> + Send + Sync>;

/// Builds one function with whatever entries it likes, and keeps what went wrong with them.
struct Loops {
    build: Build,
    failed: Arc<Mutex<Vec<(u64, String)>>>,
}

impl Frontend for Loops {
    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), BuildError> {
        let bead = unit.job().bead();
        (self.build)(unit, bead)
    }

    fn loop_failed(&self, _: Bead, site: u64, error: &CompileError) {
        self.failed.lock().unwrap().push((site, error.to_string()));
    }
}

struct Rig {
    engine: Engine,
    backend: Arc<LlvmBackend<Loops>>,
    bead: Bead,
    failed: Arc<Mutex<Vec<(u64, String)>>>,
}

impl Rig {
    fn new(
        options: LlvmBuilder,
        build: impl Fn(&mut FunctionUnit<'_, '_>, Bead) -> Result<(), BuildError> + Send + Sync + 'static,
    ) -> Rig {
        let failed = Arc::new(Mutex::new(Vec::new()));
        let frontend = Loops { build: Box::new(build), failed: failed.clone() };
        let backend = Arc::new(options.build(frontend).unwrap());
        let tier = Tier::new(backend.clone()).policy(Manual);
        let engine = Engine::builder().inline().capacity(16).tier(tier).build().unwrap();
        let bead = engine.register_with(Core::new(0), &BeadInfo::named("looped")).unwrap();
        let rig = Rig { engine, backend, bead, failed };
        rig.compile();
        rig
    }

    fn compile(&self) {
        self.engine.promote(self.bead, TierId::BASELINE).unwrap();
        self.engine.run_pending(usize::MAX);
    }

    fn has(&self, site: u64) -> bool {
        self.engine.pin().osr_entry(self.bead, site).is_some()
    }

    /// Calls the entry for calls.
    fn call(&self, x: i64) -> i64 {
        let pinned = self.engine.pin();
        let code = pinned.code(self.bead).expect("the function is not compiled");
        // SAFETY: every function here is `i64 -> i64`; the mutator is pinned during the call.
        let f: extern "C-unwind" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        f(x)
    }

    /// Calls a loop entry with a frame.
    fn enter<T>(&self, site: u64, frame: &mut [T]) -> i64 {
        let pinned = self.engine.pin();
        let code = pinned.osr_entry(self.bead, site).unwrap_or_else(|| panic!("no entry: {:?}", self.failed));
        // SAFETY: every loop entry here takes the address of a frame that is as long as it expects.
        let f: extern "C-unwind" fn(*mut T) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        f(frame.as_mut_ptr())
    }
}

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
fn identity(unit: &mut FunctionUnit<'_, '_>, sites: &[u64]) -> Result<(), BuildError> {
    sites.iter().for_each(|&site| unit.add_loop_entry(site));
    let x = begin(unit);
    answer(unit, x)
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
            let rig = Rig::new(options().passes(passes.clone()), move |unit, _| {
                if unit.entry() == Entry::Function {
                    return identity(unit, &[7]);
                }
                let frame = begin_loop(unit);
                // Odd, so that nothing is aligned.
                let (from, middle) = packed(unit, count, 1);
                let (to, _) = packed(unit, count, middle + 1);
                let values = unit.load_live(frame, &from)?;
                assert_eq!(values.len(), count);
                unit.store_live(frame, &to, &values)?;
                answer(unit, unit.context().i64_type().const_int(count as u64, false))
            });
            let middle = 1 + packed_bytes(count);
            let mut frame: Vec<u8> = (0..2 * middle).map(|i| (i * 37 + 11) as u8).collect();
            let mut expected = frame.clone();
            expected.copy_within(1..middle, middle + 1);
            assert_eq!(rig.enter(7, &mut frame), count as i64);
            assert_eq!(frame, expected, "{count} values, {passes:?}");
            assert_eq!(rig.call(5), 5);
        }
    }
}

/// `for i in 0..n { for j in 0..i { sum = sum * 31 + j } }`, as a function of `n` or from the frame `[n, sum, i, j]` at the
/// header of the outer (site 1) or the inner loop (site 2).
fn nest(unit: &mut FunctionUnit<'_, '_>) -> Result<(), BuildError> {
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
fn a_loop_nest_entered_at_any_iteration_of_any_loop_ends_with_the_functions_result() {
    for passes in all_passes() {
        let rig = Rig::new(options().passes(passes.clone()), |unit, _| nest(unit));
        let n = 9;
        let (mut sum, mut entered) = (0_i64, 0);
        for i in 0..n {
            assert_eq!(rig.enter(1, &mut [n, sum, i]), rig.call(n), "{passes:?}, outer loop at {i}");
            for j in 0..i {
                let end = rig.enter(2, &mut [n, sum, i, j]);
                assert_eq!(end, rig.call(n), "{passes:?}, inner loop at {i}, {j}");
                sum = sum.wrapping_mul(31).wrapping_add(j);
                entered += 1;
            }
        }
        assert_eq!((rig.call(n), entered), (sum, 36));
        let stats = rig.backend.stats();
        assert_eq!((stats.compiled, stats.loop_entries, stats.loop_entries_failed), (1, 2, 0));
    }
}

#[test]
fn sites_are_any_numbers_and_asking_twice_is_asking_once() {
    const SITES: [u64; 6] = [u64::MAX, 0, 1 << 63, 3, 0x1234_5678_9abc_def1, 2];
    let rig = Rig::new(options(), |unit, _| match unit.entry() {
        Entry::Function => identity(unit, &[SITES, SITES].concat()),
        Entry::Loop(site) => {
            // Changes nothing: this entry asks for no others.
            unit.add_loop_entry(99);
            begin_loop(unit);
            answer(unit, unit.context().i64_type().const_int(site, false))
        }
    });
    for site in SITES {
        assert_eq!(rig.enter(site, &mut [0_u8; 0]).cast_unsigned(), site);
    }
    assert!(!rig.has(99) && !rig.has(1) && !rig.has(4));
    assert_eq!(rig.backend.stats().loop_entries, SITES.len() as u64);
}

#[test]
fn each_loop_entry_fails_for_itself_and_says_why() {
    let rig = Rig::new(options().max_frame_bytes(1 << 10), |unit, _| {
        let site = match unit.entry() {
            Entry::Function => return identity(unit, &[0, 1, 2, 3, 4, 5, 6, 7]),
            Entry::Loop(site) => site,
        };
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
    assert_eq!(rig.call(17), 17);
    let entries: Vec<_> = (0..8).filter(|&site| rig.has(site)).collect();
    assert_eq!(entries, [0, 7]);
    let failed = rig.failed.lock().unwrap();
    let expected = [
        (1, "no such loop"),
        (2, "a bug in loop 2"),
        (3, "missing_thing"),
        (4, "looped@4"),
        (5, "FunctionUnit::begin"),
        (6, "1024"),
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
    let arena = Arena::builder().max_bytes(Some(8192)).region_bytes(4096).build().unwrap();
    let rig = Rig::new(options().arena(arena), |unit, _| {
        if unit.entry() == Entry::Function {
            return identity(unit, &[1]);
        }
        begin_loop(unit);
        let data = unit.data(&[7; 9000], 8);
        let data = unit.builder().build_ptr_to_int(data, unit.context().i64_type(), "")?;
        answer(unit, data)
    });
    assert_eq!((rig.call(4), rig.has(1)), (4, false));
    let failed = rig.failed.lock().unwrap();
    assert!(matches!(&failed[..], [(1, error)] if error.contains("looped@1")), "{failed:?}");
    assert_eq!(rig.backend.stats().failed, 0);
}

#[test]
fn all_entries_of_a_compile_are_one_block_and_go_with_it_once() {
    let rig = Rig::new(options(), |unit, _| nest(unit));
    let first = rig.backend.stats();
    assert_eq!(first.arena.live_blocks, 1);
    for round in 2..8 {
        rig.engine.invalidate(rig.bead).unwrap();
        assert!(!rig.has(1) && !rig.has(2), "entries of code that was taken back");
        rig.engine.reclaim();
        let stats = rig.backend.stats();
        assert_eq!((stats.arena.live_blocks, stats.arena.live_bytes), (0, 0));
        assert_eq!(stats.arena.unwind_tables, 0);
        rig.compile();
        assert_eq!(rig.enter(2, &mut [3_i64, 0, 0, 0]), rig.call(3));
        let stats = rig.backend.stats();
        assert_eq!((stats.compiled, stats.loop_entries), (round, 2 * round));
        assert_eq!(stats.arena.live_bytes, first.arena.live_bytes, "the same place is used again");
    }
    let arena = rig.backend.arena().clone();
    drop(rig);
    assert_eq!(arena.stats().live_bytes, 0);
}

extern "C-unwind" fn raise(x: i64) -> i64 {
    std::panic::panic_any(x)
}

#[test]
fn a_panic_passes_through_a_loop_entry_and_profilers_know_its_name() {
    let arena = Arena::builder().perf_map(true).build().unwrap();
    let options = LlvmBackend::builder().arena(arena).symbol("raise", raise as *const u8);
    let rig = Rig::new(options, |unit, _| {
        if unit.entry() == Entry::Function {
            return identity(unit, &[5, 6]);
        }
        let frame = begin_loop(unit);
        let word = unit.context().i64_type();
        let live: Vec<_> = (0..12).map(|n| LiveValue::new(word, n * 8)).collect();
        // Many values are alive, so callee-saved registers are in use and have to be restored.
        let values = unit.load_live(frame, &live)?;
        let raise = unit.symbol("raise", word.fn_type(&[word.into()], false));
        let call = unit.builder().build_call(raise, &[values[0].into()], "")?;
        let mut sum = call.try_as_basic_value().unwrap_basic().into_int_value();
        for value in values {
            sum = unit.builder().build_int_add(sum, value.into_int_value(), "")?;
        }
        answer(unit, sum)
    });
    for site in [5, 6] {
        let mut frame = [40 + site as i64; 12];
        let caught = catch_unwind(AssertUnwindSafe(|| rig.enter(site, &mut frame))).unwrap_err();
        assert_eq!(caught.downcast_ref::<i64>(), Some(&(40 + site as i64)));
    }
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let map = std::fs::read_to_string(&path).unwrap();
    let _ = std::fs::remove_file(path);
    for name in [" looped[T1]\n", " looped@5[T1]\n", " looped@6[T1]\n"] {
        assert!(map.contains(name), "{map}");
    }
}
