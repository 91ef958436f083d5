//! The program files and what their comments promise.
#![allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]

use std::fs;
use std::path::PathBuf;

/// Name and text of every program in a folder of this package, by name.
pub fn sources(folder: &str) -> Vec<(String, String)> {
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
pub fn expectations(source: &str) -> Vec<(Vec<i64>, String)> {
    let lines = source.lines().filter_map(|l| l.strip_prefix("// expect main("));
    lines
        .map(|line| {
            let (args, result) = line.split_once(") = ").unwrap();
            let args = args.split(',').map(str::trim).filter(|a| !a.is_empty());
            (args.map(|a| a.parse().unwrap()).collect(), result.trim().to_owned())
        })
        .collect()
}

/// The message of a wrong program, from its `// error: ` line.
pub fn promised_error(source: &str) -> &str {
    source.lines().find_map(|l| l.strip_prefix("// error: ")).expect("each states its error")
}
