//! Baseline code that counts itself gets hot functions to the optimizing tier; baseline code that does not, leaves them.

use std::sync::Arc;

use beadwork::{EngineBuilder, Threshold, Tier, TierId};
use beadwork_cranelift::{CraneliftBackend, OptLevel};
use strand::tiering::{BytecodeFrontend, ConnectError, Linking, Tiered, cranelift};
use strand::{Limits, Program, Value, Vm, on_vm_stack};

/// What compiles the baseline.
#[derive(Clone, Copy, Debug)]
enum Compiler {
    Cranelift,
    #[cfg(feature = "_llvm")]
    Llvm,
}

const COMPILERS: &[Compiler] = &[
    Compiler::Cranelift,
    #[cfg(feature = "_llvm")]
    Compiler::Llvm,
];

/// The baseline, and Cranelift at its best above it.
fn tiers(
    compiler: Compiler,
    counts: bool,
    builder: EngineBuilder,
    frontend: BytecodeFrontend,
) -> Result<EngineBuilder, ConnectError> {
    let by_cranelift =
        |level| cranelift(CraneliftBackend::builder().opt_level(level)).build(frontend.clone());
    let first = match compiler {
        Compiler::Cranelift => Tier::new(by_cranelift(OptLevel::None)?),
        #[cfg(feature = "_llvm")]
        Compiler::Llvm => {
            let options = beadwork_llvm::LlvmBackend::builder().passes(beadwork_llvm::Passes::Fast);
            Tier::new(strand::llvm::llvm(options).build(frontend.clone())?)
        }
    };
    let first = first.policy(Threshold::new(1)).counts_itself(counts);
    let second = Tier::new(by_cranelift(OptLevel::Speed)?).policy(Threshold::new(1_000));
    Ok(builder.capacity(64).foreground().tier(first).tier(second))
}

/// The tier of each function of a program after one run, its compiles on the thread that asks for them.
fn run(
    compiler: Compiler,
    file: &str,
    source: &str,
    args: &[i64],
    expected: i64,
    counts: bool,
) -> Vec<(String, u8)> {
    let program = Arc::new(Program::parse(file, source).unwrap());
    let configure = |builder, frontend| tiers(compiler, counts, builder, frontend);
    let tiered = Tiered::with(&program, Linking::Slots, configure);
    let tiered = tiered.unwrap();
    for &bead in tiered.beads() {
        tiered.engine().promote(bead, TierId::BASELINE).unwrap();
    }
    let mut vm = Vm::new(&program, Limits::default(), tiered.hooks()).unwrap();
    assert_eq!(vm.run(args), Ok(Value::Int(expected)));
    let tiers = tiered.beads().iter().zip(program.functions());
    let tier = |bead| tiered.engine().tier(bead).unwrap().get();
    tiers.map(|(&bead, function)| (function.signature.name.clone(), tier(bead))).collect()
}

const CALLS: &str = include_str!("../programs/tak.strand");

const LOOP: &str = "
fn main(n: int) -> int {
    let sum = 0;
    for i in 0..n { sum = sum + i; }
    return sum;
}";

#[test]
fn p35_functions_that_only_native_code_calls_reach_the_optimizing_tier() {
    for &compiler in COMPILERS {
        let tiers = |counts| on_vm_stack(|| run(compiler, "tak", CALLS, &[2, 3], 9002, counts)).unwrap();
        let expected =
            |hot| [("ackermann", 1), ("tak", hot), ("main", 1)].map(|(name, tier)| (name.to_owned(), tier));
        assert_eq!(tiers(false), expected(1), "{compiler:?}");
        assert_eq!(tiers(true), expected(2), "{compiler:?}");
    }
}

#[test]
fn a_function_whose_native_loop_runs_long_reaches_the_optimizing_tier_in_its_first_call() {
    for &compiler in COMPILERS {
        let tiers =
            |counts| on_vm_stack(|| run(compiler, "loop", LOOP, &[100_000], 4_999_950_000, counts)).unwrap();
        assert_eq!(tiers(false), [("main".to_owned(), 1)], "{compiler:?}");
        assert_eq!(tiers(true), [("main".to_owned(), 2)], "{compiler:?}");
    }
}
