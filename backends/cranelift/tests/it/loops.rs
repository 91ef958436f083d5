//! Loop entries: compiled with their function, entered with its live values, freed with it.

use crate::rig::options;
use beadwork::{Bead, BeadInfo, CompileError, Core, Engine, Manual, Tier, TierId};
use beadwork_arena::Arena;
use beadwork_cranelift::ir::condcodes::IntCC;
use beadwork_cranelift::ir::{Type, Value, types as t};
use beadwork_cranelift::types::I64;
use beadwork_cranelift::{
    AbiParam, CraneliftBackend, CraneliftBuilder, Entry, Frontend, FunctionUnit, InstBuilder, LiveValue,
    OptLevel,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

type Build = Box<dyn Fn(&mut FunctionUnit<'_, '_>, Bead) -> Result<(), CompileError> + Send + Sync>;

/// Builds one function with whatever entries it likes, and keeps what went wrong with them.
pub(crate) struct Loops {
    build: Build,
    failed: Arc<Mutex<Vec<(u64, String)>>>,
}

impl Frontend for Loops {
    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), CompileError> {
        let bead = unit.job().bead();
        (self.build)(unit, bead)
    }

    fn loop_failed(&self, _: Bead, site: u64, error: &CompileError) {
        self.failed.lock().unwrap().push((site, error.to_string()));
    }
}

pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) backend: Arc<CraneliftBackend<Loops>>,
    bead: Bead,
    pub(crate) failed: Arc<Mutex<Vec<(u64, String)>>>,
}

impl Rig {
    pub(crate) fn new(
        options: CraneliftBuilder,
        build: impl Fn(&mut FunctionUnit<'_, '_>, Bead) -> Result<(), CompileError> + Send + Sync + 'static,
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

    pub(crate) fn has(&self, site: u64) -> bool {
        self.engine.pin().osr_entry(self.bead, site).is_some()
    }

    /// Calls the entry for calls.
    pub(crate) fn call(&self, x: i64) -> i64 {
        let pinned = self.engine.pin();
        let code = pinned.code(self.bead).expect("the function is not compiled");
        // SAFETY: every function here is `i64 -> i64`; the mutator is pinned during the call.
        let f: extern "C-unwind" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        f(x)
    }

    /// Calls a loop entry with a frame.
    fn enter<T>(&self, site: u64, frame: &mut [T]) -> i64 {
        let pinned = self.engine.pin();
        let code = pinned.osr_entry(self.bead, site).expect("there is no such entry");
        // SAFETY: every loop entry here takes the address of a frame that is as long as it expects.
        let f: extern "C-unwind" fn(*mut T) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        f(frame.as_mut_ptr())
    }
}

/// `i64 -> i64`, for calls and for loop entries alike: a frame's address is an `i64`, too.
pub(crate) fn begin(unit: &mut FunctionUnit<'_, '_>) -> Value {
    let mut signature = unit.new_signature();
    signature.params.push(AbiParam::new(I64));
    signature.returns.push(AbiParam::new(I64));
    unit.begin(&signature)[0]
}

pub(crate) fn answer(unit: &mut FunctionUnit<'_, '_>, value: Value) -> Result<(), CompileError> {
    unit.builder().ins().return_(&[value]);
    Ok(())
}

/// A function that answers its argument, with these loop entries.
pub(crate) fn identity(unit: &mut FunctionUnit<'_, '_>, sites: &[u64]) -> Result<(), CompileError> {
    sites.iter().for_each(|&site| unit.add_loop_entry(site));
    let x = begin(unit);
    answer(unit, x)
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
            let rig = Rig::new(options().opt_level(level), move |unit, _| {
                if unit.entry() == Entry::Function {
                    return identity(unit, &[7]);
                }
                let frame = begin(unit);
                let values = unit.load_live(frame, &from);
                assert_eq!(values.len(), count);
                unit.store_live(frame, &to, &values);
                let count = unit.builder().ins().iconst(I64, count as i64);
                answer(unit, count)
            });
            let mut frame: Vec<u8> = (0..end).map(|i| (i * 37 + 11) as u8).collect();
            let mut expected = frame.clone();
            expected.copy_within(1..middle as usize, middle as usize + 1);
            assert_eq!(rig.enter(7, &mut frame), count as i64, "{:?}", rig.failed);
            assert_eq!(frame, expected, "{count} values, {level:?}");
            assert_eq!(rig.call(5), 5);
        }
    }
}

