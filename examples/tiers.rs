//! Through the tiers: runs a program that starts in the interpreter, moves to code Cranelift made fast (`OptLevel::None`,
//! T1) and then to fast code Cranelift made (`OptLevel::Speed`, T2); prints what was promoted when and why, and what
//! each tier is worth.
//!
//! `cargo run --release --example tiers -- --help`
//!
//! With `--features llvm` there is a third tier: `cargo run --release --features llvm --example tiers` goes on to code LLVM
//! made (`-O3`, T3).
//!
//! Compiled code calls compiled code through its slot without asking the engine, so T1 code counts its calls and iterations
//! itself, and a function that is hot in T1 code alone gets to T2 as well. What that costs is a line of the last table;
//! `--no-counting` shows what it is good for.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use beadwork::{Bead, Engine, EngineBuilder, Event, Manual, Threshold, Tier, TierId};
use beadwork_arena::Arena;
use beadwork_cranelift::{CraneliftBackend, OptLevel};
use clap::Parser;
use common::events::describe;
use common::{Failure, check, exit, list, median, progress, source, start_logging, warm_up, write_page};
use strand::report::Recorder;
use strand::tiering::{BytecodeFrontend, ConnectError, Linking, Tiered, cranelift};
use strand::{Calls, Enter, FuncIndex, InterpretAll, Limits, Program, Value, Vm, on_vm_stack};

/// Runs a strand program through interpreter, baseline and optimizing tier, and tells what was promoted when and why.
#[derive(Parser)]
struct Options {
    /// The program; life if not given
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Runs of each configuration, interleaved; figures are medians, the timeline is of the median run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Calls at which a function is compiled for T1, and for T2
    /// (with LLVM, and for T3)
    #[arg(long, value_name = "A,B", default_value = DEFAULT_THRESHOLDS, value_parser = parse_thresholds)]
    thresholds: Thresholds,
    /// Have T1 code not count itself, so that only calls from the interpreter are seen
    #[arg(long)]
    no_counting: bool,
    /// Then run the program again and again from cold for two seconds, tiered, and write a page with the warm-up curve, the tiers, the
    /// queue and the hottest functions
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Arguments of the program's main, integers; for life 64 2000 if none are given, and 24 3 for the page
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<i64>,
}

/// The compilers of the tiers, in order.
#[derive(Clone, Copy)]
enum Compiler {
    Cranelift(OptLevel),
    #[cfg(feature = "_llvm")]
    Llvm,
}

const COMPILERS: &[(Compiler, &str)] = &[
    (Compiler::Cranelift(OptLevel::None), "Cranelift, OptLevel::None"),
    (Compiler::Cranelift(OptLevel::Speed), "Cranelift, OptLevel::Speed"),
    #[cfg(feature = "_llvm")]
    (Compiler::Llvm, "LLVM, O3"),
];

const TIERS: usize = COMPILERS.len();
const DEFAULT_THRESHOLDS: &str = if TIERS == 2 { "500,10000" } else { "500,2000,10000" };

type Thresholds = [u32; TIERS];

fn parse_thresholds(text: &str) -> Result<Thresholds, String> {
    let number = |text: &str| text.trim().parse().map_err(|e| format!("`{text}`: {e}"));
    let numbers = text.split(',').map(number).collect::<Result<Vec<u32>, _>>()?;
    numbers.try_into().map_err(|_| format!("{TIERS} numbers with commas between them are needed"))
}

#[derive(Clone, Copy)]
enum How {
    Interpreter,
    /// All functions compiled before the run.
    Precompiled(Compiler),
    /// The same at T1, and the code counts itself for a T2 that never comes.
    Counting,
    /// Run twice before as if tiered, so that what is hot is compiled by the last tier, with what lower tiers counted.
    #[cfg(feature = "_llvm")]
    Warm(Linking),
    /// Compiled in the background when they are hot, first for T1, then for the tiers above.
    Tiered {
        counting: bool,
    },
}

const CONFIGURATIONS: &[(&str, How)] = &[
    ("interpreter only", How::Interpreter),
    ("T1 only, pre-compiled", How::Precompiled(COMPILERS[0].0)),
    ("the same, counting", How::Counting),
    ("T2 only, pre-compiled", How::Precompiled(COMPILERS[1].0)),
    #[cfg(feature = "_llvm")]
    ("T3 only, pre-compiled", How::Precompiled(COMPILERS[2].0)),
    #[cfg(feature = "_llvm")]
    ("tiered, the third run", How::Warm(Linking::Slots)),
    #[cfg(feature = "_llvm")]
    ("the same, inlining", How::Warm(Linking::Inlined)),
    ("tiered", How::Tiered { counting: true }),
];

