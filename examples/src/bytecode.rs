//! Register bytecode: the one form the interpreter runs and every code generator reads.
//!
//! A function has up to 256 registers of 64 bits. On entry the parameters are in `r0, r1, …`; nothing may be assumed about the
//! others. Registers are untyped words, but every instruction knows what it reads and writes: those with an `F` at
//! the end of their name treat the value as the bits of an `f64`, all others as an integer, a bool (0 or 1) or an array. A
//! register may hold a float at one place and an integer at another; an instruction never reads a register as a class other than
//! the one it was written as on every path before it.
//!
//! Control only goes forward, except through [`Op::Back`] and [`Op::ForBack`], which end loops; their target is the
//! header of the [`LoopSite`](crate::LoopSite) they name.

use std::fmt;

use crate::hir::FuncIndex;
use crate::num::{NumOp, NumTest};

/// A register of the running function.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reg(pub u8);

impl Reg {
    /// As an index into a register window.
    #[inline(always)]
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Debug for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// Where a jump goes: an index into [`Function::code`](crate::Function::code).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target(pub u16);

impl Target {
    /// As an index into the code.
    #[inline(always)]
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// One instruction, 8 bytes. Registers are read before `dst` is written, so operands and `dst` may be the same register.
#[derive(Clone, Copy, Debug, PartialEq)]
#[rustfmt::skip]
#[allow(missing_docs, reason = "operands are named uniformly: dst, a, b, src are registers, k is a constant")]
pub enum Op {
    /// `dst = src`
    Move { dst: Reg, src: Reg },
    MoveF { dst: Reg, src: Reg },
    /// `dst = value`
    Const { dst: Reg, value: i32 },
    /// `dst = pool[index]`
    Pool { dst: Reg, index: u16 },
    PoolF { dst: Reg, index: u16 },

    /// Wrapping arithmetic.
    Add { dst: Reg, a: Reg, b: Reg },
    Sub { dst: Reg, a: Reg, b: Reg },
    Mul { dst: Reg, a: Reg, b: Reg },
    /// Rounds towards zero; traps if `b` is 0; `i64::MIN / -1` is `i64::MIN`, and the remainder 0.
    Div { dst: Reg, a: Reg, b: Reg },
    Rem { dst: Reg, a: Reg, b: Reg },
    And { dst: Reg, a: Reg, b: Reg },
    Or { dst: Reg, a: Reg, b: Reg },
    Xor { dst: Reg, a: Reg, b: Reg },
    /// Shifts use the low six bits of `b`; `Shr` is arithmetic.
    Shl { dst: Reg, a: Reg, b: Reg },
    Shr { dst: Reg, a: Reg, b: Reg },
    /// The same with a constant, sign-extended.
    AddK { dst: Reg, a: Reg, k: i32 },
    MulK { dst: Reg, a: Reg, k: i32 },
    /// `k` is neither 0 nor -1.
    DivK { dst: Reg, a: Reg, k: i32 },
    RemK { dst: Reg, a: Reg, k: i32 },
    AndK { dst: Reg, a: Reg, k: i32 },
    /// `k` is in 0..64.
    ShlK { dst: Reg, a: Reg, k: i32 },
    ShrK { dst: Reg, a: Reg, k: i32 },
    Neg { dst: Reg, a: Reg },
    /// `dst = 1 - a` of a bool.
    Not { dst: Reg, a: Reg },

    AddF { dst: Reg, a: Reg, b: Reg },
    SubF { dst: Reg, a: Reg, b: Reg },
    MulF { dst: Reg, a: Reg, b: Reg },
    DivF { dst: Reg, a: Reg, b: Reg },
    NegF { dst: Reg, a: Reg },
    SqrtF { dst: Reg, a: Reg },
    /// Integer `a` to float `dst`, rounded to nearest even.
    ToFloat { dst: Reg, a: Reg },
    /// Float `a` to integer `dst`, rounded towards zero, saturating; NaN is 0.
    ToInt { dst: Reg, a: Reg },

    /// Arithmetic on nums, see [`num`](crate::num); their words are treated as integers.
    ArithN { op: NumOp, dst: Reg, a: Reg, b: Reg },
    /// Integer or float to num, and back.
    ToNum { dst: Reg, a: Reg },
    ToNumF { dst: Reg, a: Reg },
    NumToInt { dst: Reg, a: Reg },
    NumToFloat { dst: Reg, a: Reg },

