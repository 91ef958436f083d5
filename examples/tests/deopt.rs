//! Guards that fail on a real engine: the call goes on exactly where it was, and the next code knows better.

mod sources;

use std::sync::Arc;

use beadwork::{
    AlwaysRecompile, DEOPT_CYCLE_LIMIT, DEOPT_TIER_LIMIT, EngineBuilder, Threshold, Tier, TierId,
};
use beadwork_cranelift::{CraneliftBackend, OptLevel};
use strand::tiering::{BytecodeFrontend, Dispatching, Linking, Tiered, cranelift};
use strand::{Calls, Edge, Enter, FuncIndex, InterpretAll, Limits, Program, Value, Vm};

/// Integers become floats: in `square`, in `main` before and after a call, and while several values of both kinds are alive.
const SOURCE: &str = "
fn square(x: num) -> num { return x * x; }
fn main(n: int) -> int {
    let sum = num(0);
    let half = 0.5;
    let trace = 0;
    let best = num(0);
    for i in 0..n {
        let x = num(i * 50);
        sum = sum + square(x) - x / num(3);
        half = half * 0.75 + float(i);
        trace = trace * 31 + i;
        if best < sum { best = sum; }
    }
    return int(best) + int(half * 1000.0) + trace;
}";

/// Runs queued compiles in every `every`-th call and loop iteration, and keeps the bailouts.
struct Working {
    hooks: Dispatching,
    engine: beadwork::Engine,
    every: u64,
    steps: u64,
    bailouts: Vec<(FuncIndex, u16)>,
}

impl Working {
    fn step(&mut self) {
        self.steps += 1;
        if self.steps.is_multiple_of(self.every) {
            self.engine.run_pending(1);
        }
    }
}

impl Calls for Working {
    fn enter(&mut self, callee: FuncIndex) -> Enter {
        self.step();
        self.hooks.enter(callee)
    }
    fn back_edge(&mut self, function: FuncIndex, site: u16) -> Edge {
        self.step();
        self.hooks.back_edge(function, site)
    }
    fn safepoint(&mut self, native_frames: u32) {
        self.hooks.safepoint(native_frames);
    }
    fn bailout(&mut self, function: FuncIndex, pc: u16, version: u64) {
        self.bailouts.push((function, pc));
        self.hooks.bailout(function, pc, version);
    }
    fn resolve(&self, callee_bits: u64) -> Option<FuncIndex> {
        self.hooks.resolve(callee_bits)
    }
}

fn tiered(
    program: &Arc<Program>,
    level: OptLevel,
    compiler: impl FnOnce(BytecodeFrontend) -> BytecodeFrontend,
) -> Tiered {
    let configure = |builder: EngineBuilder, frontend| {
        let backend = cranelift(CraneliftBackend::builder().opt_level(level)).build(compiler(frontend))?;
        let tier = Tier::new(backend).policy(Threshold::new(20));
        Ok(builder.tier(tier).deopt(AlwaysRecompile).inline().capacity(64))
    };
    Tiered::new(program, Linking::Slots, configure).unwrap()
}

fn working(tiered: &Tiered, every: u64) -> Working {
    Working { hooks: tiered.hooks(), engine: tiered.engine().clone(), every, steps: 0, bailouts: Vec::new() }
}

fn interpreted(program: &Program, args: &[i64]) -> Value {
    Vm::new(program, Limits::default(), InterpretAll).unwrap().run(args).unwrap()
}

#[test]
fn a_call_whose_guard_fails_goes_on_exactly_and_the_same_guard_fails_only_once() {
    let program = Arc::new(Program::parse("test", SOURCE).unwrap());
    let args = [3000];
    let expected = interpreted(&program, &args);
    for level in [OptLevel::None, OptLevel::Speed] {
        for every in [1, 3, 50] {
            let (bailouts, installed) = strand::on_vm_stack(|| {
                let tiered = tiered(&program, level, |frontend| frontend);
                let mut vm = Vm::new(&program, Limits::default(), working(&tiered, every)).unwrap();
                assert_eq!(vm.run(&args), Ok(expected), "{level:?}, {every}");
                assert_eq!(vm.run(&args), Ok(expected), "{level:?}, {every}, second run");
                assert_eq!(vm.run(&args), Ok(expected), "{level:?}, {every}, third run");
                let bailouts = std::mem::take(&mut vm.calls().bailouts);
                let engine = tiered.engine();
                let told = tiered.beads().iter().filter_map(|&bead| engine.deopts(bead));
                assert_eq!(told.map(|history| history.bailouts as usize).sum::<usize>(), bailouts.len());
                (bailouts, engine.stats().installed)
            })
            .unwrap();
            // In `square`, and at several places of `main`.
            let functions: Vec<_> = bailouts.iter().map(|(function, _)| function.0).collect();
            assert!(functions.contains(&0) && functions.contains(&1), "{bailouts:?}");
            let mut once = bailouts.clone();
            once.sort_unstable_by_key(|(function, pc)| (function.0, *pc));
            once.dedup();
            assert_eq!(once.len(), bailouts.len(), "a guard failed again: {bailouts:?}");
            assert!(installed as usize > bailouts.len(), "{installed} installs");
        }
    }
}

