//! Breaks the protocol in one place after the other, and sees that a model notices.
//!
//! Runs this very test binary again for each mutant, with that mutant alone and the one model that has to catch it.
//! `BEADWORK_MUTANTS` restricts it to the mutants whose names begin so.

use beadwork_loom_tests::mutants::{MUTANTS, Mutant};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A model that has found nothing in that time finds nothing.
const LIMIT: Duration = Duration::from_secs(300);

/// What a run of a model came to.
enum Verdict {
    /// With the model's complaint.
    Caught(String),
    Survived,
    /// The model did not run, or not to its end.
    Broken(String),
}

#[test]
#[ignore = "runs every mutant; see the crate's documentation"]
fn every_mutant_is_caught_by_its_model() {
    let only = std::env::var("BEADWORK_MUTANTS").unwrap_or_default();
    let chosen: Vec<_> = MUTANTS.iter().filter(|mutant| mutant.name.starts_with(&only)).collect();
    assert!(!chosen.is_empty(), "no mutant is called {only}");
    let (next, failed) = (Mutex::new(chosen.iter()), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..workers.min(chosen.len()) {
            scope.spawn(|| {
                while let Some(mutant) = { next.lock().unwrap().next() } {
                    let start = Instant::now();
                    let (word, why) = match run(mutant) {
                        Verdict::Caught(why) => ("caught", why),
                        Verdict::Survived => ("SURVIVED", String::new()),
                        Verdict::Broken(why) => ("BROKEN", why),
                    };
                    let (name, model, time) = (mutant.name, mutant.model, start.elapsed().as_secs_f32());
                    println!("{word:8} {time:6.2} s  {name:26} {model}: {why}");
                    if word != "caught" {
                        failed.lock().unwrap().push(name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "not caught: {failed:?}");
    println!("{} mutants caught", chosen.len());
}

fn run(mutant: &Mutant) -> Verdict {
    let run = std::env::current_exe().and_then(|itself| {
        Command::new(itself)
            .args(["--exact", mutant.model, "--test-threads=1", "--nocapture"])
            .env("BEADWORK_MUTANT", mutant.name)
            .env("LOOM_MAX_PREEMPTIONS", mutant.preemptions.to_string())
            // A model that has found nothing by then passes. Looked at every so many executions.
            .env("LOOM_MAX_DURATION", LIMIT.as_secs().to_string())
            .env("LOOM_CHECKPOINT_INTERVAL", "1000")
            .output()
    });
    let run = match run {
        Ok(run) => run,
        Err(error) => return Verdict::Broken(error.to_string()),
    };
    let output = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    // Not always by a failed test: a deadlock's panic meets another one while it unwinds.
    if !run.status.success() && output.contains("panicked at") {
        Verdict::Caught(complaint(&output))
    } else if output.contains("test result: ok. 1 passed") {
        Verdict::Survived
    } else {
        Verdict::Broken(output.into_owned())
    }
}

/// The first line of what the model said when it panicked.
fn complaint(output: &str) -> String {
    let after = output.lines().skip_while(|line| !line.contains("panicked at"));
    after.skip(1).find(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_string()
}
