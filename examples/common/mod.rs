//! What the examples share: logs, exit codes, programs, figures.
#![allow(dead_code, reason = "each example uses a part")]

pub(crate) mod cpu;
pub(crate) mod events;

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use strand::report::Recorder;
use strand::tiering::Tiered;
use strand::{Limits, Program, Value, Vm};

/// How far a long run is, of so many steps. A terminal sees it, on standard error; a pipe does not.
pub(crate) fn progress(steps: u64) -> ProgressBar {
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// What ends an example early; shown to the user.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Writes logs to standard error as `RUST_LOG` says, so that standard output is the example's result alone.
pub(crate) fn start_logging() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
}

/// The process's answer; a failure is shown on standard error.
pub(crate) fn exit<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// The name and text of the program to run: `file`, or else the `default`.
pub(crate) fn source(file: Option<&Path>, (name, text): (&str, &str)) -> Result<(String, String), Failure> {
    let Some(file) = file else { return Ok((name.to_owned(), text.to_owned())) };
    let name = file.display().to_string();
    match std::fs::read_to_string(file) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(format!("{name}: {error}").into()),
    }
}

/// Arguments of a main, as in source text.
pub(crate) fn list(args: &[i64]) -> String {
    args.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// Checks a result of the program.
///
/// # Errors
/// A message that names `configuration`, if the values differ. Floats have to be the same to the last bit.
pub(crate) fn check(configuration: &str, value: Value, interpreted: Value) -> Result<(), Failure> {
    let same = match (value, interpreted) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    };
    if same {
        return Ok(());
    }
    Err(format!("{configuration}: main answered {value}, the interpreter {interpreted}").into())
}

/// Into how many parts the time of a warm-up is cut, at the most, each of which is a point of the curves.
const WINDOWS: u32 = 400;

/// Runs a program again and again for so long, and has it recorded. A terminal sees how far it is; a pipe does not.
pub(crate) fn warm_up(
    program: &Program,
    args: &[i64],
    tiered: &Tiered,
    whole: Duration,
    recorder: &mut Recorder,
) -> Result<(), Failure> {
    let bar = progress(1_000);
    let mut vm = Vm::new(program, Limits::default(), tiered.hooks())?;
    let start = Instant::now();
    let mut expected = None;
    while start.elapsed() < whole {
        // A look at the engine costs as much as many short runs.
        let (before, mut runs) = (Instant::now(), 0);
        while runs == 0 || before.elapsed() < whole / WINDOWS {
            let value = vm.run(args)?;
            check("a later run", value, *expected.get_or_insert(value))?;
            runs += 1;
        }
        recorder.sample(tiered.engine(), before.elapsed() / runs);
        bar.set_position((1_000.0 * start.elapsed().as_secs_f64() / whole.as_secs_f64()) as u64);
        bar.set_message(format!("{runs} runs a window"));
    }
    bar.finish_and_clear();
    Ok(())
}

/// Writes what was recorded as a page.
pub(crate) fn write_page(
    path: &Path,
    title: &str,
    tiered: &Tiered,
    recorder: &Recorder,
) -> Result<(), Failure> {
    std::fs::write(path, recorder.page(title, tiered.engine()))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    println!("page: {}", path.display());
    Ok(())
}

/// The middle one, the upper of two; `items` is not empty.
pub(crate) fn median<T>(items: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut all: Vec<f64> = items.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
