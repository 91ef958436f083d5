//! The convention between the interpreter, native code and the runtime; the one place where it is written down.
//!
//! A function is called as `extern "C" fn(callee_bits, ctx, depth, a0, a1, a2) -> NativeResult`, all six arguments in
//! integer registers on x86-64 (System V) and aarch64:
//!
//! | argument | content |
//! |---|---|
//! | `callee_bits` | names the callee, for the entry stub that serves all functions without code; compiled code ignores it |
//! | `ctx` | the [`Context`] of the running VM |
//! | `depth` | frames left: the callee fails if it is 0, and passes `depth - 1` to what it calls |
//! | `a0`, `a1`, `a2` | the first parameters; floats as their bits; undefined beyond the callee's parameters |
//!
//! Parameters beyond the third are in [`Context::args`]; the caller writes them right before the call and the callee reads them
//! before it does anything else. So one signature fits every function, a caller may leave out register arguments the callee does not
//! have, and a shared stub never reads stack memory nobody wrote.
//!
//! A **loop entry** has the same convention, with other content: it goes on with a function that is interpreted so far, from the
//! header of a loop to the function's end. `depth` is what is left for its callees (its own frame is counted already), and `a0`
//! is the address of the interpreter's registers, 8 bytes each, from `r0` on; it reads those that are
//! [live](crate::LoopSite::live) at the header.
//!
//! The result comes in two registers: the value, and a status. With [`OK`] the value is the result. With [`FAILED`] the run has ended
//! with an error, which is recorded in the context, and the caller returns the same status at once. With [`DEOPT`] a guard has
//! failed: the callee has written what its interpreter needs to [`Context::deopt`] and is gone, and the caller has it go on there at
//! once ([`Helper::Resume`](crate::runtime::Helper::Resume) from native code), before anything else can use that place.
//!
//! **Host stack.** The interpreter runs calls between interpreted functions without recursion; only a change from native code to the
//! interpreter nests Rust frames. Since `depth` is counted in every tier, a run has at most [`Limits::frames`](crate::Limits::frames)
//! activations of any kind. With 10,000 of them and [`STACK_BYTES`] each may take 26,843 bytes. A native frame may take [`MAX_FRAME_BYTES`],
//! which is a duty of the code generator: 16,384. An activation of the interpreter with its entry stub and hook takes less (measured:
//! together with a small native frame 447 bytes, and 7,518 without optimisation). So the depth limit is always hit first, with
//! 100 MB to spare. Hosts that raise the limit have to raise the stack in proportion.
#![allow(unsafe_code, reason = "native code is called through an address")]

use std::io::Write;
use std::mem::{offset_of, transmute};
use std::ptr::NonNull;

use crate::bytecode::PrintKind;
use crate::counting::{CountCall, CountIterations};
use crate::error::Trap;
use crate::heap::Heap;
use crate::hir::FuncIndex;
use crate::lower::MAX_REGISTERS;
use crate::num;
use crate::program::Program;

/// Parameters passed in registers.
pub const REGISTER_ARGS: usize = 3;
/// The host stack a VM that runs native code needs, in bytes, for the default [`Limits`](crate::Limits).
pub const STACK_BYTES: usize = 256 << 20;

/// The largest frame a native function may have, in bytes; a function that needs more has to stay interpreted.
pub const MAX_FRAME_BYTES: usize = 16 << 10;

/// The status of a function that has returned its result.
pub const OK: u64 = 0;
/// The status of a function whose run has failed.
pub const FAILED: u64 = 1;
/// The status of a function that has to go on in the interpreter.
pub const DEOPT: u64 = 2;

/// Where a function whose guard failed goes on, and with what.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Deopt {
    /// The function.
    pub function: u64,
    /// The instruction whose guard failed, which is executed again.
    pub pc: u64,
    /// The version of the code, whatever its compiler said it was.
    pub version: u64,
    /// The registers that are live there; the others are undefined.
    pub registers: [u64; MAX_REGISTERS],
}

/// What a native function returns, in two registers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeResult {
    /// The result, meaningless unless `status` is [`OK`].
    pub value: u64,
    /// [`OK`], [`FAILED`] or [`DEOPT`].
    pub status: u64,
}

impl NativeResult {
    /// The run has failed.
    pub const FAILED: Self = Self { value: 0, status: FAILED };

    /// A value.
    #[must_use]
    pub fn ok(value: u64) -> Self {
        Self { value, status: OK }
    }
}

/// The state of a run that native code and the runtime share. Native code itself only writes and reads `args`, and writes `deopt`.
#[repr(C)]
#[allow(missing_debug_implementations, reason = "holds the host's output")]
pub struct Context<'p> {
    /// Parameters beyond the third, on their way from caller to callee.
    pub args: [u64; 5],
    /// What a function that returns [`DEOPT`] leaves behind.
    pub deopt: Deopt,
    pub(crate) program: &'p Program,
    pub(crate) heap: Heap,
    pub(crate) output: Box<dyn Write + Send + 'p>,
    pub(crate) frames_limit: u64,
    /// The error that ends the run, with its line.
    pub(crate) trap: Option<(u32, Trap)>,
    /// The way into the interpreter for the hooks of the VM this is part of.
    pub(crate) enter_interpreter: NativeFn,
    /// The same for functions that have returned [`DEOPT`].
    pub(crate) resume: ResumeFn,
    /// The ways to the hooks for native code that counts itself.
    pub(crate) count_call: CountCall,
    pub(crate) count_iterations: CountIterations,
}