/// What one run showed.
#[derive(Default)]
struct Run {
    time: Duration,
    compile_time: Duration,
    code_bytes: usize,
    /// What happened how long after the start, in order.
    events: Vec<(Duration, Event)>,
    functions: Vec<Ended>,
}

/// How a function ended.
struct Ended {
    bead: Bead,
    name: String,
    tier: TierId,
    counted: u32,
}

fn main() -> ExitCode {
    start_logging();
    let options = Options::parse();
    // Native code needs the stack that the VM's depth limit was computed for.
    exit(on_vm_stack(|| show(&options)).unwrap_or_else(|failure| Err(failure.into())))
}

fn show(options: &Options) -> Result<(), Failure> {
    let default = ("life.strand", include_str!("programs/life.strand"));
    let (name, source) = source(options.program.as_deref(), default)?;
    let args = match (&options.program, &options.args[..]) {
        (None, []) => vec![64, 2000],
        (_, given) => given.to_vec(),
    };
    let program = Arc::new(Program::parse(&name, &source)?);
    let (expected, calls) = count_calls(&program, &args)?;
    println!("program     {name}, main({}) = {expected}, {} calls", list(&args), calls.iter().sum::<u64>());
    for ((number, (_, compiler)), after) in (1..).zip(COMPILERS).zip(options.thresholds) {
        let head = if number == 1 { "tiers       " } else { "            " };
        println!("{head}T{number}: {compiler}, after {after} calls");
    }
    println!("            one worker compiles for all");

    let mut runs: Vec<Vec<Run>> = CONFIGURATIONS.iter().map(|_| Vec::new()).collect();
    let bar = progress(u64::from(options.runs) * CONFIGURATIONS.len() as u64);
    for _ in 0..options.runs {
        for ((name, how), runs) in CONFIGURATIONS.iter().zip(&mut runs) {
            let how = match how {
                How::Tiered { .. } => How::Tiered { counting: !options.no_counting },
                other => *other,
            };
            let (value, run) = run(how, &program, &args, options.thresholds)?;
            check(name, value, expected)?;
            runs.push(run);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    for runs in &mut runs {
        runs.sort_by_key(|run| run.time);
    }
    if let Some(tiered) = runs.last().and_then(|runs| runs.get(runs.len() / 2)) {
        timeline(tiered);
        endings(tiered, &calls, options.thresholds[TIERS - 1]);
    }
    table(&runs);
    options.report.as_deref().map_or(Ok(()), |path| page(path, options, &name, &program, &args))
}

/// Draws a warm-up through all tiers.
fn page(
    path: &Path,
    options: &Options,
    name: &str,
    program: &Arc<Program>,
    args: &[i64],
) -> Result<(), Failure> {
    // A run is a point of the curve.
    let short = options.program.is_none() && options.args.is_empty();
    let args = if short { &[24, 3] } else { args };
    let mut recorder = Recorder::new();
    let how = How::Tiered { counting: !options.no_counting };
    let tiered = connect(how, program, options.thresholds, recorder.listener())?;
    warm_up(program, args, &tiered, Duration::from_secs(2), &mut recorder)?;
    write_page(path, &format!("Warm-up of {name}, main({}), {TIERS} tiers", list(args)), &tiered, &recorder)
}

/// Interprets everything and counts the calls of each function.
fn count_calls(program: &Program, args: &[i64]) -> Result<(Value, Vec<u64>), Failure> {
    struct Counting(Vec<u64>);
    impl Calls for Counting {
        fn enter(&mut self, callee: FuncIndex) -> Enter {
            self.0[callee.index()] += 1;
            Enter::Interpret
        }
    }
    let mut vm = Vm::new(program, Limits::default(), Counting(vec![0; program.functions().len()]))?;
    let value = vm.run(args)?;
    Ok((value, vm.calls().0.clone()))
}

fn run(
    how: How,
    program: &Arc<Program>,
    args: &[i64],
    thresholds: Thresholds,
) -> Result<(Value, Run), Failure> {
    if let How::Interpreter = how {
        let mut vm = Vm::new(program, Limits::default(), InterpretAll)?;
        let start = Instant::now();
        let value = vm.run(args)?;
        return Ok((value, Run { time: start.elapsed(), ..Run::default() }));
    }
    let events = Arc::new(Mutex::new(Vec::<(Instant, Event)>::new()));
    let heard = events.clone();
    let listen = move |event: &Event| {
        let now = Instant::now();
        heard.lock().unwrap_or_else(PoisonError::into_inner).push((now, event.clone()));
    };
    let tiered = connect(how, program, thresholds, listen)?;
    let engine = tiered.engine();
    if let How::Precompiled(_) | How::Counting = how {
        for &bead in tiered.beads() {
            engine.promote(bead, TierId::BASELINE)?;
        }
        engine.drain(Duration::from_secs(60))?;
        let failed = engine.stats().failed;
        if failed > 0 {
            let advice = "RUST_LOG=beadwork=warn says why";
            return Err(format!("{failed} functions could not be compiled; {advice}").into());
        }
    }
    let mut vm = Vm::new(program, Limits::default(), tiered.hooks())?;
    #[cfg(feature = "_llvm")]
    if let How::Warm(_) = how {
        for _ in 0..2 {
            vm.run(args)?;
            engine.drain(Duration::from_secs(60))?;
        }
    }
    let start = Instant::now();
    let value = vm.run(args)?;
    let time = start.elapsed();
    drop(vm);
    // What was asked for near the end belongs to the timeline.
    engine.drain(Duration::from_secs(60))?;
    let events = std::mem::take(&mut *events.lock().unwrap_or_else(PoisonError::into_inner));
    let events: Vec<_> = events.into_iter().map(|(at, e)| (at.saturating_duration_since(start), e)).collect();
    let code_bytes = events.iter().map(|(_, event)| bytes_of(event)).sum();
    let functions = endings_of(engine, program, tiered.beads())?;
    Ok((value, Run { time, compile_time: engine.stats().compile_time, code_bytes, events, functions }))
}

/// An engine with the tiers of a configuration. They share one arena, and `listen` hears what happens.
fn connect(
    how: How,
    program: &Arc<Program>,
    thresholds: Thresholds,
    listen: impl Fn(&Event) + Send + Sync + 'static,
) -> Result<Tiered, Failure> {
    let arena = Arena::builder().build()?;
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, ConnectError> {
        let tier = |compiler, calls| {
            let tier = match compiler {
                Compiler::Cranelift(level) => {
                    let options = CraneliftBackend::builder().opt_level(level).arena(arena.clone());
                    Tier::new(cranelift(options).build(frontend.clone())?)
                }
                #[cfg(feature = "_llvm")]
                Compiler::Llvm => {
                    let options = beadwork_llvm::LlvmBackend::builder().arena(arena.clone());
                    Tier::new(strand::llvm::llvm(options).build(frontend.clone())?)
                }
            };
            Ok::<_, ConnectError>(tier.policy(Threshold::new(calls)))
        };
        let mut builder = builder;
        match how {
            How::Precompiled(compiler) => builder = builder.tier(tier(compiler, 1)?),
            How::Counting => {
                let second = tier(COMPILERS[1].0, 1)?.policy(Manual);
                builder = builder.tier(tier(COMPILERS[0].0, 1)?.counts_itself(true)).tier(second);
            }
            How::Interpreter => (),
            _ => {
                let counting = !matches!(how, How::Tiered { counting: false });
                for (position, (&(compiler, _), calls)) in COMPILERS.iter().zip(thresholds).enumerate() {
                    builder = builder.tier(tier(compiler, calls)?.counts_itself(counting && position == 0));
                }
            }
        }
        Ok(builder.workers(1).on_event(listen))
    };
    let linking = match how {
        #[cfg(feature = "_llvm")]
        How::Warm(linking) => linking,
        _ => Linking::Slots,
    };
    Ok(Tiered::with(program, linking, configure)?)
}

fn endings_of(engine: &Engine, program: &Program, beads: &[Bead]) -> Result<Vec<Ended>, Failure> {
    let ending = |(&bead, function): (&Bead, &strand::Function)| {
        // The engine's name, as a listener would ask for it; the program's serves only if it has none.
        let name = engine.name(bead).map_or_else(|| function.signature.name.clone(), |name| name.to_string());
        Ok(Ended { bead, name, tier: engine.tier(bead)?, counted: engine.invocations(bead)? })
    };
    beads.iter().zip(program.functions()).map(ending).collect()
}

fn bytes_of(event: &Event) -> usize {
    if let Event::Installed { bytes, .. } = event { *bytes } else { 0 }
}

/// What happened in a run, in the order of time.
fn timeline(run: &Run) {
    let names: HashMap<Bead, &str> = run.functions.iter().map(|f| (f.bead, &f.name[..])).collect();
    let mut events = Vec::new();
    for (at, event) in &run.events {
        let (bead, what) = describe(event);
        let name = bead.and_then(|bead| names.get(&bead).copied()).unwrap_or("-");
        events.push((*at, name, what + remark(run, event)));
    }
    events.push((run.time, "-", "the run ends".to_owned()));
    // Listeners run after the fact, each on its thread, so two of them can note their times the other way round. The
    // sort is stable: what one thread did stays in order.
    events.sort_by_key(|(at, ..)| *at);
    println!("\n{:>10}  {:16} what happened", "time ms", "function");
    for (at, name, what) in events {
        println!("{:>10.3}  {name:16} {what}", at.as_secs_f64() * 1e3);
    }
}

/// What an event means in the light of the whole run. It does not look at the order of events, which two threads can
/// note the other way round.
fn remark(run: &Run, event: &Event) -> &'static str {
    let queued = |of: Bead, at: TierId| {
        let this = |e: &Event| matches!(e, Event::Queued { bead, tier, .. } if (*bead, *tier) == (of, at));
        run.events.iter().any(|(_, event)| this(event))
    };
    let installed = |of: Bead, at: TierId| {
        let this = |e: &Event| matches!(e, Event::Installed { bead, tier, .. } if (*bead, *tier) == (of, at));
        run.events.iter().any(|(_, event)| this(event))
    };
    match event {
        Event::Queued { bead, tier, .. } if tier.get() == 2 => {
            let below = TierId::BASELINE;
            if queued(*bead, below) && !installed(*bead, below) { ", T1 never came" } else { "" }
        }
        // The engine notes what is asked for during a compile, and has no event for it.
        Event::Installed { bead, tier, .. } if !queued(*bead, *tier) => ", asked for during another compile",
        _ => "",
    }
}

/// Where each function ended, and what the engine saw of its calls.
fn endings(run: &Run, calls: &[u64], last: u32) {
    println!("\n{:16} {:>4} {:>13} {:>13}", "function", "tier", "calls", "of them seen");
    let mut unseen = false;
    for (function, &calls) in run.functions.iter().zip(calls) {
        let Ended { name, tier, counted, .. } = function;
        let stays = usize::from(tier.get()) < TIERS && calls >= last.into() && *counted < last;
        unseen |= stays;
        let mark = if stays { " *" } else { "" };
        println!("{name:16} {:>4} {calls:>13} {counted:>13}{mark}", tier.to_string());
    }
    println!("seen: calls as long as a higher tier was to be reached; each thread can lose a few to another");
    if unseen {
        println!("*: hot, but nearly all of its calls come from compiled code, which does not count them");
    }
}

fn table(runs: &[Vec<Run>]) {
    let seconds = |runs: &[Run]| median(runs, |run| run.time.as_secs_f64());
    let interpreter = seconds(&runs[0]);
    println!("\n{:22} {:>9} {:>9} {:>11} {:>10}", "", "time ms", "x interp", "compile µs", "code bytes");
    for ((name, _), runs) in CONFIGURATIONS.iter().zip(runs) {
        println!(
            "{name:22} {:>9.2} {:>9.2} {:>11.0} {:>10.0}",
            seconds(runs) * 1e3,
            interpreter / seconds(runs),
            median(runs, |run| run.compile_time.as_secs_f64() * 1e6),
            median(runs, |run| run.code_bytes as f64),
        );
    }
    #[cfg(feature = "_llvm")]
    println!(
        "inlining hot callees makes T3 code take {:.3} times as long",
        seconds(&runs[6]) / seconds(&runs[5])
    );
    println!("counting makes T1 code take {:.3} times as long", seconds(&runs[2]) / seconds(&runs[1]));
    println!(
        "medians of {} runs; pre-compiled code is not compiled within its time, tiered code is",
        runs[0].len()
    );
    println!("every configuration answered the interpreter's result");
}
