//! Real native frames: some that are left by longjmp, some that a panic unwinds.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(unsafe_code, reason = "jumps, and gets a mutator back from a raw handle")]

mod common;
use beadwork::*;
use common::*;
use std::ffi::{c_int, c_void};

const T1: TierId = TierId::BASELINE;

/// More than any C library's `jmp_buf` for x86-64 (200 bytes in glibc, 64 in musl).
#[repr(C, align(16))]
struct JumpBuffer([u64; 64]);

unsafe extern "C-unwind" {
    fn longjmp(buffer: *mut JumpBuffer, value: c_int) -> !;
}

// Calls `body(state)` and answers 0, or 1 if that was left by a longjmp to `buffer`. Written in assembly, since Rust has no
// functions that return twice: the C library's `_setjmp` returns twice in here, in a frame that lives until it is over.
// CFI describes the frame, so that panics unwind through it.
std::arch::global_asm!(
    ".globl beadwork_test_try_call",
    ".type beadwork_test_try_call, @function",
    "beadwork_test_try_call:",
    ".cfi_startproc",
    "push rbx",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_rel_offset rbx, 0",
    "push r12",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_rel_offset r12, 0",
    "sub rsp, 8",
    ".cfi_adjust_cfa_offset 8",
    "mov rbx, rdi",
    "mov r12, rsi",
    "mov rdi, rdx",
    "call _setjmp@PLT",
    "test eax, eax",
    "jne 2f",
    "mov rdi, r12",
    "call rbx",
    "xor eax, eax",
    "2:",
    "add rsp, 8",
    ".cfi_adjust_cfa_offset -8",
    "pop r12",
    ".cfi_adjust_cfa_offset -8",
    ".cfi_restore r12",
    "pop rbx",
    ".cfi_adjust_cfa_offset -8",
    ".cfi_restore rbx",
    "ret",
    ".cfi_endproc",
    ".size beadwork_test_try_call, . - beadwork_test_try_call",
);

unsafe extern "C-unwind" {
    #[link_name = "beadwork_test_try_call"]
    fn try_call(
        body: extern "C-unwind" fn(*mut c_void),
        state: *mut c_void,
        buffer: *mut JumpBuffer,
    ) -> c_int;
}

/// What the native frames get along.
struct State {
    raw: RawMutator,
    engine: *const Engine,
    bead: Bead,
    buffer: *mut JumpBuffer,
    depths: [u32; 2],
    panics: bool,
}

/// Called from a native frame; calls native code in turn, which fails. Nothing in here has to be dropped when it jumps.
extern "C-unwind" fn fails(state: *mut c_void) {
    // SAFETY: the state is the test's, which waits for this to end.
    let state = unsafe { &mut *state.cast::<State>() };
    // SAFETY: the caller opened a scope, and only this uses the mutator. It is only polled and read.
    let m = std::mem::ManuallyDrop::new(unsafe { Reentered::from_raw(state.raw) });
    state.depths[0] = m.depth();
    let _ = m.enter_native();
    let _ = m.enter_native();
    state.depths[1] = m.depth();
    // SAFETY: the test keeps the engine.
    let retired = unsafe { &*state.engine }.invalidate(state.bead);
    assert!(retired.is_ok());
    m.safepoint();
    if state.panics {
        panic!("unwinds");
    }
    // SAFETY: the buffer was set by `try_call`, whose frame is below; the frames between have nothing to drop.
    unsafe { longjmp(state.buffer, 1) }
}

fn with_a_native_frame(panics: bool, call: impl FnOnce(&mut Mutator, &mut State)) {
    let (engine, alive) = (inline(10, |_| Ok(code())), Alive::default());
    let bead = engine.register(Core::new(0)).unwrap();
    engine.install(bead, T1, alive.code()).unwrap();
    let mut m = engine.mutator();
    let mut buffer = JumpBuffer([0; 64]);
    let mut state =
        State { raw: m.as_raw(), engine: &engine, bead, buffer: &mut buffer, depths: [0; 2], panics };
    call(&mut m, &mut state);
    assert_eq!(state.depths, [1, 3]);
    assert_eq!(m.depth(), 0);
    assert_eq!((engine.reclaim(), alive.count()), (0, 1), "nothing was freed while the frame was there");
    m.safepoint();
    assert_eq!((engine.reclaim(), alive.count()), (1, 0));
}

#[test]
fn p13_a_native_frame_left_by_longjmp_holds_code_until_its_scopes_are_unwound_and_no_longer() {
    with_a_native_frame(false, |m, state| {
        let depth = m.enter_native();
        state.raw = m.as_raw();
        // SAFETY: `fails` has the type that is called, and the buffer lives.
        let jumped = unsafe { try_call(fails, (&raw mut *state).cast(), state.buffer) };
        assert_eq!((jumped, m.depth()), (1, 3), "the jump skipped what would have closed the scopes");
        m.safepoint();
        m.unwind_to(depth);
    });
}

#[test]
fn p13_a_native_frame_unwound_by_a_panic_closes_its_scope_on_the_way() {
    with_a_native_frame(true, |m, state| {
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            m.native_scope(|raw| {
                state.raw = raw;
                // SAFETY: as above.
                unsafe { try_call(fails, (&raw mut *state).cast(), state.buffer) }
            })
        }));
        assert_eq!(unwound.unwrap_err().downcast_ref::<&str>(), Some(&"unwinds"));
    });
}