/// `for i in 0..n { for j in 0..i { sum = sum * 31 + j } }`, as a function of `n` or from the frame `[n, sum, i, j]` at the
/// header of the outer (site 1) or the inner loop (site 2).
fn nest(unit: &mut FunctionUnit<'_, '_>) -> Result<(), CompileError> {
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
fn a_loop_nest_entered_at_any_iteration_of_any_loop_ends_with_the_functions_result() {
    for level in [OptLevel::None, OptLevel::Speed] {
        let rig = Rig::new(options().opt_level(level), |unit, _| nest(unit));
        let n = 9;
        let (mut sum, mut entered) = (0_i64, 0);
        for i in 0..n {
            assert_eq!(rig.enter(1, &mut [n, sum, i]), rig.call(n), "{level:?}, outer loop at {i}");
            for j in 0..i {
                assert_eq!(
                    rig.enter(2, &mut [n, sum, i, j]),
                    rig.call(n),
                    "{level:?}, inner loop at {i}, {j}"
                );
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
            begin(unit);
            let site = unit.builder().ins().iconst(I64, site.cast_signed());
            answer(unit, site)
        }
    });
    for site in SITES {
        assert_eq!(rig.enter(site, &mut [0_u8; 0]).cast_unsigned(), site);
    }
    assert!(!rig.has(99) && !rig.has(1) && !rig.has(4));
    assert_eq!(rig.backend.stats().loop_entries, SITES.len() as u64);
}

#[test]
fn a_frontend_that_asks_for_no_loop_entry_is_asked_for_none() {
    let rig = Rig::new(options(), |unit, _| {
        assert_eq!(unit.entry(), Entry::Function);
        identity(unit, &[])
    });
    assert_eq!((rig.call(3), rig.has(0)), (3, false));
}

#[test]
fn all_entries_of_a_compile_are_one_block_and_go_with_it_once() {
    let rig = Rig::new(options(), |unit, _| nest(unit));
    let first = rig.backend.stats();
    assert_eq!(first.arena.live_blocks, 1);
    for round in 2..20 {
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
    let options = options().arena(arena).symbol("raise", raise as *const u8);
    let rig = Rig::new(options, |unit, _| {
        if unit.entry() == Entry::Function {
            return identity(unit, &[5, 6]);
        }
        let frame = begin(unit);
        let live: Vec<_> = (0..12).map(|n| LiveValue::new(I64, n * 8)).collect();
        // Many values are alive, so callee-saved registers are in use and have to be restored.
        let values = unit.load_live(frame, &live);
        let mut signature = unit.new_signature();
        signature.params.push(AbiParam::new(I64));
        signature.returns.push(AbiParam::new(I64));
        let raise = unit.symbol("raise", &signature);
        let call = unit.builder().ins().call(raise, &[values[0]]);
        let result = unit.builder().inst_results(call)[0];
        let sum = values.into_iter().fold(result, |sum, value| unit.builder().ins().iadd(sum, value));
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

#[test]
fn loop_entries_call_through_slots_and_take_the_hidden_argument_like_functions() {
    let rig = Rig::new(options().pass_callee_bits(true), |unit, bead| {
        let entry = unit.entry();
        if entry == Entry::Function {
            unit.add_loop_entry(1);
        }
        let x = begin(unit);
        if entry == Entry::Function {
            // Its address is asked for by both entries.
            unit.code_pointer(bead);
            return answer(unit, x);
        }
        let value = unit.load_live(x, &[LiveValue::new(I64, 8)])[0];
        let mut signature = unit.new_signature();
        signature.params.push(AbiParam::new(I64));
        signature.returns.push(AbiParam::new(I64));
        let call = unit.call_bead(bead, &signature, &[value]);
        let result = unit.builder().inst_results(call)[0];
        answer(unit, result)
    });
    let pinned = rig.engine.pin();
    let code = pinned.osr_entry(rig.bead, 1).expect("an entry");
    // SAFETY: with callee bits every entry is `(u64, i64) -> i64`; the mutator is pinned during the call.
    let f: extern "C" fn(u64, *const i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
    assert_eq!(f(rig.bead.to_bits(), [0, 77].as_ptr()), 77);
}
