//! Programs whose functions LLVM compiles, on a real engine.
#![allow(unsafe_code, dead_code, unreachable_pub, reason = "shared by several test binaries")]

use std::sync::Arc;

use beadwork::{Bead, Engine, EngineBuilder, Manual, Threshold, Tier, TierId};
use beadwork_cranelift::{CraneliftBackend, OptLevel};
use beadwork_llvm::{BuildError, Frontend, FunctionUnit, LlvmBackend, Passes};
use strand::llvm::llvm;
use strand::tiering::{BytecodeFrontend, ConnectError, Dispatching, Linking, Tiered, cranelift};
use strand::{Calls, Edge, Enter, FuncIndex, Limits, Program, Vm};

use crate::common::{Outcome, Output};

/// Which functions are compiled beforehand.
type Choice = fn(usize) -> bool;

/// An engine whose only tier is LLVM, and which compiles when it is told to.
fn alone(program: &Arc<Program>, linking: Linking, passes: Passes) -> Tiered {
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, ConnectError> {
        let backend = llvm(LlvmBackend::builder().passes(passes)).build(frontend)?;
        Ok(builder.tier(Tier::new(backend).policy(Manual)).inline().capacity(64))
    };
    Tiered::with(program, linking, configure).unwrap()
}

/// Compiles what is asked for at every call and back edge.
struct AtOnce {
    hooks: Dispatching,
    engine: Engine,
    /// Calls are interpreted, so that only loops go native.
    loops_only: bool,
    transfers: u64,
}

impl Calls for AtOnce {
    fn enter(&mut self, callee: FuncIndex) -> Enter {
        self.engine.run_pending(usize::MAX);
        if self.loops_only { Enter::Interpret } else { self.hooks.enter(callee) }
    }
    fn back_edge(&mut self, function: FuncIndex, site: u16) -> Edge {
        self.engine.run_pending(usize::MAX);
        let edge = self.hooks.back_edge(function, site);
        self.transfers += u64::from(matches!(edge, Edge::Native(_)));
        edge
    }
    fn safepoint(&mut self, native_frames: u32) {
        self.hooks.safepoint(native_frames);
    }
    fn bailout(&mut self, function: FuncIndex, pc: u16, version: u64) {
        self.hooks.bailout(function, pc, version);
    }
    fn definition(&self, callee: FuncIndex) -> FuncIndex {
        self.hooks.definition(callee)
    }
    fn resolve(&self, callee_bits: u64) -> Option<FuncIndex> {
        self.hooks.resolve(callee_bits)
    }
}

fn run(program: &Program, tiered: &Tiered, loops_only: bool, args: &[i64]) -> (Outcome, u64) {
    let output = Output::default();
    let engine = tiered.engine().clone();
    let mut calls = AtOnce { hooks: tiered.hooks(), engine, loops_only, transfers: 0 };
    let result = strand::on_vm_stack(|| {
        let mut vm = Vm::new(program, Limits::default(), &mut calls).unwrap();
        vm.set_output(output.clone());
        vm.run(args)
    });
    ((result.unwrap(), output.text()), calls.transfers)
}

