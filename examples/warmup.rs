//! A warm-up, to be looked at: runs a program again and again from cold, and draws what the engine did meanwhile as a web page
//! (`--report`), and as a trace for Perfetto or `chrome://tracing` (`--trace`).
//!
//! `cargo run --release --example warmup -- --help`

mod common;

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use beadwork::{Threshold, Tier, Trace};
use beadwork_arena::Arena;
use beadwork_cranelift::{CraneliftBackend, CraneliftError, OptLevel};
use clap::Parser;
use common::{Failure, exit, list, source, start_logging, warm_up, write_page};
use strand::report::Recorder;
use strand::tiering::{Linking, Tiered, cranelift};
use strand::{Program, on_vm_stack};

/// Runs a program again and again from cold, and shows how it warms up.
#[derive(Parser)]
struct Options {
    /// The program; life if not given
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Write a page with the warm-up curve, the tiers, the queue and the hottest functions
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write a recording of the lanes
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
    /// Arguments of the program's main, integers; for life 24 3 if none are given
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
    let default = ("life.strand", include_str!("programs/life.strand"));
    let (name, source) = source(options.program.as_deref(), default)?;
    let args = match (&options.program, &options.args[..]) {
        (None, []) => vec![24, 3],
        (_, given) => given.to_vec(),
    };
    let program = Arc::new(Program::parse(&name, &source)?);
    let mut recorder = Recorder::new();
    let trace = Trace::new();
    let arena = Arena::builder().build()?;
    let tiered = Tiered::new(&program, Linking::Slots, |builder, frontend| {
        let tier = |level, calls| {
            let backend = cranelift(CraneliftBackend::builder().opt_level(level).arena(arena.clone()));
            Ok::<_, CraneliftError>(Tier::new(backend.build(frontend.clone())?).policy(Threshold::new(calls)))
        };
        let builder = builder.workers(1).on_event(recorder.listener()).on_event(trace.listener());
        Ok(builder.tier(tier(OptLevel::None, 500)?.counts_itself(true)).tier(tier(OptLevel::Speed, 10_000)?))
    })?;
    warm_up(&program, &args, &tiered, Duration::from_secs(options.seconds), &mut recorder)?;
    let samples = recorder.samples();
    println!("{}, main({}): {} windows", name, list(&args), samples.len());
    println!("{}", tiered.engine().report());
    if let Some(path) = &options.report {
        let title = format!("Warm-up of {name}, main({})", list(&args));
        write_page(path, &title, &tiered, &recorder)?;
    }
    if let Some(path) = &options.trace {
        let file = File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
        trace.write(tiered.engine(), BufWriter::new(file))?;
        println!("trace: {}", path.display());
    }
    Ok(())
}
