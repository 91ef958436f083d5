//! Moves, constants, arithmetic and conversions.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::immediates::Ieee64;
use cranelift_codegen::ir::types::{F64, I64};
use cranelift_codegen::ir::{InstBuilder, Value};

use super::{Op, Translation};
use crate::bytecode::Reg;
use crate::runtime::TrapCode;

impl Translation<'_, '_> {
    /// Translates one instruction that stays in its block, but for errors.
    #[rustfmt::skip]
    pub(super) fn computation(&mut self, op: &Op) {
        match *op {
            Op::Move { dst, src } => { let v = self.get(src); self.set(dst, v); }
            Op::MoveF { dst, src } => { let v = self.get_float(src); self.set_float(dst, v); }
            Op::Const { dst, value } => self.constant(dst, i64::from(value)),
            Op::Pool { dst, index } => self.constant(dst, self.function.constant(index).cast_signed()),
            Op::PoolF { dst, index } => {
                let v = self.calls.builder().ins().f64const(Ieee64::with_bits(self.function.constant(index)));
                self.set_float(dst, v);
            }
            Op::Add { dst, a, b } => { let (a, b) = self.ints(a, b); let v = self.calls.builder().ins().iadd(a, b); self.set(dst, v); }
            Op::Sub { dst, a, b } => { let (a, b) = self.ints(a, b); let v = self.calls.builder().ins().isub(a, b); self.set(dst, v); }
            Op::Mul { dst, a, b } => { let (a, b) = self.ints(a, b); let v = self.calls.builder().ins().imul(a, b); self.set(dst, v); }
            Op::And { dst, a, b } => { let (a, b) = self.ints(a, b); let v = self.calls.builder().ins().band(a, b); self.set(dst, v); }
            Op::Or { dst, a, b } => { let (a, b) = self.ints(a, b); let v = self.calls.builder().ins().bor(a, b); self.set(dst, v); }
            Op::Xor { dst, a, b } => { let (a, b) = self.ints(a, b); let v = self.calls.builder().ins().bxor(a, b); self.set(dst, v); }
            // Cranelift's shifts use the low six bits of the amount, like ours.
            Op::Shl { dst, a, b } => { let (a, b) = self.ints(a, b); let v = self.calls.builder().ins().ishl(a, b); self.set(dst, v); }
            Op::Shr { dst, a, b } => { let (a, b) = self.ints(a, b); let v = self.calls.builder().ins().sshr(a, b); self.set(dst, v); }
            Op::Div { dst, a, b } => {
                let (a, divisor, by_minus_one) = self.divisor(a, b);
                let quotient = self.calls.builder().ins().sdiv(a, divisor);
                let negated = self.calls.builder().ins().ineg(a);
                let v = self.calls.builder().ins().select(by_minus_one, negated, quotient);
                self.set(dst, v);
            }
            Op::Rem { dst, a, b } => {
                // The remainder by 1 is 0, as is the one by -1.
                let (a, divisor, _) = self.divisor(a, b);
                let v = self.calls.builder().ins().srem(a, divisor);
                self.set(dst, v);
            }
            Op::AddK { dst, a, k } => { let (a, k) = self.with_k(a, k); let v = self.calls.builder().ins().iadd(a, k); self.set(dst, v); }
            Op::MulK { dst, a, k } => { let (a, k) = self.with_k(a, k); let v = self.calls.builder().ins().imul(a, k); self.set(dst, v); }
            Op::DivK { dst, a, k } => { let (a, k) = self.with_k(a, k); let v = self.calls.builder().ins().sdiv(a, k); self.set(dst, v); }
            Op::RemK { dst, a, k } => { let (a, k) = self.with_k(a, k); let v = self.calls.builder().ins().srem(a, k); self.set(dst, v); }
            Op::AndK { dst, a, k } => { let (a, k) = self.with_k(a, k); let v = self.calls.builder().ins().band(a, k); self.set(dst, v); }
            Op::ShlK { dst, a, k } => { let (a, k) = self.with_k(a, k); let v = self.calls.builder().ins().ishl(a, k); self.set(dst, v); }
            Op::ShrK { dst, a, k } => { let (a, k) = self.with_k(a, k); let v = self.calls.builder().ins().sshr(a, k); self.set(dst, v); }
            Op::Neg { dst, a } => { let a = self.get(a); let v = self.calls.builder().ins().ineg(a); self.set(dst, v); }
            Op::Not { dst, a } => { let a = self.get(a); let v = self.calls.builder().ins().bxor_imm_u(a, 1); self.set(dst, v); }
            Op::AddF { dst, a, b } => { let (a, b) = self.floats(a, b); let v = self.calls.builder().ins().fadd(a, b); self.set_float(dst, v); }
            Op::SubF { dst, a, b } => { let (a, b) = self.floats(a, b); let v = self.calls.builder().ins().fsub(a, b); self.set_float(dst, v); }
            Op::MulF { dst, a, b } => { let (a, b) = self.floats(a, b); let v = self.calls.builder().ins().fmul(a, b); self.set_float(dst, v); }
            Op::DivF { dst, a, b } => { let (a, b) = self.floats(a, b); let v = self.calls.builder().ins().fdiv(a, b); self.set_float(dst, v); }
            Op::NegF { dst, a } => { let a = self.get_float(a); let v = self.calls.builder().ins().fneg(a); self.set_float(dst, v); }
            Op::SqrtF { dst, a } => { let a = self.get_float(a); let v = self.calls.builder().ins().sqrt(a); self.set_float(dst, v); }
            Op::ToFloat { dst, a } => { let a = self.get(a); let v = self.calls.builder().ins().fcvt_from_sint(F64, a); self.set_float(dst, v); }
            Op::ToInt { dst, a } => { let a = self.get_float(a); let v = self.calls.builder().ins().fcvt_to_sint_sat(I64, a); self.set(dst, v); }
            Op::ArithN { op, dst, a, b } => self.arithmetic(op, dst, a, b),
            Op::ToNum { dst, a } => self.int_to_num(dst, a),
            Op::ToNumF { dst, a } => self.float_to_num(dst, a),
            Op::NumToInt { dst, a } => self.num_to_int(dst, a),
            Op::NumToFloat { dst, a } => {
                let word = self.get(a);
                let v = self.num_to_float(word);
                self.set_float(dst, v);
            }
            _ => self.memory(op),
        }
    }

