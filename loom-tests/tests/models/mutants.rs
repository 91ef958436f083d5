//! Breaks the protocol in one place after the other, and sees that a model notices.
//!
//! Runs this very test binary again for each mutant and each model that has to catch it, with that mutant alone. Only the complaint
//! that is expected counts: a model that fails for another reason (a limit of loom's, a panic in the library) has caught nothing.
//! `BEADWORK_MUTANTS` restricts it to the mutants whose names begin so.

use beadwork_loom_tests::mutants::{Catch, MUTANTS, Mutant, PREEMPTIONS};
use std::collections::BTreeSet;
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
    /// It failed, but not for what the mutant breaks.
    Otherwise(String),
    /// The model did not run, or not to its end.
    Broken(String),
}

#[test]
#[ignore = "runs every mutant; see the crate's documentation"]
fn every_mutant_is_caught_by_its_models() {
    if cfg!(debug_assertions) {
        panic!("the library's own assertions would catch them: run this with --release");
    }
    let only = std::env::var("BEADWORK_MUTANTS").unwrap_or_default();
    let chosen = MUTANTS.iter().filter(|mutant| mutant.name.starts_with(&only));
    let pairs: Vec<_> =
        chosen.flat_map(|mutant| mutant.caught.iter().map(move |catch| (mutant, catch))).collect();
    assert!(!pairs.is_empty(), "no mutant is called {only}");
    let (next, failed) = (Mutex::new(pairs.iter()), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..workers.min(pairs.len()) {
            scope.spawn(|| {
                while let Some((mutant, catch)) = { next.lock().unwrap().next() } {
                    let start = Instant::now();
                    let (word, why) = match run(mutant, catch) {
                        Verdict::Caught(why) => ("caught", why),
                        Verdict::Survived => ("SURVIVED", String::new()),
                        Verdict::Otherwise(why) => ("OTHERWISE", why),
                        Verdict::Broken(why) => ("BROKEN", why),
                    };
                    let (name, model, time) = (mutant.name, catch.model, start.elapsed().as_secs_f32());
                    println!("{word:9} {time:6.2} s  {name:26} {model}: {why}");
                    if word != "caught" {
                        failed.lock().unwrap().push((name, model));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "not caught: {failed:#?}");
    let mutants: BTreeSet<_> = pairs.iter().map(|(mutant, _)| mutant.name).collect();
    println!("{} mutants caught, by {} pairs of mutant and model", mutants.len(), pairs.len());
}

fn run(mutant: &Mutant, catch: &Catch) -> Verdict {
    let run = std::env::current_exe().and_then(|itself| {
        Command::new(itself)
            .args(["--exact", catch.model, "--test-threads=1", "--nocapture"])
            .env("BEADWORK_MUTANT", mutant.name)
            .env("LOOM_MAX_PREEMPTIONS", PREEMPTIONS.to_string())
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
        let (place, said) = complaint(&output);
        if said.contains(catch.complaint) && !place.starts_with("src/") {
            Verdict::Caught(said)
        } else {
            Verdict::Otherwise(format!("{place}: {said}"))
        }
    } else if output.contains("test result: ok. 1 passed") {
        Verdict::Survived
    } else {
        Verdict::Broken(output.into_owned())
    }
}

/// Where the first panic was, and the first lines of what it said, in one.
fn complaint(output: &str) -> (&str, String) {
    let mut after = output.lines().skip_while(|line| !line.contains("panicked at"));
    let place = after.next().and_then(|line| line.split("panicked at ").nth(1)).unwrap_or("");
    let said: Vec<_> = after.take_while(|line| !line.starts_with("stack backtrace")).take(3).collect();
    (place, said.join(" ").split_whitespace().collect::<Vec<_>>().join(" "))
}
