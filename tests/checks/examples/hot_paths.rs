//! What runs often, for counting its instructions: `hot_paths PATH TIMES` runs a path so many times, `hot_paths list` names the
//! paths. `.ci/unobserved` counts them with nothing installed that looks on, and with all of that compiled out.

use std::hint::black_box;
use std::process::ExitCode;

use beadwork::{
    Bead, BuildError, CompileError, CompiledCode, Core, Engine, FnBackend, Job, Manual, Mutator, Tier, TierId,
};

extern "C" fn code() {}

/// Runs an operation as often as it is told.
type Path = fn(&mut Mutator, [Bead; 2], u32);

/// Of the two functions the first has code.
const PATHS: [(&str, Path); 6] = [
    ("nothing", |_, _, times| repeat(times, || ())),
    ("dispatch,compiled", |m, [compiled, _], times| repeat(times, || m.dispatch(black_box(compiled)))),
    ("dispatch,cold", |m, [_, cold], times| repeat(times, || m.dispatch(black_box(cold)))),
    ("back_edge", |m, [_, cold], times| repeat(times, || m.back_edge(black_box(cold), 7))),
    ("osr_entry", |m, [compiled, _], times| repeat(times, || m.osr_entry(black_box(compiled), 7))),
    ("safepoint", |m, _, times| repeat(times, || black_box(&mut *m).safepoint())),
];

fn repeat<T>(times: u32, mut operation: impl FnMut() -> T) {
    for _ in 0..times {
        black_box(operation());
    }
}

fn run(path: Path, times: u32) -> Result<(), Box<dyn std::error::Error>> {
    let compiler = FnBackend::new(|job: &mut Job<'_>| match job.core()?.get() {
        0 => Ok(CompiledCode::new(code as *const u8).osr(7, code as *const u8)),
        _ => Err(CompileError::failed("not this one")),
    });
    let tier = Tier::new(compiler).policy(Manual);
    let engine: Result<Engine, BuildError> = Engine::builder().inline().capacity(1 << 10).tier(tier).build();
    let engine = engine?;
    let functions = [engine.register(Core::new(0))?, engine.register(Core::new(1))?];
    engine.promote(functions[0], TierId::BASELINE)?;
    engine.run_pending(usize::MAX);
    let mut m = engine.mutator();
    assert!(m.code(functions[0]).is_some() && m.code(functions[1]).is_none());
    path(&mut m, functions, times);
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let path = args.first().and_then(|name| PATHS.iter().find(|(path, _)| path == name));
    match (path, args.get(1).and_then(|times| times.parse().ok())) {
        (Some((_, path)), Some(times)) => match run(*path, times) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        _ if args == ["list"] => {
            PATHS.iter().for_each(|(name, _)| println!("{name}"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: hot_paths PATH TIMES, or hot_paths list");
            ExitCode::FAILURE
        }
    }
}
