//! The jitdump, read back by its format.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(unsafe_code)]

mod common;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use beadwork_arena::Arena;
use common::{function, in_child, returns};

/// A record of code.
#[derive(Debug, PartialEq)]
struct Code {
    name: String,
    address: u64,
    number: u64,
    bytes: Vec<u8>,
}

/// The process, its code, and whether the end is written.
fn read(bytes: &[u8]) -> (u32, Vec<Code>, bool) {
    let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four"));
    let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight"));
    assert_eq!((u32_at(0), u32_at(4), u32_at(8), u32_at(12)), (0x4a69_5444, 1, 40, 62));
    let (pid, mut at, mut time) = (u32_at(20), 40, u64_at(24));
    let (mut code, mut ended) = (Vec::new(), false);
    while at < bytes.len() {
        assert!(!ended, "nothing follows the end");
        let (id, size) = (u32_at(at), u32_at(at + 4) as usize);
        assert!(u64_at(at + 8) >= time, "time goes on");
        time = u64_at(at + 8);
        match id {
            0 => {
                assert_eq!((u32_at(at + 16), u64_at(at + 24)), (pid, u64_at(at + 32)));
                let len = u64_at(at + 40) as usize;
                let name = &bytes[at + 56..at + size - len - 1];
                assert_eq!(bytes[at + size - len - 1], 0);
                code.push(Code {
                    name: String::from_utf8(name.to_vec()).expect("UTF-8"),
                    address: u64_at(at + 32),
                    number: u64_at(at + 48),
                    bytes: bytes[at + size - len..at + size].to_vec(),
                });
            }
            3 => ended = size == 16,
            other => panic!("record {other}"),
        }
        at += size;
    }
    (pid, code, ended)
}

fn directory(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory");
    directory
}

/// A fork keeps every arena of the process until it is over, and with it the file of one that is dropped meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file(directory: &std::path::Path, pid: u32) -> Vec<u8> {
    std::fs::read(directory.join(format!("jit-{pid}.dump"))).expect("the dump")
}

#[test]
fn a_jitdump_has_the_names_and_final_bytes_of_all_code_of_all_arenas_and_an_end() {
    let _alone = alone();
    let directory = directory("jitdump_arenas");
    let arenas = [(); 2].map(|()| Arena::builder().jitdump(&directory).build().expect("Linux"));
    let (long, short) = (returns(7, 40), returns(8, 6));
    let (calls, relocation) = common::calls(beadwork_arena::Target::Local(0, 0));
    let mut caller = function("caller\n", &calls);
    let relocations = [relocation];
    caller.relocations = &relocations;
    let blocks = arenas[0].place(&[function("first.T1", &long), caller]).expect("room");
    let other = arenas[1].place(&[function("second.T2", &short)]).expect("room");
    assert_eq!((arenas[0].stats().jitdump_errors, arenas[1].stats().jitdump_errors), (0, 0));
    let pid = std::process::id();
    let (owner, code, ended) = read(&file(&directory, pid));
    assert!(owner == pid && !ended);
    let names: Vec<_> = code.iter().map(|code| (&*code.name, code.number)).collect();
    assert_eq!(names, [("first.T1", 0), ("caller?", 1), ("second.T2", 2)]);
    let entries = blocks.iter().chain(&other).map(|block| block.entry());
    for (code, entry) in code.iter().zip(entries) {
        assert_eq!(code.address, entry.addr() as u64);
        // SAFETY: the block is live and this long.
        assert_eq!(code.bytes, unsafe { std::slice::from_raw_parts(entry, code.bytes.len()) });
    }
    assert_eq!((&code[0].bytes, &code[2].bytes), (&long, &short));
    assert_ne!(code[1].bytes, calls, "relocated");
    drop((blocks, other, arenas));
    assert!(read(&file(&directory, pid)).2);
}

#[test]
fn the_end_is_written_when_the_last_arena_goes_whoever_opens_another_file_meanwhile() {
    let _alone = alone();
    let directories = [directory("jitdump_ends"), directory("jitdump_others")];
    let code = returns(1, 8);
    let placed = |directory: &std::path::Path| {
        let arena = Arena::builder().jitdump(directory).build().expect("Linux");
        let _block = arena.place(&[function("f", &code)]).expect("room");
    };
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                placed(&directories[1]);
            }
        });
        let ends: Vec<_> = (0..2_000)
            .map(|_| {
                placed(&directories[0]);
                read(&file(&directories[0], std::process::id())).2
            })
            .collect();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(ends.iter().all(|&ended| ended));
    });
}

#[test]
fn a_forked_child_writes_a_file_of_its_own_and_leaves_its_parents_alone() {
    let _alone = alone();
    let directory = directory("jitdump_fork");
    let arena = Arena::builder().jitdump(&directory).build().expect("Linux");
    let code = returns(1, 8);
    let _mine = arena.place(&[function("parent", &code)]).expect("room");
    let status = in_child(|| {
        let _its = arena.place(&[function("child", &code)]).expect("room");
        let (pid, written, _) = read(&file(&directory, std::process::id()));
        assert_eq!((pid, written.len(), &*written[0].name), (std::process::id(), 1, "child"));
    });
    assert_eq!(status, 0);
    let (_, written, ended) = read(&file(&directory, std::process::id()));
    assert!(written.len() == 1 && !ended);
}

#[test]
fn a_directory_that_cannot_be_written_to_is_counted_and_no_error_of_the_placement() {
    let arena = Arena::builder().jitdump("/proc/no/such/directory").build().expect("Linux");
    let code = returns(1, 8);
    assert!(arena.place(&[function("f", &code)]).is_ok());
    assert_eq!(arena.stats().jitdump_errors, 1);
}
