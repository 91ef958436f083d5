//! fork() while the engine works: both processes run the code there is and compile more.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "forks, and ends the child without running what belongs to the parent")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use beadwork::{BeadInfo, Core, Engine, Threshold, Tier, TierId};
use beadwork_cranelift::{CraneliftBackend, OptLevel};
use strand::tiering::{Dispatching, Linking, Tiered, cranelift};
use strand::{Limits, Program, Value, Vm};

const SOURCE: &str = "fn fib(n: int) -> int { if n < 2 { return n; } return fib(n - 1) + fib(n - 2); }
fn twice(n: int) -> int { return n + n; }
fn main(n: int) -> int { return twice(fib(n)); }";

/// Forks of one test.
const FORKS: u32 = 24;

/// Far more than a child needs; who is not done by then hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a process does after the fork: runs the old code, then has something new compiled and runs everything
/// again. Answers what went wrong.
fn go_on(vm: &mut Vm<'_, Dispatching>, engine: &Engine, function: Core) -> Result<(), &'static str> {
    let fib_12 = Ok(Value::Int(288));
    let asked = vm.calls().dispatched();
    if vm.run(&[12]) != fib_12 {
        return Err("the old code gave another result");
    }
    // Interpreted, `fib` alone asks 465 times.
    if vm.calls().dispatched() - asked > 3 {
        return Err("the old code was not run");
    }
    let new = engine.register_with(function, &BeadInfo::named("new")).map_err(|_| "not registered")?;
    engine.promote(new, TierId::BASELINE).map_err(|_| "not promoted")?;
    // Not `drain`: in the parent another thread asks for compiles all the time, so it may never be idle.
    let start = Instant::now();
    while engine.tier(new) != Ok(TierId::BASELINE) {
        if start.elapsed() > DEADLINE / 2 {
            return Err("the new function was not compiled");
        }
        let _ = engine.drain(Duration::from_millis(20));
    }
    if vm.run(&[12]) != fib_12 {
        return Err("the program gave another result after the new function was compiled");
    }
    engine.remove(new).map_err(|_| "not removed")?;
    Ok(())
}

/// Waits for a child and answers its exit status, or kills it at the deadline.
fn wait_for(child: libc::pid_t) -> Result<i32, String> {
    let start = Instant::now();
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place, and the child is ours and not waited for yet.
        match unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } {
            0 if start.elapsed() < DEADLINE => std::thread::yield_now(),
            0 => {
                // SAFETY: the child is not waited for yet, so its number is not used again.
                unsafe {
                    libc::kill(child, libc::SIGKILL);
                    libc::waitpid(child, &mut status, 0);
                }
                return Err(format!("the child hangs: killed after {DEADLINE:?}"));
            }
            _ if libc::WIFEXITED(status) => return Ok(libc::WEXITSTATUS(status)),
            _ => return Err(format!("the child died of signal {}", libc::WTERMSIG(status))),
        }
    }
}

#[test]
fn p19_after_fork_both_processes_run_old_code_and_compile_new_code() {
    let program = Arc::new(Program::parse("fork", SOURCE).unwrap());
    let tiered = Tiered::new(&program, Linking::Slots, |builder, frontend| {
        let backend = cranelift(CraneliftBackend::builder().opt_level(OptLevel::None)).build(frontend)?;
        Ok(builder.capacity(1 << 10).tier(Tier::new(backend).policy(Threshold::new(1))).workers(1))
    })
    .unwrap();
    let engine = tiered.engine();
    for &bead in tiered.beads() {
        engine.promote(bead, TierId::BASELINE).unwrap();
    }
    engine.drain(DEADLINE).unwrap();

    let (recompiles, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                // `fib` is the old code; the functions around it come and go.
                for &bead in &tiered.beads()[1..] {
                    engine.invalidate(bead).unwrap();
                    engine.promote(bead, TierId::BASELINE).unwrap();
                }
                recompiles.fetch_add(1, Relaxed);
            }
        });
        let outcome = strand::on_vm_stack(|| {
            let mut vm = Vm::new(&program, Limits::default(), tiered.hooks()).unwrap();
            let function = Core::new(program.functions()[1].index.index());
            for fork in 0..FORKS {
                let before = recompiles.load(Relaxed);
                assert_eq!(vm.run(&[12]), Ok(Value::Int(288)));
                while recompiles.load(Relaxed) == before {
                    std::thread::yield_now();
                }
                // SAFETY: the child uses what the engine, the arena and the allocator keep usable in a child, and ends
                // without running destructors of what belongs to the parent.
                let child = unsafe { libc::fork() };
                assert!(child >= 0, "fork {fork}: {}", std::io::Error::last_os_error());
                if child == 0 {
                    let status = match go_on(&mut vm, engine, function) {
                        Ok(()) => 0,
                        Err(what) => {
                            let what = format!("fork {fork}, child: {what}\n");
                            // SAFETY: writes the bytes of a live string; `eprintln` could wait for a lock a thread
                            // of the parent held.
                            unsafe { libc::write(2, what.as_ptr().cast(), what.len()) };
                            1
                        }
                    };
                    // SAFETY: ends the child at once.
                    unsafe { libc::_exit(status) };
                }
                let parent = go_on(&mut vm, engine, function);
                let child = wait_for(child);
                if (&parent, &child) != (&Ok(()), &Ok(0)) {
                    return Err(format!("fork {fork}: parent {parent:?}, child {child:?}"));
                }
            }
            match vm.calls().first_native() {
                Some(_) => Ok(()),
                None => Err("nothing ever ran natively".to_owned()),
            }
        });
        done.store(true, Relaxed);
        outcome.unwrap().unwrap();
    });
}