impl Context<'_> {
    /// Where [`args`](Self::args) is, in bytes from the address of the context.
    pub const ARGS_OFFSET: usize = offset_of!(Context<'_>, args);
    /// The same for [`deopt`](Self::deopt).
    pub const DEOPT_OFFSET: usize = offset_of!(Context<'_>, deopt);

    #[cold]
    pub(crate) fn fail(&mut self, line: u32, trap: Trap) -> NativeResult {
        self.trap = Some((line, trap));
        NativeResult::FAILED
    }

    #[cold]
    pub(crate) fn fail_too_deep(&mut self, callee: FuncIndex) -> NativeResult {
        let limit = self.frames_limit;
        let Some(function) = self.program.function(callee) else {
            return self.fail(0, Trap::InvalidNative { what: "function", value: callee.0.into() });
        };
        let signature = &function.signature;
        self.fail(signature.line, Trap::RecursionTooDeep { function: signature.name.clone(), limit })
    }

    pub(crate) fn print(&mut self, word: u64, kind: PrintKind) -> Result<(), Trap> {
        match kind {
            PrintKind::Int => writeln!(self.output, "{}", word.cast_signed()),
            PrintKind::Float => writeln!(self.output, "{:?}", f64::from_bits(word)),
            PrintKind::Bool => writeln!(self.output, "{}", word != 0),
            PrintKind::Num => match num::as_int(word) {
                Some(int) => writeln!(self.output, "{int}"),
                None => writeln!(self.output, "{:?}", f64::from_bits(word)),
            },
        }
        .map_err(|e| Trap::Output(e.to_string()))
    }
}

/// Native code of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    code: NonNull<()>,
    callee_bits: u64,
}

impl Entry {
    /// Code at `code`, to be passed `callee_bits`.
    ///
    /// # Safety
    /// * The code follows the convention of this module and computes what the function does whose [`Calls::enter`](crate::Calls::enter) answers
    ///   it, or what is left of it at the loop whose [`Calls::back_edge`](crate::Calls::back_edge) answers it; it stays valid until it has returned from the call made with this answer.
    /// * No function it is made of has a frame of more than [`MAX_FRAME_BYTES`].
    /// * The VM runs on a thread with the stack that the module's arithmetic asks for.
    /// * [`Calls::resolve`](crate::Calls::resolve) answers the right function for all bits this code passes to the entry stub.
    #[must_use]
    pub unsafe fn new(code: NonNull<()>, callee_bits: u64) -> Self {
        Self { code, callee_bits }
    }

    /// The address of the code.
    #[must_use]
    pub fn code(self) -> NonNull<()> {
        self.code
    }
}

/// The type of native code and of the entry stub.
pub type NativeFn = unsafe extern "C" fn(u64, *mut Context<'_>, u64, u64, u64, u64) -> NativeResult;

/// The type of the way back into the interpreter: context, and the depth the function was called with.
pub(crate) type ResumeFn = unsafe extern "C" fn(*mut Context<'_>, u64) -> NativeResult;

/// The stub that native code calls for functions without native code: it has the same convention, finds the callee by
/// [`Calls::resolve`](crate::Calls::resolve), asks [`Calls::enter`](crate::Calls::enter), and usually interprets. One stub serves all
/// functions of all VMs, whatever their hooks.
#[must_use]
pub fn entry_stub() -> *const u8 {
    let stub: NativeFn = enter_from_native;
    stub as *const u8
}

/// # Safety
/// Called by native code as this module says.
unsafe extern "C" fn enter_from_native(
    callee_bits: u64,
    ctx: *mut Context<'_>,
    depth: u64,
    a0: u64,
    a1: u64,
    a2: u64,
) -> NativeResult {
    // SAFETY: `ctx` is the context of a running VM, which left in it the function for its own type.
    unsafe { ((*ctx).enter_interpreter)(callee_bits, ctx, depth, a0, a1, a2) }
}

/// Calls native code; the only place that does.
///
/// # Safety
/// What [`Entry::new`] asks for holds, `args` and [`Context::args`] are arguments of the types of the function (for a loop entry:
/// the address of the function's registers), and `ctx` is the context of a VM, derived from a pointer to that whole VM which nothing else uses during the call.
#[inline(always)]
pub(crate) unsafe fn call_native(
    entry: Entry,
    ctx: *mut Context<'_>,
    depth: u64,
    args: [u64; REGISTER_ARGS],
) -> NativeResult {
    // SAFETY: the code has this type by the contract of `Entry::new`; a function pointer is as wide as a data pointer on all
    // targets native code exists for. Surplus register arguments are ignored by the callee.
    unsafe {
        let code = transmute::<NonNull<()>, NativeFn>(entry.code);
        code(entry.callee_bits, ctx, depth, args[0], args[1], args[2])
    }
}
