//! What the library is for: very many functions, few of them hot. Registers them, calls them in a Zipf-distributed
//! order, and prints what registration, dispatch, promotion and memory cost.
//!
//! `cargo run --release --example many -- --help`
#![allow(unsafe_code, reason = "calls the code it had compiled")]

mod common;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use beadwork::{Bead, Code, Core, Engine, Threshold, Tier};
use beadwork_cranelift::{AbiParam, CraneliftBackend, FunctionUnit, InstBuilder, OptLevel, types::I64};
use clap::Parser;
use common::{Failure, exit, progress, start_logging};
use rand::SeedableRng;
use rand::distr::Distribution;

/// Registers very many functions and calls them, a few of them very often.
#[derive(Parser)]
struct Options {
    /// Functions
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    functions: u32,
    /// Calls
    #[arg(long, value_name = "N", default_value_t = 20_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Calls at which a function is compiled
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    threshold: u32,
    /// Exponent of the Zipf distribution; larger means fewer functions get most of the calls
    #[arg(long, value_name = "S", default_value_t = 1.05)]
    skew: f64,
}

/// What function number `core` computes; the interpreter's side.
fn interpret(core: u64, x: u64) -> u64 {
    x.wrapping_mul(core | 1) ^ core
}

fn compile(unit: &mut FunctionUnit<'_, '_>) -> Result<(), beadwork::CompileError> {
    let core = unit.job().core()?.get() as i64;
    let mut signature = unit.new_signature();
    signature.params.push(AbiParam::new(I64));
    signature.returns.push(AbiParam::new(I64));
    let x = unit.begin(&signature)[0];
    let (factor, number) =
        (unit.builder().ins().iconst(I64, core | 1), unit.builder().ins().iconst(I64, core));
    let product = unit.builder().ins().imul(x, factor);
    let result = unit.builder().ins().bxor(product, number);
    unit.builder().ins().return_(&[result]);
    Ok(())
}

/// Runs the code of a function.
fn call(code: Code<'_>, x: u64) -> u64 {
    // SAFETY: `compile` made it with this signature, and the mutator that answered it is borrowed by `code`, so it
    // passes no safepoint meanwhile.
    let native: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(code.as_ptr()) };
    native(x)
}

fn main() -> ExitCode {
    start_logging();
    exit(show(&Options::parse()))
}

fn show(options: &Options) -> Result<(), Failure> {
    let functions = options.functions as usize;
    let backend = CraneliftBackend::builder().opt_level(OptLevel::Speed).build(compile)?;
    let arena = backend.arena().clone();
    let engine = Engine::builder()
        .capacity(functions)
        .tier(Tier::new(backend).policy(Threshold::new(options.threshold)))
        .build()?;
    let before = resident();
    let start = Instant::now();
    let runs = engine.register_many((0..functions).map(Core::new))?;
    let registering = start.elapsed();
    println!("functions        {functions}");
    println!(
        "registered       {registering:.1?}, {:.1} ns and {:.1} bytes each ({} resident)",
        registering.as_nanos() as f64 / functions as f64,
        engine.stats().column_bytes as f64 / functions as f64,
        kib(resident().saturating_sub(before)),
    );

    let order = order(options, &runs.iter().collect::<Vec<_>>())?;
    let (mut native, mut sum, mut expected) = (0u64, 0u64, 0u64);
    let mut m = engine.mutator();
    let bar = progress(order.len() as u64);
    let start = Instant::now();
    for chunk in order.chunks(4096) {
        for &(bead, core) in chunk {
            let x = u64::from(bead.index());
            sum = sum.wrapping_add(match m.dispatch(bead) {
                Some(code) => {
                    native += 1;
                    call(code, x)
                }
                None => interpret(core.into(), x),
            });
        }
        m.safepoint();
        bar.inc(chunk.len() as u64);
    }
    let calling = start.elapsed();
    bar.finish_and_clear();
    for &(bead, core) in &order {
        expected = expected.wrapping_add(interpret(core.into(), bead.index().into()));
    }
    if sum != expected {
        return Err(
            format!("the calls added up to {sum:#x}, interpreted they add up to {expected:#x}").into()
        );
    }
    engine.drain(Duration::from_secs(60))?;
    let stats = engine.stats();
    let calls = order.len() as f64;
    println!(
        "called           {} times in {calling:.1?}: {:.1} M dispatches/s, {:.1} % of them native",
        order.len(),
        calls / calling.as_secs_f64() / 1e6,
        native as f64 / calls * 100.0
    );
    println!(
        "promoted         {} functions, compiled in {:.1?} on {} worker, {:.1} µs each",
        stats.installed,
        stats.compile_time,
        1,
        stats.compile_time.as_secs_f64() * 1e6 / (stats.installed.max(1)) as f64
    );
    let code = arena.stats();
    println!(
        "memory           columns {} ({:.1} bytes per function), code {} in {} mappings, process {}",
        kib(stats.column_bytes as usize),
        stats.column_bytes as f64 / functions as f64,
        kib(code.live_bytes),
        code.mappings,
        kib(resident()),
    );
    println!("every result was right");
    Ok(())
}

/// The calls: the most popular functions are spread over the whole table.
fn order(options: &Options, beads: &[Bead]) -> Result<Vec<(Bead, u32)>, Failure> {
    let functions = beads.len();
    let zipf = rand_distr::Zipf::new(functions as f64, options.skew)?;
    let mut random = rand::rngs::SmallRng::seed_from_u64(1);
    let mut place: Vec<u32> = (0..functions as u32).collect();
    rand::seq::SliceRandom::shuffle(&mut place[..], &mut random);
    Ok((0..options.calls)
        .map(|_| {
            let rank = (zipf.sample(&mut random) as usize).clamp(1, functions) - 1;
            let core = place[rank];
            (beads[core as usize], core)
        })
        .collect())
}

/// Resident bytes of this process, 0 where the system does not tell.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.as_deref().and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

fn kib(bytes: usize) -> String {
    format!("{} KiB", bytes / 1024)
}
