//! Figures that need a process of their own: what else was allocated must not matter, or the contender may crash.

use crate::case::{Sample, in_child};
use crate::contender::Who;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

/// The subcommand by which a child is started.
pub const COMMAND: &str = "child";

/// Starts a child and answers its figures.
pub fn figures(what: &str, who: Who, functions: usize) -> Sample {
    let failed = |error: &dyn std::fmt::Display| format!("fails: no child process: {error}");
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let output = Command::new(program)
        .args([COMMAND, what, &(who as usize).to_string(), &functions.to_string()])
        .output()
        .map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(end(output.status, &String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))
}

/// Why a child answered nothing: it crashed, or it failed and said why.
fn end(status: ExitStatus, said: &str) -> String {
    if said.contains("overflowed its stack") {
        return "crashes: stack overflow".to_owned();
    }
    if let Some(signal) = status.signal() {
        return format!("crashes: killed by signal {signal}");
    }
    let mut lines = said.lines().map(str::trim);
    // A panic says how to see more of it after what happened.
    match lines.rfind(|line| !line.is_empty() && !line.starts_with("note: ")) {
        Some(last) => format!("fails: {last}"),
        None => format!("fails: {status}, and said nothing"),
    }
}

/// The child's side: prints the figures.
pub fn serve(what: &str, who: usize, functions: usize) -> Sample {
    let who = *Who::ALL.get(who).ok_or("no such contender")?;
    in_child(what, who, functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn a_stack_overflow_is_told_from_other_signals() {
        let abort = ExitStatus::from_raw(6);
        let said =
            "\nthread 'main' (7) has overflowed its stack\nfatal runtime error: stack overflow, aborting\n";
        assert_eq!(end(abort, said), "crashes: stack overflow");
        assert_eq!(end(abort, "terminating"), "crashes: killed by signal 6");
        assert_eq!(end(ExitStatus::from_raw(9), ""), "crashes: killed by signal 9");
    }

    #[test]
    fn an_error_is_no_crash_and_says_what_the_child_said_last() {
        assert_eq!(end(exit(1), "first\nnothing is called x\n"), "fails: nothing is called x");
        assert_eq!(end(exit(1), ""), "fails: exit status: 1, and said nothing");
    }

    #[test]
    fn a_panic_says_its_message_and_not_how_to_get_a_backtrace() {
        let said = "\nthread 'main' (7) panicked at src/a.rs:1:2:\nno room\n\
                    note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        assert_eq!(end(exit(101), said), "fails: no room");
    }
}
