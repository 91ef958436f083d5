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

/// What a row names in backticks: `file::test`, `file::test_that_begins_so…`, or a file; else something beside them, with a `=`.
fn named(column: &str) -> impl Iterator<Item = &str> {
    column.split('`').skip(1).step_by(2).filter(|name| !name.contains('='))
}

/// The tests of a source: functions with the attribute, whatever other attributes and comments are there.
fn tests(source: &str) -> Vec<&str> {
    let (mut tests, mut is_test) = (Vec::new(), false);
    for line in source.lines().map(str::trim_start) {
        if let Some(name) = line.strip_prefix("fn ").or_else(|| line.strip_prefix("pub fn ")) {
            let name = name.split(['(', '<']).next().unwrap_or_default();
            tests.extend(is_test.then_some(name));
            is_test = false;
        } else if line == "#[test]" {
            is_test = true;
        } else if !line.is_empty() && !line.starts_with("#[") && !line.starts_with("//") {
            is_test = false;
        }
    }
    tests
}

/// How many tests a name of a row stands for.
///
/// # Panics
/// If it is not one file, or the test is not in it.
fn count(all: &[(PathBuf, String)], name: &str) -> usize {
    let (file, test) = name.split_once("::").map_or((name, None), |(file, test)| (file, Some(test)));
    let here =
        all.iter().filter(|(path, _)| path.strip_prefix(root()).is_ok_and(|path| path == Path::new(file)));
    let there = all.iter().filter(|(path, _)| path.ends_with(file));
    let files: Vec<_> = if here.clone().count() > 0 { here.collect() } else { there.collect() };
    let [(_, source)] = files[..] else { panic!("{name}: there are {} such files", files.len()) };
    let tests = tests(source).into_iter().filter(|found| match test {
        None => true,
        Some(test) => test.strip_suffix('…').map_or(*found == test, |start| found.starts_with(start)),
    });
    tests.count()
}

#[test]
fn every_known_failure_mode_has_a_row_and_every_test_a_row_names_is_in_the_file_it_names() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page");
    let mut all = Vec::new();
    sources(&root(), &mut all);
    let rows = rows(&page);
    let modes: BTreeSet<u32> = rows.iter().flat_map(|(modes, _)| modes).copied().collect();
    assert_eq!(modes, (1..=40).collect());
    for (modes, column) in &rows {
        let mut tests = 0;
        for name in named(column) {
            assert!(count(&all, name) > 0, "P{modes:?} names {name}, which is no test there");
            tests += usize::from(name.contains("::"));
        }
        assert!(tests > 0, "P{modes:?} names no test: {column}");
    }
}

#[test]
fn a_name_stands_for_a_test_of_its_file_and_not_for_a_helper_or_a_test_elsewhere() {
    let source = "fn p1_helper() {}\n#[test]\n#[cfg(unix)]\nfn p1_test() {\n}\nfn p1_other() {}\n    #[test]\n    fn p2() {}";
    let all = [(root().join("tests/a.rs"), source.to_owned()), (root().join("b/tests/b.rs"), String::new())];
    let names = [
        "tests/a.rs::p1_test",
        "tests/a.rs::p1_…",
        "tests/a.rs",
        "a.rs::p2",
        "b.rs::p2",
        "tests/a.rs::p1_helper",
    ];
    assert_eq!(names.map(|name| count(&all, name)), [1, 1, 2, 1, 0, 0]);
    assert!(std::panic::catch_unwind(|| count(&all, "tests/c.rs::p2")).is_err());
}
