//! Baseline code that counts itself gets hot functions to the optimizing tier; baseline code that does not, leaves them.

use std::sync::Arc;

use beadwork::{Threshold, Tier, TierId};
use beadwork_cranelift::{CraneliftBackend, CraneliftError, OptLevel};
use strand::tiering::{Linking, Tiered, cranelift};
use strand::{Limits, Program, Value, Vm, on_vm_stack};

/// The tier of each function of a program after one run, its compiles on the thread that asks for them.
fn run(file: &str, source: &str, args: &[i64], expected: i64, counts: bool) -> Vec<(String, u8)> {
    let program = Arc::new(Program::parse(file, source).unwrap());
    let tiered = Tiered::new(&program, Linking::Slots, |builder, frontend| {
        let tier = |level, calls| {
            let backend = cranelift(CraneliftBackend::builder().opt_level(level)).build(frontend.clone())?;
            Ok::<_, CraneliftError>(Tier::new(backend).policy(Threshold::new(calls)))
        };
        let first = tier(OptLevel::None, 1)?.counts_itself(counts);
        Ok(builder.capacity(64).foreground().tier(first).tier(tier(OptLevel::Speed, 1_000)?))
    });
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
    let tiers = |counts| on_vm_stack(|| run("tak", CALLS, &[2, 3], 9002, counts)).unwrap();
    let expected =
        |hot| [("ackermann", 1), ("tak", hot), ("main", 1)].map(|(name, tier)| (name.to_owned(), tier));
    assert_eq!(tiers(false), expected(1));
    assert_eq!(tiers(true), expected(2));
}

#[test]
fn a_function_whose_native_loop_runs_long_reaches_the_optimizing_tier_in_its_first_call() {
    let tiers = |counts| on_vm_stack(|| run("loop", LOOP, &[100_000], 4_999_950_000, counts)).unwrap();
    assert_eq!(tiers(false), [("main".to_owned(), 1)]);
    assert_eq!(tiers(true), [("main".to_owned(), 2)]);
}
