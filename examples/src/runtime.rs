//! Functions native code calls for what it does not do itself. All take and return integers, as [`NativeResult`] says.
#![allow(unsafe_code, reason = "called by native code with the address of the context")]

use crate::bytecode::PrintKind;
use crate::error::Trap;
use crate::hir::FuncIndex;
use crate::native::{Context, NativeResult};
use crate::num::{self, NumOp};

/// A runtime function. Native code calls it with the context as first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Helper {
    /// `(ctx, code, line, x, y)`: records an error, see [`TrapCode`]; always fails.
    Trap,
    /// `(ctx, length, init, line)`: a new array.
    Array,
    /// `(ctx, depth, 0, 0)`: a callee that was given `depth` has returned [`DEOPT`](crate::native::DEOPT); runs the rest of it.
    Resume,
    /// `(ctx, op, x, y)`: arithmetic on nums, see [`NumOp`]; never fails.
    Num,
    /// `(ctx, word, kind, line)`: prints; see [`PrintKind`].
    Print,
}

/// Which error [`Helper::Trap`] records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum TrapCode {
    /// No operands.
    DivisionByZero = 0,
    /// `x` is the index, `y` the length.
    IndexOutOfRange = 1,
    /// `x` is the function that could not be entered; the line is that of its declaration.
    RecursionTooDeep = 2,
}

impl Helper {
    /// All helpers.
    pub const ALL: [Self; 5] = [Self::Trap, Self::Array, Self::Resume, Self::Num, Self::Print];

    /// The symbol name of the helper.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Trap => "strand_trap",
            Self::Array => "strand_array",
            Self::Resume => "strand_resume",
            Self::Num => "strand_num",
            Self::Print => "strand_print",
        }
    }

    /// How many arguments it takes, the context included; all 64-bit integers. Each returns two, value and status.
    #[must_use]
    pub fn params(self) -> usize {
        if self == Self::Trap { 5 } else { 4 }
    }

    /// The address of the helper.
    #[must_use]
    pub fn address(self) -> *const u8 {
        match self {
            Self::Trap => strand_trap as *const u8,
            Self::Array => strand_array as *const u8,
            Self::Resume => strand_resume as *const u8,
            Self::Num => strand_num as *const u8,
            Self::Print => strand_print as *const u8,
        }
    }
}

fn line_number(line: u64) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

/// # Safety
/// `ctx` is the context native code was called with.
unsafe extern "C" fn strand_trap(
    ctx: *mut Context<'_>,
    code: u64,
    line: u64,
    x: u64,
    y: u64,
) -> NativeResult {
    // SAFETY: the context is exclusively the running native code's, by the contract of `call_native`.
    let ctx = unsafe { &mut *ctx };
    let line = line_number(line);
    if code == TrapCode::DivisionByZero as u64 {
        ctx.fail(line, Trap::DivisionByZero)
    } else if code == TrapCode::IndexOutOfRange as u64 {
        ctx.fail(line, Trap::IndexOutOfRange { index: x.cast_signed(), length: y })
    } else if code == TrapCode::RecursionTooDeep as u64 {
        match u16::try_from(x) {
            Ok(callee) => ctx.fail_too_deep(FuncIndex(callee)),
            Err(_) => ctx.fail(line, Trap::InvalidNative { what: "function", value: x }),
        }
    } else {
        ctx.fail(line, Trap::InvalidNative { what: "trap code", value: code })
    }
}

/// # Safety
/// As for [`strand_trap`].
unsafe extern "C" fn strand_array(ctx: *mut Context<'_>, length: u64, init: u64, line: u64) -> NativeResult {
    // SAFETY: as in `strand_trap`.
    let ctx = unsafe { &mut *ctx };
    match ctx.heap.alloc(length.cast_signed(), init) {
        Ok(array) => NativeResult::ok(array),
        Err(trap) => ctx.fail(line_number(line), trap),
    }
}

/// # Safety
/// As for [`strand_trap`].
unsafe extern "C" fn strand_resume(ctx: *mut Context<'_>, depth: u64, _: u64, _: u64) -> NativeResult {
    // SAFETY: `ctx` is the context of a running VM, which left in it the function for its own type.
    unsafe { ((*ctx).resume)(ctx, depth) }
}

/// # Safety
/// As for [`strand_trap`].
unsafe extern "C" fn strand_num(ctx: *mut Context<'_>, op: u64, x: u64, y: u64) -> NativeResult {
    match NumOp::ALL.iter().find(|known| **known as u64 == op) {
        Some(op) => NativeResult::ok(num::arithmetic(*op, x, y)),
        // SAFETY: as in `strand_trap`.
        None => unsafe { (*ctx).fail(0, Trap::InvalidNative { what: "num operation", value: op }) },
    }
}

/// # Safety
/// As for [`strand_trap`].
unsafe extern "C" fn strand_print(ctx: *mut Context<'_>, word: u64, kind: u64, line: u64) -> NativeResult {
    // SAFETY: as in `strand_trap`.
    let ctx = unsafe { &mut *ctx };
    let kinds = [PrintKind::Int, PrintKind::Float, PrintKind::Bool, PrintKind::Num];
    let result = match kinds.iter().find(|k| **k as u64 == kind) {
        Some(kind) => ctx.print(word, *kind),
        None => Err(Trap::InvalidNative { what: "print kind", value: kind }),
    };
    match result {
        Ok(()) => NativeResult::ok(0),
        Err(trap) => ctx.fail(line_number(line), trap),
    }
}
