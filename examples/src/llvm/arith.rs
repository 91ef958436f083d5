//! Moves, constants, arithmetic and conversions.

use beadwork_llvm::inkwell::IntPredicate;
use beadwork_llvm::inkwell::types::{BasicMetadataTypeEnum, FunctionType};
use beadwork_llvm::inkwell::values::{BasicMetadataValueEnum, BasicValueEnum, FloatValue, IntValue};

use super::{Op, Result, Translation};
use crate::bytecode::Reg;
use crate::runtime::TrapCode;

impl<'c> Translation<'_, 'c, '_> {
    /// Translates one instruction that stays in its block, but for errors.
    #[rustfmt::skip]
    pub(super) fn computation(&mut self, op: &Op) -> Result<()> {
        match *op {
            Op::Move { dst, src } => { let v = self.get(src)?; self.set(dst, v) }
            Op::MoveF { dst, src } => { let v = self.get_float(src)?; self.set_float(dst, v) }
            Op::Const { dst, value } => { let v = self.number(i64::from(value)); self.set(dst, v) }
            Op::Pool { dst, index } => { let v = self.number(self.function.constant(index).cast_signed()); self.set(dst, v) }
            Op::PoolF { dst, index } => { let v = self.number(self.function.constant(index).cast_signed()); self.set_float_bits(dst, v) }
            Op::Add { dst, a, b } => { let (a, b) = self.ints(a, b)?; let v = self.b().build_int_add(a, b, "")?; self.set(dst, v) }
            Op::Sub { dst, a, b } => { let (a, b) = self.ints(a, b)?; let v = self.b().build_int_sub(a, b, "")?; self.set(dst, v) }
            Op::Mul { dst, a, b } => { let (a, b) = self.ints(a, b)?; let v = self.b().build_int_mul(a, b, "")?; self.set(dst, v) }
            Op::And { dst, a, b } => { let (a, b) = self.ints(a, b)?; let v = self.b().build_and(a, b, "")?; self.set(dst, v) }
            Op::Or { dst, a, b } => { let (a, b) = self.ints(a, b)?; let v = self.b().build_or(a, b, "")?; self.set(dst, v) }
            Op::Xor { dst, a, b } => { let (a, b) = self.ints(a, b)?; let v = self.b().build_xor(a, b, "")?; self.set(dst, v) }
            Op::Shl { dst, a, b } => { let (a, b) = self.shift(a, b)?; let v = self.b().build_left_shift(a, b, "")?; self.set(dst, v) }
            Op::Shr { dst, a, b } => { let (a, b) = self.shift(a, b)?; let v = self.b().build_right_shift(a, b, true, "")?; self.set(dst, v) }
            Op::Div { dst, a, b } => {
                let (a, divisor, by_minus_one) = self.divisor(a, b)?;
                let quotient = self.b().build_int_signed_div(a, divisor, "")?;
                let negated = self.b().build_int_neg(a, "")?;
                let v = self.select(by_minus_one, negated, quotient)?;
                self.set(dst, v)
            }
            Op::Rem { dst, a, b } => {
                // The remainder by 1 is 0, as is the one by -1.
                let (a, divisor, _) = self.divisor(a, b)?;
                let v = self.b().build_int_signed_rem(a, divisor, "")?;
                self.set(dst, v)
            }
            Op::AddK { dst, a, k } => { let (a, k) = self.with_k(a, k)?; let v = self.b().build_int_add(a, k, "")?; self.set(dst, v) }
            Op::MulK { dst, a, k } => { let (a, k) = self.with_k(a, k)?; let v = self.b().build_int_mul(a, k, "")?; self.set(dst, v) }
            Op::DivK { dst, a, k } => { let (a, k) = self.with_k(a, k)?; let v = self.b().build_int_signed_div(a, k, "")?; self.set(dst, v) }
            Op::RemK { dst, a, k } => { let (a, k) = self.with_k(a, k)?; let v = self.b().build_int_signed_rem(a, k, "")?; self.set(dst, v) }
            Op::AndK { dst, a, k } => { let (a, k) = self.with_k(a, k)?; let v = self.b().build_and(a, k, "")?; self.set(dst, v) }
            Op::ShlK { dst, a, k } => { let (a, k) = self.with_k(a, k)?; let v = self.b().build_left_shift(a, k, "")?; self.set(dst, v) }
            Op::ShrK { dst, a, k } => { let (a, k) = self.with_k(a, k)?; let v = self.b().build_right_shift(a, k, true, "")?; self.set(dst, v) }
            Op::Neg { dst, a } => { let a = self.get(a)?; let v = self.b().build_int_neg(a, "")?; self.set(dst, v) }
            Op::Not { dst, a } => { let (a, k) = self.with_k(a, 1)?; let v = self.b().build_xor(a, k, "")?; self.set(dst, v) }
            Op::AddF { dst, a, b } => { let (a, b) = self.floats(a, b)?; let v = self.b().build_float_add(a, b, "")?; self.set_float(dst, v) }
            Op::SubF { dst, a, b } => { let (a, b) = self.floats(a, b)?; let v = self.b().build_float_sub(a, b, "")?; self.set_float(dst, v) }
            Op::MulF { dst, a, b } => { let (a, b) = self.floats(a, b)?; let v = self.b().build_float_mul(a, b, "")?; self.set_float(dst, v) }
            Op::DivF { dst, a, b } => { let (a, b) = self.floats(a, b)?; let v = self.b().build_float_div(a, b, "")?; self.set_float(dst, v) }
            Op::NegF { dst, a } => { let a = self.get_float(a)?; let v = self.b().build_float_neg(a, "")?; self.set_float(dst, v) }
            Op::SqrtF { dst, a } => {
                let a = self.get_float(a)?;
                let ty = self.float().fn_type(&[self.float().into()], false);
                let v = self.intrinsic("llvm.sqrt.f64", ty, &[a.into()])?.into_float_value();
                self.set_float(dst, v)
            }
            Op::ToFloat { dst, a } => { let a = self.get(a)?; let v = self.b().build_signed_int_to_float(a, self.float(), "")?; self.set_float(dst, v) }
            Op::ToInt { dst, a } => { let a = self.get_float(a)?; let v = self.to_int(a)?; self.set(dst, v) }
            Op::ArithN { op, dst, a, b } => self.arithmetic(op, dst, a, b),
            Op::ToNum { dst, a } => self.int_to_num(dst, a),
            Op::ToNumF { dst, a } => self.float_to_num(dst, a),
            Op::NumToInt { dst, a } => self.num_to_int(dst, a),
            Op::NumToFloat { dst, a } => { let word = self.get(a)?; let v = self.num_to_float(word)?; self.set_float(dst, v) }
            _ => self.memory(op),
        }
    }

