//! The interpreter: one loop over the bytecode, compiled for each kind of hooks.
#![allow(unsafe_code, reason = "array elements are behind addresses, see `heap`")]

use crate::bytecode::Op;
use crate::calls::{Calls, Edge, Enter};
use crate::error::Trap;
use crate::function::Function;
use crate::heap;
use crate::lower::MAX_REGISTERS;
use crate::num;
use crate::vm::{Exit, Frame, Trapped, Vm};

/// The registers of one function. As an index has 8 bits, no access needs a bounds check.
type Window = [u64; MAX_REGISTERS];

/// The window that begins at `base`.
#[inline(always)]
fn window(stack: &mut [u64], base: usize) -> &mut Window {
    // `Vm::call` checks the first window of an activation. Each call moves the base by at most 255 and takes one of the frames
    // left, and the stack has a window for each frame and one more, so this never panics.
    let Some(window) = stack[base..].first_chunk_mut() else { unreachable!("depth limit passed") };
    window
}

#[inline(always)]
fn int(word: u64) -> i64 {
    word.cast_signed()
}

#[inline(always)]
fn float(word: u64) -> f64 {
    f64::from_bits(word)
}

impl<'p, C: Calls> Vm<'p, C> {
    /// Interprets `function` from `pc` on, with its registers (at 0: its arguments) in the window at `base` and `depth` frames left
    /// for what it calls. Calls between interpreted functions don't recurse. On an error, frames stay behind for the caller to drop.
    pub(crate) fn interpret(
        &mut self,
        function: &'p Function,
        pc: usize,
        base: usize,
        depth: u64,
    ) -> Result<u64, Trapped> {
        let program = self.context.program;
        let outermost = self.frames.len();
        let (mut function, mut base, mut depth) = (function, base, depth);
        let mut code = &function.code[..];
        let mut pc = pc;
        let mut r = window(&mut self.stack, base);

        /// Ends the run with an error at the current instruction.
        macro_rules! trap {
            ($trap:expr) => {
                return self.fail(function.line(pc - 1), $trap)
            };
        }
        macro_rules! binary {
            ($dst:ident, $a:expr, $b:expr, $as:ident, $f:expr) => {
                r[$dst.index()] = $f($as(r[$a.index()]), $as(r[$b.index()]))
            };
        }
        macro_rules! with_k {
            ($dst:ident, $a:expr, $k:ident, $f:expr) => {
                r[$dst.index()] = $f(int(r[$a.index()]), i64::from($k)).cast_unsigned()
            };
        }
        macro_rules! branch {
            ($target:ident, $condition:expr) => {
                if $condition {
                    pc = $target.index();
                }
            };
        }
        macro_rules! divide {
            ($dst:ident, $a:ident, $b:ident, $f:path) => {{
                let divisor = int(r[$b.index()]);
                if divisor == 0 {
                    trap!(Trap::DivisionByZero);
                }
                r[$dst.index()] = $f(int(r[$a.index()]), divisor).cast_unsigned();
            }};
        }
        macro_rules! ret {
            ($word:expr) => {{
                let word = $word;
                if self.frames.len() == outermost {
                    return Ok(word);
                }
                let Some(caller) = self.frames.pop() else { return Ok(word) };
                // The callee's `r0` is the caller's `base`, where the result belongs.
                r[0] = word;
                function = caller.function;
                code = &function.code;
                pc = caller.pc as usize;
                base = caller.base as usize;
                depth += 1;
                r = window(&mut self.stack, base);
            }};
        }
        macro_rules! back_edge {
            ($site:ident, $target:ident) => {
                match self.calls.back_edge(function.index, $site) {
                    Edge::Continue => {
                        self.calls.safepoint(self.native_frames);
                        pc = $target.index();
                    }
                    Edge::Native(entry) => {
                        let exit = self.enter_loop(entry, base, depth)?;
                        if let Exit::Deopt = exit {
                            (_, pc) = self.take_over(base)?;
                        }
                        r = window(&mut self.stack, base);
                        if let Exit::Value(word) = exit {
                            ret!(word);
                        }
                    }
                    Edge::Stop => trap!(Trap::Stopped),
                }
            };
        }
        let of = |a: i64, f: fn(i64, i64) -> i64, b: i64| f(a, b).cast_unsigned();

        loop {
            let Some(&op) = code.get(pc) else { trap!(Trap::InvalidNative { what: "pc", value: pc as u64 }) };
            pc += 1;
            match op {
                Op::Move { dst, src } | Op::MoveF { dst, src } => r[dst.index()] = r[src.index()],
                Op::Const { dst, value } => r[dst.index()] = i64::from(value).cast_unsigned(),
                Op::Pool { dst, index } | Op::PoolF { dst, index } => {
                    r[dst.index()] = function.constant(index)
                }

                Op::Add { dst, a, b } => binary!(dst, a, b, int, |a, b| of(a, i64::wrapping_add, b)),
                Op::Sub { dst, a, b } => binary!(dst, a, b, int, |a, b| of(a, i64::wrapping_sub, b)),
                Op::Mul { dst, a, b } => binary!(dst, a, b, int, |a, b| of(a, i64::wrapping_mul, b)),
                Op::Div { dst, a, b } => divide!(dst, a, b, i64::wrapping_div),
                Op::Rem { dst, a, b } => divide!(dst, a, b, i64::wrapping_rem),
                Op::And { dst, a, b } => r[dst.index()] = r[a.index()] & r[b.index()],
                Op::Or { dst, a, b } => r[dst.index()] = r[a.index()] | r[b.index()],
                Op::Xor { dst, a, b } => r[dst.index()] = r[a.index()] ^ r[b.index()],
                // `wrapping_shl` and `wrapping_shr` use the low six bits.
                Op::Shl { dst, a, b } => r[dst.index()] = r[a.index()].wrapping_shl(r[b.index()] as u32),
                Op::Shr { dst, a, b } => {
                    r[dst.index()] = int(r[a.index()]).wrapping_shr(r[b.index()] as u32).cast_unsigned();
                }
                Op::AddK { dst, a, k } => with_k!(dst, a, k, i64::wrapping_add),
                Op::MulK { dst, a, k } => with_k!(dst, a, k, i64::wrapping_mul),
                Op::DivK { dst, a, k } => with_k!(dst, a, k, i64::wrapping_div),
                Op::RemK { dst, a, k } => with_k!(dst, a, k, i64::wrapping_rem),
                Op::AndK { dst, a, k } => with_k!(dst, a, k, |a: i64, k| a & k),
                Op::ShlK { dst, a, k } => with_k!(dst, a, k, |a: i64, k: i64| a.wrapping_shl(k as u32)),
                Op::ShrK { dst, a, k } => with_k!(dst, a, k, |a: i64, k: i64| a.wrapping_shr(k as u32)),
                Op::Neg { dst, a } => r[dst.index()] = r[a.index()].wrapping_neg(),
                Op::Not { dst, a } => r[dst.index()] = r[a.index()] ^ 1,

                Op::AddF { dst, a, b } => binary!(dst, a, b, float, |a: f64, b: f64| (a + b).to_bits()),
                Op::SubF { dst, a, b } => binary!(dst, a, b, float, |a: f64, b: f64| (a - b).to_bits()),
                Op::MulF { dst, a, b } => binary!(dst, a, b, float, |a: f64, b: f64| (a * b).to_bits()),
                Op::DivF { dst, a, b } => binary!(dst, a, b, float, |a: f64, b: f64| (a / b).to_bits()),
                Op::NegF { dst, a } => r[dst.index()] = (-float(r[a.index()])).to_bits(),
                Op::SqrtF { dst, a } => r[dst.index()] = float(r[a.index()]).sqrt().to_bits(),
                Op::ToFloat { dst, a } => r[dst.index()] = (int(r[a.index()]) as f64).to_bits(),
                Op::ToInt { dst, a } => r[dst.index()] = (float(r[a.index()]) as i64).cast_unsigned(),

                Op::ArithN { op, dst, a, b } => {
                    r[dst.index()] = num::arithmetic(op, r[a.index()], r[b.index()]);
                }
                Op::ToNum { dst, a } => r[dst.index()] = num::from_int(int(r[a.index()])),
                Op::ToNumF { dst, a } => r[dst.index()] = num::from_float(float(r[a.index()])),
                Op::NumToInt { dst, a } => r[dst.index()] = num::to_int(r[a.index()]).cast_unsigned(),
                Op::NumToFloat { dst, a } => r[dst.index()] = num::to_float(r[a.index()]).to_bits(),

                Op::Jump { target } => pc = target.index(),
                Op::BrTrue { a, target } => branch!(target, r[a.index()] != 0),
                Op::BrFalse { a, target } => branch!(target, r[a.index()] == 0),
                Op::BrLt { a, b, target } => branch!(target, int(r[a.index()]) < int(r[b.index()])),
                Op::BrLe { a, b, target } => branch!(target, int(r[a.index()]) <= int(r[b.index()])),
                Op::BrEq { a, b, target } => branch!(target, r[a.index()] == r[b.index()]),
                Op::BrNe { a, b, target } => branch!(target, r[a.index()] != r[b.index()]),
                Op::BrLtK { a, k, target } => branch!(target, int(r[a.index()]) < i64::from(k)),
                Op::BrGeK { a, k, target } => branch!(target, int(r[a.index()]) >= i64::from(k)),
                Op::BrEqK { a, k, target } => branch!(target, int(r[a.index()]) == i64::from(k)),
                Op::BrNeK { a, k, target } => branch!(target, int(r[a.index()]) != i64::from(k)),
                Op::BrLtF { a, b, target } => branch!(target, float(r[a.index()]) < float(r[b.index()])),
                Op::BrLeF { a, b, target } => branch!(target, float(r[a.index()]) <= float(r[b.index()])),
                Op::BrEqF { a, b, target } => branch!(target, float(r[a.index()]) == float(r[b.index()])),
                Op::BrNeF { a, b, target } => branch!(target, float(r[a.index()]) != float(r[b.index()])),
                Op::BrNotLtF { a, b, target } => {
                    let less = float(r[a.index()]) < float(r[b.index()]);
                    branch!(target, !less);
                }
                Op::BrNotLeF { a, b, target } => {
                    let less_or_equal = float(r[a.index()]) <= float(r[b.index()]);
                    branch!(target, !less_or_equal);
                }
                Op::BrN { test, a, b, target } => branch!(target, test.holds(r[a.index()], r[b.index()])),
                Op::Back { site, target } => {
                    back_edge!(site, target);
                }
                Op::ForBack { i, limit, site, target } => {
                    let next = int(r[i.index()]).wrapping_add(1);
                    r[i.index()] = next.cast_unsigned();
                    if next < int(r[limit.index()]) {
                        back_edge!(site, target);
                    }
                }

                Op::Load { dst, array, index } | Op::LoadF { dst, array, index } => {
                    let (array, index) = (r[array.index()], r[index.index()]);
                    // SAFETY: HEAP-LIVE and HEAP-TYPED: the checker typed the register as an array.
                    match unsafe { heap::load(array, index) } {
                        Ok(word) => r[dst.index()] = word,
                        Err(length) => trap!(Trap::IndexOutOfRange { index: int(index), length }),
                    }
                }
                Op::Store { array, index, src } | Op::StoreF { array, index, src } => {
                    let (array, index) = (r[array.index()], r[index.index()]);
                    // SAFETY: as for `Load`; the checker typed the value as an element.
                    if let Err(length) = unsafe { heap::store(array, index, r[src.index()]) } {
                        trap!(Trap::IndexOutOfRange { index: int(index), length });
                    }
                }
                // SAFETY: as for `Load`.
                Op::Len { dst, array } => r[dst.index()] = unsafe { heap::length(r[array.index()]) },
                Op::Array { dst, len, init } | Op::ArrayF { dst, len, init } => {
                    match self.context.heap.alloc(int(r[len.index()]), r[init.index()]) {
                        Ok(array) => r[dst.index()] = array,
                        Err(trap) => trap!(trap),
                    }
                }

                Op::Call { base: argument, func } => {
                    let Some(callee) = program.functions().get(func.index()) else {
                        trap!(Trap::InvalidNative { what: "function", value: func.0.into() })
                    };
                    let callee_base = base + argument.index();
                    if depth == 0 {
                        self.context.fail_too_deep(func);
                        return Err(Trapped);
                    }
                    match self.calls.enter(func) {
                        Enter::Interpret => {
                            let callee = self.definition(func, callee);
                            self.frames.push(Frame { function, pc: pc as u32, base: base as u32 });
                            (function, base) = (callee, callee_base);
                            depth -= 1;
                            code = &callee.code;
                            pc = 0;
                            r = window(&mut self.stack, base);
                        }
                        Enter::Native(entry) => {
                            match self.call_native(entry, callee, callee_base, depth)? {
                                Exit::Value(word) => {
                                    r = window(&mut self.stack, base);
                                    r[argument.index()] = word;
                                }
                                // The rest of the callee is interpreted like any other.
                                Exit::Deopt => {
                                    let (callee, at) = self.take_over(callee_base)?;
                                    self.frames.push(Frame { function, pc: pc as u32, base: base as u32 });
                                    (function, base, pc) = (callee, callee_base, at);
                                    depth -= 1;
                                    code = &callee.code;
                                    r = window(&mut self.stack, base);
                                }
                            }
                        }
                        Enter::Stop => trap!(Trap::Stopped),
                    }
                }
                Op::Ret { src } | Op::RetF { src } => ret!(r[src.index()]),
                Op::RetUnit => ret!(0),
                Op::Print { src, kind } => {
                    if let Err(trap) = self.context.print(r[src.index()], kind) {
                        trap!(trap);
                    }
                }
            }
        }
    }
}
