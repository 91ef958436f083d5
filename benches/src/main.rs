//! `cargo run --release -p beadwork-bench -- compare`

use beadwork_bench::case::{self, Scale};
use beadwork_bench::contender::Who;
use beadwork_bench::run::{Gathered, RowResult};
use beadwork_bench::{child, instructions, plot, publish, report};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures beadwork.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compares beadwork with the limit and with its peers, interleaved in one process
    Compare(Compare),
    /// Counts the instructions of the hot paths; needs valgrind
    Instructions,
    /// A process of its own for some figures
    #[command(name = child::COMMAND, hide = true)]
    Child { what: String, who: usize, functions: usize },
    /// A hot path under valgrind
    #[command(name = instructions::COMMAND, hide = true)]
    Path { path: usize, operations: u64 },
}

#[derive(clap::Args)]
struct Compare {
    /// Less of everything: a look within a minute
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Repetitions, in three passes over all cases [default: 10, quick 3 in one pass]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: Option<u32>,
    /// Writes all samples
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws the scaling curves
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Writes what README.md and benches/README.md show of a run, as Markdown
    #[arg(long, value_name = "FILE", conflicts_with = "quick")]
    markdown: Option<PathBuf>,
    /// Names the cases and ends
    #[arg(long)]
    list: bool,
}

/// Over all cases, each with a part of the repetitions.
const PASSES: usize = 3;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Compare(options) => compare(&options),
        Command::Instructions => instructions::show().map_err(Failure::from),
        Command::Child { what, who, functions } => answer(&what, who, functions),
        Command::Path { path, operations } => {
            instructions::serve(path, operations);
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn answer(what: &str, who: usize, functions: usize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(&child::serve(what, who, functions)?)?);
    Ok(())
}

fn compare(options: &Compare) -> Result<(), Failure> {
    let wanted = |name: &str| options.case.as_deref().is_none_or(|part| name.contains(part));
    let cases: Vec<_> =
        case::all(Scale { quick: options.quick }).into_iter().filter(|case| wanted(&case.name)).collect();
    if options.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    if cases.is_empty() {
        return Err("no case has such a name; --list shows them".into());
    }
    let runs = options.runs.unwrap_or(if options.quick { 3 } else { 10 }) as usize;
    let passes = if options.quick { 1 } else { runs.min(PASSES) };
    let mut gathered: Vec<_> = cases.iter().map(|case| Gathered::new(case, runs)).collect();
    for pass in 0..passes - 1 {
        for one in &mut gathered {
            let part = one.part(pass, passes);
            if !part.is_empty() {
                eprintln!("pass {} of {passes}: {}", pass + 1, one.case().name);
                one.sample(part);
            }
        }
    }
    // Rows are complete with the last pass.
    println!("{}", report::head());
    let mut all: Vec<RowResult> = Vec::new();
    for mut one in gathered {
        println!("{}", one.case().name);
        one.sample(one.part(passes - 1, passes));
        let rows = one.rows();
        rows.iter().for_each(|row| println!("{}", report::line(row)));
        report::absent(&rows).iter().for_each(|line| println!("{line}"));
        all.extend(rows);
    }
    println!("\n{}", report::summary(&all));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    if let Some(path) = &options.plot {
        plot::draw(&all, path)?;
    }
    if let Some(path) = &options.markdown {
        std::fs::write(path, publish::markdown(&all))?;
    }
    // Peers may be unable to take part; beadwork may not.
    match all.iter().find(|row| row.figure(Who::Beadwork).is_none()) {
        Some(row) => Err(format!("beadwork has no figure for {}, {}", row.case, row.name).into()),
        None => Ok(()),
    }
}
