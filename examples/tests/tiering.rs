//! Programs on a real engine, promoted at every kind of moment, do what the interpreter does.

mod sources;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use beadwork::{Bead, Engine, EngineBuilder, Stats, Threshold, Tier, TierId};
use beadwork_arena::Arena;
use beadwork_cranelift::{CraneliftBackend, OptLevel};
use sources::{expectations, promised_error, sources};
use strand::tiering::{Dispatching, Linking, Tiered, cranelift};
use strand::{Calls, Edge, Enter, FuncIndex, InterpretAll, Limits, Program, Vm};

/// Far longer than any compile here; a drain that takes it is a failure.
const LONG: Duration = Duration::from_secs(60);

/// What a run did: its result or message, and what it printed.
type Outcome = (String, String);

#[derive(Clone, Default)]
struct Output(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn outcome<C: Calls>(vm: &mut Vm<'_, C>, args: &[i64]) -> Outcome {
    let output = Output::default();
    vm.set_output(output.clone());
    let result = vm.run(args).map_or_else(|e| e.to_string(), |v| v.to_string());
    (result, String::from_utf8(output.0.lock().unwrap().clone()).unwrap())
}

fn interpreted(program: &Program, args: &[i64]) -> Outcome {
    outcome(&mut Vm::new(program, Limits::default(), InterpretAll).unwrap(), args)
}

/// Runs queued compiles inside every `every`-th call and loop iteration, so that promotion happens at the same
/// points of a run each time.
struct Working {
    hooks: Dispatching,
    engine: Engine,
    every: u64,
    steps: u64,
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
    fn resolve(&self, callee_bits: u64) -> Option<FuncIndex> {
        self.hooks.resolve(callee_bits)
    }
}

/// Counts what `Working` counts.
#[derive(Default)]
struct Steps(u64);

impl Calls for Steps {
    fn enter(&mut self, _callee: FuncIndex) -> Enter {
        self.0 += 1;
        Enter::Interpret
    }
    fn back_edge(&mut self, _function: FuncIndex, _site: u16) -> Edge {
        self.0 += 1;
        Edge::Continue
    }
}

/// Whether a run is short enough to be repeated in very many ways.
fn is_short(program: &Program, args: &[i64]) -> bool {
    let mut vm = Vm::new(program, Limits::default(), Steps::default()).unwrap();
    // A wrong program ends with its error; what counts is when.
    let _ = vm.run(args);
    vm.calls().0 <= 50_000
}

/// The wrong programs that parse, and every program with all its arguments that make a short run.
fn cases() -> Vec<(Arc<Program>, Vec<i64>, String)> {
    let mut cases = Vec::new();
    for (file, source) in sources("programs") {
        let program = Arc::new(Program::parse(&file, &source).unwrap());
        let short = expectations(&source).into_iter().filter(|(args, _)| is_short(&program, args));
        let before = cases.len();
        cases.extend(short.map(|(args, result)| (program.clone(), args, result)));
        assert!(cases.len() > before, "{file} has no short run");
    }
    for (file, source) in sources("programs/wrong") {
        if let Ok(program) = Program::parse(&file, &source) {
            cases.push((Arc::new(program), Vec::new(), promised_error(&source).to_owned()));
        }
    }
    assert!(cases.len() >= 20, "programs are missing: {}", cases.len());
    cases
}

/// An engine with one Cranelift tier for the program, and the memory of its code.
fn tiered(
    program: &Arc<Program>,
    linking: Linking,
    level: OptLevel,
    threshold: u32,
    configure: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> (Tiered, Arena) {
    let mut arena = None;
    let tiered = Tiered::new(program, linking, |builder, frontend| {
        let backend = cranelift(CraneliftBackend::builder().opt_level(level)).build(frontend)?;
        arena = Some(backend.arena().clone());
        let tier = Tier::new(backend).policy(Threshold::new(threshold));
        Ok(configure(builder.capacity(64).tier(tier)))
    });
    (tiered.unwrap(), arena.unwrap())
}

const LINKINGS: [Linking; 2] = [Linking::Slots, Linking::Dispatch];
const LEVELS: [OptLevel; 2] = [OptLevel::None, OptLevel::Speed];
const THRESHOLDS: [u32; 4] = [1, 2, 10, 1000];

/// Runs every case in every way of `ways`, each on a fresh engine, and compares; `run` answers the outcomes of one
/// or more runs. Answers what all the engines did together.
fn compare<W: Copy + std::fmt::Debug + Sync>(
    ways: &[W],
    run: impl Fn(&Arc<Program>, &[i64], W) -> (Vec<Outcome>, Stats, Arena) + Sync,
) -> (u64, u64) {
    let (mut installed, mut failed) = (0, 0);
    for (program, args, promised) in cases() {
        let expected = interpreted(&program, &args);
        assert_eq!(expected.0, promised, "{}, main{args:?}, interpreted", program.file());
        for &way in ways {
            let (outcomes, stats, arena) = strand::on_vm_stack(|| run(&program, &args, way)).unwrap();
            for outcome in outcomes {
                assert_eq!(outcome, expected, "{}, main{args:?}, {way:?}", program.file());
            }
            assert_eq!(arena.stats().live_bytes, 0, "{}, {way:?}: code is left", program.file());
            installed += stats.installed;
            failed += stats.failed;
        }
    }
    (installed, failed)
}

#[test]
fn promotion_in_the_background_at_any_threshold_changes_no_result() {
    let mut ways = Vec::new();
    for workers in [1, 2] {
        for (number, threshold) in THRESHOLDS.into_iter().enumerate() {
            // Every pair of a linking and a level, and every threshold with every linking and every level.
            let (linking, level) = (LINKINGS[(number + workers) % 2], LEVELS[number / 2]);
            ways.push((workers, threshold, linking, level));
            ways.push((workers, threshold, LINKINGS[(number + workers + 1) % 2], LEVELS[1 - number / 2]));
        }
    }
    let (installed, failed) = compare(&ways, |program, args, (workers, threshold, linking, level)| {
        let (tiered, arena) = tiered(program, linking, level, threshold, |b| b.workers(workers));
        let mut vm = Vm::new(program, Limits::default(), tiered.hooks()).unwrap();
        let mut outcomes = vec![outcome(&mut vm, args)];
        // The second run begins with whatever the first had compiled.
        tiered.engine().drain(LONG).unwrap();
        outcomes.push(outcome(&mut vm, args));
        tiered.engine().drain(LONG).unwrap();
        let stats = tiered.engine().stats();
        (outcomes, stats, arena)
    });
    assert!(installed as usize > ways.len() * 10 && failed == 0, "{installed} installed, {failed} failed");
}

#[test]
fn promotion_in_the_middle_of_a_run_changes_no_result() {
    let (in_the_middle, inside_loops) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut ways = Vec::new();
    for (row, every) in [1, 7, 64].into_iter().enumerate() {
        for (column, threshold) in THRESHOLDS.into_iter().enumerate() {
            ways.push((every, threshold, LINKINGS[(row + column) % 2], LEVELS[(row + column / 2) % 2]));
        }
    }
    let (installed, failed) = compare(&ways, |program, args, (every, threshold, linking, level)| {
        let (tiered, arena) = tiered(program, linking, level, threshold, EngineBuilder::inline);
        let engine = tiered.engine().clone();
        let mut vm =
            Vm::new(program, Limits::default(), Working { hooks: tiered.hooks(), engine, every, steps: 0 })
                .unwrap();
        let first = outcome(&mut vm, args);
        if vm.calls().hooks.first_native().is_some() {
            in_the_middle.fetch_add(1, Relaxed);
        }
        if vm.calls().hooks.loops_entered() > 0 {
            inside_loops.fetch_add(1, Relaxed);
        }
        let outcomes = vec![first, outcome(&mut vm, args)];
        let stats = tiered.engine().stats();
        drop(vm);
        (outcomes, stats, arena)
    });
    let in_the_middle = in_the_middle.into_inner();
    assert!(in_the_middle > 50, "only {in_the_middle} runs went native");
    let inside_loops = inside_loops.into_inner();
    assert!(inside_loops > 50, "only {inside_loops} runs went native inside a loop");
    assert!(installed as usize > ways.len() * 10 && failed == 0, "{installed} installed, {failed} failed");
}

#[test]
fn a_program_compiled_before_it_runs_gives_the_same_results() {
    let ways = LINKINGS.map(|linking| LEVELS.map(|level| (linking, level)));
    let (installed, failed) = compare(ways.as_flattened(), |program, args, (linking, level)| {
        let (tiered, arena) = tiered(program, linking, level, 1, |b| b.workers(1));
        promote_all(tiered.engine(), tiered.beads());
        tiered.engine().drain(LONG).unwrap();
        let mut vm = Vm::new(program, Limits::default(), tiered.hooks()).unwrap();
        let outcomes = vec![outcome(&mut vm, args), outcome(&mut vm, args)];
        assert!(vm.calls().first_native().is_some(), "{}: nothing ran natively", program.file());
        let stats = tiered.engine().stats();
        assert_eq!(stats.installed as usize, program.functions().len());
        (outcomes, stats, arena)
    });
    assert!(installed > 100 && failed == 0, "{installed} installed, {failed} failed");
}

fn promote_all(engine: &Engine, beads: &[Bead]) {
    beads.iter().for_each(|&bead| engine.promote(bead, TierId::BASELINE).unwrap());
}

/// How often all code is taken back.
const ROUNDS: usize = 40;

/// Runs the program natively while another thread takes its code back and has it compiled again, over and over.
fn recompiled_while_running(file: &str, args: &[i64], linking: Linking) {
    let (_, source) = sources("programs").into_iter().find(|(name, _)| name == file).unwrap();
    let program = Arc::new(Program::parse(file, &source).unwrap());
    let expected = interpreted(&program, args);
    let (tiered, arena) = tiered(&program, linking, OptLevel::None, 1, |b| b.workers(1));
    let (engine, beads) = (tiered.engine(), tiered.beads());
    promote_all(engine, beads);
    engine.drain(LONG).unwrap();
    let (rounds, runs, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                for &bead in beads {
                    engine.invalidate(bead).unwrap();
                    engine.promote(bead, TierId::BASELINE).unwrap();
                }
                // So that code is installed again, and not only asked for again.
                engine.drain(LONG).unwrap();
                let (round, before) = (rounds.fetch_add(1, Relaxed), runs.load(Relaxed));
                // Every other round the new code gets its time: one run at least begins and ends in it.
                while round % 2 == 0 && runs.load(Relaxed) < before + 2 && !done.load(Relaxed) {
                    std::thread::yield_now();
                }
            }
        });
        let native = strand::on_vm_stack(|| {
            let mut vm = Vm::new(&program, Limits::default(), tiered.hooks()).unwrap();
            while rounds.load(Relaxed) < ROUNDS {
                assert_eq!(outcome(&mut vm, args), expected, "{file}");
                runs.fetch_add(1, Relaxed);
            }
            vm.calls().first_native()
        });
        done.store(true, Relaxed);
        assert!(native.unwrap().is_some(), "{file} never ran natively");
    });
    engine.drain(LONG).unwrap();
    let stats = engine.stats();
    assert!(stats.installed as usize >= ROUNDS && stats.failed == 0, "{stats:?}");
    // No mutator is left, so nothing holds back what was taken back.
    engine.reclaim();
    assert_eq!(engine.stats().retired, 0);
    assert!(arena.stats().live_blocks <= beads.len(), "{:?}", arena.stats());
    drop(tiered);
    assert_eq!(arena.stats().live_bytes, 0, "{file}: code is left");
}

#[test]
fn code_is_replaced_and_freed_while_recursion_runs_it() {
    for linking in LINKINGS {
        recompiled_while_running("fib.strand", &[13], linking);
        recompiled_while_running("tak.strand", &[2, 3], linking);
    }
}

#[test]
fn code_is_replaced_and_freed_while_loops_run_it() {
    for linking in LINKINGS {
        recompiled_while_running("queens.strand", &[6], linking);
        recompiled_while_running("nbody.strand", &[20], linking);
    }
}
