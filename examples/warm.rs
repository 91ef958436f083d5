//! Warm starts: runs a program with many functions in processes of their own, and tells how long each took to get to its full speed:
//! cold, with the profile an earlier run saved, with the code it kept, and with both.
//!
//! `cargo run --release --example warm -- --help`
//!
//! The time runs from the start of the process (after the dynamic linker) to the end of the first window that reaches 95 % of the
//! throughput of the last ones. A window is as many runs of the
//! program's `main` as take two milliseconds.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use beadwork::{Archive, ArchiveStats, FileStore, SavedProfile, Threshold, Tier};
use beadwork_arena::Arena;
use beadwork_cranelift::{CraneliftBackend, CraneliftError, OptLevel};
use clap::Parser;
use common::{Failure, exit, median, progress, start_logging};
use strand::keys::Keys;
use strand::tiering::{Linking, Tiered, cranelift};
use strand::{Limits, Program, Value, Vm, on_vm_stack};

/// Starts a program cold, from a saved profile, from kept code, and from both, and compares the times to full speed.
#[derive(Parser)]
struct Options {
    /// Starts of each kind, interleaved; the table shows medians
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// Functions of the program
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    functions: u32,
    /// How long each process runs, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(50..=600_000))]
    time: u64,
    /// Where profile and code lie; a temporary directory if not given
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// What a process of its own does
    #[arg(long, hide = true)]
    start: Option<String>,
}

/// A kind of start: its name, whether it uses the profile, and whether it uses the code.
const STARTS: [(&str, bool, bool); 4] =
    [("cold", false, false), ("profile", true, false), ("artifacts", false, true), ("both", true, true)];

/// The start that leaves profile and code behind.
const FIRST: &str = "first";

fn main() -> ExitCode {
    let started = Instant::now();
    start_logging();
    let options = Options::parse();
    let result = match &options.start {
        // Native code needs the stack that the VM's depth limit was computed for.
        Some(start) => {
            on_vm_stack(|| one(&options, start, started)).unwrap_or_else(|failure| Err(failure.into()))
        }
        None => compare(&options),
    };
    exit(result)
}

/// Functions that differ, each some instructions of arithmetic in a loop, and a main that calls them all so many times.
fn source(functions: u32) -> String {
    let function = |i: u32| {
        let (a, b, c) = (3 + i % 7, 5 + i % 11, 1 + i % 13);
        format!(
            "fn f{i}(x: int, n: int) -> int {{\n\
             let sum = x + {i};\nlet k = 0;\n\
             while k < n {{\n\
             if (sum & 1) == 0 {{ sum = (sum >> 1) + k * {a}; }} else {{ sum = sum * {b} + {c}; }}\n\
             if (sum & {a}) < {c} {{ sum = sum ^ (k << {c}); }}\n\
             sum = sum & 1048575;\nk = k + 1;\n}}\n\
             return sum;\n}}\n"
        )
    };
    let calls: String =
        (0..functions).map(|i| format!("total = total + f{i}(total & 1023, 12);\n")).collect();
    let all: String = (0..functions).map(function).collect();
    format!(
        "{all}fn round(from: int) -> int {{\nlet total = from;\n{calls}return total & 1048575;\n}}\n\
         fn main(n: int) -> int {{\nlet total = 0;\nlet k = 0;\n\
         while k < n {{ total = round(total); k = k + 1; }}\nreturn total;\n}}\n"
    )
}

/// One start, in this process: prints the microseconds to full speed, the windows per second at the end, and what became of artifacts.
fn one(options: &Options, start: &str, started: Instant) -> Result<(), Failure> {
    let directory = options.directory.as_deref().ok_or("a start needs a directory")?;
    let program = Arc::new(Program::parse("warm", &source(options.functions))?);
    let first = start == FIRST;
    let (profile, artifacts) =
        STARTS.iter().find(|(name, ..)| *name == start).map_or((false, first), |known| (known.1, known.2));
    let archive = match artifacts {
        true => Some(Archive::new(FileStore::open(directory.join("code"))?)),
        false => None,
    };
    if let Some(archive) = &archive {
        archive.set_saving(first);
    }
    let tiered = Tiered::new(&program, Linking::Slots, |builder, frontend| {
        let arena = Arena::builder().build()?;
        let tier = |level, calls| {
            let options = cranelift(CraneliftBackend::builder()).opt_level(level).arena(arena.clone());
            let options = match &archive {
                Some(archive) => options.archive(archive.clone()),
                None => options,
            };
            Ok::<_, CraneliftError>(Tier::new(options.build(frontend.clone())?).policy(Threshold::new(calls)))
        };
        Ok::<_, CraneliftError>(
            builder
                .workers(1)
                .tier(tier(OptLevel::None, 1_000)?.counts_itself(true))
                .tier(tier(OptLevel::Speed, 10_000)?),
        )
    })?;
    let (path, tag) = (directory.join("profile"), Keys::of(&program).tag());
    if profile {
        let saved = SavedProfile::open(&path, tag)?;
        let recalled = tiered.engine().recall(&saved);
        if !recalled.refused.is_empty() {
            return Err(format!("functions were refused: {:?}", recalled.refused).into());
        }
    }
    // Writing each compile down takes time, and what is left behind is to be that of a program at full speed.
    let time = Duration::from_millis(options.time) * if first { 4 } else { 1 };
    let (windows, value) = measure(&tiered, &program, time, started)?;
    let rate = steady(&windows);
    let full = windows.iter().find(|window| window.rate >= 0.95 * rate).map_or(f64::NAN, |window| window.end);
    if first {
        tiered.engine().drain(Duration::from_secs(60))?;
        tiered.engine().remember(&SavedProfile::empty(tag)).save(&path)?;
    }
    let ArchiveStats { loaded, missing, saved, .. } =
        archive.as_ref().map(Archive::stats).unwrap_or_default();
    let refused = archive.as_ref().map_or(0, |archive| archive.stats().refused() + archive.stats().unsavable);
    println!("result {full} {rate} {loaded} {missing} {saved} {refused} {value}");
    Ok(())
}

