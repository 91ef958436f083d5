//! What each tier is worth: four programs in the interpreter and by every compiler, each pre-compiled, in one run.
//!
//! `cargo run --release --example tier_table -- --help`; with `--features llvm` for LLVM, too. `--markdown` prints README's table.

mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use beadwork::{EngineBuilder, Manual, Tier, TierId};
use beadwork_cranelift::{CraneliftBackend, OptLevel, RegallocAlgorithm};
use clap::Parser;
use common::{Failure, check, cpu, exit, median, progress, start_logging};
use strand::tiering::{BytecodeFrontend, ConnectError, Linking, Tiered, cranelift};
use strand::{InterpretAll, Limits, Program, Value, Vm, on_vm_stack};

/// Runs four programs at every tier, and prints times, ratios and what compiling takes.
#[derive(Parser)]
struct Options {
    /// Runs of each program at each tier, interleaved; figures are medians
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Print the table as Markdown
    #[arg(long)]
    markdown: bool,
}

/// Program, argument of its main.
const PROGRAMS: [(&str, &str, i64); 4] = [
    ("mandelbrot", include_str!("programs/mandelbrot.strand"), 400),
    ("n-body", include_str!("programs/nbody.strand"), 40_000),
    ("spectral-norm", include_str!("programs/spectral_norm.strand"), 300),
    ("matmul", include_str!("programs/matmul.strand"), 200),
];

#[derive(Clone, Copy)]
enum How {
    Interpreter,
    Cranelift(OptLevel, RegallocAlgorithm),
    #[cfg(feature = "_llvm")]
    Llvm,
}

/// Lowest first; those after the first are what others call baseline, standard and optimized.
const TIERS: &[(&str, How)] = &[
    ("interpreter", How::Interpreter),
    ("Cranelift none", How::Cranelift(OptLevel::None, RegallocAlgorithm::SinglePass)),
    ("Cranelift none, backtracking", How::Cranelift(OptLevel::None, RegallocAlgorithm::Backtracking)),
    ("Cranelift speed", How::Cranelift(OptLevel::Speed, RegallocAlgorithm::Backtracking)),
    #[cfg(feature = "_llvm")]
    ("LLVM O3", How::Llvm),
];

/// What one run showed.
struct Run {
    /// CPU time.
    time: Duration,
    /// The same of compiling, for each function.
    compile: Duration,
}

fn main() -> ExitCode {
    start_logging();
    let options = Options::parse();
    // Native code needs the stack that the VM's depth limit was computed for.
    exit(on_vm_stack(|| show(&options)).unwrap_or_else(|failure| Err(failure.into())))
}

fn show(options: &Options) -> Result<(), Failure> {
    // By program, then by tier.
    let mut all = Vec::new();
    let bar = progress(u64::from(options.runs) * (PROGRAMS.len() * TIERS.len()) as u64);
    for (name, source, arg) in PROGRAMS {
        let program = Arc::new(Program::parse(name, source)?);
        let mut runs: Vec<Vec<Run>> = TIERS.iter().map(|_| Vec::new()).collect();
        let mut expected = None;
        for _ in 0..options.runs {
            for (&(tier, how), runs) in TIERS.iter().zip(&mut runs) {
                let (value, run) = run(how, &program, arg)?;
                check(&format!("{name}, {tier}"), value, *expected.get_or_insert(value))?;
                runs.push(run);
                bar.inc(1);
            }
        }
        all.push(runs);
    }
    bar.finish_and_clear();
    let table = Table::new(&all);
    if options.markdown {
        table.markdown()
    } else {
        table.text()
    }
    println!(
        "\nCPU times, medians of {} runs; what is compiled is so before the run. Every tier gave the interpreter's result.",
        options.runs
    );
    Ok(())
}

fn run(how: How, program: &Arc<Program>, arg: i64) -> Result<(Value, Run), Failure> {
    if let How::Interpreter = how {
        let mut vm = Vm::new(program, Limits::default(), InterpretAll)?;
        let start = cpu::of_thread();
        let value = vm.run(&[arg])?;
        return Ok((value, Run { time: cpu::of_thread() - start, compile: Duration::ZERO }));
    }
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, ConnectError> {
        let tier = match how {
            How::Interpreter => return Ok(builder),
            How::Cranelift(level, registers) => {
                let options = CraneliftBackend::builder().opt_level(level).register_allocator(registers);
                Tier::new(cranelift(options).build(frontend)?)
            }
            #[cfg(feature = "_llvm")]
            How::Llvm => {
                Tier::new(strand::llvm::llvm(beadwork_llvm::LlvmBackend::builder()).build(frontend)?)
            }
        };
        Ok(builder.tier(tier.policy(Manual)).inline())
    };
    let tiered = Tiered::with(program, Linking::Inlined, configure)?;
    let engine = tiered.engine();
    for &bead in tiered.beads() {
        engine.promote(bead, TierId::BASELINE)?;
    }
    let start = cpu::of_thread();
    engine.run_pending(usize::MAX);
    let compile = (cpu::of_thread() - start) / tiered.beads().len() as u32;
    let stats = engine.stats();
    if stats.failed > 0 {
        return Err(format!(
            "{} functions could not be compiled; RUST_LOG=beadwork=warn says why",
            stats.failed
        )
        .into());
    }
    let mut vm = Vm::new(program, Limits::default(), tiered.hooks())?;
    let start = cpu::of_thread();
    let value = vm.run(&[arg])?;
    Ok((value, Run { time: cpu::of_thread() - start, compile }))
}

