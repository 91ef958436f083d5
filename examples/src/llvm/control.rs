//! Jumps, calls, returns and errors.

use beadwork_llvm::BuildError;
use beadwork_llvm::inkwell::basic_block::BasicBlock;
use beadwork_llvm::inkwell::values::{BasicMetadataValueEnum, CallSiteValue, IntValue};
use beadwork_llvm::inkwell::{FloatPredicate, IntPredicate};

use super::{Op, Result, Translation, signature, words};
use crate::bytecode::{Reg, Target};
use crate::function::Function;
use crate::hir::FuncIndex;
use crate::lower::MAX_REGISTERS;
use crate::native::{Context, DEOPT, OK, REGISTER_ARGS};
use crate::runtime::{Helper, TrapCode};
use crate::tiering::{ENTRY_STUB, Linking};

/// Value and status.
type Results<'c> = [IntValue<'c>; 2];

impl<'t, 'c> Translation<'t, 'c, '_> {
    /// Translates one instruction that may leave its block, and hands all others on.
    pub(super) fn instruction(&mut self, op: &Op) -> Result<()> {
        match *op {
            Op::Jump { target } | Op::Back { target, .. } => {
                let block = self.block(target);
                self.b().build_unconditional_branch(block)?;
                Ok(())
            }
            Op::BrTrue { a, target } => {
                let zero = self.number(0);
                self.compare(IntPredicate::NE, a, zero, target)
            }
            Op::BrFalse { a, target } => {
                let zero = self.number(0);
                self.compare(IntPredicate::EQ, a, zero, target)
            }
            Op::BrLt { a, b, target } => self.compare_registers(IntPredicate::SLT, a, b, target),
            Op::BrLe { a, b, target } => self.compare_registers(IntPredicate::SLE, a, b, target),
            Op::BrEq { a, b, target } => self.compare_registers(IntPredicate::EQ, a, b, target),
            Op::BrNe { a, b, target } => self.compare_registers(IntPredicate::NE, a, b, target),
            Op::BrLtK { a, k, target } => self.compare_k(IntPredicate::SLT, a, k, target),
            Op::BrGeK { a, k, target } => self.compare_k(IntPredicate::SGE, a, k, target),
            Op::BrEqK { a, k, target } => self.compare_k(IntPredicate::EQ, a, k, target),
            Op::BrNeK { a, k, target } => self.compare_k(IntPredicate::NE, a, k, target),
            Op::BrLtF { a, b, target } => self.compare_float(FloatPredicate::OLT, a, b, target),
            Op::BrLeF { a, b, target } => self.compare_float(FloatPredicate::OLE, a, b, target),
            Op::BrEqF { a, b, target } => self.compare_float(FloatPredicate::OEQ, a, b, target),
            Op::BrNeF { a, b, target } => self.compare_float(FloatPredicate::UNE, a, b, target),
            Op::BrNotLtF { a, b, target } => self.compare_float(FloatPredicate::UGE, a, b, target),
            Op::BrNotLeF { a, b, target } => self.compare_float(FloatPredicate::UGT, a, b, target),
            Op::ForBack { i, limit, target, .. } => {
                let value = self.get(i)?;
                // `i` was below the limit, so the sum is no more than that.
                let next = self.b().build_int_nsw_add(value, self.number(1), "")?;
                self.set(i, next)?;
                self.compare_registers(IntPredicate::SLT, i, limit, target)
            }
            Op::BrN { test, a, b, target } => self.test(test, a, b, target),
            Op::Call { base, func } => self.call(base, func),
            Op::Ret { src } => {
                let value = self.get(src)?;
                self.ret(value, OK)
            }
            Op::RetF { src } => {
                let value = self.get_float_bits(src)?;
                self.ret(value, OK)
            }
            Op::RetUnit => {
                let zero = self.number(0);
                self.ret(zero, OK)
            }
            _ => self.computation(op),
        }
    }

    /// The block of a jump target; targets always start blocks.
    pub(super) fn block(&self, target: Target) -> BasicBlock<'c> {
        self.blocks.get(target.index()).copied().flatten().unwrap_or(self.failed)
    }

    /// Ends the block: to `target` if the condition holds, else to the next instruction, which starts a block.
    pub(super) fn branch(&mut self, condition: IntValue<'c>, target: Target) -> Result<()> {
        let (taken, next) = (self.block(target), self.block(Target((self.pc + 1) as u16)));
        let branch = self.b().build_conditional_branch(condition, taken, next)?;
        match self.setting.flow.as_ref().and_then(|flow| flow.branch(self.pc)) {
            Some(counts) => self.unit.set_branch_weights(branch, &counts),
            None => Ok(()),
        }
    }

    fn compare(&mut self, predicate: IntPredicate, a: Reg, b: IntValue<'c>, target: Target) -> Result<()> {
        let a = self.get(a)?;
        let condition = self.b().build_int_compare(predicate, a, b, "")?;
        self.branch(condition, target)
    }

    fn compare_registers(&mut self, predicate: IntPredicate, a: Reg, b: Reg, target: Target) -> Result<()> {
        let b = self.get(b)?;
        self.compare(predicate, a, b, target)
    }

    fn compare_k(&mut self, predicate: IntPredicate, a: Reg, k: i32, target: Target) -> Result<()> {
        let k = self.number(i64::from(k));
        self.compare(predicate, a, k, target)
    }

    fn compare_float(&mut self, predicate: FloatPredicate, a: Reg, b: Reg, target: Target) -> Result<()> {
        let (a, b) = (self.get_float(a)?, self.get_float(b)?);
        let condition = self.b().build_float_compare(predicate, a, b, "")?;
        self.branch(condition, target)
    }

    /// Whether a word is not 0.
    pub(super) fn truth_of(&self, word: IntValue<'c>) -> Result<IntValue<'c>> {
        let zero = word.get_type().const_zero();
        Ok(self.b().build_int_compare(IntPredicate::NE, word, zero, "")?)
    }

    fn call(&mut self, base: Reg, func: FuncIndex) -> Result<()> {
        // The checker resolved the call, so the callee exists; without it there is nothing to call.
        let Some(callee) = self.setting.program.function(func) else { return Ok(()) };
        if let Some(body) = self.inline(func) {
            return self.inlined(base, callee, body);
        }
        let mut args: Vec<BasicMetadataValueEnum<'c>> = vec![self.context.into(), self.depth.into()];
        for (i, ty) in callee.signature.params.iter().enumerate() {
            let register = Reg(base.0.wrapping_add(i as u8));
            let word = if ty.is_float() { self.get_float_bits(register)? } else { self.get(register)? };
            if i < REGISTER_ARGS {
                args.push(word.into());
            } else {
                let place = self.at(self.context, (Context::ARGS_OFFSET + 8 * (i - REGISTER_ARGS)) as i64)?;
                self.b().build_store(place, word)?;
            }
        }
        let bead = self.setting.beads[func.index()];
        let mut ty = signature(self.unit, args.len() - 2);
        let call = match self.setting.linking {
            // The unit passes the callee's bits itself.
            Linking::Slots | Linking::Inlined => self.unit.call_bead(bead, ty, &args)?,
            Linking::Dispatch => {
                ty = self.unit.native_signature(ty);
                args.insert(0, self.unit.bits(bead).into());
                let stub = self
                    .unit
                    .symbol(ENTRY_STUB, self.unit.native_signature(signature(self.unit, REGISTER_ARGS)));
                let stub = stub.as_global_value().as_pointer_value();
                self.b().build_indirect_call(ty, stub, &args, "")?
            }
        };
        let results = self.results(call)?;
        let value =
            if self.setting.program.has_guards() { self.resumed(results)? } else { self.checked(results)? };
        if callee.signature.result.is_float() {
            self.set_float_bits(base, value)
        } else {
            self.set(base, value)
        }
    }

    fn results(&self, call: CallSiteValue<'c>) -> Result<Results<'c>> {
        let pair = call.try_as_basic_value().basic().ok_or_else(|| BuildError::failed("no results"))?;
        let pair = pair.into_struct_value();
        let part = |n| self.b().build_extract_value(pair, n, "").map(|part| part.into_int_value());
        Ok([part(0)?, part(1)?])
    }

    /// The same for a callee that may leave its code because of a guard: then the interpreter runs the rest of it.
    fn resumed(&mut self, [value, status]: Results<'c>) -> Result<IntValue<'c>> {
        let [unusual, resume, next] = ["unusual", "resume", ""].map(|name| self.new_block(name));
        let (unusual, resume, next) = (unusual?, resume?, next?);
        let here = self.b().get_insert_block();
        let fine = self.b().build_int_compare(IntPredicate::EQ, status, self.number(0), "")?;
        let branch = self.b().build_conditional_branch(fine, next, unusual)?;
        self.nearly_always(branch)?;
        self.b().position_at_end(unusual);
        let left = self.number(DEOPT.cast_signed());
        let deopt = self.b().build_int_compare(IntPredicate::EQ, status, left, "")?;
        self.b().build_conditional_branch(deopt, resume, self.failed)?;
        self.b().position_at_end(resume);
        let (depth, zero) = (self.depth, self.number(0));
        let [late, status] = self.call_runtime(Helper::Resume, &[depth, zero, zero])?;
        let fine = self.b().build_int_compare(IntPredicate::EQ, status, zero, "")?;
        self.b().build_conditional_branch(fine, next, self.failed)?;
        self.b().position_at_end(next);
        let result = self.b().build_phi(self.word(), "")?;
        if let Some(here) = here {
            result.add_incoming(&[(&value, here), (&late, resume)]);
        }
        Ok(result.as_basic_value().into_int_value())
    }

    /// The function whose body may stand in for a call of `callee`, if one may.
    fn inline(&mut self, callee: FuncIndex) -> Option<&'t Function> {
        if self.setting.linking != Linking::Inlined {
            return None;
        }
        // In this order, see `Definitions::assumption`.
        let assumption = self.setting.definitions.assumption(callee)?;
        let body = self.setting.program.function(self.setting.definitions.body(callee))?;
        (body.is_small_leaf() && self.unit.job().assume(assumption)).then_some(body)
    }

    /// A copy of `body` in place of a call of `callee`. It takes a frame like the call, so that recursion is too deep at the
    /// same depth.
    fn inlined(&mut self, base: Reg, callee: &Function, body: &'t Function) -> Result<()> {
        let index = self.number(i64::from(callee.index.0));
        self.enter(index, callee.signature.line)?;
        let mut args = Vec::new();
        for (register, ty) in (base.0..=u8::MAX).map(Reg).zip(&body.signature.params) {
            args.push(if ty.is_float() { self.get_float_bits(register)? } else { self.get(register)? });
        }
        // The copy has registers of its own, and errors in it are on its own lines.
        let ints = std::mem::replace(&mut self.ints, [None; MAX_REGISTERS]);
        let floats = std::mem::replace(&mut self.floats, [None; MAX_REGISTERS]);
        let (outer, pc) = (std::mem::replace(&mut self.function, body), self.pc);
        for ((register, ty), arg) in (0..=u8::MAX).map(Reg).zip(&body.signature.params).zip(args) {
            self.set_param(register, *ty, arg)?;
        }
        let mut result = self.number(0);
        for (at, op) in body.code.iter().enumerate() {
            self.pc = at;
            match *op {
                Op::Ret { src } => result = self.get(src)?,
                Op::RetF { src } => result = self.get_float_bits(src)?,
                Op::RetUnit => {}
                _ => {
                    self.computation(op)?;
                    continue;
                }
            }
            break;
        }
        (self.ints, self.floats, self.function, self.pc) = (ints, floats, outer, pc);
        self.set_param(base, callee.signature.result, result)
    }

    fn ret(&mut self, value: IntValue<'c>, status: u64) -> Result<()> {
        self.b().build_aggregate_return(&[value.into(), self.number(status.cast_signed()).into()])?;
        Ok(())
    }

    /// Returns a status without a value.
    pub(super) fn leave(&mut self, status: u64) -> Result<()> {
        let value = self.number(status.cast_signed());
        self.ret(value, status)
    }

    /// Calls a runtime function; `args` are what follows the context.
    pub(super) fn call_runtime(&mut self, helper: Helper, args: &[IntValue<'c>]) -> Result<Results<'c>> {
        let ty = words(self.unit, helper.params() - 1);
        let function = self.unit.symbol(helper.symbol(), ty);
        let context = std::iter::once(self.context.into());
        let all: Vec<_> = context.chain(args.iter().map(|&arg| arg.into())).collect();
        let call = self.b().build_call(function, &all, "")?;
        self.results(call)
    }

    /// Calls a runtime function that can fail; answers its value.
    pub(super) fn runtime(&mut self, helper: Helper, args: &[IntValue<'c>]) -> Result<IntValue<'c>> {
        let results = self.call_runtime(helper, args)?;
        self.checked(results)
    }

    /// Returns from the function if the status says that the callee failed; else goes on with the value.
    fn checked(&mut self, [value, status]: Results<'c>) -> Result<IntValue<'c>> {
        let next = self.new_block("")?;
        let fine = self.b().build_int_compare(IntPredicate::EQ, status, self.number(0), "")?;
        let branch = self.b().build_conditional_branch(fine, next, self.failed)?;
        self.nearly_always(branch)?;
        self.b().position_at_end(next);
        Ok(value)
    }

    /// Goes on if the condition holds; else records the error and returns. `operands` are the `x` and `y` of [`Helper::Trap`].
    pub(super) fn trap_unless(
        &mut self,
        condition: IntValue<'c>,
        code: TrapCode,
        line: u32,
        operands: [IntValue<'c>; 2],
    ) -> Result<()> {
        let (cold, next) = (self.new_block("trap")?, self.new_block("")?);
        let branch = self.b().build_conditional_branch(condition, next, cold)?;
        self.nearly_always(branch)?;
        self.b().position_at_end(cold);
        let (code, line) = (self.number((code as u64).cast_signed()), self.number(i64::from(line)));
        let [x, y] = operands;
        self.call_runtime(Helper::Trap, &[code, line, x, y])?;
        self.b().build_unconditional_branch(self.failed)?;
        self.b().position_at_end(next);
        Ok(())
    }
}
