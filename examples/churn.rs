//! Functions come and go by the million while another thread dispatches: what that costs, and what the dispatching
//! thread feels of it.
//!
//! `cargo run --release --example churn -- --help`
//!
//! # What is measured
//! A *pass* registers all functions, removes every second one, checks that all old handles are stale, registers as
//! many again (every 16th of them with code), and checks again. Beside it a second thread goes round and notes the
//! longest time between two of its steps. Each run has three passes with the same work:
//! * **dispatcher**: a step is a dispatch, mostly of a thousand live functions with code, every 8th of one of the
//!   functions that come and go, live or stale; and a safepoint every 64 steps;
//! * **touching**: a step is a load from memory of its own, spread in the same way, and every 8th a store as well. That
//!   memory was not touched before, as are the counters of a function that is dispatched for the first time, so the worst
//!   gap is what the machine does to a thread that uses new memory;
//! * **idle**: only loads, and from memory that was touched before. The worst gap is what the machine does to any thread:
//!   interrupts, other processes, the cost of reading the clock.
//!
//! They are never there at once, so that at most two threads are busy and a machine with two cores measures the engine
//! and not its scheduler. The order turns from run to run. A gap in which the kernel took the processor away from the
//! thread (`ru_nivcsw`) belongs to another process; the worst gap without those is shown as well, and so is how often
//! the thread waited for anything (`ru_nvcsw`: a lock, say) and faulted on a page.
#![allow(unsafe_code, reason = "asks the kernel about this thread")]

mod common;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use beadwork::{Bead, CompiledCode, Core, Engine, Mutator, TierId};
use clap::Parser;
use common::{Failure, progress};

/// Registers, removes and re-registers very many functions while another thread dispatches.
#[derive(Parser)]
struct Options {
    /// Functions
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(2..=100_000_000))]
    functions: u32,
    /// Runs, each with a pass beside a dispatcher and one beside each control thread
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
}

/// Functions that stay, all with code.
const STEADY: usize = 1024;

/// A gap from here on is looked at more closely.
const SUSPICIOUS: Duration = Duration::from_micros(5);

/// An address that is never called, and different for each core.
fn code_of(core: usize) -> *const u8 {
    std::ptr::without_provenance((core + 1) * 16)
}

/// What the thread beside the work found.
#[derive(Default)]
struct Beside {
    steps: u64,
    worst: Duration,
    /// The worst gap in which the kernel did not take the processor away.
    undisturbed: Duration,
    waits: i64,
    faults: i64,
    wrong: u64,
}

/// How often this thread lost its processor, gave it away, and faulted on a page; zeroes where the system does not tell.
fn kernel_counts() -> (i64, i64, i64) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: all-zero bytes are a valid `rusage`, and the call fills the place it is given.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
            usage
        };
        (usage.ru_nivcsw, usage.ru_nvcsw, usage.ru_minflt)
    }
    #[cfg(not(target_os = "linux"))]
    (0, 0, 0)
}

/// Steps until told to stop, and measures.
fn go_round(stop: &AtomicBool, mut step: impl FnMut(u64) -> bool) -> Beside {
    let mut found = Beside::default();
    let start = kernel_counts();
    let (mut lost, mut last) = (start.0, Instant::now());
    while !stop.load(Relaxed) {
        found.wrong += u64::from(!step(found.steps));
        found.steps += 1;
        let now = Instant::now();
        let gap = now - last;
        last = now;
        if gap > SUSPICIOUS {
            found.worst = found.worst.max(gap);
            let lost_now = kernel_counts().0;
            if lost_now == lost {
                found.undisturbed = found.undisturbed.max(gap);
            }
            lost = lost_now;
            last = Instant::now();
        }
    }
    let end = kernel_counts();
    (found.waits, found.faults) = (end.1 - start.1, end.2 - start.2);
    found
}