struct Table {
    /// Seconds, by program and tier.
    times: Vec<Vec<f64>>,
    /// Microseconds for each function, by tier.
    compile: Vec<f64>,
}

impl Table {
    fn new(all: &[Vec<Vec<Run>>]) -> Table {
        let seconds = |runs: &Vec<Run>| median(runs, |run| run.time.as_secs_f64());
        let times: Vec<Vec<f64>> = all.iter().map(|tiers| tiers.iter().map(seconds).collect()).collect();
        let compile = |tier: usize| {
            let programs =
                all.iter().map(|tiers| median(&tiers[tier], |run| run.compile.as_secs_f64() * 1e6));
            programs.sum::<f64>() / all.len() as f64
        };
        Table { times, compile: (0..TIERS.len()).map(compile).collect() }
    }

    /// How many times as fast as the interpreter a program is at a tier.
    fn ratio(&self, program: usize, tier: usize) -> f64 {
        self.times[program][0] / self.times[program][tier]
    }

    /// The share of the best speed a tier reaches, over all programs.
    fn share(&self, tier: usize) -> f64 {
        let best = |times: &Vec<f64>| times.iter().copied().fold(f64::INFINITY, f64::min);
        let shares = self.times.iter().map(|times| (best(times) / times[tier]).ln());
        (shares.sum::<f64>() / self.times.len() as f64).exp()
    }

    fn cells(&self, tier: usize) -> Vec<String> {
        let cell = |program: usize| {
            format!("{:.1} ms, {:.1} x", self.times[program][tier] * 1e3, self.ratio(program, tier))
        };
        let mut cells: Vec<_> = (0..PROGRAMS.len()).map(cell).collect();
        cells.push(format!("{:.0} %", self.share(tier) * 1e2));
        cells.push(if tier == 0 { "-".to_owned() } else { format!("{:.0} µs", self.compile[tier]) });
        cells
    }

    fn heads() -> Vec<&'static str> {
        PROGRAMS.iter().map(|&(name, ..)| name).chain(["best speed", "compile"]).collect()
    }

    fn text(&self) {
        let head: String = Self::heads().iter().map(|head| format!(" {head:>18}")).collect();
        println!("{:28}{head}", "");
        for (tier, (name, _)) in TIERS.iter().enumerate() {
            let cells: String = self.cells(tier).iter().map(|cell| format!(" {cell:>18}")).collect();
            println!("{name:28}{cells}");
        }
        println!("\nWhat others state of their tiers, for programs of their own:");
        for (name, baseline, standard, optimized) in CLAIMS {
            println!("{name:28} {baseline:>18} {standard:>18} {optimized:>18}");
        }
    }

    fn markdown(&self) {
        println!("| | {} |", Self::heads().join(" | "));
        println!("|---|{}", "---|".repeat(PROGRAMS.len() + 2));
        for (tier, (name, _)) in TIERS.iter().enumerate() {
            println!("| {name} | {} |", self.cells(tier).join(" | "));
        }
        println!("\n| stated by others | baseline | standard | optimized |\n|---|---|---|---|");
        for (name, baseline, standard, optimized) in &CLAIMS[1..] {
            println!("| {name} | {baseline} | {standard} | {optimized} |");
        }
    }
}

/// Zyntax's and Rayzor's own figures for their three tiers.
const CLAIMS: [(&str, &str, &str, &str); 5] = [
    ("", "baseline", "standard", "optimized"),
    ("Zyntax, share of best speed", "80-90 %", "90-95 %", "98-100 %"),
    ("Zyntax, compile", "1-5 ms", "5-20 ms", "20-200 ms"),
    ("Rayzor, over its interpreter", "1.5-3 x", "5-20 x", ""),
    ("Rayzor, compile", "50-100 ms", "200-500 ms", "1,000-5,000 ms"),
];
