//! The table.

use crate::contender::Who;
use crate::run::{Cell, RowResult};
use std::fmt::Write;

/// The first column.
const NAME: usize = 46;
/// The others.
const COLUMN: usize = 17;

/// The table's head.
pub fn head() -> String {
    let mut line = format!("{:NAME$} {:>5}", "less is better everywhere", "unit");
    for who in Who::ALL {
        write!(line, " {who:>COLUMN$}").ok();
    }
    write!(line, " {:>7} {:>8}  target", "× raw", "× beadie").ok();
    line
}

/// A row of the table: medians with their spread in percent, ratios, and targets.
pub fn line(row: &RowResult) -> String {
    let mut line = format!("{:NAME$} {:>5}", format!("  {}", row.name), row.unit);
    for who in Who::ALL {
        write!(line, " {:>COLUMN$}", row.cells.get(&who).map_or(String::new(), cell)).ok();
    }
    let times = |who| row.times(who).map_or(String::new(), |times| format!("{times:.2}"));
    write!(line, " {:>7} {:>8}  ", times(Who::Raw), times(Who::Beadie)).ok();
    line + &verdicts(row)
}

/// What the empty cells of some rows mean, each said once.
pub fn absent(rows: &[RowResult]) -> Vec<String> {
    let mut said = Vec::new();
    for row in rows {
        for (who, cell) in &row.cells {
            if let Cell::Absent(why) = cell {
                let line = format!("    {who}: {why}");
                if !said.contains(&line) {
                    said.push(line);
                }
            }
        }
    }
    said
}

/// How many targets are met, and how many there are.
pub fn summary(rows: &[RowResult]) -> String {
    let verdicts = || rows.iter().flat_map(|row| &row.targets).map(|(_, met)| *met);
    let met = verdicts().filter(|met| *met == Some(true)).count();
    format!("{met} of {} targets met", verdicts().count())
}

/// The rows that have targets, as a table for README: medians, and what the targets came to.
pub fn markdown(rows: &[RowResult]) -> String {
    let mut text = "| work | raw | beadwork | beadie | DashMap+Arc | RwLock\\<HashMap> | target |\n|---|---:|---:|---:|---:|---:|---|\n".to_owned();
    for row in rows.iter().filter(|row| !row.targets.is_empty()) {
        write!(text, "| {}: {}, {}", row.case, row.name, row.unit).ok();
        for who in Who::ALL {
            let cell = row.cells.get(&who);
            let median = cell.and_then(Cell::median).map(figure);
            write!(text, " | {}", median.unwrap_or_else(|| cell.map_or(String::new(), cell_text))).ok();
        }
        writeln!(text, " | {} |", verdicts(row)).ok();
    }
    text
}

fn cell_text(cell: &Cell) -> String {
    if cell_crashes(cell) { "crashes".to_owned() } else { String::new() }
}

fn cell(cell: &Cell) -> String {
    match (cell.median(), cell.spread()) {
        (Some(median), Some(spread)) => format!("{} ±{spread:.0}%", figure(median)),
        (Some(median), None) => figure(median),
        _ if cell_crashes(cell) => "crashes".to_owned(),
        _ => "-".to_owned(),
    }
}

fn cell_crashes(cell: &Cell) -> bool {
    matches!(cell, Cell::Absent(why) if why.starts_with("crashes"))
}

fn verdicts(row: &RowResult) -> String {
    let verdicts = row.targets.iter().map(|(target, met)| {
        let verdict = met.map_or("cannot be said", |met| if met { "met" } else { "MISSED" });
        format!("{target}: {verdict}")
    });
    verdicts.collect::<Vec<_>>().join(", ")
}

fn figure(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 100.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