    fn constant(&mut self, dst: Reg, value: i64) {
        let v = self.calls.builder().ins().iconst(I64, value);
        self.set(dst, v);
    }

    fn ints(&mut self, a: Reg, b: Reg) -> (Value, Value) {
        (self.get(a), self.get(b))
    }

    fn floats(&mut self, a: Reg, b: Reg) -> (Value, Value) {
        (self.get_float(a), self.get_float(b))
    }

    fn with_k(&mut self, a: Reg, k: i32) -> (Value, Value) {
        (self.get(a), self.calls.builder().ins().iconst(I64, i64::from(k)))
    }

    /// The dividend after the check for 0, a divisor that is 1 where it would be -1, and whether it was. The
    /// instruction of the machine would trap on `i64::MIN / -1`.
    fn divisor(&mut self, a: Reg, b: Reg) -> (Value, Value, Value) {
        let (a, b) = self.ints(a, b);
        let zero = self.trap_unless(b);
        self.trap(zero, TrapCode::DivisionByZero, self.line(), |_| (a, b));
        let minus_one = self.calls.builder().ins().icmp_imm_s(IntCC::Equal, b, -1);
        let one = self.calls.builder().ins().iconst(I64, 1);
        let divisor = self.calls.builder().ins().select(minus_one, one, b);
        (a, divisor, minus_one)
    }
}
