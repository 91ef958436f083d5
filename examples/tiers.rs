//! Through the tiers: runs a program that starts in the interpreter, moves to code Cranelift made fast (`OptLevel::None`,
//! T1) and then to fast code Cranelift made (`OptLevel::Speed`, T2); prints what was promoted when and why, and what
//! each tier is worth.
//!
//! `cargo run --release --example tiers -- --help`
//!
//! Compiled code calls compiled code through its slot without asking the engine, so T1 code counts its calls and iterations
//! itself, and a function that is hot in T1 code alone gets to T2 as well. What that costs is a line of the last table;
//! `--no-counting` shows what it is good for.

mod common;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use beadwork::{Bead, Engine, EngineBuilder, Event, Manual, Reason, Threshold, Tier, TierId};
use beadwork_arena::Arena;
use beadwork_cranelift::{CraneliftBackend, CraneliftError, OptLevel};
use clap::Parser;
use common::{Failure, check, exit, list, median, source, start_logging};
use strand::tiering::{BytecodeFrontend, Linking, Tiered, cranelift};
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
    #[arg(long, value_name = "A,B", default_value = "500,10000", value_parser = parse_thresholds)]
    thresholds: [u32; 2],
    /// Have T1 code not count itself, so that only calls from the interpreter are seen
    #[arg(long)]
    no_counting: bool,
    /// Arguments of the program's main, integers; for life 64 2000 if none are given
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<i64>,
}

fn parse_thresholds(text: &str) -> Result<[u32; 2], String> {
    let number = |text: &str| text.trim().parse().map_err(|e| format!("`{text}`: {e}"));
    let (first, second) = text.split_once(',').ok_or("two numbers with a comma between them are needed")?;
    Ok([number(first)?, number(second)?])
}

#[derive(Clone, Copy)]
enum How {
    Interpreter,
    /// All functions compiled before the run.
    Precompiled(OptLevel),
    /// The same at T1, and the code counts itself for a T2 that never comes.
    Counting,
    /// Compiled in the background when they are hot, first for T1, then for T2.
    Tiered {
        counting: bool,
    },
}