struct Window {
    /// Runs of the program a second.
    rate: f64,
    /// Seconds from the start of the process to its end.
    end: f64,
}

/// How long a window is. Shorter ones reach any throughput by chance.
const WINDOW: Duration = Duration::from_millis(2);

/// Runs the program again and again. Each run answers the same.
fn measure(
    tiered: &Tiered,
    program: &Program,
    time: Duration,
    started: Instant,
) -> Result<(Vec<Window>, Value), Failure> {
    let mut vm = Vm::new(program, Limits::default(), tiered.hooks())?;
    let mut windows = Vec::new();
    let expected = vm.run(&[2])?;
    while started.elapsed() < time {
        let (window, mut runs) = (Instant::now(), 0u32);
        while window.elapsed() < WINDOW {
            let value = vm.run(&[2])?;
            if value != expected {
                return Err(format!("a run answered {value}, the first one {expected}").into());
            }
            runs += 1;
        }
        let rate = f64::from(runs) / window.elapsed().as_secs_f64();
        windows.push(Window { rate, end: started.elapsed().as_secs_f64() });
    }
    if windows.is_empty() {
        return Err("the time was over before the program ran".into());
    }
    Ok((windows, expected))
}

/// Runs a second at the end: the median of the last quarter of the windows.
fn steady(windows: &[Window]) -> f64 {
    median(&windows[windows.len() - windows.len().div_ceil(4)..], |window| window.rate)
}

/// What one start told.
struct Told {
    full: f64,
    rate: f64,
    counts: [u64; 4],
    value: String,
}

fn spawn(options: &Options, directory: &Path, start: &str) -> Result<Told, Failure> {
    let output = Command::new(std::env::current_exe()?)
        .args([
            "--start",
            start,
            "--functions",
            &options.functions.to_string(),
            "--time",
            &options.time.to_string(),
        ])
        .arg("--directory")
        .arg(directory)
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let words: Vec<_> = text.split_whitespace().collect();
    let ["result", full, rate, counts @ .., value] = words.as_slice() else {
        return Err(format!("the start `{start}` ended with {}", output.status).into());
    };
    let mut told =
        Told { full: full.parse()?, rate: rate.parse()?, counts: [0; 4], value: (*value).to_owned() };
    for (count, word) in told.counts.iter_mut().zip(counts) {
        *count = word.parse()?;
    }
    Ok(told)
}

fn compare(options: &Options) -> Result<(), Failure> {
    let own = std::env::temp_dir().join(format!("beadwork-warm-{}", std::process::id()));
    let directory = options.directory.as_deref().unwrap_or(&own);
    std::fs::create_dir_all(directory)?;
    let compared = compare_in(options, directory);
    if options.directory.is_none() {
        std::fs::remove_dir_all(&own)?;
    }
    compared
}

fn compare_in(options: &Options, directory: &Path) -> Result<(), Failure> {
    let first = spawn(options, directory, FIRST)?;
    println!("{} functions; the first run kept {} compiles", options.functions, first.counts[2]);
    let mut starts: [Vec<Told>; 4] = Default::default();
    let bar = progress(u64::from(options.runs) * STARTS.len() as u64);
    for _ in 0..options.runs {
        for ((name, ..), told) in STARTS.iter().zip(&mut starts) {
            let start = spawn(options, directory, name)?;
            if start.value != first.value || start.counts[3] != 0 {
                return Err(format!(
                    "`{name}` answered {}, and refused {} artifacts",
                    start.value, start.counts[3]
                )
                .into());
            }
            told.push(start);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    println!("\nstart       to full speed ms   min   max  sooner  runs/s at the end  loaded");
    let cold = median(&starts[0], |told| told.full);
    for ((name, ..), told) in STARTS.iter().zip(&starts) {
        let full = median(told, |told| told.full);
        let least = told.iter().map(|told| told.full).fold(f64::INFINITY, f64::min);
        let most = told.iter().map(|told| told.full).fold(0.0, f64::max);
        let (rate, loaded) = (median(told, |told| told.rate), median(told, |told| told.counts[0] as f64));
        println!(
            "{name:<11} {:>16.1} {:>5.0} {:>5.0} {:>6.1}x {rate:>21.0} {loaded:>7.0}",
            full * 1e3,
            least * 1e3,
            most * 1e3,
            cold / full
        );
    }
    Ok(())
}
