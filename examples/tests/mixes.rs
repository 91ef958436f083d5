//! Every program gives its results in every mix of tiers: each subset of the compilers as tiers of one engine, counting in native code
//! or not, with calls through slots and with callees inlined, loops going native half-way; and under the stress preset.

mod sources;

use std::sync::Arc;

use beadwork::{Backend, Engine, EngineBuilder, Preset, Threshold, Tier};
use beadwork_arena::Arena;
use beadwork_cranelift::{CraneliftBackend, OptLevel};
use sources::{expectations, promised_error, sources};
use strand::tiering::{BytecodeFrontend, ConnectError, Dispatching, Linking, Tiered, cranelift};
use strand::{Calls, Edge, Enter, FuncIndex, Limits, Program, Vm};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Compiler {
    None,
    Speed,
    #[cfg(feature = "_llvm")]
    Llvm,
}

const COMPILERS: &[Compiler] = &[
    Compiler::None,
    Compiler::Speed,
    #[cfg(feature = "_llvm")]
    Compiler::Llvm,
];

/// Answers how many bodies of other functions a backend has put into code.
type Included = Arc<dyn Fn() -> u64>;

impl Compiler {
    fn backend(
        self,
        frontend: BytecodeFrontend,
        arena: &Arena,
    ) -> Result<(Arc<dyn Backend>, Included), ConnectError> {
        let cranelift = |level| -> Result<(Arc<dyn Backend>, Included), ConnectError> {
            let options = CraneliftBackend::builder().opt_level(level).arena(arena.clone());
            let backend = Arc::new(cranelift(options).build(frontend.clone())?);
            Ok((backend.clone(), Arc::new(move || backend.stats().included)))
        };
        Ok(match self {
            Compiler::None => cranelift(OptLevel::None)?,
            Compiler::Speed => cranelift(OptLevel::Speed)?,
            #[cfg(feature = "_llvm")]
            Compiler::Llvm => {
                let options = beadwork_llvm::LlvmBackend::builder().arena(arena.clone());
                let options = strand::llvm::llvm(options.passes(beadwork_llvm::Passes::O2));
                let backend = Arc::new(options.build(frontend.clone())?);
                (backend.clone(), Arc::new(move || backend.stats().included))
            }
        })
    }
}

/// The sets of compilers that are not empty, each with the lowest tier first.
fn subsets() -> Vec<Vec<Compiler>> {
    let members = |set: usize| {
        let chosen = COMPILERS.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1);
        chosen.map(|(_, &compiler)| compiler).collect()
    };
    (1..1 << COMPILERS.len()).map(members).collect()
}

/// One way to tier a program.
#[derive(Clone, Debug)]
enum Mix {
    /// Tiers entered at 3, 9 and 27 calls.
    Tiers { compilers: Vec<Compiler>, counting: bool, linking: Linking },
    /// All compilers under the stress preset, at moments that a seed chooses.
    Stress { seed: u64, linking: Linking },
}

fn mixes() -> Vec<Mix> {
    let ways = [(false, Linking::Slots), (true, Linking::Slots), (true, Linking::Inlined)];
    let tiers = |compilers: Vec<Compiler>| {
        ways.map(|(counting, linking)| Mix::Tiers { compilers: compilers.clone(), counting, linking })
    };
    let mut mixes: Vec<_> = subsets().into_iter().flat_map(tiers).collect();
    mixes.push(Mix::Tiers { compilers: COMPILERS.to_vec(), counting: true, linking: Linking::Dispatch });
    mixes.extend((0..3).map(|seed| Mix::Stress { seed, linking: Linking::Slots }));
    mixes.extend((3..6).map(|seed| Mix::Stress { seed, linking: Linking::Inlined }));
    mixes
}

fn tiered(program: &Arc<Program>, mix: &Mix) -> (Tiered, Vec<Included>) {
    let mut included = Vec::new();
    let (Mix::Tiers { linking, .. } | Mix::Stress { linking, .. }) = mix;
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, ConnectError> {
        let arena = Arena::builder().build().expect("memory for code");
        let mut backends = |compilers: &[Compiler]| -> Result<Vec<_>, ConnectError> {
            let made = compilers.iter().map(|compiler| compiler.backend(frontend.clone(), &arena));
            let (made, counts): (Vec<_>, Vec<_>) = made.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
            included = counts;
            Ok(made)
        };
        let builder = match mix {
            Mix::Tiers { compilers, counting, .. } => {
                let tiers = [3, 9, 27].into_iter().zip(backends(compilers)?);
                tiers.fold(builder, |builder, (calls, backend)| {
                    builder.tier(Tier::new(backend).policy(Threshold::new(calls)).counts_itself(*counting))
                })
            }
            Mix::Stress { seed, .. } => builder.seed(*seed).preset(Preset::Stress, backends(COMPILERS)?),
        };
        Ok(builder.inline().capacity(64))
    };
    let tiered = Tiered::with(program, *linking, configure).unwrap();
    (tiered, included)
}