const CONFIGURATIONS: [(&str, How); 5] = [
    ("interpreter only", How::Interpreter),
    ("T1 only, pre-compiled", How::Precompiled(OptLevel::None)),
    ("the same, counting", How::Counting),
    ("T2 only, pre-compiled", How::Precompiled(OptLevel::Speed)),
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
    let [first, second] = options.thresholds;
    println!("program     {name}, main({}) = {expected}, {} calls", list(&args), calls.iter().sum::<u64>());
    println!("tiers       T1: Cranelift, OptLevel::None, after {first} calls");
    println!(
        "            T2: Cranelift, OptLevel::Speed, after {second} calls; one worker compiles for both"
    );

    let mut runs: [Vec<Run>; CONFIGURATIONS.len()] = Default::default();
    for _ in 0..options.runs {
        for ((name, how), runs) in CONFIGURATIONS.iter().zip(&mut runs) {
            let how = match how {
                How::Tiered { .. } => How::Tiered { counting: !options.no_counting },
                other => *other,
            };
            let (value, run) = run(how, &program, &args, options.thresholds)?;
            check(name, value, expected)?;
            runs.push(run);
        }
    }
    for runs in &mut runs {
        runs.sort_by_key(|run| run.time);
    }
    let tiered = &runs[4][runs[4].len() / 2];
    timeline(tiered);
    endings(tiered, &calls, second);
    table(&runs);
    Ok(())
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
    thresholds: [u32; 2],
) -> Result<(Value, Run), Failure> {
    if let How::Interpreter = how {
        let mut vm = Vm::new(program, Limits::default(), InterpretAll)?;
        let start = Instant::now();
        let value = vm.run(args)?;
        return Ok((value, Run { time: start.elapsed(), ..Run::default() }));
    }
    let events = Arc::new(Mutex::new(Vec::new()));
    let tiered = connect(how, program, thresholds, events.clone())?;
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

/// An engine with the tiers of a configuration. They share one arena, and `events` gets what happens and when.
fn connect(
    how: How,
    program: &Arc<Program>,
    thresholds: [u32; 2],
    events: Arc<Mutex<Vec<(Instant, Event)>>>,
) -> Result<Tiered, Failure> {
    let arena = Arena::builder().build()?;
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, CraneliftError> {
        let tier = |level, calls| {
            let options = CraneliftBackend::builder().opt_level(level).arena(arena.clone());
            let backend = cranelift(options).build(frontend.clone())?;
            Ok::<_, CraneliftError>(Tier::new(backend).policy(Threshold::new(calls)))
        };
        let builder = match how {
            How::Precompiled(level) => builder.tier(tier(level, 1)?),
            How::Counting => {
                let second = tier(OptLevel::Speed, 1)?.policy(Manual);
                builder.tier(tier(OptLevel::None, 1)?.counts_itself(true)).tier(second)
            }
            How::Interpreter => builder,
            How::Tiered { counting } => {
                let first = tier(OptLevel::None, thresholds[0])?.counts_itself(counting);
                builder.tier(first).tier(tier(OptLevel::Speed, thresholds[1])?)
            }
        };
        let listen = move |event: &Event| {
            let now = Instant::now();
            events.lock().unwrap_or_else(PoisonError::into_inner).push((now, event.clone()));
        };
        Ok(builder.workers(1).on_event(listen))
    };
    Ok(Tiered::new(program, Linking::Slots, configure)?)
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

/// The function an event is about, and what happened to it.
fn describe(event: &Event) -> (Option<Bead>, String) {
    match event {
        Event::Queued { bead, tier, reason, calls } => {
            let why = match reason {
                Reason::Hot => format!("because it is hot after {calls} calls"),
                Reason::Asked => "because it was asked for".to_owned(),
                Reason::Now => "because somebody waits for it".to_owned(),
                Reason::Resumed => "because it was asked for while another compile went on".to_owned(),
                other => format!("because of {other:?}"),
            };
            (Some(*bead), format!("queued for {tier} {why}"))
        }
        Event::Installed { bead, tier, bytes, compile_time, .. } => {
            let took = compile_time.as_secs_f64() * 1e6;
            (Some(*bead), format!("installed at {tier}: {bytes} bytes, compiled in {took:.0} µs"))
        }
        Event::Failed { bead, tier, error, failures, retry_after } => {
            let text = format!("failed at {tier}, time {failures}: {error}; again after {retry_after} calls");
            (Some(*bead), text)
        }
        Event::GaveUp { bead, tier, error } => (Some(*bead), format!("given up for {tier}: {error}")),
        Event::Discarded { bead, tier } => (Some(*bead), format!("code for {tier} came too late: discarded")),
        Event::Cooled { bead, tier } => (Some(*bead), format!("cooled while it waited for {tier}: dropped")),
        Event::Invalidated { bead } => (Some(*bead), "its code was taken back".to_owned()),
        Event::Removed { bead } => (Some(*bead), "removed".to_owned()),
        other => (None, format!("{other:?}")),
    }
}

/// Where each function ended, and what the engine saw of its calls.
fn endings(run: &Run, calls: &[u64], second: u32) {
    println!("\n{:16} {:>4} {:>13} {:>13}", "function", "tier", "calls", "of them seen");
    let mut unseen = false;
    for (function, &calls) in run.functions.iter().zip(calls) {
        let Ended { name, tier, counted, .. } = function;
        let stays = tier.get() < 2 && calls >= second.into() && *counted < second;
        unseen |= stays;
        let mark = if stays { " *" } else { "" };
        println!("{name:16} {:>4} {calls:>13} {counted:>13}{mark}", tier.to_string());
    }
    println!("seen: calls as long as a higher tier was to be reached; each thread can lose a few to another");
    if unseen {
        println!("*: hot, but nearly all of its calls come from compiled code, which does not count them");
    }
}

fn table(runs: &[Vec<Run>; CONFIGURATIONS.len()]) {
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
    println!("counting makes T1 code take {:.3} times as long", seconds(&runs[2]) / seconds(&runs[1]));
    println!(
        "medians of {} runs; pre-compiled code is not compiled within its time, tiered code is",
        runs[0].len()
    );
    println!("every configuration answered the interpreter's result");
}
