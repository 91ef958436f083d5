//! Real threads, random faults, and a checker: does the engine keep what it promises, whatever happens?
//!
//! `cargo run --release --example stress -- --seconds 60 --seed 7`
//!
//! Each round builds an engine of a kind left to chance. Runners dispatch, loop, stay in native frames, lease and read slots;
//! controllers ask for everything a VM can ask for; backends, policies, listeners, owners and payloads fail and panic; a
//! collector moves functions; the process forks. Code is never run: a piece of it says whose it is, so a look at it tells whether
//! the engine answered another function's code, code that was freed, or code that was taken back.
//!
//! The last line says what was done and what was found. The process fails if anything was.
#![allow(unsafe_code, reason = "reads code without a lock, as threads that run it do; forks")]

mod backend;
mod control;
mod forks;
mod heap;
mod pieces;
mod round;
mod runner;
mod stage;
mod tally;

use clap::Parser;
use round::{Plan, round};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tally::{Injected, Tally};

/// Uses engines from many threads while everything around them fails, and checks what they answer.
#[derive(Parser)]
struct Options {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 20)]
    seconds: u64,
    /// Where chance begins. Threads meet as they will, so a seed repeats what is asked, and not what happens
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Threads that run the guest program
    #[arg(long, value_name = "N", default_value_t = 3)]
    runners: usize,
    /// Threads that control the engine
    #[arg(long, value_name = "N", default_value_t = 2)]
    controllers: usize,
    /// Seconds a round takes
    #[arg(long, value_name = "N", default_value_t = 3.0)]
    round: f64,
    /// Never forks; for tools that cannot follow
    #[arg(long)]
    no_forks: bool,
}

/// A round that takes so much longer than it should is stuck.
const STUCK: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    let options = Options::parse();
    stage::seed(options.seed);
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload().is::<Injected>() {
            shown(panic);
        }
    }));
    let tally = Arc::new(Tally::default());
    let (start, length) = (Instant::now(), Duration::from_secs(options.seconds));
    let rounds = Arc::new(AtomicU64::new(0));
    let plan = Plan {
        length: Duration::from_secs_f64(options.round),
        runners: options.runners,
        controllers: options.controllers,
        forks: !options.no_forks,
    };
    let (counted, watched) = (rounds.clone(), tally.clone());
    std::thread::spawn(move || watch(&counted, plan.length + STUCK, &watched, options.seed));
    while start.elapsed() < length {
        let left = length.saturating_sub(start.elapsed());
        round(&tally, Plan { length: plan.length.min(left), ..plan });
        rounds.fetch_add(1, Relaxed);
    }
    summarize(&tally, &options, start.elapsed(), rounds.load(Relaxed));
    if tally.violations() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Ends the process if a round does not end.
fn watch(rounds: &AtomicU64, patience: Duration, tally: &Tally, seed: u64) {
    loop {
        let (before, start) = (rounds.load(Relaxed), Instant::now());
        while rounds.load(Relaxed) == before {
            std::thread::sleep(Duration::from_millis(200));
            if start.elapsed() > patience {
                tally.violation(|| format!("round {before} of seed {seed} is stuck"));
                std::process::exit(1);
            }
        }
    }
}

fn summarize(tally: &Tally, options: &Options, took: Duration, rounds: u64) {
    let count = |count: &AtomicU64| count.load(Relaxed);
    println!(
        "stress: seed {}, {:.0} s, {rounds} rounds: {} operations, {} dispatches, {} compiles, {} pieces of code freed, {} \
         looked for after they were taken back, {} functions removed, {} moved, {} forks; {} faults injected ({} panics), {} violations",
        options.seed,
        took.as_secs_f64(),
        count(&tally.operations),
        count(&tally.dispatched),
        count(&tally.compiled),
        count(&tally.freed),
        count(&tally.checked),
        count(&tally.removed),
        count(&tally.moved),
        count(&tally.forks),
        tally.faults(),
        tally.panics(),
        tally.violations()
    );
}
