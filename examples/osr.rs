//! A program that is one long loop nest: interpreted, compiled while it runs (the loop goes on natively in the middle), and
//! compiled beforehand; checks the results, times everything, and prints how the transfer went.
//!
//! `cargo run --release --example osr -- --help`

mod common;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use beadwork::{EngineBuilder, Event, Tier, TierId};
use beadwork_cranelift::{CraneliftBackend, CraneliftError, OptLevel};
use clap::Parser;
use common::{Failure, check, exit, list, median, progress, source, start_logging};
use strand::tiering::{BytecodeFrontend, Linking, Tiered, cranelift};
use strand::{InterpretAll, Limits, Program, Value, Vm, on_vm_stack};

/// Times a loop nest interpreted, replaced on the stack, and pre-compiled.
#[derive(Parser)]
struct Options {
    /// The program; a nest of three loops if not given
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Runs of each configuration but the interpreter, which takes long and is timed once; the table shows medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// Arguments of the program's main, integers; about a second of native code if none are given
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<i64>,
}

/// What one run with an engine showed.
struct Run {
    time: Duration,
    transfer: Option<Transfer>,
}

/// How a running loop went native, from the engine's events.
#[derive(Clone, Copy)]
struct Transfer {
    /// From the start of the run to the request.
    interpreted: Duration,
    queue_wait: Duration,
    compile: Duration,
    /// From the request to the first back edge that was answered with native code.
    request_to_native: Duration,
}

fn main() -> ExitCode {
    start_logging();
    let options = Options::parse();
    // Native code needs the stack that the VM's depth limit was computed for.
    exit(on_vm_stack(|| show(&options)).unwrap_or_else(|failure| Err(failure.into())))
}

fn show(options: &Options) -> Result<(), Failure> {
    let default = ("nest.strand", include_str!("programs/nest.strand"));
    let (name, source) = source(options.program.as_deref(), default)?;
    let args = match (&options.program, &options.args[..]) {
        (None, []) => vec![1720],
        (_, given) => given.to_vec(),
    };
    let program = Arc::new(Program::parse(&name, &source)?);
    println!("{name}: main({}), medians of {} runs", list(&args), options.runs);

    let (expected, interpreted) = interpret(&program, &args)?;
    let (mut osr, mut precompiled) = (Vec::new(), Vec::new());
    let bar = progress(2 * u64::from(options.runs));
    for _ in 0..options.runs {
        for (name, before, runs) in [("OSR", false, &mut osr), ("pre-compiled", true, &mut precompiled)] {
            let (value, run) = with_engine(&program, &args, before)?;
            check(name, value, expected)?;
            runs.push(run);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    report(interpreted, &osr, &precompiled)
}

fn interpret(program: &Program, args: &[i64]) -> Result<(Value, Duration), Failure> {
    let mut vm = Vm::new(program, Limits::default(), InterpretAll)?;
    let start = Instant::now();
    let value = vm.run(args)?;
    Ok((value, start.elapsed()))
}

/// When a compile was asked for, and when its code was there, after what time in the compiler.
#[derive(Default)]
struct Trace {
    queued: Option<Instant>,
    installed: Option<(Instant, Duration)>,
}

fn with_engine(program: &Arc<Program>, args: &[i64], compile_before: bool) -> Result<(Value, Run), Failure> {
    let trace = Arc::new(Mutex::new(Trace::default()));
    let seen = trace.clone();
    let listen = move |event: &Event| {
        let now = Instant::now();
        let Ok(mut trace) = seen.lock() else { return };
        match event {
            Event::Queued { .. } if trace.queued.is_none() => trace.queued = Some(now),
            Event::Installed { compile_time, .. } if trace.installed.is_none() => {
                trace.installed = Some((now, *compile_time));
            }
            _ => {}
        }
    };
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, CraneliftError> {
        let backend = cranelift(CraneliftBackend::builder().opt_level(OptLevel::Speed)).build(frontend)?;
        Ok(builder.tier(Tier::new(backend)).workers(1).on_event(listen))
    };
    let tiered = Tiered::new(program, Linking::Slots, configure)?;
    let engine = tiered.engine();
    if compile_before {
        for &bead in tiered.beads() {
            engine.promote(bead, TierId::BASELINE)?;
        }
        engine.drain(Duration::from_secs(60))?;
    }
    let mut vm = Vm::new(program, Limits::default(), tiered.hooks())?;
    let start = Instant::now();
    let value = vm.run(args)?;
    let time = start.elapsed();
    let trace = trace.lock().map_err(|_| "a listener panicked")?;
    let transfer = match (trace.queued, trace.installed, vm.calls().first_loop()) {
        (Some(queued), Some((installed, compile)), Some(native)) => Some(Transfer {
            interpreted: queued.saturating_duration_since(start),
            queue_wait: installed.saturating_duration_since(queued).saturating_sub(compile),
            compile,
            request_to_native: native.saturating_duration_since(queued),
        }),
        _ => None,
    };
    Ok((value, Run { time, transfer }))
}

fn report(interpreted: Duration, osr: &[Run], precompiled: &[Run]) -> Result<(), Failure> {
    let milliseconds = |runs: &[Run]| median(runs, |run| run.time.as_secs_f64() * 1e3);
    let interpreter = interpreted.as_secs_f64() * 1e3;
    let (replaced, native) = (milliseconds(osr), milliseconds(precompiled));
    println!("\n{:34} {:>10} {:>10}", "", "time ms", "x interp");
    for (name, time) in [
        ("interpreter, no engine", interpreter),
        ("interpreted, then OSR", replaced),
        ("pre-compiled", native),
    ] {
        println!("{name:34} {time:>10.2} {:>10.2}", interpreter / time);
    }

    let transfers: Vec<Transfer> = osr.iter().filter_map(|run| run.transfer).collect();
    if transfers.len() < osr.len() {
        return Err(format!(
            "only {} of {} runs went native inside a loop; is the program too short?",
            transfers.len(),
            osr.len()
        )
        .into());
    }
    let middle = |of: fn(&Transfer) -> Duration| median(&transfers, |t| of(t).as_secs_f64() * 1e6);
    println!("\nfrom the engine's events, medians:");
    for (name, of) in [
        ("start to request", (|t| t.interpreted) as fn(&Transfer) -> Duration),
        ("queue wait", |t| t.queue_wait),
        ("compile", |t| t.compile),
        ("request to first native back edge", |t| t.request_to_native),
    ] {
        println!("{name:34} {:>10.0} µs", middle(of));
    }
    let ratio = median(&transfers, |t| {
        t.request_to_native.as_secs_f64() / (t.queue_wait + t.compile).as_secs_f64().max(1e-9)
    });
    println!("\nthe first native back edge comes {ratio:.2} times (queue wait + compile) after the request");
    println!("OSR: {:+.1} % against the pre-compiled time", (replaced / native - 1.0) * 100.0);
    println!("every configuration answered the interpreter's result");
    Ok(())
}