/// Places without a pattern the hardware would guess.
fn scattered(step: u64, among: usize) -> usize {
    (step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % among
}

/// The handles: bits of each function's first and second registration, 0 before it.
struct Handles {
    first: Vec<AtomicU64>,
    second: Vec<AtomicU64>,
    /// Set when every second function is gone.
    removed: AtomicBool,
}

fn bead(cell: &AtomicU64) -> Option<Bead> {
    Bead::from_bits(cell.load(Relaxed))
}

fn dispatcher(mut m: Mutator, steady: &[Bead], handles: &Handles, stop: &AtomicBool) -> Beside {
    go_round(stop, |step| {
        if step.is_multiple_of(64) {
            m.safepoint();
        }
        if !step.is_multiple_of(8) {
            let core = scattered(step, steady.len());
            return m.dispatch(steady[core]).is_some_and(|code| code.as_ptr() == code_of(core));
        }
        let core = scattered(step, handles.first.len());
        let removed = core.is_multiple_of(2) && handles.removed.load(Relaxed);
        let old = bead(&handles.first[core]).and_then(|old| m.dispatch(old));
        let new = bead(&handles.second[core / 2]).and_then(|new| m.dispatch(new));
        // A first registration never has code; a second one has its own or none yet.
        (old.is_none() || !removed) && new.is_none_or(|code| code.as_ptr() == code_of(core / 2 * 2))
    })
}

/// Loads from memory that was touched before.
fn idle(words: &[u64], stop: &AtomicBool) -> Beside {
    let steady = &words[..STEADY.min(words.len())];
    go_round(stop, |step| {
        let words = if step.is_multiple_of(8) { words } else { steady };
        black_box(words[scattered(step, words.len())]);
        true
    })
}

/// Loads and stores the way a dispatch of a cold function does, in memory that was not touched before.
fn touching(words: &[u64], stop: &AtomicBool) -> Beside {
    let steady = &words[..STEADY.min(words.len())];
    // As wide as the code word and the two halves of the counter. Zeroed memory comes from the kernel untouched.
    let (code, mut counter) = (vec![0u64; words.len()], vec![0u64; words.len()]);
    go_round(stop, |step| {
        if step.is_multiple_of(8) {
            let place = scattered(step, words.len());
            black_box(code[place]);
            *black_box(&mut counter[place]) = step;
        } else {
            black_box(steady[scattered(step, steady.len())]);
        }
        true
    })
}

/// Who is there beside the work.
#[derive(Clone, Copy)]
enum Who {
    Dispatcher,
    Touching,
    Idle,
}

impl Who {
    const ALL: [Who; 3] = [Who::Dispatcher, Who::Touching, Who::Idle];

    fn name(self) -> &'static str {
        ["dispatcher", "touching", "idle"][self as usize]
    }
}

struct Pass {
    phases: [Duration; 4],
    beside: Beside,
    resident: usize,
}

fn pass(functions: usize, handles: &Handles, who: Who, words: &[u64]) -> Result<Pass, Failure> {
    handles.first.iter().chain(&handles.second).for_each(|cell| cell.store(0, Relaxed));
    handles.removed.store(false, Relaxed);
    let before = resident();
    // Room for what waits for a safepoint when the next comes.
    let engine = Engine::builder().capacity(STEADY + functions + functions / 2).build()?;
    let steady: Vec<Bead> = engine.register_many((0..STEADY).map(Core::new))?.iter().collect();
    for (core, &bead) in steady.iter().enumerate() {
        engine.install(bead, TierId::BASELINE, CompiledCode::new(code_of(core)))?;
    }
    let stop = AtomicBool::new(false);
    let started = OnceLock::new();
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mutator = matches!(who, Who::Dispatcher).then(|| engine.mutator());
            started.set(()).ok();
            match (who, mutator) {
                (Who::Dispatcher, Some(m)) => dispatcher(m, &steady, handles, &stop),
                (Who::Touching, _) => touching(words, &stop),
                _ => idle(words, &stop),
            }
        });
        started.wait();
        let work = work(&engine, functions, handles);
        stop.store(true, Relaxed);
        let beside = beside.join().map_err(|_| "the thread beside the work panicked")?;
        Ok(Pass { phases: work?, beside, resident: resident().saturating_sub(before) })
    })
}

/// Registers, removes and re-registers; answers what registering, removing, registering again and checking took.
fn work(engine: &Engine, functions: usize, handles: &Handles) -> Result<[Duration; 4], Failure> {
    let start = Instant::now();
    let runs = engine.register_many((0..functions).map(Core::new))?;
    let registering = start.elapsed();
    for (cell, bead) in handles.first.iter().zip(runs.iter()) {
        cell.store(bead.to_bits(), Relaxed);
    }

    let start = Instant::now();
    for (core, bead) in runs.iter().enumerate().step_by(2) {
        if engine.remove(bead)? != Core::new(core) {
            return Err(format!("removing {bead} answered another function's core").into());
        }
    }
    let removing = start.elapsed();
    handles.removed.store(true, Relaxed);
    let start = Instant::now();
    check(engine, handles)?;
    let mut checking = start.elapsed();

    let start = Instant::now();
    for (core, cell) in (0..functions).step_by(2).zip(&handles.second) {
        let bead = engine.register(Core::new(core))?;
        if core % 32 == 0 {
            engine.install(bead, TierId::BASELINE, CompiledCode::new(code_of(core)))?;
        }
        cell.store(bead.to_bits(), Relaxed);
    }
    let again = start.elapsed();
    let start = Instant::now();
    check(engine, handles)?;
    checking += start.elapsed();
    Ok([registering, removing, again, checking])
}

