//! From source text to native code: parses a program, runs it in the interpreter and in every way an engine can be
//! asked to promote it, checks the results, and prints a table.
//!
//! `cargo run --release --example fib -- --help`

mod common;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use beadwork::{EngineBuilder, Event, Threshold, Tier, TierId};
use beadwork_cranelift::{CraneliftBackend, CraneliftError, OptLevel};
use clap::Parser;
use common::{Failure, check, exit, list, median, progress, source, start_logging};
use strand::tiering::{BytecodeFrontend, Linking, Tiered, cranelift};
use strand::{Calls, Enter, FuncIndex, InterpretAll, Limits, Program, Value, Vm, on_vm_stack};

/// Runs a strand program interpreted, tiered and pre-compiled, and compares.
#[derive(Parser)]
struct Options {
    /// The program; fib if not given
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Runs of each configuration, interleaved; the table shows medians
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Calls at which a function is compiled
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    threshold: u32,
    /// Arguments of the program's main, integers; for fib 37 if none are given
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<i64>,
}

/// One way to run the program.
struct Configuration {
    name: String,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    Interpreter,
    /// Compiled in the background when it is hot; asked for that many calls before the threshold.
    Tiered {
        ahead: u32,
    },
    /// All functions asked for together before the run, compiled in the background as one batch.
    Batched,
    /// All functions compiled before the run.
    Precompiled(Linking),
}

/// What one run showed.
struct Run {
    time: Duration,
    first_native: Option<Duration>,
    dispatched: u64,
    compile_time: Duration,
    code_bytes: u64,
}

fn main() -> ExitCode {
    start_logging();
    let options = Options::parse();
    // Native code needs the stack that the VM's depth limit was computed for.
    exit(on_vm_stack(|| show(&options)).unwrap_or_else(|failure| Err(failure.into())))
}

