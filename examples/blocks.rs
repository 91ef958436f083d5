//! What a profile of basic blocks is worth: runs a program in baseline code (Cranelift, `OptLevel::None`) that counts how often
//! its blocks run, if the preset says so, then compiles it by LLVM (`-O3`), which gets the counts as weights of branches; the
//! same without counting; checks the results, and prints what it cost and what it brought.
//!
//! `cargo run --release -p beadwork-examples --features llvm --example blocks -- --help`

mod common;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use beadwork::{EngineBuilder, Manual, Preset, PresetValues, Tier, TierId};
use beadwork_arena::Arena;
use beadwork_cranelift::{CraneliftBackend, OptLevel};
use beadwork_llvm::LlvmBackend;
use clap::Parser;
use common::{Failure, check, exit, list, median, source, start_logging};
use strand::llvm::llvm;
use strand::tiering::{BytecodeFrontend, ConnectError, Linking, Tiered, cranelift};
use strand::{Limits, Program, Value, Vm, on_vm_stack};

/// Times LLVM code that was compiled with a profile of basic blocks, and without.
#[derive(Parser)]
struct Options {
    /// The program; dispatch if not given
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Runs of each configuration, interleaved; figures are medians
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Arguments of the program's main, integers; for dispatch 20000000 if none are given
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<i64>,
}

fn main() -> ExitCode {
    start_logging();
    let options = Options::parse();
    // Native code needs the stack that the VM's depth limit was computed for.
    exit(on_vm_stack(|| show(&options)).unwrap_or_else(|failure| Err(failure.into())))
}

fn show(options: &Options) -> Result<(), Failure> {
    let default = ("dispatch.strand", include_str!("programs/dispatch.strand"));
    let (name, source) = source(options.program.as_deref(), default)?;
    let args = match (&options.program, &options.args[..]) {
        (None, []) => vec![20_000_000],
        (_, given) => given.to_vec(),
    };
    let program = Arc::new(Program::parse(&name, &source)?);
    let profiling = Preset::Development.values();
    let mut plain = profiling;
    plain.block_profiling = false;
    let engines = [connect(&program, plain)?, connect(&program, profiling)?];
    let times =
        [TierId::BASELINE, OPTIMIZING].map(|tier| time(options.runs, &program, &engines, tier, &args));
    let [baseline, optimized] = times;
    let (baseline, optimized) = (baseline?, optimized?);
    println!("program     {name}, main({}) = {}", list(&args), optimized.result);
    profiles(&program, &engines[1])?;
    table(&baseline, &optimized);
    Ok(())
}

const OPTIMIZING: TierId = match TierId::new(2) {
    Some(tier) => tier,
    None => TierId::MAX,
};

/// An engine whose baseline code counts blocks if the preset says so. What is compiled when, the example decides.
fn connect(program: &Arc<Program>, values: PresetValues) -> Result<Tiered, Failure> {
    let arena = Arena::builder().build()?;
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, ConnectError> {
        let frontend = frontend.count_blocks(values.block_profiling);
        let options = CraneliftBackend::builder().opt_level(OptLevel::None).arena(arena.clone());
        let baseline = Tier::new(cranelift(options).build(frontend.clone())?).policy(Manual);
        let options = LlvmBackend::builder().arena(arena);
        let optimizing = Tier::new(llvm(options).build(frontend)?).policy(Manual);
        Ok(builder.workers(1).tier(baseline).tier(optimizing))
    };
    Ok(Tiered::with(program, Linking::Slots, configure)?)
}

/// What the runs at a tier showed.
struct Timed {
    result: Value,
    /// Seconds of each run, without a profile and with.
    seconds: [Vec<f64>; 2],
}

/// Compiles everything for a tier, and runs the program in turns.
fn time(
    runs: u32,
    program: &Program,
    engines: &[Tiered; 2],
    tier: TierId,
    args: &[i64],
) -> Result<Timed, Failure> {
    for tiered in engines {
        for &bead in tiered.beads() {
            tiered.engine().promote(bead, tier)?;
        }
        tiered.engine().drain(Duration::from_secs(60))?;
        let failed = tiered.engine().stats().failed;
        if failed > 0 {
            return Err(
                format!("{failed} functions could not be compiled; RUST_LOG=beadwork=warn says why").into()
            );
        }
    }
    let mut seconds = [Vec::new(), Vec::new()];
    let mut result = None;
    for _ in 0..runs {
        for (tiered, seconds) in engines.iter().zip(&mut seconds) {
            let mut vm = Vm::new(program, Limits::default(), tiered.hooks())?;
            let start = Instant::now();
            let value = vm.run(args)?;
            seconds.push(start.elapsed().as_secs_f64());
            check(&tier.to_string(), value, *result.get_or_insert(value))?;
        }
    }
    Ok(Timed { result: result.ok_or("nothing was run")?, seconds })
}

/// What was counted of each function.
fn profiles(program: &Program, tiered: &Tiered) -> Result<(), Failure> {
    println!(
        "\n{:16} {:>7} {:>10} {:>14} {:>14}",
        "function", "blocks", "never ran", "executions", "most of a block"
    );
    for (&bead, function) in tiered.beads().iter().zip(program.functions()) {
        let profile = tiered.engine().profile(bead)?.unwrap_or_default();
        let blocks = profile.blocks();
        let never = blocks.iter().filter(|&&count| count == 0).count();
        let (sum, most) = (blocks.iter().sum::<u64>(), blocks.iter().max().copied().unwrap_or(0));
        println!("{:16} {:>7} {never:>10} {sum:>14} {most:>14}", function.signature.name, blocks.len());
    }
    Ok(())
}

fn table(baseline: &Timed, optimized: &Timed) {
    println!("\n{:22} {:>12} {:>12} {:>8}", "median ms", "no profile", "profile", "ratio");
    for (name, timed) in [("T1, Cranelift none", baseline), ("T2, LLVM O3", optimized)] {
        let [plain, profiled] = [0, 1].map(|n| median(&timed.seconds[n], |&seconds| seconds * 1e3));
        println!("{name:22} {plain:>12.2} {profiled:>12.2} {:>8.3}", profiled / plain);
    }
    println!(
        "T1 with a profile counts its blocks; T2 with a profile has the counts as weights of its branches"
    );
    println!("every run answered the same");
}
