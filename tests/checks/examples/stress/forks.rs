//! Forks: the child has one thread, and goes on with the engine.
#![cfg(unix)]

use crate::runner::running;
use crate::stage::{FUNCTIONS, Stage};
use beadwork::{DrainTimeout, Engine, TierId};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A child that takes longer hangs. Much longer than anything takes: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Forks, has the child check its engine, and waits for it.
#[allow(unsafe_code)]
pub(crate) fn fork_once(stage: &Stage, engine: &Engine, tiers: u8) {
    // SAFETY: the child uses the engine, which is made for it, and the allocator, which the C library hands over, and ends by
    // `_exit`.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return;
    }
    if child == 0 {
        let wrong = in_child(stage, engine, tiers);
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(wrong) };
    }
    stage.tally.forks.fetch_add(1, Relaxed);
    let (start, mut status) = (Instant::now(), 0);
    loop {
        // SAFETY: writes the status into the local.
        let ended = unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) };
        if ended == child {
            break;
        }
        if start.elapsed() > PATIENCE {
            let threads = threads_of(child);
            // SAFETY: kills the child just forked, which was not waited for yet.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::waitpid(child, &mut status, 0) };
            return stage.tally.violation(|| format!("a forked child hung: {threads}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let right = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
    stage.tally.expect(right, || format!("a forked child ended with status {status:#x}"));
}

/// What the system knows of the child's threads: name, state, where each waits, and the time it had.
fn threads_of(child: libc::pid_t) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{child}/task")).into_iter().flatten().flatten();
    let read = |path: &std::path::Path, name| std::fs::read_to_string(path.join(name)).unwrap_or_default();
    let all =
        tasks.map(|task| format!("[{} in {}]", read(&task.path(), "stat"), read(&task.path(), "wchan")));
    all.collect()
}

/// In the child: says what is left to do, and where its threads are.
#[allow(unsafe_code)]
fn report(stage: &Stage, engine: &Engine, timeout: &DrainTimeout) {
    let states = (0..FUNCTIONS).filter_map(|number| {
        let bead = stage.function(number)?;
        let state = engine.state(bead).ok()?;
        state.pending.map(|pending| format!("{bead}: {pending:?} of version {}", state.version))
    });
    let states: Vec<_> = states.collect();
    let asked = stage.function(0).map(|bead| engine.promote(bead, TierId::BASELINE));
    let stats = engine.stats();
    let text = format!(
        "in a forked child: {timeout}; {} queued, {} compiling; a request is answered {asked:?}; {states:?}; {}\n",
        stats.queued,
        stats.compiling,
        threads_of(std::process::id() as libc::pid_t)
    );
    // SAFETY: writes out the text. Not through the standard library's handle, whose lock a thread of the parent's may have held.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// Dispatches what there is, has something compiled, and frees; answers the step that went wrong, or 0.
#[allow(unsafe_code)]
fn in_child(stage: &Stage, engine: &Engine, tiers: u8) -> i32 {
    stage.in_child.store(true, Relaxed);
    stage.heap.forget_collectors();
    let before = stage.tally.violations();
    let mut m = engine.mutator();
    for number in 0..FUNCTIONS {
        if let Some(bead) = stage.function(number) {
            running(stage, &m, bead);
        }
    }
    if stage.tally.violations() > before {
        return 1;
    }
    // SAFETY: the other mutators belong to threads that do not exist here.
    unsafe { engine.forget_other_mutators(&[&m]) };
    engine.set_enabled(true);
    for tier in (1..=tiers).filter_map(TierId::new) {
        let _ = engine.set_tier_enabled(tier, true);
    }
    for bead in (0..8).filter_map(|number| stage.function(number)) {
        let _ = engine.unblacklist(bead);
        let _ = engine.set_tier_cap(bead, TierId::MAX);
        let _ = engine.promote(bead, TierId::BASELINE);
    }
    if let Err(timeout) = engine.drain(PATIENCE / 2) {
        report(stage, engine, &timeout);
        return 2;
    }
    let pending = |bead| engine.state(bead).is_ok_and(|state| state.pending.is_some());
    if (0..FUNCTIONS).filter_map(|number| stage.function(number)).any(pending) {
        return 3;
    }
    for bead in (0..8).filter_map(|number| stage.function(number)) {
        let _ = engine.invalidate(bead);
        if m.dispatch(bead).is_some() {
            return 4;
        }
    }
    m.safepoint();
    engine.reclaim();
    if stage.tally.violations() > before { 5 } else { 0 }
}