/// A program in many mixes of tiers.
pub struct LlvmTiers {
    program: Arc<Program>,
    tiers: Vec<(&'static str, Tiered)>,
    /// Loops that went native in all runs.
    pub transfers: u64,
}

impl LlvmTiers {
    pub fn new(program: &Arc<Program>) -> LlvmTiers {
        let choices: [(&'static str, Linking, Passes, Choice); 5] = [
            ("LLVM O3", Linking::Slots, Passes::O3, |_| true),
            ("LLVM O3, inlined", Linking::Inlined, Passes::O3, |_| true),
            ("LLVM O1, calls through the stub", Linking::Dispatch, Passes::O1, |_| true),
            ("LLVM fast, even functions", Linking::Slots, Passes::Fast, |n| n % 2 == 0),
            ("LLVM O2, odd functions", Linking::Slots, Passes::O2, |n| n % 2 == 1),
        ];
        let tiers = choices.map(|(name, linking, passes, choice)| {
            let tiered = alone(program, linking, passes);
            promote(&tiered, TierId::BASELINE, choice);
            (name, tiered)
        });
        let mut tiers = Vec::from(tiers);
        tiers.push(("LLVM, what is hot", hot(program)));
        tiers.push((LOOPS_ONLY, loops(program)));
        tiers.push(("Cranelift and LLVM", mixed(program)));
        tiers.push(("LLVM by the profile of counting Cranelift code", profiled(program)));
        LlvmTiers { program: program.clone(), tiers, transfers: 0 }
    }

    /// All outcomes, each with the name of its tier.
    pub fn run(&mut self, args: &[i64]) -> Vec<(&'static str, Outcome)> {
        let mut outcomes = Vec::new();
        for (name, tiered) in &self.tiers {
            let (outcome, transfers) = run(&self.program, tiered, *name == LOOPS_ONLY, args);
            self.transfers += transfers;
            outcomes.push((*name, outcome));
        }
        outcomes
    }
}

const LOOPS_ONLY: &str = "LLVM in all loops";

/// Builds entries for all loops.
struct AllLoops {
    frontend: BytecodeFrontend,
    program: Arc<Program>,
}

impl Frontend for AllLoops {
    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), BuildError> {
        let function = &self.program.functions()[unit.job().core()?.get()];
        let positions = 0..function.loops.len() as u64;
        positions.for_each(|position| unit.add_loop_entry(function.index.site(position)));
        Frontend::build(&self.frontend, unit)
    }
}

fn loops(program: &Arc<Program>) -> Tiered {
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, ConnectError> {
        let frontend = AllLoops { frontend, program: program.clone() };
        let backend = llvm(LlvmBackend::builder().passes(Passes::O3)).build(frontend)?;
        Ok(builder.tier(Tier::new(backend).policy(Manual)).inline().capacity(64))
    };
    let tiered = Tiered::with(program, Linking::Slots, configure).unwrap();
    promote(&tiered, TierId::BASELINE, |_| true);
    tiered
}

/// Compiles some functions, all of which LLVM has to be able to compile.
fn promote(tiered: &Tiered, tier: TierId, choice: impl Fn(usize) -> bool) {
    let chosen: Vec<Bead> =
        (0..).zip(tiered.beads()).filter(|&(n, _)| choice(n)).map(|(_, &bead)| bead).collect();
    for &bead in &chosen {
        tiered.engine().promote(bead, tier).unwrap();
    }
    tiered.engine().run_pending(usize::MAX);
    assert_eq!(tiered.engine().stats().failed, 0);
    assert!(chosen.iter().all(|&bead| tiered.engine().tier(bead) == Ok(tier)));
}

/// Functions and loops are compiled once they have run twice.
fn hot(program: &Arc<Program>) -> Tiered {
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, ConnectError> {
        let backend = llvm(LlvmBackend::builder().passes(Passes::O2)).build(frontend)?;
        Ok(builder.tier(Tier::new(backend).policy(Threshold::new(2))).inline().capacity(64))
    };
    Tiered::with(program, Linking::Slots, configure).unwrap()
}

/// LLVM reads how often blocks ran in code that counts them, and its calls.
fn profiled(program: &Arc<Program>) -> Tiered {
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, ConnectError> {
        let options = cranelift(CraneliftBackend::builder().opt_level(OptLevel::None));
        let first = options.build(frontend.clone().count_blocks(true))?;
        let second = llvm(LlvmBackend::builder().arena(first.arena().clone())).build(frontend)?;
        let first = Tier::new(first).policy(Threshold::new(1)).counts_itself(true);
        Ok(builder.tier(first).tier(Tier::new(second).policy(Threshold::new(3))).inline().capacity(64))
    };
    Tiered::with(program, Linking::Slots, configure).unwrap()
}

/// Every third function by each compiler, and the others interpreted.
fn mixed(program: &Arc<Program>) -> Tiered {
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, ConnectError> {
        let first =
            cranelift(CraneliftBackend::builder().opt_level(OptLevel::None)).build(frontend.clone())?;
        let second = llvm(LlvmBackend::builder().arena(first.arena().clone())).build(frontend)?;
        let tiers = builder.tier(Tier::new(first).policy(Manual)).tier(Tier::new(second).policy(Manual));
        Ok(tiers.inline().capacity(64))
    };
    let tiered = Tiered::with(program, Linking::Slots, configure).unwrap();
    promote(&tiered, TierId::new(2).unwrap(), |n| n % 3 == 0);
    promote(&tiered, TierId::BASELINE, |n| n % 3 == 1);
    tiered
}