fn show(options: &Options) -> Result<(), Failure> {
    let default = ("fib.strand", include_str!("programs/fib.strand"));
    let (name, source) = source(options.program.as_deref(), default)?;
    let args = match (&options.program, &options.args[..]) {
        (None, []) => vec![37],
        (_, given) => given.to_vec(),
    };

    let start = Instant::now();
    let program = Arc::new(Program::parse(&name, &source)?);
    println!("parse and lower  {name}: {} functions in {:?}", program.functions().len(), start.elapsed());

    let start = Instant::now();
    let (expected, calls) = count_calls(&program, &args)?;
    println!("count            main({}) = {expected}, {calls} calls, in {:?}", list(&args), start.elapsed());
    println!("run              {} interleaved runs of each configuration, medians\n", options.runs);

    let ahead = |percent: u32| (u64::from(options.threshold) * u64::from(percent) / 100) as u32;
    let configuration = |name: &str, how| Configuration { name: name.to_owned(), how };
    let configurations = [
        configuration("interpreter, no engine", How::Interpreter),
        configuration("tiered", How::Tiered { ahead: 0 }),
        configuration("tiered, queued 50 % ahead", How::Tiered { ahead: ahead(50) }),
        configuration("tiered, queued 99 % ahead", How::Tiered { ahead: ahead(99) }),
        configuration("batched at start", How::Batched),
        configuration("pre-compiled", How::Precompiled(Linking::Slots)),
        configuration("pre-compiled, every call asks", How::Precompiled(Linking::Dispatch)),
    ];
    let mut runs: Vec<Vec<Run>> = configurations.iter().map(|_| Vec::new()).collect();
    let bar = progress(u64::from(options.runs) * configurations.len() as u64);
    for _ in 0..options.runs {
        for (configuration, runs) in configurations.iter().zip(&mut runs) {
            runs.push(run(configuration, &program, &args, expected, options.threshold)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    table(&configurations, &mut runs, calls);
    Ok(())
}

/// Interprets everything and counts the calls.
fn count_calls(program: &Program, args: &[i64]) -> Result<(Value, u64), Failure> {
    struct Counting(u64);
    impl Calls for Counting {
        fn enter(&mut self, _: FuncIndex) -> Enter {
            self.0 += 1;
            Enter::Interpret
        }
    }
    let mut vm = Vm::new(program, Limits::default(), Counting(0))?;
    let value = vm.run(args)?;
    Ok((value, vm.calls().0))
}

fn run(
    configuration: &Configuration,
    program: &Arc<Program>,
    args: &[i64],
    expected: Value,
    threshold: u32,
) -> Result<Run, Failure> {
    let (value, run) = match configuration.how {
        How::Interpreter => {
            let mut vm = Vm::new(program, Limits::default(), InterpretAll)?;
            let start = Instant::now();
            let value = vm.run(args)?;
            let time = start.elapsed();
            (
                value,
                Run { time, first_native: None, dispatched: 0, compile_time: Duration::ZERO, code_bytes: 0 },
            )
        }
        how => with_engine(how, program, args, threshold)?,
    };
    check(&configuration.name, value, expected)?;
    Ok(run)
}

fn with_engine(
    how: How,
    program: &Arc<Program>,
    args: &[i64],
    threshold: u32,
) -> Result<(Value, Run), Failure> {
    let ahead = if let How::Tiered { ahead } = how { ahead } else { 0 };
    let linking = if let How::Precompiled(linking) = how { linking } else { Linking::Slots };
    let code_bytes = Arc::new(AtomicU64::new(0));
    let installed = code_bytes.clone();
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, CraneliftError> {
        let backend = cranelift(CraneliftBackend::builder().opt_level(OptLevel::Speed)).build(frontend)?;
        let policy = Threshold::new(threshold).queue_ahead(ahead);
        let listen = move |event: &Event| {
            if let Event::Installed { bytes, .. } = event {
                installed.fetch_add(*bytes as u64, Relaxed);
            }
        };
        Ok(builder.tier(Tier::new(backend).policy(policy)).workers(1).on_event(listen))
    };
    let tiered = Tiered::new(program, linking, configure)?;
    let engine = tiered.engine();
    let mut vm = Vm::new(program, Limits::default(), tiered.hooks())?;
    let mut start = Instant::now();
    if matches!(how, How::Batched | How::Precompiled(_)) {
        for &bead in tiered.beads() {
            engine.promote(bead, TierId::BASELINE)?;
        }
    }
    if matches!(how, How::Precompiled(_)) {
        engine.drain(Duration::from_secs(60))?;
        let failed = engine.stats().failed;
        if failed > 0 {
            return Err(
                format!("{failed} functions could not be compiled; RUST_LOG=beadwork=warn says why").into()
            );
        }
        start = Instant::now();
    }
    let value = vm.run(args)?;
    let time = start.elapsed();
    let hooks = vm.calls();
    let first_native = hooks.first_native().map(|at| at.saturating_duration_since(start));
    let dispatched = hooks.dispatched();
    drop(vm);
    let compile_time = engine.stats().compile_time;
    Ok((value, Run { time, first_native, dispatched, compile_time, code_bytes: code_bytes.load(Relaxed) }))
}

fn table(configurations: &[Configuration], runs: &mut [Vec<Run>], calls: u64) {
    let seconds = |runs: &[Run]| median(runs, |run| run.time.as_secs_f64());
    let interpreter = seconds(&runs[0]);
    println!(
        "{:30} {:>9} {:>7} {:>10} {:>8} {:>10} {:>11} {:>9} {:>7}",
        "", "time ms", "± %", "M calls/s", "x interp", "dispatched", "first nat.", "compile", "code"
    );
    for (configuration, runs) in configurations.iter().zip(runs.iter_mut()) {
        runs.sort_by_key(|run| run.time);
        let time = seconds(runs);
        // Half the distance between the quartiles.
        let (low, high) = (runs[runs.len() / 4].time, runs[runs.len() * 3 / 4].time);
        let spread = (high - low).as_secs_f64() / 2.0 / time * 100.0;
        let first = runs.iter().any(|run| run.first_native.is_some()).then(|| {
            median(runs, |run| run.first_native.map_or(f64::INFINITY, |first| first.as_secs_f64() * 1e6))
        });
        println!(
            "{:30} {:>9.2} {:>7.1} {:>10.1} {:>8.2} {:>10} {:>11} {:>9} {:>7}",
            configuration.name,
            time * 1e3,
            spread,
            calls as f64 / time / 1e6,
            interpreter / time,
            median(runs, |run| run.dispatched as f64),
            first.map_or_else(String::new, |us| format!("{us:.0} µs")),
            format!("{:.0} µs", median(runs, |run| run.compile_time.as_secs_f64() * 1e6)),
            median(runs, |run| run.code_bytes as f64),
        );
    }
    let precompiled = seconds(&runs[5]);
    let tiered = seconds(&runs[1]);
    let warm_up = median(&runs[1], |run| run.first_native.map_or(f64::INFINITY, |first| first.as_secs_f64()));
    println!(
        "\ntiered takes {:.1} % more than pre-compiled; the run is {:.0} times as long as the warm-up",
        (tiered / precompiled - 1.0) * 100.0,
        tiered / warm_up
    );
    let asking = median(&runs[6], |run| run.dispatched as f64 / run.time.as_secs_f64());
    println!(
        "calls through the engine {:.0} M/s, native calls through a slot {:.0} M/s, interpreted {:.0} M/s",
        asking / 1e6,
        calls as f64 / precompiled / 1e6,
        calls as f64 / interpreter / 1e6
    );
    println!("every configuration answered the interpreter's result");
}
