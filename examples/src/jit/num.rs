//! Nums: integers behind guards where the code speculates, and otherwise whatever they turn out to be.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F64, I32, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value};

use super::Translation;
use crate::bytecode::{Reg, Target};
use crate::liveness::Liveness;
use crate::native::{Context, DEOPT};
use crate::num::{INT_MARK, INT_TAG, MARK_SHIFT, NAN, NumOp, NumTest};
use crate::runtime::Helper;

/// What a function's code is compiled for.
#[derive(Clone, Debug, Default)]
pub struct Speculation {
    /// What the code says it is when a guard fails.
    pub version: u64,
    /// The instructions whose guards have failed before, and which so are compiled for everything.
    pub failed: Vec<u16>,
}

/// Where [`Deopt::registers`](crate::native::Deopt::registers) begins, after three words.
const REGISTERS_OFFSET: usize = Context::DEOPT_OFFSET + 24;

impl Translation<'_, '_> {
    /// Whether the instruction being translated expects integers, and leaves the code if there are none.
    fn speculates(&self) -> bool {
        self.speculation.as_ref().is_some_and(|known| !known.failed.contains(&(self.pc as u16)))
    }

    pub(super) fn arithmetic(&mut self, op: NumOp, dst: Reg, a: Reg, b: Reg) {
        let (a, b) = (self.get(a), self.get(b));
        if !self.speculates() {
            let op = self.calls.builder().ins().iconst(I64, op as i64);
            let context = self.context;
            let [value, _] = self.calls.call_runtime(Helper::Num, &[context, op, a, b]);
            self.set(dst, value);
            return;
        }
        let are_ints = self.are_ints(a, b);
        let (result, fits) = self.exact(op, a, b);
        let holds = self.calls.builder().ins().band(are_ints, fits);
        self.guard(holds);
        let value = self.tagged(result);
        self.set(dst, value);
    }

    /// The result of an operation on two integers, and whether it is one. Harmless if they are no integers.
    fn exact(&mut self, op: NumOp, a: Value, b: Value) -> (Value, Value) {
        let ins = self.calls.builder();
        let (a, b) = (ins.ins().ireduce(I32, a), ins.ins().ireduce(I32, b));
        let overflowing = match op {
            NumOp::Add => ins.ins().sadd_overflow(a, b),
            NumOp::Sub => ins.ins().ssub_overflow(a, b),
            NumOp::Mul => ins.ins().smul_overflow(a, b),
            NumOp::Div => {
                // In 64 bits, where nothing overflows.
                let (a, b) = (ins.ins().sextend(I64, a), ins.ins().sextend(I64, b));
                let nonzero = ins.ins().icmp_imm_s(IntCC::NotEqual, b, 0);
                let one = ins.ins().iconst(I64, 1);
                let divisor = ins.ins().select(nonzero, b, one);
                let quotient = ins.ins().sdiv(a, divisor);
                let product = ins.ins().imul(quotient, divisor);
                let exact = ins.ins().icmp(IntCC::Equal, product, a);
                let result = ins.ins().ireduce(I32, quotient);
                let wide = ins.ins().sextend(I64, result);
                let narrow = ins.ins().icmp(IntCC::Equal, wide, quotient);
                let fits = ins.ins().band(exact, narrow);
                return (result, ins.ins().band(nonzero, fits));
            }
        };
        let (result, overflow) = overflowing;
        (result, ins.ins().icmp_imm_s(IntCC::Equal, overflow, 0))
    }

    pub(super) fn test(&mut self, test: NumTest, a: Reg, b: Reg, target: Target) {
        let (a, b) = (self.get(a), self.get(b));
        let condition = if self.speculates() {
            let are_ints = self.are_ints(a, b);
            self.guard(are_ints);
            let code = match test {
                NumTest::Lt => IntCC::SignedLessThan,
                NumTest::Le => IntCC::SignedLessThanOrEqual,
                NumTest::Eq => IntCC::Equal,
                NumTest::Ne => IntCC::NotEqual,
                NumTest::NotLt => IntCC::SignedGreaterThanOrEqual,
                NumTest::NotLe => IntCC::SignedGreaterThan,
            };
            let ins = self.calls.builder();
            let (a, b) = (ins.ins().ireduce(I32, a), ins.ins().ireduce(I32, b));
            ins.ins().icmp(code, a, b)
        } else {
            let code = match test {
                NumTest::Lt => FloatCC::LessThan,
                NumTest::Le => FloatCC::LessThanOrEqual,
                NumTest::Eq => FloatCC::Equal,
                NumTest::Ne => FloatCC::NotEqual,
                NumTest::NotLt => FloatCC::UnorderedOrGreaterThanOrEqual,
                NumTest::NotLe => FloatCC::UnorderedOrGreaterThan,
            };
            let (a, b) = (self.num_to_float(a), self.num_to_float(b));
            self.calls.builder().ins().fcmp(code, a, b)
        };
        self.branch(condition, target);
    }

