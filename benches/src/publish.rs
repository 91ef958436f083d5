//! What is published of a run: the sections of README.md and benches/README.md that are figures, as they stand there. To publish a run is
//! to copy them, and to write why a target is missed.

use crate::contender::Who;
use crate::run::{Cell, RowResult};
use crate::target::{Judged, Target, Verdict};

/// From how many times on beadwork is said to be slower.
const SLOWER: f64 = 1.05;

const COLUMNS: &str = "raw | beadwork | beadie 0.3 | DashMap+Arc | 2 × RwLock\\<HashMap>";

/// The rows of README.md: what is done, and the case and the row that say so.
const SHORT: [(&str, &str, &str); 22] = [
    ("dispatch and call of compiled functions, 1 in random order, ns", "dispatch 1", "compiled"),
    ("dispatch and call of compiled functions, 1 K in random order, ns", "dispatch 1 K", "compiled"),
    ("dispatch and call of compiled functions, 100 K in random order, ns", "dispatch 100 K", "compiled"),
    ("dispatch and call of compiled functions, 1 M in random order, ns", "dispatch 1 M", "compiled"),
    ("dispatch and call of compiled functions, 4 M in random order, ns", "dispatch 4 M", "compiled"),
    ("count of functions without code, 1, ns", "dispatch 1", "cold"),
    ("count of functions without code, 1 K, ns", "dispatch 1 K", "cold"),
    ("count of functions without code, 100 K, ns", "dispatch 100 K", "cold"),
    ("count of functions without code, 1 M, ns", "dispatch 1 M", "cold"),
    ("count of functions without code, 4 M, ns", "dispatch 4 M", "cold"),
    ("find the native entry of a loop, of four, ns", "loop entries", "hit"),
    ("register in bulk, ns", "register in bulk", "register in bulk"),
    ("memory of a registered function, bytes", "memory", "registered"),
    ("memory of a compiled function, without its code, bytes", "memory", "compiled"),
    ("drop 10 M, each, ns", "drop 10 M", "drop all"),
    (
        "promote 100,000 at once, each until it has code, ns",
        "promotion pipeline",
        "per function, until it has code",
    ),
    ("the same, the calling thread's share, ns", "promotion pipeline", "the mutator's share"),
    (
        "from hot to compiled, after a silence, median, ns",
        "threshold to code",
        "after 2 ms of silence, median",
    ),
    ("a dispatch while others compile, p99.9, ns", "dispatch while 10 K compile", "p99.9"),
    ("compile by Cranelift with two workers, µs", "Cranelift, 2 workers", "per function"),
    ("code cache, hit of one key, one thread, ns", "code cache, hits", "one key, one thread"),
    ("code cache, hit of one key, two threads, ns", "code cache, hits", "one key, two threads"),
];

/// All sections.
pub fn markdown(rows: &[RowResult]) -> String {
    let sections = [
        "<!-- README.md, Beside others -->".to_owned(),
        short_table(rows),
        "<!-- benches/README.md -->".to_owned(),
        full_table(rows),
        missed(rows),
        slower(rows),
    ];
    sections.join("\n\n") + "\n"
}

fn short_table(rows: &[RowResult]) -> String {
    let mut lines = vec![format!("| | {COLUMNS} |"), "|---|---:|---:|---:|---:|---:|".to_owned()];
    for (label, case, name) in SHORT {
        let found = rows.iter().find(|row| row.case == case && row.name == name);
        lines.extend(found.map(|row| format!("| {label} | {} |", cells(row))));
    }
    lines.join("\n")
}

fn full_table(rows: &[RowResult]) -> String {
    let mut lines = vec![
        format!("| less is better | {COLUMNS} | × raw | × beadie |"),
        "|---|---:|---:|---:|---:|---:|---:|---:|".to_owned(),
    ];
    lines.extend(rows.iter().map(|row| {
        let times = |who| row.times(who).map_or(String::new(), |times| format!("{times:.2}"));
        let label = format!("{}, {}", name(row), row.unit);
        format!("| {label} | {} | {} | {} |", cells(row), times(Who::Raw), times(Who::Beadie))
    }));
    lines.join("\n")
}

fn missed(rows: &[RowResult]) -> String {
    let all = || rows.iter().flat_map(|row| row.targets.iter().map(move |judged| (row, judged)));
    let met = all().filter(|(_, judged)| judged.verdict == Verdict::Met).count();
    let mut lines = vec![
        format!("Met in this run: {met} of {}. Missed:\n", all().count()),
        "| target | reached | why, and what was tried |\n|---|---:|---|".to_owned(),
    ];
    for (row, judged) in all().filter(|(_, judged)| judged.verdict != Verdict::Met) {
        lines.push(format!("| {}: {} | {} | |", name(row), judged.target, reached(row, judged)));
    }
    lines.join("\n")
}

