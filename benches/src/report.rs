//! The table, as the run goes.

use crate::contender::Who;
use crate::run::{Cell, RowResult};
use crate::target::Verdict;
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
    let count = |of: &[Verdict]| {
        rows.iter().flat_map(|row| &row.targets).filter(|judged| of.contains(&judged.verdict)).count()
    };
    let met = count(&[Verdict::Met]);
    let all = count(&[Verdict::Met, Verdict::Missed, Verdict::Unknown]);
    let told = format!("{met} of {all} targets met");
    match count(&[Verdict::NotJudged]) {
        0 => told,
        others => format!("{told}; {others} are meant for more than a quick run does, and were not judged"),
    }
}

fn cell(cell: &Cell) -> String {
    match (cell.median(), cell.spread()) {
        (Some(median), Some(spread)) => format!("{} ±{spread:.0}%", figure(median)),
        (Some(median), None) => figure(median),
        _ if cell.absence().is_empty() => "-".to_owned(),
        _ => cell.absence().to_owned(),
    }
}

fn verdicts(row: &RowResult) -> String {
    let verdicts = row.targets.iter().map(|judged| {
        let verdict = match judged.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Unknown => "cannot be said",
            Verdict::NotJudged => "not judged",
        };
        format!("{}: {verdict}", judged.target)
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
