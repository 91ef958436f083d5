//! Small x86-64 functions and looks at the process from outside, for the tests.
#![allow(unsafe_code, dead_code, unreachable_pub)]

use beadwork_arena::{Arena, CodeBlock, Function, Relocation, RelocationKind, Target};

/// `mov eax, value; ret`, padded to `len` bytes by traps.
pub fn returns(value: u32, len: usize) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend_from_slice(&value.to_le_bytes());
    code.push(0xc3);
    code.resize(len.max(6), 0xcc);
    code
}

pub fn function<'a>(name: &'a str, code: &'a [u8]) -> Function<'a> {
    Function { name, code, align: 16, relocations: &[], unwind: None }
}

pub fn place_one(arena: &Arena, code: &[u8]) -> CodeBlock {
    arena.place(&[function("f", code)]).expect("there is room").remove(0)
}

/// Runs code made by [`returns`] (or any C function without arguments that answers a u32).
pub fn call(entry: *const u8) -> u32 {
    // SAFETY: the tests pass entries of live blocks with such code.
    let code: extern "C" fn() -> u32 = unsafe { std::mem::transmute(entry) };
    code()
}

/// `sub rsp, 8; mov rax, target; call rax; add rsp, 8; ret`, with its relocation.
pub fn calls(target: Target) -> (Vec<u8>, Relocation) {
    let mut code = vec![0x48, 0x83, 0xec, 0x08, 0x48, 0xb8];
    code.extend_from_slice(&[0; 8]);
    code.extend_from_slice(&[0xff, 0xd0, 0x48, 0x83, 0xc4, 0x08, 0xc3]);
    (code, Relocation { offset: 6, kind: RelocationKind::Abs8, target, addend: 0 })
}

/// A line of /proc/self/maps.
#[derive(Debug, Clone)]
pub struct Line {
    pub from: usize,
    pub to: usize,
    pub access: String,
    pub name: String,
}

pub fn maps() -> Vec<Line> {
    let text = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let parse = |hex| usize::from_str_radix(hex, 16).ok();
        let access = fields.next()?.to_owned();
        Some(Line { from: parse(from)?, to: parse(to)?, access, name: fields.skip(3).collect() })
    };
    text.lines().map(|text| line(text).expect("a line of maps")).collect()
}

/// Mappings that are writable and executable at once: there must be none.
pub fn writable_and_executable() -> Vec<Line> {
    maps().into_iter().filter(|line| line.access.contains('w') && line.access.contains('x')).collect()
}

/// Mappings of shared anonymous memory, which in the tests is code memory only.
pub fn code_mappings() -> usize {
    maps().iter().filter(|line| line.name.starts_with("/dev/zero")).count()
}

/// The line of /proc/self/maps an address is in.
pub fn line_of(address: *const u8) -> Option<Line> {
    maps().into_iter().find(|line| (line.from..line.to).contains(&address.addr()))
}

/// Runs `body` in a forked child and answers its exit status: 0 if it returned, 101 if it panicked.
pub fn in_child(body: impl FnOnce()) -> i32 {
    // SAFETY: the child only runs `body` and leaves without returning into the test harness.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: ends the child without running anything of the harness.
        unsafe { libc::_exit(if outcome.is_ok() { 0 } else { 101 }) };
    }
    wait(child)
}

/// Waits for a child and answers its exit status, negative for a signal.
pub fn wait(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: waits for the child just forked and writes `status`.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}