    fn ints(&mut self, a: Reg, b: Reg) -> Result<(IntValue<'c>, IntValue<'c>)> {
        Ok((self.get(a)?, self.get(b)?))
    }

    fn floats(&mut self, a: Reg, b: Reg) -> Result<(FloatValue<'c>, FloatValue<'c>)> {
        Ok((self.get_float(a)?, self.get_float(b)?))
    }

    fn with_k(&mut self, a: Reg, k: i32) -> Result<(IntValue<'c>, IntValue<'c>)> {
        Ok((self.get(a)?, self.number(i64::from(k))))
    }

    /// LLVM's shifts are undefined from 64 on.
    fn shift(&mut self, a: Reg, b: Reg) -> Result<(IntValue<'c>, IntValue<'c>)> {
        let (a, b) = self.ints(a, b)?;
        Ok((a, self.b().build_and(b, self.number(63), "")?))
    }

    /// The dividend after the check for 0, a divisor that is 1 where it would be -1, and whether it was: `i64::MIN / -1` is undefined.
    fn divisor(&mut self, a: Reg, b: Reg) -> Result<(IntValue<'c>, IntValue<'c>, IntValue<'c>)> {
        let (a, b) = self.ints(a, b)?;
        let nonzero = self.truth_of(b)?;
        self.trap_unless(nonzero, TrapCode::DivisionByZero, self.line(), [a, b])?;
        let minus_one = self.b().build_int_compare(IntPredicate::EQ, b, self.number(-1), "")?;
        let one = self.number(1);
        let divisor = self.select(minus_one, one, b)?;
        Ok((a, divisor, minus_one))
    }

    pub(super) fn select(
        &self,
        condition: IntValue<'c>,
        then: IntValue<'c>,
        other: IntValue<'c>,
    ) -> Result<IntValue<'c>> {
        Ok(self.b().build_select(condition, then, other, "")?.into_int_value())
    }

    /// Rounds towards zero, saturates, and makes 0 of NaN.
    pub(super) fn to_int(&self, value: FloatValue<'c>) -> Result<IntValue<'c>> {
        let ty = self.word().fn_type(&[self.float().into()], false);
        Ok(self.intrinsic("llvm.fptosi.sat.i64.f64", ty, &[value.into()])?.into_int_value())
    }

    /// Calls one of LLVM's own functions.
    pub(super) fn intrinsic(
        &self,
        name: &str,
        ty: FunctionType<'c>,
        args: &[BasicMetadataValueEnum<'c>],
    ) -> Result<BasicValueEnum<'c>> {
        let module = self.unit.module();
        let function = module.get_function(name).unwrap_or_else(|| module.add_function(name, ty, None));
        let call = self.b().build_call(function, args, "")?;
        call.try_as_basic_value().basic().ok_or_else(|| beadwork_llvm::BuildError::failed(name))
    }

    /// An operation on two integers of 32 bits: its result, and whether it overflowed.
    pub(super) fn overflowing(
        &self,
        name: &str,
        a: IntValue<'c>,
        b: IntValue<'c>,
    ) -> Result<(IntValue<'c>, IntValue<'c>)> {
        let context = self.unit.context();
        let narrow: BasicMetadataTypeEnum<'c> = context.i32_type().into();
        let pair = context.struct_type(&[context.i32_type().into(), context.bool_type().into()], false);
        let both = self.intrinsic(name, pair.fn_type(&[narrow, narrow], false), &[a.into(), b.into()])?;
        let both = both.into_struct_value();
        let part = |n| self.b().build_extract_value(both, n, "").map(|part| part.into_int_value());
        Ok((part(0)?, part(1)?))
    }
}