    pub(super) fn int_to_num(&mut self, dst: Reg, a: Reg) {
        let a = self.get(a);
        let ins = self.calls.builder();
        let narrow = ins.ins().ireduce(I32, a);
        let wide = ins.ins().sextend(I64, narrow);
        let fits = ins.ins().icmp(IntCC::Equal, wide, a);
        let float = ins.ins().fcvt_from_sint(F64, a);
        let float = ins.ins().bitcast(I64, MemFlagsData::new(), float);
        let int = self.tagged(narrow);
        let value = self.calls.builder().ins().select(fits, int, float);
        self.set(dst, value);
    }

    pub(super) fn float_to_num(&mut self, dst: Reg, a: Reg) {
        let a = self.get_float(a);
        let ins = self.calls.builder();
        let is_nan = ins.ins().fcmp(FloatCC::Unordered, a, a);
        let bits = ins.ins().bitcast(I64, MemFlagsData::new(), a);
        let nan = ins.ins().iconst(I64, NAN.cast_signed());
        let value = ins.ins().select(is_nan, nan, bits);
        self.set(dst, value);
    }

    pub(super) fn num_to_int(&mut self, dst: Reg, a: Reg) {
        let a = self.get(a);
        let is_int = self.are_ints(a, a);
        let ins = self.calls.builder();
        let int = ins.ins().ireduce(I32, a);
        let int = ins.ins().sextend(I64, int);
        let float = ins.ins().bitcast(F64, MemFlagsData::new(), a);
        let float = ins.ins().fcvt_to_sint_sat(I64, float);
        let value = ins.ins().select(is_int, int, float);
        self.set(dst, value);
    }

    /// The value as a float, whatever it is.
    pub(super) fn num_to_float(&mut self, word: Value) -> Value {
        let is_int = self.are_ints(word, word);
        let ins = self.calls.builder();
        let int = ins.ins().ireduce(I32, word);
        let int = ins.ins().fcvt_from_sint(F64, int);
        let float = ins.ins().bitcast(F64, MemFlagsData::new(), word);
        ins.ins().select(is_int, int, float)
    }

    fn are_ints(&mut self, a: Value, b: Value) -> Value {
        let ins = self.calls.builder();
        let both = ins.ins().band(a, b);
        let mark = ins.ins().ushr_imm_u(both, i64::from(MARK_SHIFT));
        ins.ins().icmp_imm_s(IntCC::Equal, mark, INT_MARK.cast_signed())
    }

    fn tagged(&mut self, int: Value) -> Value {
        let ins = self.calls.builder();
        let wide = ins.ins().uextend(I64, int);
        let tag = ins.ins().iconst(I64, INT_TAG.cast_signed());
        ins.ins().bor(wide, tag)
    }

    /// Leaves the code before the instruction being translated, unless the condition holds: writes all that is live to
    /// [`Context::deopt`], and returns [`DEOPT`].
    fn guard(&mut self, holds: Value) {
        let cold = self.trap_unless(holds);
        let hot = self.calls.builder().current_block();
        self.calls.builder().switch_to_block(cold);
        let version = self.speculation.as_ref().map_or(0, |known| known.version);
        let version = self.calls.version(version);
        let words = [u64::from(self.function.index.0), self.pc as u64];
        let words = words.map(|word| self.calls.builder().ins().iconst(I64, word.cast_signed()));
        let (function, program) = (self.function, self.program);
        let liveness = self.liveness.get_or_insert_with(|| Liveness::of(function, program));
        let live: Vec<_> = liveness.before(self.pc).collect();
        let (mut places, mut values) = (Vec::new(), Vec::new());
        for (position, word) in words.into_iter().chain([version]).enumerate() {
            places.push((I64, (Context::DEOPT_OFFSET + 8 * position) as i32));
            values.push(word);
        }
        for (register, float) in live {
            let offset = REGISTERS_OFFSET + 8 * register.index();
            places.push((if float { F64 } else { I64 }, offset as i32));
            values.push(if float { self.get_float(register) } else { self.get(register) });
        }
        let context = self.context;
        self.calls.store_live(context, &places, &values);
        let status = self.calls.builder().ins().iconst(I64, DEOPT.cast_signed());
        self.calls.builder().ins().return_(&[status, status]);
        if let Some(hot) = hot {
            self.calls.builder().switch_to_block(hot);
        }
    }
}