    /// Continue at `target`, which is further down.
    Jump { target: Target },
    /// Jump if the bool `a` is 1 or 0.
    BrTrue { a: Reg, target: Target },
    BrFalse { a: Reg, target: Target },
    /// Jump if the signed comparison of `a` with `b`, or with `k`, holds.
    BrLt { a: Reg, b: Reg, target: Target },
    BrLe { a: Reg, b: Reg, target: Target },
    BrEq { a: Reg, b: Reg, target: Target },
    BrNe { a: Reg, b: Reg, target: Target },
    BrLtK { a: Reg, k: i32, target: Target },
    BrGeK { a: Reg, k: i32, target: Target },
    BrEqK { a: Reg, k: i32, target: Target },
    BrNeK { a: Reg, k: i32, target: Target },
    /// The same for floats. NaN makes every comparison but `!=` false, so the negations are instructions of their own.
    BrLtF { a: Reg, b: Reg, target: Target },
    BrLeF { a: Reg, b: Reg, target: Target },
    BrEqF { a: Reg, b: Reg, target: Target },
    BrNeF { a: Reg, b: Reg, target: Target },
    BrNotLtF { a: Reg, b: Reg, target: Target },
    BrNotLeF { a: Reg, b: Reg, target: Target },
    /// The same for nums.
    BrN { test: NumTest, a: Reg, b: Reg, target: Target },
    /// Back edge of a `while` loop: continue at the header of loop `site`.
    Back { site: u16, target: Target },
    /// Back edge of a `for` loop: `i += 1`, and if `i < limit` continue at the header of loop `site`.
    ForBack { i: Reg, limit: Reg, site: u16, target: Target },

    /// Element access; traps outside of the array.
    Load { dst: Reg, array: Reg, index: Reg },
    LoadF { dst: Reg, array: Reg, index: Reg },
    Store { array: Reg, index: Reg, src: Reg },
    StoreF { array: Reg, index: Reg, src: Reg },
    Len { dst: Reg, array: Reg },
    /// A new array of `len` times `init`; traps if the length is negative or memory is used up.
    Array { dst: Reg, len: Reg, init: Reg },
    ArrayF { dst: Reg, len: Reg, init: Reg },

    /// Calls `func` with the arguments in `base, base + 1, …`; the result is in `base` afterwards, and the contents of all
    /// registers above are undefined. The classes of arguments and result are those of the callee's signature.
    Call { base: Reg, func: FuncIndex },
    Ret { src: Reg },
    RetF { src: Reg },
    /// Returns the word 0, from a function without a result.
    RetUnit,
    /// Writes a line; traps if the host's output fails.
    Print { src: Reg, kind: PrintKind },
}

/// How `print` formats a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the scalar types")]
pub enum PrintKind {
    Int = 0,
    Float = 1,
    Bool = 2,
    Num = 3,
}

impl Op {
    /// Where the instruction may jump.
    #[must_use]
    #[rustfmt::skip]
    pub fn target(&self) -> Option<Target> {
        match *self {
            Op::Jump { target } | Op::BrTrue { target, .. } | Op::BrFalse { target, .. } | Op::BrLt { target, .. }
            | Op::BrLe { target, .. } | Op::BrEq { target, .. } | Op::BrNe { target, .. } | Op::BrLtK { target, .. }
            | Op::BrGeK { target, .. } | Op::BrEqK { target, .. } | Op::BrNeK { target, .. } | Op::BrLtF { target, .. }
            | Op::BrLeF { target, .. } | Op::BrEqF { target, .. } | Op::BrNeF { target, .. } | Op::BrNotLtF { target, .. }
            | Op::BrNotLeF { target, .. } | Op::BrN { target, .. } | Op::Back { target, .. } | Op::ForBack { target, .. } => Some(target),
            _ => None,
        }
    }

    /// The same jump to another place; other instructions are unchanged.
    #[must_use]
    #[rustfmt::skip]
    pub(crate) fn retargeted(mut self, to: Target) -> Self {
        match &mut self {
            Op::Jump { target } | Op::BrTrue { target, .. } | Op::BrFalse { target, .. } | Op::BrLt { target, .. }
            | Op::BrLe { target, .. } | Op::BrEq { target, .. } | Op::BrNe { target, .. } | Op::BrLtK { target, .. }
            | Op::BrGeK { target, .. } | Op::BrEqK { target, .. } | Op::BrNeK { target, .. } | Op::BrLtF { target, .. }
            | Op::BrLeF { target, .. } | Op::BrEqF { target, .. } | Op::BrNeF { target, .. } | Op::BrNotLtF { target, .. }
            | Op::BrNotLeF { target, .. } | Op::BrN { target, .. } | Op::Back { target, .. } | Op::ForBack { target, .. } => *target = to,
            _ => {}
        }
        self
    }

    /// Whether native code may speculate on the operands.
    #[must_use]
    pub fn may_be_guarded(&self) -> bool {
        matches!(self, Op::ArithN { .. } | Op::BrN { .. })
    }

    /// Whether control never reaches the next instruction.
    #[must_use]
    pub fn is_terminator(&self) -> bool {
        matches!(self, Op::Jump { .. } | Op::Back { .. } | Op::Ret { .. } | Op::RetF { .. } | Op::RetUnit)
    }
}