/// Every handle ever given out says what it should, asked in every way.
fn check(engine: &Engine, handles: &Handles) -> Result<(), Failure> {
    let m = engine.pin();
    let wrong = |handle: Bead, core: usize| -> Failure {
        format!("{handle}, function {core}, answered as if it were another").into()
    };
    for (core, cell) in handles.first.iter().enumerate() {
        let Some(old) = bead(cell) else { return Err("a function was not registered".into()) };
        let right = if core % 2 == 0 {
            m.dispatch(old).is_none()
                && m.code(old).is_none()
                && engine.core(old).is_err()
                && engine.state(old).is_err()
                && engine.remove(old).is_err()
        } else {
            engine.core(old) == Ok(Core::new(core)) && m.code(old).is_none()
        };
        if !right {
            return Err(wrong(old, core));
        }
    }
    for (core, cell) in (0..).step_by(2).zip(&handles.second) {
        let Some(new) = bead(cell) else { continue };
        let code = m.code(new).map(|code| code.as_ptr());
        if engine.core(new) != Ok(Core::new(core)) || code != (core % 32 == 0).then(|| code_of(core)) {
            return Err(wrong(new, core));
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match show(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn show(options: &Options) -> Result<(), Failure> {
    let functions = options.functions as usize;
    // Not zero, so that the pages are there before anything is measured.
    let cells = |len: usize| -> Vec<AtomicU64> { (0..len).map(|_| AtomicU64::new(1)).collect() };
    let handles = Handles {
        first: cells(functions),
        second: cells(functions.div_ceil(2)),
        removed: AtomicBool::new(false),
    };
    let words = vec![1u64; functions];
    println!("{functions} functions, {} runs; ns per function, gaps in µs\n", options.runs);
    println!(
        "{:>3} {:10} {:>8} {:>7} {:>8} {:>7} {:>9} {:>9} {:>11} {:>6} {:>7} {:>9}",
        "run",
        "beside",
        "register",
        "remove",
        "again",
        "check",
        "M steps/s",
        "worst gap",
        "undisturbed",
        "waits",
        "faults",
        "resident"
    );
    // The ratios of the dispatcher's worst gap to that of each control; the same for undisturbed gaps.
    let mut ratios: [[Vec<f64>; 2]; 2] = Default::default();
    let bar = progress(3 * u64::from(options.runs));
    for run in 0..options.runs {
        let mut gaps = [[0.0; 2]; 3];
        for turn in 0..3 {
            let who = Who::ALL[((run + turn) % 3) as usize];
            let pass = pass(functions, &handles, who, &words)?;
            if pass.beside.wrong > 0 {
                return Err(format!("{} dispatches answered wrongly", pass.beside.wrong).into());
            }
            gaps[who as usize] = bar.suspend(|| row(run, who, &pass, functions));
            bar.inc(1);
        }
        let [dispatcher, controls @ ..] = gaps;
        for (control, ratios) in controls.iter().zip(&mut ratios) {
            for kind in 0..2 {
                ratios[kind].push(dispatcher[kind] / control[kind]);
            }
        }
    }
    bar.finish_and_clear();
    println!();
    for (who, [worst, undisturbed]) in [Who::Touching, Who::Idle].into_iter().zip(&mut ratios) {
        println!(
            "dispatcher : {:9} worst gap {}, undisturbed {}",
            who.name(),
            spread(worst),
            spread(undisturbed)
        );
    }
    println!("every handle answered rightly every time");
    Ok(())
}

/// Prints a pass; answers the worst gap and the worst undisturbed one, in microseconds.
fn row(run: u32, who: Who, pass: &Pass, functions: usize) -> [f64; 2] {
    let per = |phase: usize, of: usize| pass.phases[phase].as_nanos() as f64 / of as f64;
    let found = &pass.beside;
    let gaps = [found.worst, found.undisturbed].map(|gap| gap.as_secs_f64() * 1e6);
    let total: Duration = pass.phases.iter().sum();
    println!(
        "{:>3} {:10} {:>8.1} {:>7.1} {:>8.1} {:>7.1} {:>9.1} {:>9.0} {:>11.0} {:>6} {:>7} {:>5} MiB",
        run + 1,
        who.name(),
        per(0, functions),
        per(1, functions / 2),
        per(2, functions / 2),
        per(3, functions * 5 / 2),
        found.steps as f64 / total.as_secs_f64() / 1e6,
        gaps[0],
        gaps[1],
        found.waits,
        found.faults,
        pass.resident >> 20,
    );
    gaps
}

/// Median and range.
fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}

/// Resident bytes of this process, 0 where the system does not tell.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.as_deref().and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}
