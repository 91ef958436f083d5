//! Figures that need a process of their own: what else was allocated must not matter, or the contender may crash.

use crate::case::{Sample, in_child};
use crate::contender::Who;
use std::process::Command;

/// The subcommand by which a child is started.
pub const COMMAND: &str = "child";

/// Starts a child and answers its figures.
pub fn figures(what: &str, who: Who, functions: usize) -> Sample {
    let failed = |error: &dyn std::fmt::Display| format!("no child process: {error}");
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let output = Command::new(program)
        .args([COMMAND, what, &(who as usize).to_string(), &functions.to_string()])
        .output()
        .map_err(|error| failed(&error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let why = if said.contains("overflowed its stack") { "crashes: stack overflow" } else { "crashes" };
        return Err(format!("{why} ({})", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))
}

/// The child's side: prints the figures.
pub fn serve(what: &str, who: usize, functions: usize) -> Sample {
    let who = *Who::ALL.get(who).ok_or("no such contender")?;
    in_child(what, who, functions)
}