fn slower(rows: &[RowResult]) -> String {
    let mut lines = vec!["* beadwork is slower than beadie, by so many times, in:".to_owned()];
    for row in rows {
        let times = row.times(Who::Beadie).filter(|times| *times >= SLOWER);
        lines.extend(times.map(|times| format!("  * {} ({times:.1})", name(row))));
    }
    lines.join("\n")
}

fn name(row: &RowResult) -> String {
    format!("{}: {}", row.case, row.name)
}

fn cells(row: &RowResult) -> String {
    let cell = |who| row.cells.get(&who).map_or(String::new(), cell);
    Who::ALL.map(cell).join(" | ")
}

fn cell(cell: &Cell) -> String {
    cell.median().map_or_else(|| cell.absence().to_owned(), figure)
}

fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn reached(row: &RowResult, judged: &Judged) -> String {
    match (judged.target, judged.reached) {
        (_, None) => "cannot be said".to_owned(),
        (Target::TimesOf(..) | Target::FasterThan(..), Some(times)) => format!("{times:.2} ×"),
        (Target::AtMost(_), Some(value)) => format!("{value:.2} {}", row.unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{self, Scale};

    fn row(case: &str, name: &str, figures: [Option<f64>; 3], targets: &[Target]) -> RowResult {
        let whos = [Who::Raw, Who::Beadwork, Who::Beadie];
        let cell = |figure: Option<f64>| match figure {
            Some(figure) => Cell::Samples(vec![figure]),
            None => Cell::Absent("crashes: stack overflow".to_owned()),
        };
        let cells = whos.into_iter().zip(figures.map(cell)).collect();
        let (case, name) = (case.to_owned(), name.to_owned());
        let mut row = RowResult { case, name, unit: "ns", cells, targets: Vec::new(), compared: true };
        let own = row.figure(Who::Beadwork);
        row.targets = targets.iter().map(|target| target.judge(false, own, |who| row.times(who))).collect();
        row
    }

    #[test]
    fn every_row_of_the_short_table_is_a_row_of_some_case() {
        let cases = case::all(Scale { quick: false });
        for (label, case, name) in SHORT {
            let mut of_case =
                cases.iter().filter(|one| one.name == case).flat_map(|one| one.stages.iter().flatten());
            let found = of_case.find(|row| row.name == name).expect(label);
            assert!(label.ends_with(&format!(", {}", found.unit)), "{label}");
        }
    }

    #[test]
    fn what_is_published_is_written_as_it_stands_in_the_readmes() {
        let faster = [Target::FasterThan(Who::Beadie, 2.0), Target::TimesOf(Who::Raw, 2.0)];
        let rows = [
            row("dispatch 1", "cold", [Some(2.0), Some(3.0), Some(2.5)], &faster),
            row("drop 10 M", "drop all", [Some(1.0), Some(123.4), None], &[Target::TimesOf(Who::Raw, 2.0)]),
            row("other", "row", [Some(0.0), Some(10.26), Some(10.0)], &[]),
        ];
        let expected = "\
<!-- README.md, Beside others -->

| | raw | beadwork | beadie 0.3 | DashMap+Arc | 2 × RwLock\\<HashMap> |
|---|---:|---:|---:|---:|---:|
| count of functions without code, 1, ns | 2.00 | 3.00 | 2.50 |  |  |
| drop 10 M, each, ns | 1.00 | 123 | crashes |  |  |

<!-- benches/README.md -->

| less is better | raw | beadwork | beadie 0.3 | DashMap+Arc | 2 × RwLock\\<HashMap> | × raw | × beadie |
|---|---:|---:|---:|---:|---:|---:|---:|
| dispatch 1: cold, ns | 2.00 | 3.00 | 2.50 |  |  | 1.50 | 1.20 |
| drop 10 M: drop all, ns | 1.00 | 123 | crashes |  |  | 123.40 |  |
| other: row, ns | 0.00 | 10.3 | 10.0 |  |  |  | 1.03 |

Met in this run: 1 of 3. Missed:

| target | reached | why, and what was tried |
|---|---:|---|
| dispatch 1: cold: ≥ 2 × better than beadie | 0.83 × | |
| drop 10 M: drop all: ≤ 2 × raw | 123.40 × | |

* beadwork is slower than beadie, by so many times, in:
  * dispatch 1: cold (1.2)
";
        assert_eq!(markdown(&rows), expected);
    }
}
