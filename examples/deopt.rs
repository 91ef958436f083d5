//! Speculation that fails: code that bets on integers, hands back to the interpreter when they become floats, and is compiled
//! again without that bet; a compiler that never learns, which the engine stops; and code that has a copy of a function
//! which is then redefined. Prints what happened when.
//!
//! `cargo run --release --example deopt -- --help`

mod common;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use beadwork::{AlwaysRecompile, Bead, DeoptDecision, EngineBuilder, Event, Threshold, Tier};
use beadwork_cranelift::{CraneliftBackend, CraneliftError, OptLevel};
use clap::Parser;
use common::{Failure, check, exit, start_logging};
use strand::tiering::{BytecodeFrontend, Linking, Tiered, cranelift};
use strand::{InterpretAll, Limits, Program, Value, Vm, on_vm_stack};

/// Runs a program whose compiled code bets on integers, and prints the timeline.
#[derive(Parser)]
struct Options {
    /// Iterations of the program's loop; numbers get too large for integers in the second and in the third million
    #[arg(value_name = "N", default_value_t = 3_000_000, value_parser = clap::value_parser!(i64).range(0..=100_000_000))]
    n: i64,
}

fn main() -> ExitCode {
    start_logging();
    let options = Options::parse();
    // Native code needs the stack that the VM's depth limit was computed for.
    exit(on_vm_stack(|| show(&options)).unwrap_or_else(|failure| Err(failure.into())))
}

fn show(options: &Options) -> Result<(), Failure> {
    let program = Arc::new(Program::parse("nums.strand", include_str!("programs/nums.strand"))?);
    let args = [options.n];
    let mut vm = Vm::new(&program, Limits::default(), InterpretAll)?;
    let start = Instant::now();
    let expected = vm.run(&args)?;
    println!("interpreter: main({}) = {expected}, {:.1} ms", options.n, start.elapsed().as_secs_f64() * 1e3);

    println!("\nintegers that become floats, compiled again without the bet that failed");
    let learning = Session::new(&program, Linking::Slots, |frontend| frontend)?;
    learning.run(&args, expected)?;
    learning.report()?;

    println!(
        "\nthe same, but the compiler forgets: every code bets on integers again, until the engine has enough"
    );
    let forgetful = Session::new(&program, Linking::Slots, BytecodeFrontend::forgetful)?;
    for _ in 0..MAX_RUNS {
        forgetful.run(&args, expected)?;
        if forgetful.is_capped() {
            break;
        }
    }
    forgetful.report()?;
    redefine(options.n)
}

/// Compiled code has a copy of a function, on the assumption that nobody redefines that; then somebody does.
fn redefine(n: i64) -> Result<(), Failure> {
    let program = Arc::new(Program::parse("rate.strand", include_str!("programs/rate.strand"))?);
    let find = |name| program.find(name).map(|function| function.index).ok_or("a function is missing");
    let (old, new) = (find("rate")?, find("new_rate")?);
    println!("\na function of which compiled code has a copy, redefined between two runs");
    let session = Session::new(&program, Linking::Inlined, |frontend| frontend)?;
    let half = |n: i64| (0..n).map(|i| i + (i >> 1)).sum();
    session.run(&[n], Value::Int(half(n)))?;
    let lost = session.tiered.redefine(old, new)?;
    println!("               redefined: {lost} functions had a copy, and lost their code");
    session.run(&[n], Value::Int((0..n).map(|i| 3 * i + 7).sum()))?;
    session.report()
}

/// Runs of the forgetful compiler's program, at most.
const MAX_RUNS: usize = 50;

/// What happened, and how long after the start.
type Timeline = Arc<Mutex<Vec<(Duration, Event)>>>;

/// A program with an engine.
struct Session {
    program: Arc<Program>,
    tiered: Tiered,
    timeline: Timeline,
}

impl Session {
    fn new(
        program: &Arc<Program>,
        linking: Linking,
        compiler: impl FnOnce(BytecodeFrontend) -> BytecodeFrontend,
    ) -> Result<Session, Failure> {
        let timeline = Timeline::default();
        let (seen, epoch) = (timeline.clone(), Instant::now());
        let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, CraneliftError> {
            let backend = CraneliftBackend::builder().opt_level(OptLevel::Speed);
            let backend = cranelift(backend).build(compiler(frontend))?;
            let listen = move |event: &Event| {
                if let Ok(mut seen) = seen.lock() {
                    seen.push((epoch.elapsed(), event.clone()));
                }
            };
            // The policy never gives up, so that it is the governor that does.
            Ok(builder
                .tier(Tier::new(backend).policy(Threshold::new(100)))
                .deopt(AlwaysRecompile)
                .workers(1)
                .on_event(listen))
        };
        let tiered = Tiered::new(program, linking, configure)?;
        Ok(Session { program: program.clone(), tiered, timeline })
    }

    /// Runs the program from its beginning, with whatever code there is.
    fn run(&self, args: &[i64], expected: Value) -> Result<(), Failure> {
        let mut vm = Vm::new(&self.program, Limits::default(), self.tiered.hooks())?;
        let start = Instant::now();
        let value = vm.run(args)?;
        println!("{:>10.1} ms  for a run, which answers {value}", start.elapsed().as_secs_f64() * 1e3);
        check("this run", value, expected)
    }

    fn is_capped(&self) -> bool {
        let decided = |event: &Event| {
            let Event::Deoptimized { decision, .. } = event else { return false };
            matches!(decision, DeoptDecision::Cap(_) | DeoptDecision::Blacklist)
        };
        self.timeline.lock().is_ok_and(|timeline| timeline.iter().any(|(_, event)| decided(event)))
    }

    fn report(&self) -> Result<(), Failure> {
        let timeline = self.timeline.lock().map_err(|_| "a listener panicked")?;
        for (at, event) in timeline.iter() {
            if let Some(text) = self.describe(event) {
                println!("{:>10.0} µs  {text}", at.as_secs_f64() * 1e6);
            }
        }
        let engine = self.tiered.engine();
        for (bead, function) in self.tiered.beads().iter().zip(self.program.functions()) {
            let bailouts = engine.deopts(*bead).map_or(0, |history| history.bailouts);
            let (name, tier) = (&function.signature.name, engine.tier(*bead)?);
            println!("               {name}: {bailouts} bailouts, ends at {tier}");
        }
        Ok(())
    }

    fn describe(&self, event: &Event) -> Option<String> {
        let name = |bead: &Bead| {
            let index = self.tiered.beads().iter().position(|known| known == bead);
            let function = index.and_then(|index| self.program.functions().get(index));
            function.map_or("?", |function| function.signature.name.as_str())
        };
        Some(match event {
            Event::Queued { bead, tier, reason, .. } => {
                format!("{}: asked for at {tier}: {reason:?}", name(bead))
            }
            Event::Installed { bead, version, compile_time, .. } => {
                format!("{}: version {version} installed, compiled in {compile_time:.0?}", name(bead))
            }
            Event::Deoptimized { bead, pc, version, proposal, decision, .. } => format!(
                "{}: the guard at pc {pc} of version {version} failed; {proposal:?} proposed, {decision:?} done",
                name(bead)
            ),
            Event::Failed { bead, error, .. } => format!("{}: no code: {error}", name(bead)),
            Event::Invalidated { bead } => format!("{}: code taken back", name(bead)),
            Event::Discarded { bead, .. } => format!("{}: a compile came too late", name(bead)),
            _ => return None,
        })
    }
}
