//! Every program under `programs/` gives the results its comments promise, in every tier.

mod common;

use std::fs;
use std::path::PathBuf;

use strand::{Program, Value};

fn sources(folder: &str) -> Vec<(String, String)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut sources = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "strand") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            sources.push((name, fs::read_to_string(path).unwrap()));
        }
    }
    sources.sort();
    sources
}

/// The arguments and the result of each `// expect main(1, 2) = 3`.
fn expectations(source: &str) -> Vec<(Vec<i64>, String)> {
    let lines = source.lines().filter_map(|l| l.strip_prefix("// expect main("));
    lines
        .map(|line| {
            let (args, result) = line.split_once(") = ").unwrap();
            let args = args.split(',').map(str::trim).filter(|a| !a.is_empty());
            (args.map(|a| a.parse().unwrap()).collect(), result.trim().to_owned())
        })
        .collect()
}

#[test]
fn every_program_gives_the_promised_results_in_every_tier() {
    let sources = sources("programs");
    assert!(sources.len() >= 9, "programs are missing: {}", sources.len());
    for (file, source) in sources {
        let program = Program::parse(&file, &source).unwrap_or_else(|e| panic!("{e}"));
        let expectations = expectations(&source);
        assert!(!expectations.is_empty(), "{file} promises nothing");
        let tiers = common::Tiers::new(&program);
        for (args, expected) in expectations {
            for (tier, (result, _)) in tiers.run(&args) {
                let result = result.map(|v: Value| v.to_string()).unwrap_or_else(|e| e.to_string());
                assert_eq!(result, expected, "{file}, main{args:?}, {tier}");
            }
        }
    }
}

#[test]
fn every_wrong_program_fails_with_the_same_message_in_every_tier() {
    let sources = sources("programs/wrong");
    assert!(sources.len() >= 20, "wrong programs are missing: {}", sources.len());
    let mut messages = Vec::new();
    for (file, source) in sources {
        let expected =
            source.lines().find_map(|l| l.strip_prefix("// error: ")).expect("each states its error");
        match Program::parse(&file, &source) {
            Err(diagnostic) => messages.push((diagnostic.to_string(), expected.to_owned(), "parser")),
            Ok(program) => {
                for (tier, (result, _)) in common::Tiers::new(&program).run(&[]) {
                    let message =
                        result.map(|v| format!("no error but {v}")).unwrap_or_else(|e| e.to_string());
                    messages.push((message, expected.to_owned(), tier));
                }
            }
        }
    }
    messages.retain(|(message, expected, _)| message != expected);
    assert!(messages.is_empty(), "message, expected message, tier:\n{messages:#?}");
}
