//! How many functions per second one worker compiles, and two: the same functions by engines with one and with two workers, in turn,
//! and beside them a loop that shares nothing, for what the machine has to give at that time.
//!
//! `cargo run --release --example throughput -- --help`; with `--features llvm` for LLVM, too.

mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use beadwork::{EngineBuilder, Manual, Tier, TierId};
use beadwork_cranelift::{CraneliftBackend, OptLevel, RegallocAlgorithm};
use clap::Parser;
use common::{Failure, cpu, exit, median, progress, start_logging};
use strand::Program;
use strand::tiering::{BytecodeFrontend, ConnectError, Linking, Tiered, cranelift};

/// Compiles many functions with one worker and with two, and compares.
#[derive(Parser)]
struct Options {
    /// Rounds; in each, every compiler runs with one worker and with two. Figures are medians
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Copies of the programs' functions that Cranelift compiles; LLVM compiles a tenth as many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=1_000))]
    copies: u32,
}

#[derive(Clone, Copy)]
enum Compiler {
    Cranelift(OptLevel, RegallocAlgorithm),
    #[cfg(feature = "_llvm")]
    Llvm,
}

const COMPILERS: &[(&str, Compiler)] = &[
    ("none, single pass", Compiler::Cranelift(OptLevel::None, RegallocAlgorithm::SinglePass)),
    ("none, backtracking", Compiler::Cranelift(OptLevel::None, RegallocAlgorithm::Backtracking)),
    ("speed", Compiler::Cranelift(OptLevel::Speed, RegallocAlgorithm::Backtracking)),
    #[cfg(feature = "_llvm")]
    ("LLVM O3", Compiler::Llvm),
];

const SOURCES: [&str; 4] = [
    include_str!("programs/nbody.strand"),
    include_str!("programs/spectral_norm.strand"),
    include_str!("programs/matmul.strand"),
    include_str!("programs/mandelbrot.strand"),
];

/// What one measurement took.
#[derive(Clone, Copy)]
struct Took {
    items: f64,
    wall: Duration,
    cpu: Duration,
}

impl Took {
    fn rate(&self) -> f64 {
        self.items / self.wall.as_secs_f64()
    }

    /// CPU time for each item, in microseconds: what more than one worker adds to it is time they take from each other.
    fn each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.items
    }

    /// How many cores were at work on average.
    fn cores(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64()
    }
}

fn main() -> ExitCode {
    start_logging();
    exit(show(&Options::parse()))
}

fn show(options: &Options) -> Result<(), Failure> {
    let programs = COMPILERS.iter().map(|(_, compiler)| {
        let copies = match compiler {
            Compiler::Cranelift(..) => options.copies,
            #[cfg(feature = "_llvm")]
            Compiler::Llvm => options.copies / 10,
        };
        Ok::<_, Failure>(Arc::new(Program::parse("copies", &copied(copies))?))
    });
    let programs = programs.collect::<Result<Vec<_>, _>>()?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{} functions for Cranelift, {cores} cores", programs[0].functions().len());

    let mut yardstick = [Vec::new(), Vec::new()];
    let mut all: Vec<_> = COMPILERS.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    let bar = progress(2 * u64::from(options.rounds) * (1 + COMPILERS.len() as u64));
    for _ in 0..options.rounds {
        for workers in [1, 2] {
            yardstick[workers - 1].push(spin(workers)?);
            bar.inc(1);
            for ((&(_, compiler), program), took) in COMPILERS.iter().zip(&programs).zip(&mut all) {
                took[workers - 1].push(compile(compiler, program, workers)?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    println!(
        "\n{:18} {:>12} {:>12} {:>6} {:>15} {:>19}",
        "", "1 worker /s", "2 workers /s", "ratio", "cores at work", "CPU µs each"
    );
    print("nothing shared", &yardstick);
    for ((name, _), took) in COMPILERS.iter().zip(&all) {
        print(name, took);
    }
    println!(
        "medians of {} rounds; cores at work is CPU time by wall time, with 1 worker and with 2",
        options.rounds
    );
    println!(
        "a machine busy with other things shows in the first line: its ratio is what two threads can get"
    );
    Ok(())
}

fn print(name: &str, [one, two]: &[Vec<Took>; 2]) {
    let figures: [fn(&Took) -> f64; 3] = [Took::rate, Took::cores, Took::each];
    let [rates, cores, each] = figures.map(|of| [one, two].map(|took| median(took, of)));
    println!(
        "{name:18} {:>12.0} {:>12.0} {:>6.2} {:>7.2} {:>7.2} {:>9.1} {:>9.1}",
        rates[0],
        rates[1],
        rates[1] / rates[0],
        cores[0],
        cores[1],
        each[0],
        each[1]
    );
}

/// Compiles all functions of a program.
fn compile(compiler: Compiler, program: &Arc<Program>, workers: usize) -> Result<Took, Failure> {
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, ConnectError> {
        let tier = match compiler {
            Compiler::Cranelift(level, registers) => {
                let options = CraneliftBackend::builder().opt_level(level).register_allocator(registers);
                Tier::new(cranelift(options).build(frontend)?)
            }
            #[cfg(feature = "_llvm")]
            Compiler::Llvm => {
                Tier::new(strand::llvm::llvm(beadwork_llvm::LlvmBackend::builder()).build(frontend)?)
            }
        };
        Ok(builder.tier(tier.policy(Manual)).workers(workers).capacity(1 << 16))
    };
    let tiered = Tiered::with(program, Linking::Slots, configure)?;
    let engine = tiered.engine();
    let took = measured(tiered.beads().len() as f64, || {
        let refused = engine.promote_many(tiered.beads().iter().copied(), TierId::BASELINE);
        assert!(refused.is_empty(), "nothing is against it");
        engine.drain(Duration::from_secs(600))
    });
    took.1?;
    let stats = engine.stats();
    if stats.failed > 0 {
        return Err(format!("{} functions could not be compiled", stats.failed).into());
    }
    Ok(took.0)
}

/// As much arithmetic on each thread, with nothing shared.
fn spin(threads: usize) -> Result<Took, Failure> {
    const TURNS: u64 = 100_000_000;
    let (took, ()) = measured(threads as f64 * 1000.0, || {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let turn =
                        |x: u64, n| std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005) ^ n);
                    std::hint::black_box((0..TURNS).fold(1, turn));
                });
            }
        });
    });
    Ok(took)
}

fn measured<T>(items: f64, work: impl FnOnce() -> T) -> (Took, T) {
    let (start, before) = (Instant::now(), cpu::of_process());
    let result = work();
    (Took { items, wall: start.elapsed(), cpu: cpu::of_process().saturating_sub(before) }, result)
}

/// The functions of the programs again and again, under names of their own. One of them is `main`.
fn copied(copies: u32) -> String {
    let mut text = String::new();
    for (number, source) in (0..copies).flat_map(|_| SOURCES).enumerate() {
        let own: Vec<&str> = source.split("fn ").skip(1).filter_map(|rest| rest.split('(').next()).collect();
        let mut rest = source;
        while let Some(at) = rest.find(|c: char| c.is_alphanumeric() || c == '_') {
            let end = rest[at..]
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .map_or(rest.len(), |len| at + len);
            let word = &rest[at..end];
            text.push_str(&rest[..end]);
            if own.contains(&word) && rest[end..].starts_with('(') && !(number == 0 && word == "main") {
                text.push_str(&format!("_{number}"));
            }
            rest = &rest[end..];
        }
        text.push_str(rest);
    }
    text
}
