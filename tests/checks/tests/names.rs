//! ARCHITECTURE.md names a test for each known failure mode, and the tests it names are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust sources, by path.
fn sources(dir: &Path, all: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).expect("readable").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            all.push((path, text));
        }
    }
}

/// The rows of the table: the failure modes a row is for, and its last column.
fn rows(page: &str) -> Vec<(Vec<u32>, String)> {
    let rows = page.lines().filter(|line| line.starts_with("| P"));
    rows.map(|row| {
        let columns: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let numbers = columns[0].split(',').map(|mode| mode.trim()[1..].parse().expect("a number"));
        (numbers.collect(), columns[columns.len() - 1].to_string())
    })
    .collect()
}

/// What a row names in backticks.
fn named(column: &str) -> impl Iterator<Item = &str> {
    column.split('`').skip(1).step_by(2)
}

/// Whether it is the last part of a module's path, or a file of tests.
fn is_module(sources: &[(PathBuf, String)], name: &str) -> bool {
    let last = name.rsplit("::").next().unwrap_or(name);
    sources.iter().any(|(path, _)| {
        let file = path.file_stem().is_some_and(|stem| stem == last);
        file || path.ends_with(format!("{last}/mod.rs"))
    })
}

#[test]
fn every_known_failure_mode_has_a_row_and_every_test_a_row_names_exists() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page");
    let mut all = Vec::new();
    sources(&root(), &mut all);
    let rows = rows(&page);
    let modes: BTreeSet<u32> = rows.iter().flat_map(|(modes, _)| modes).copied().collect();
    assert_eq!(modes, (1..=40).collect());
    for (modes, column) in &rows {
        let mut tests = 0;
        for name in named(column) {
            let found = if name.ends_with(".rs") {
                all.iter().any(|(path, _)| path.ends_with(name))
            } else if is_module(&all, name) || name.contains('=') {
                // Beside a module the row says what its tests are called, and beside a variable which test minds it.
                continue;
            } else {
                let test = match name.strip_suffix('…') {
                    Some(start) => format!("fn {start}"),
                    None => format!("fn {name}("),
                };
                all.iter().any(|(_, text)| text.contains(&test))
            };
            assert!(found, "P{modes:?} names {name}, which is not there");
            tests += 1;
        }
        // "The p7 tests of such a module."
        let by_number = modes.iter().any(|mode| {
            let (word, start) = (format!("p{mode} test"), format!("fn p{mode}_"));
            column.contains(&word) && all.iter().any(|(_, text)| text.contains(&start))
        });
        assert!(tests > 0 || by_number, "P{modes:?} names no test: {column}");
    }
}