#[test]
fn code_that_never_learns_is_capped_and_the_result_stays_right() {
    let program = Arc::new(Program::parse("test", SOURCE).unwrap());
    let args = [3000];
    let expected = interpreted(&program, &args);
    strand::on_vm_stack(|| {
        let tiered = tiered(&program, OptLevel::None, BytecodeFrontend::forgetful);
        let (engine, beads) = (tiered.engine(), tiered.beads());
        let mut vm = Vm::new(&program, Limits::default(), working(&tiered, 1)).unwrap();
        for _ in 0..100 {
            assert_eq!(vm.run(&args), Ok(expected));
        }
        for &bead in beads {
            let history = engine.deopts(bead).expect("its guards failed");
            assert!((DEOPT_CYCLE_LIMIT..=DEOPT_TIER_LIMIT).contains(&history.bailouts), "{history:?}");
            assert_eq!(engine.tier(bead), Ok(TierId::INTERPRETER));
        }
        let after = engine.stats().installed;
        assert_eq!(vm.run(&args), Ok(expected));
        assert_eq!(engine.stats().installed, after, "capped functions are not compiled again");
    })
    .unwrap();
}

#[test]
fn guards_of_two_functions_in_one_code_are_told_apart() {
    let program = Arc::new(Program::parse("test", SOURCE).unwrap());
    let tiered = tiered(&program, OptLevel::None, |frontend| frontend);
    let (engine, compiled, mut hooks) = (tiered.engine(), 1, tiered.hooks());
    let bead = tiered.beads()[compiled];
    let mut failed = |function| {
        // After the first failure it is queued already.
        let _ = engine.promote(bead, TierId::BASELINE);
        engine.run_pending(usize::MAX);
        let version = u64::from(engine.version(bead).unwrap());
        hooks.bailout(function, 5, (compiled as u64) << 32 | version);
        engine.deopts(bead).unwrap().last.guard
    };
    assert_ne!(failed(FuncIndex(0)), failed(FuncIndex(1)), "at the same place of each");
}

#[test]
fn deep_native_recursion_is_taken_over_frame_by_frame() {
    // Every activation fails its guard after its callee has returned, while native callers wait below it.
    let source = "
        fn sum(n: int, x: num) -> num {
            if n == 0 { return x; }
            let rest = sum(n - 1, x + x);
            return rest + num(n);
        }
        fn main(n: int, warm: int) -> int {
            for i in 0..warm { sum(3, num(i)); }
            return int(sum(n, num(1)));
        }";
    let program = Arc::new(Program::parse("test", source).unwrap());
    let args = [900, 200];
    let expected = interpreted(&program, &[40, 200]);
    strand::on_vm_stack(|| {
        let tiered = tiered(&program, OptLevel::Speed, |frontend| frontend);
        let mut vm = Vm::new(&program, Limits::default(), working(&tiered, 1)).unwrap();
        assert_eq!(vm.run(&[40, 200]), Ok(expected));
        let infinite = interpreted(&program, &args);
        assert_eq!(vm.run(&args), Ok(infinite));
        assert!(!vm.calls().bailouts.is_empty());
        // Too deep is too deep in every tier, and the VM is as good as new afterwards.
        let error = vm.run(&[20_000, 200]).unwrap_err().to_string();
        let mut plain = Vm::new(&program, Limits::default(), InterpretAll).unwrap();
        assert_eq!(error, plain.run(&[20_000, 200]).unwrap_err().to_string());
        assert_eq!(vm.run(&[40, 200]), Ok(expected));
    })
    .unwrap();
}