/// Compiles what is asked for within calls and back edges, so that a run is the same each time: at first in each, and later, for the
/// tests' speed, in some.
struct AtOnce {
    hooks: Dispatching,
    engine: Engine,
    steps: u64,
}

impl AtOnce {
    fn compile(&mut self) {
        self.steps += 1;
        if self.steps < 1_000 || self.steps.is_multiple_of(61) {
            self.engine.run_pending(usize::MAX);
        }
    }
}

impl Calls for AtOnce {
    fn enter(&mut self, callee: FuncIndex) -> Enter {
        self.compile();
        self.hooks.enter(callee)
    }
    fn back_edge(&mut self, function: FuncIndex, site: u16) -> Edge {
        self.compile();
        self.hooks.back_edge(function, site)
    }
    fn safepoint(&mut self, native_frames: u32) {
        self.hooks.safepoint(native_frames);
    }
    fn bailout(&mut self, function: FuncIndex, pc: u16, version: u64) {
        self.hooks.bailout(function, pc, version);
    }
    fn native_call(&mut self, callee_bits: u64) {
        self.hooks.native_call(callee_bits);
        self.compile();
    }
    fn native_iterations(&mut self, callee_bits: u64, site: u64, iterations: u32) {
        self.hooks.native_iterations(callee_bits, site, iterations);
        self.compile();
    }
    fn definition(&self, callee: FuncIndex) -> FuncIndex {
        self.hooks.definition(callee)
    }
    fn resolve(&self, callee_bits: u64) -> Option<FuncIndex> {
        self.hooks.resolve(callee_bits)
    }
}

/// Counts calls and iterations, all of them interpreted.
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

/// Whether a run takes many times the calls that the tiers are entered at, and no more than can be repeated in every mix.
fn is_short(program: &Program, args: &[i64]) -> bool {
    let mut vm = Vm::new(program, Limits::default(), Steps(0)).unwrap();
    vm.set_output(std::io::sink());
    vm.run(args).is_ok() && vm.calls().0 <= 20_000
}

/// What runs came to, so that none of them tests nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Seen {
    runs: u64,
    installed: u64,
    loops: u64,
    included: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Seen) {
        self.runs += other.runs;
        self.installed += other.installed;
        self.loops += other.loops;
        self.included += other.included;
    }
}

/// Runs a program with each of its arguments, and then once more with what is compiled by then; each has to end as promised.
fn check(program: &Arc<Program>, cases: &[(Vec<i64>, String)], mix: &Mix) -> Seen {
    let run = || {
        let (tiered, included) = tiered(program, mix);
        let hooks = AtOnce { hooks: tiered.hooks(), engine: tiered.engine().clone(), steps: 0 };
        let mut vm = Vm::new(program, Limits::default(), hooks).unwrap();
        vm.set_output(std::io::sink());
        for (args, expected) in cases.iter().chain(cases) {
            let result = vm.run(args).map_or_else(|error| error.to_string(), |value| value.to_string());
            assert_eq!(result, *expected, "{}, main{args:?}, {mix:?}", program.file());
        }
        let stats = tiered.engine().stats();
        assert_eq!(stats.failed, 0, "{}, {mix:?}: a compiler gave up", program.file());
        let (loops, included) =
            (vm.calls().hooks.loops_entered(), included.iter().map(|count| count()).sum());
        Seen { runs: 1, installed: stats.installed, loops, included }
    };
    strand::on_vm_stack(run).unwrap()
}

#[test]
fn every_program_gives_the_promised_results_in_every_mix_of_tiers() {
    let (mut seen, mixes) = (Seen::default(), mixes());
    for (file, source) in sources("programs") {
        let program = Arc::new(Program::parse(&file, &source).unwrap_or_else(|e| panic!("{e}")));
        let short = expectations(&source).into_iter().filter(|(args, _)| is_short(&program, args));
        let cases: Vec<_> = short.collect();
        assert!(!cases.is_empty(), "{file} has no short run");
        mixes.iter().for_each(|mix| seen += check(&program, &cases, mix));
    }
    assert!(seen.runs >= 13 * mixes.len() as u64, "programs are missing: {seen:?}");
    assert!(seen.installed > 2 * seen.runs && seen.loops > 100, "{seen:?}");
    // It is by LLVM that the machine includes callees.
    assert!(seen.included > 0 || !cfg!(feature = "_llvm"), "{seen:?}");
}

#[test]
fn every_wrong_program_fails_with_the_promised_message_in_every_mix_of_tiers() {
    let (mut seen, mut mixes) = (Seen::default(), mixes());
    // Some of them end only when a limit is reached, which takes a while unoptimized.
    mixes.retain(|mix| matches!(mix, Mix::Tiers { linking: Linking::Inlined, .. } | Mix::Stress { .. }));
    for (file, source) in sources("programs/wrong") {
        let Ok(program) = Program::parse(&file, &source) else { continue };
        let (program, cases) = (Arc::new(program), [(Vec::new(), promised_error(&source).to_owned())]);
        mixes.iter().for_each(|mix| seen += check(&program, &cases, mix));
    }
    assert!(seen.runs > 10 * mixes.len() as u64, "programs are missing: {seen:?}");
}
