//! Nums: integers behind guards where the code speculates, and otherwise whatever they turn out to be.

use beadwork_llvm::inkwell::types::IntType;
use beadwork_llvm::inkwell::values::{FloatValue, IntValue};
use beadwork_llvm::inkwell::{FloatPredicate, IntPredicate};

use super::{Result, Translation};
use crate::bytecode::{Reg, Target};
use crate::liveness::Liveness;
use crate::native::{Context, DEOPT};
use crate::num::{INT_MARK, INT_TAG, MARK_SHIFT, NAN, NumOp, NumTest};
use crate::runtime::Helper;

/// Where [`Deopt::registers`](crate::native::Deopt::registers) begins, after three words.
const REGISTERS_OFFSET: usize = Context::DEOPT_OFFSET + 24;

impl<'c> Translation<'_, 'c, '_> {
    /// Whether the instruction being translated expects integers, and leaves the code if there are none.
    fn speculates(&self) -> bool {
        !self.setting.speculation.failed.contains(&(self.pc as u16))
    }

    fn narrow(&self) -> IntType<'c> {
        self.unit.context().i32_type()
    }

    pub(super) fn arithmetic(&mut self, op: NumOp, dst: Reg, a: Reg, b: Reg) -> Result<()> {
        let (a, b) = (self.get(a)?, self.get(b)?);
        if !self.speculates() {
            let op = self.number(op as i64);
            let [value, _] = self.call_runtime(Helper::Num, &[op, a, b])?;
            return self.set(dst, value);
        }
        let are_ints = self.are_ints(a, b)?;
        let (result, fits) = self.exact(op, a, b)?;
        let holds = self.b().build_and(are_ints, fits, "")?;
        self.guard(holds)?;
        let value = self.tagged(result)?;
        self.set(dst, value)
    }

    /// The result of an operation on two integers, and whether it is one. Harmless if they are no integers.
    fn exact(&mut self, op: NumOp, a: IntValue<'c>, b: IntValue<'c>) -> Result<(IntValue<'c>, IntValue<'c>)> {
        let (a, b) = (self.to_narrow(a)?, self.to_narrow(b)?);
        let name = match op {
            NumOp::Add => "llvm.sadd.with.overflow.i32",
            NumOp::Sub => "llvm.ssub.with.overflow.i32",
            NumOp::Mul => "llvm.smul.with.overflow.i32",
            NumOp::Div => return self.exact_division(a, b),
        };
        let (result, overflow) = self.overflowing(name, a, b)?;
        Ok((result, self.b().build_not(overflow, "")?))
    }

    /// In 64 bits, where nothing overflows.
    fn exact_division(&mut self, a: IntValue<'c>, b: IntValue<'c>) -> Result<(IntValue<'c>, IntValue<'c>)> {
        let (a, b) = (self.to_wide(a)?, self.to_wide(b)?);
        let nonzero = self.truth_of(b)?;
        let one = self.number(1);
        let divisor = self.select(nonzero, b, one)?;
        let quotient = self.b().build_int_signed_div(a, divisor, "")?;
        let product = self.b().build_int_mul(quotient, divisor, "")?;
        let exact = self.b().build_int_compare(IntPredicate::EQ, product, a, "")?;
        let result = self.to_narrow(quotient)?;
        let wide = self.to_wide(result)?;
        let narrow = self.b().build_int_compare(IntPredicate::EQ, wide, quotient, "")?;
        let fits = self.b().build_and(exact, narrow, "")?;
        Ok((result, self.b().build_and(nonzero, fits, "")?))
    }

    pub(super) fn test(&mut self, test: NumTest, a: Reg, b: Reg, target: Target) -> Result<()> {
        let (a, b) = (self.get(a)?, self.get(b)?);
        let condition = if self.speculates() {
            let are_ints = self.are_ints(a, b)?;
            self.guard(are_ints)?;
            let predicate = match test {
                NumTest::Lt => IntPredicate::SLT,
                NumTest::Le => IntPredicate::SLE,
                NumTest::Eq => IntPredicate::EQ,
                NumTest::Ne => IntPredicate::NE,
                NumTest::NotLt => IntPredicate::SGE,
                NumTest::NotLe => IntPredicate::SGT,
            };
            let (a, b) = (self.to_narrow(a)?, self.to_narrow(b)?);
            self.b().build_int_compare(predicate, a, b, "")?
        } else {
            let predicate = match test {
                NumTest::Lt => FloatPredicate::OLT,
                NumTest::Le => FloatPredicate::OLE,
                NumTest::Eq => FloatPredicate::OEQ,
                NumTest::Ne => FloatPredicate::UNE,
                NumTest::NotLt => FloatPredicate::UGE,
                NumTest::NotLe => FloatPredicate::UGT,
            };
            let (a, b) = (self.num_to_float(a)?, self.num_to_float(b)?);
            self.b().build_float_compare(predicate, a, b, "")?
        };
        self.branch(condition, target)
    }

    pub(super) fn int_to_num(&mut self, dst: Reg, a: Reg) -> Result<()> {
        let a = self.get(a)?;
        let narrow = self.to_narrow(a)?;
        let wide = self.to_wide(narrow)?;
        let fits = self.b().build_int_compare(IntPredicate::EQ, wide, a, "")?;
        let float = self.b().build_signed_int_to_float(a, self.float(), "")?;
        let float = self.bits(float)?;
        let int = self.tagged(narrow)?;
        let value = self.select(fits, int, float)?;
        self.set(dst, value)
    }

    pub(super) fn float_to_num(&mut self, dst: Reg, a: Reg) -> Result<()> {
        let a = self.get_float(a)?;
        let is_nan = self.b().build_float_compare(FloatPredicate::UNO, a, a, "")?;
        let bits = self.bits(a)?;
        let nan = self.number(NAN.cast_signed());
        let value = self.select(is_nan, nan, bits)?;
        self.set(dst, value)
    }

    pub(super) fn num_to_int(&mut self, dst: Reg, a: Reg) -> Result<()> {
        let a = self.get(a)?;
        let is_int = self.are_ints(a, a)?;
        let int = self.to_narrow(a)?;
        let int = self.to_wide(int)?;
        let float = self.float_of(a)?;
        let float = self.to_int(float)?;
        let value = self.select(is_int, int, float)?;
        self.set(dst, value)
    }

    /// The value as a float, whatever it is.
    pub(super) fn num_to_float(&mut self, word: IntValue<'c>) -> Result<FloatValue<'c>> {
        let is_int = self.are_ints(word, word)?;
        let int = self.to_narrow(word)?;
        let int = self.b().build_signed_int_to_float(int, self.float(), "")?;
        let float = self.float_of(word)?;
        Ok(self.b().build_select(is_int, int, float, "")?.into_float_value())
    }

    fn to_narrow(&self, word: IntValue<'c>) -> Result<IntValue<'c>> {
        Ok(self.b().build_int_truncate(word, self.narrow(), "")?)
    }

    fn to_wide(&self, int: IntValue<'c>) -> Result<IntValue<'c>> {
        Ok(self.b().build_int_s_extend(int, self.word(), "")?)
    }

    fn are_ints(&mut self, a: IntValue<'c>, b: IntValue<'c>) -> Result<IntValue<'c>> {
        let both = self.b().build_and(a, b, "")?;
        let mark = self.b().build_right_shift(both, self.number(i64::from(MARK_SHIFT)), false, "")?;
        let int_mark = self.number(INT_MARK.cast_signed());
        Ok(self.b().build_int_compare(IntPredicate::EQ, mark, int_mark, "")?)
    }

    fn tagged(&mut self, int: IntValue<'c>) -> Result<IntValue<'c>> {
        let wide = self.b().build_int_z_extend(int, self.word(), "")?;
        Ok(self.b().build_or(wide, self.number(INT_TAG.cast_signed()), "")?)
    }

    /// Leaves the code before the instruction being translated, unless the condition holds: writes all that is live to
    /// [`Context::deopt`], and returns [`DEOPT`].
    fn guard(&mut self, holds: IntValue<'c>) -> Result<()> {
        let (cold, hot) = (self.new_block("guard")?, self.new_block("")?);
        let branch = self.b().build_conditional_branch(holds, hot, cold)?;
        self.nearly_always(branch)?;
        self.b().position_at_end(cold);
        // The function whose code it is in the upper half.
        let compiled = self.setting.speculation.version & !u64::from(u32::MAX);
        let (version, compiled) = (self.unit.version(), self.number(compiled.cast_signed()));
        let version = self.b().build_or(version, compiled, "")?;
        let place = [i64::from(self.function.index.0), self.pc as i64].map(|word| self.number(word));
        for (position, word) in place.into_iter().chain([version]).enumerate() {
            let place = self.at(self.context, (Context::DEOPT_OFFSET + 8 * position) as i64)?;
            self.b().build_store(place, word)?;
        }
        let (function, program) = (self.function, self.setting.program);
        let liveness = self.liveness.get_or_insert_with(|| Liveness::of(function, program));
        let live: Vec<_> = liveness.before(self.pc).collect();
        for (register, float) in live {
            let place = self.at(self.context, (REGISTERS_OFFSET + 8 * register.index()) as i64)?;
            if float {
                let value = self.get_float(register)?;
                self.b().build_store(place, value)?;
            } else {
                let value = self.get(register)?;
                self.b().build_store(place, value)?;
            }
        }
        self.leave(DEOPT)?;
        self.b().position_at_end(hot);
        Ok(())
    }
}
