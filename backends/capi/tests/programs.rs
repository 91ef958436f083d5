//! C and C++ programs against the static library.

#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The static library this test's own crate was built as: it lies beside the test.
fn library() -> PathBuf {
    std::env::current_exe().expect("a path").with_file_name("libbeadwork_capi.a")
}

/// Compiles a program with warnings as errors, and runs it.
fn run(source: &str, compiler: &str, standard: &str) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{source}.{standard}"));
    let compiled = Command::new(compiler)
        .args([&format!("-std={standard}"), "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-g"])
        .arg("-I")
        .arg(root.join("include"))
        .arg(root.join("tests/c").join(source))
        .arg(library())
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program)
        .output()
        .expect("a compiler");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    Command::new(program).output().expect("run the program")
}

#[test]
fn what_the_header_promises_holds_for_c() {
    let output = run("api.c", "cc", "c99");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "all of it holds");
}

#[test]
fn an_exception_that_leaves_a_callback_ends_the_process_with_a_message() {
    if Command::new("c++").arg("--version").output().is_err() {
        eprintln!("SKIPPED, NOT PROVEN: exceptions that leave callbacks (there is no c++ here)");
        return;
    }
    let output = run("throws.cpp", "c++", "c++17");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("foreign exception"), "{said}");
    assert!(output.stdout.is_empty(), "went on");
}
