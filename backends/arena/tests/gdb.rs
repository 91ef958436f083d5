//! A backtrace of GDB through placed code, with names.

#![cfg(all(feature = "gdb", target_os = "linux", target_arch = "x86_64"))]
#![allow(unsafe_code)]

use std::process::Command;

use beadwork_arena::{Arena, Function, UnwindInfo};

/// Set in the process that is debugged.
const DEBUGGED: &str = "BEADWORK_DEBUGGED";

/// Where GDB stops: the innermost frame.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn beadwork_gdb_stops_here() {
    std::hint::black_box(());
}

/// Calls `outer(inner, stop)`, which calls `inner(stop)`, which calls `stop()`; both placed.
fn run_placed_code() {
    // push rbp; mov rbp, rsp; ...; pop rbp; ret
    let frame = |body: &[u8]| [&[0x55, 0x48, 0x89, 0xe5], body, &[0x5d, 0xc3]].concat();
    // mov rax, rdi; mov rdi, rsi; call rax
    let outer = frame(&[0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0xff, 0xd0]);
    // call rdi
    let inner = frame(&[0xff, 0xd7]);
    // After one byte the frame is 16 bytes and rbp is saved below; after three more it is found by rbp.
    let cie = vec![1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1];
    let unwind = UnwindInfo::new(cie, vec![0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6]).expect("good");
    let function = |name, code| Function { name, code, align: 16, relocations: &[], unwind: Some(&unwind) };
    let arena = Arena::builder().gdb(true).build().expect("Linux");
    let blocks =
        arena.place(&[function("guest_outer", &outer), function("guest_inner", &inner)]).expect("room");
    // SAFETY: the bytes are such functions, and the blocks live until after the call.
    let outer: extern "C" fn(*const u8, extern "C" fn()) = unsafe { std::mem::transmute(blocks[0].entry()) };
    outer(blocks[1].entry(), beadwork_gdb_stops_here);
}

#[test]
fn a_backtrace_names_placed_functions_and_goes_on_behind_them() {
    if std::env::var_os(DEBUGGED).is_some() {
        return run_placed_code();
    }
    if Command::new("gdb").arg("--version").output().is_err() {
        eprintln!("SKIPPED, NOT PROVEN: backtraces in GDB (there is no gdb here)");
        return;
    }
    let test = "a_backtrace_names_placed_functions_and_goes_on_behind_them";
    let output = Command::new("gdb")
        .args(["-batch", "-nx", "-ex", "set debuginfod enabled off", "-ex", "set breakpoint pending on"])
        .args([
            "-ex",
            "break beadwork_gdb_stops_here",
            "-ex",
            "run",
            "-ex",
            "backtrace",
            "-ex",
            "kill",
            "--args",
        ])
        .arg(std::env::current_exe().expect("a path"))
        .args(["--exact", test, "--nocapture"])
        .env(DEBUGGED, "1")
        .output()
        .expect("run gdb");
    let said = String::from_utf8_lossy(&output.stdout);
    let frames: Vec<&str> = said.lines().filter(|line| line.starts_with('#')).collect();
    let found = |number: usize, name: &str| frames.get(number).is_some_and(|frame| frame.contains(name));
    let names = ["beadwork_gdb_stops_here", "guest_inner", "guest_outer", "run_placed_code"];
    let all = names.iter().enumerate().all(|(number, name)| found(number, name));
    assert!(all, "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
