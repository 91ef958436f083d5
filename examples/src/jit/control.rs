//! Jumps, calls, returns and errors.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{Block, InstBuilder, MemFlagsData, Value};

use super::{Op, Results, Translation};
use crate::bytecode::{Reg, Target};
use crate::function::Function;
use crate::hir::FuncIndex;
use crate::lower::MAX_REGISTERS;
use crate::native::{Context, DEOPT, REGISTER_ARGS};
use crate::runtime::{Helper, TrapCode};

impl<'t> Translation<'t, '_> {
    /// Translates one instruction that may leave its block, and hands all others on.
    pub(super) fn instruction(&mut self, op: &Op) {
        match *op {
            Op::Jump { target } => {
                let block = self.block(target);
                self.calls.builder().ins().jump(block, &[]);
            }
            Op::Back { target, .. } => {
                let block = self.header(target);
                self.calls.builder().ins().jump(block, &[]);
            }
            Op::BrTrue { a, target } => self.truth(a, target, true),
            Op::BrFalse { a, target } => self.truth(a, target, false),
            Op::BrLt { a, b, target } => self.compare(IntCC::SignedLessThan, a, b, target),
            Op::BrLe { a, b, target } => self.compare(IntCC::SignedLessThanOrEqual, a, b, target),
            Op::BrEq { a, b, target } => self.compare(IntCC::Equal, a, b, target),
            Op::BrNe { a, b, target } => self.compare(IntCC::NotEqual, a, b, target),
            Op::BrLtK { a, k, target } => self.compare_k(IntCC::SignedLessThan, a, k, target),
            Op::BrGeK { a, k, target } => self.compare_k(IntCC::SignedGreaterThanOrEqual, a, k, target),
            Op::BrEqK { a, k, target } => self.compare_k(IntCC::Equal, a, k, target),
            Op::BrNeK { a, k, target } => self.compare_k(IntCC::NotEqual, a, k, target),
            Op::BrLtF { a, b, target } => self.compare_float(FloatCC::LessThan, a, b, target),
            Op::BrLeF { a, b, target } => self.compare_float(FloatCC::LessThanOrEqual, a, b, target),
            Op::BrEqF { a, b, target } => self.compare_float(FloatCC::Equal, a, b, target),
            Op::BrNeF { a, b, target } => self.compare_float(FloatCC::NotEqual, a, b, target),
            Op::BrNotLtF { a, b, target } => {
                self.compare_float(FloatCC::UnorderedOrGreaterThanOrEqual, a, b, target);
            }
            Op::BrNotLeF { a, b, target } => {
                self.compare_float(FloatCC::UnorderedOrGreaterThan, a, b, target)
            }
            Op::ForBack { i, limit, target, .. } => {
                let value = self.get(i);
                let next = self.calls.builder().ins().iadd_imm_s(value, 1);
                self.set(i, next);
                let limit = self.get(limit);
                let condition = self.calls.builder().ins().icmp(IntCC::SignedLessThan, next, limit);
                let header = self.header(target);
                self.branch_to(condition, header);
            }
            Op::BrN { test, a, b, target } => self.test(test, a, b, target),
            Op::Call { base, func } => self.call(base, func),
            Op::Ret { src } => {
                let value = self.get(src);
                self.ret(value);
            }
            Op::RetF { src } => {
                let value = self.get_float_bits(src);
                self.ret(value);
            }
            Op::RetUnit => {
                let value = self.calls.builder().ins().iconst(I64, 0);
                self.ret(value);
            }
            _ => self.computation(op),
        }
    }

    /// Where a jump forward goes.
    pub(super) fn block(&self, target: Target) -> Block {
        match self.preheader {
            Some((header, block)) if header == target.index() => block,
            _ => self.header(target),
        }
    }

    /// The block of a jump target; targets always start blocks.
    fn header(&self, target: Target) -> Block {
        self.blocks.get(target.index()).copied().flatten().unwrap_or(self.failed)
    }

    /// Ends the block: to `target` if the condition holds, else to the next instruction, which starts a block.
    pub(super) fn branch(&mut self, condition: Value, target: Target) {
        let taken = self.block(target);
        self.branch_to(condition, taken);
    }

    fn branch_to(&mut self, condition: Value, taken: Block) {
        let next = self.block(Target((self.pc + 1) as u16));
        self.calls.builder().ins().brif(condition, taken, &[], next, &[]);
    }

    fn truth(&mut self, a: Reg, target: Target, when: bool) {
        let value = self.get(a);
        let code = if when { IntCC::NotEqual } else { IntCC::Equal };
        let condition = self.calls.builder().ins().icmp_imm_s(code, value, 0);
        self.branch(condition, target);
    }

    fn compare(&mut self, code: IntCC, a: Reg, b: Reg, target: Target) {
        let (a, b) = (self.get(a), self.get(b));
        let condition = self.calls.builder().ins().icmp(code, a, b);
        self.branch(condition, target);
    }

    fn compare_k(&mut self, code: IntCC, a: Reg, k: i32, target: Target) {
        let a = self.get(a);
        let condition = self.calls.builder().ins().icmp_imm_s(code, a, i64::from(k));
        self.branch(condition, target);
    }

    fn compare_float(&mut self, code: FloatCC, a: Reg, b: Reg, target: Target) {
        let (a, b) = (self.get_float(a), self.get_float(b));
        let condition = self.calls.builder().ins().fcmp(code, a, b);
        self.branch(condition, target);
    }

    fn call(&mut self, base: Reg, func: FuncIndex) {
        // The checker resolved the call, so the callee exists; without it there is nothing to call.
        let Some(callee) = self.program.function(func) else { return };
        if let Some(body) = self.calls.inline(func).and_then(|body| self.program.function(body)) {
            return self.inlined(base, callee, body);
        }
        let mut args = vec![self.context, self.depth];
        for (i, ty) in callee.signature.params.iter().enumerate() {
            let register = Reg(base.0.wrapping_add(i as u8));
            let word = if ty.is_float() { self.get_float_bits(register) } else { self.get(register) };
            if i < REGISTER_ARGS {
                args.push(word);
            } else {
                let offset = Context::ARGS_OFFSET + 8 * (i - REGISTER_ARGS);
                self.calls.builder().ins().store(MemFlagsData::trusted(), word, self.context, offset as i32);
            }
        }
        let results = self.calls.call_bead(func, &args);
        let value = if self.program.has_guards() { self.resumed(results) } else { self.checked(results) };
        if callee.signature.result.is_float() {
            self.set_float_bits(base, value)
        } else {
            self.set(base, value)
        }
    }

    /// The same for a callee that may leave its code because of a guard: then the interpreter runs the rest of it.
    fn resumed(&mut self, [value, status]: Results) -> Value {
        let (failed, context, depth) = (self.failed, self.context, self.depth);
        let b = self.calls.builder();
        let [unusual, resume, next] = [(); 3].map(|()| b.create_block());
        let result = b.append_block_param(next, I64);
        b.set_cold_block(unusual);
        b.set_cold_block(resume);
        b.ins().brif(status, unusual, &[], next, &[value.into()]);
        b.seal_block(unusual);
        b.switch_to_block(unusual);
        let deopt = b.ins().icmp_imm_s(IntCC::Equal, status, DEOPT.cast_signed());
        b.ins().brif(deopt, resume, &[], failed, &[]);
        b.seal_block(resume);
        b.switch_to_block(resume);
        let zero = b.ins().iconst(I64, 0);
        let [value, status] = self.calls.call_runtime(Helper::Resume, &[context, depth, zero, zero]);
        let b = self.calls.builder();
        b.ins().brif(status, failed, &[], next, &[value.into()]);
        b.seal_block(next);
        b.switch_to_block(next);
        result
    }

    /// A copy of `body` in place of a call of `callee`. It takes a frame like the call, so that recursion is too deep at the
    /// same depth.
    fn inlined(&mut self, base: Reg, callee: &Function, body: &'t Function) {
        let depth = self.depth;
        let too_deep = self.trap_unless(depth);
        let (index, line) = (i64::from(callee.index.0), callee.signature.line);
        self.trap(too_deep, TrapCode::RecursionTooDeep, line, |t| {
            let zero = t.calls.builder().ins().iconst(I64, 0);
            (t.calls.builder().ins().iconst(I64, index), zero)
        });
        let registers = (base.0..=u8::MAX).map(Reg).zip(&body.signature.params);
        let args: Vec<_> = registers
            .map(|(register, ty)| if ty.is_float() { self.get_float(register) } else { self.get(register) })
            .collect();
        // The copy has registers of its own, and errors in it are on its own lines.
        let ints = std::mem::replace(&mut self.ints, [None; MAX_REGISTERS]);
        let floats = std::mem::replace(&mut self.floats, [None; MAX_REGISTERS]);
        let (outer, pc) = (std::mem::replace(&mut self.function, body), self.pc);
        for ((register, ty), arg) in (0..=u8::MAX).map(Reg).zip(&body.signature.params).zip(args) {
            if ty.is_float() { self.set_float(register, arg) } else { self.set(register, arg) }
        }
        let mut result = Ok(None);
        for (at, op) in body.code.iter().enumerate() {
            self.pc = at;
            match *op {
                Op::Ret { src } => result = Ok(Some(self.get(src))),
                Op::RetF { src } => result = Err(self.get_float(src)),
                Op::RetUnit => {}
                _ => {
                    self.computation(op);
                    continue;
                }
            }
            break;
        }
        (self.ints, self.floats, self.function, self.pc) = (ints, floats, outer, pc);
        match result {
            Ok(Some(word)) => self.set(base, word),
            Ok(None) => {
                let zero = self.calls.builder().ins().iconst(I64, 0);
                self.set(base, zero);
            }
            Err(float) => self.set_float(base, float),
        }
    }

    fn ret(&mut self, value: Value) {
        let status = self.calls.builder().ins().iconst(I64, 0);
        self.calls.builder().ins().return_(&[value, status]);
    }

    /// Calls a runtime function that can fail; answers its value.
    pub(super) fn runtime(&mut self, helper: Helper, args: &[Value]) -> Value {
        let results = self.calls.call_runtime(helper, args);
        self.checked(results)
    }

    /// Returns from the function if the status says that the callee failed; else goes on with the value.
    fn checked(&mut self, [value, status]: Results) -> Value {
        let (failed, next) = (self.failed, self.calls.builder().create_block());
        self.calls.builder().ins().brif(status, failed, &[], next, &[]);
        self.calls.builder().switch_to_block(next);
        self.calls.builder().seal_block(next);
        value
    }

    /// Branches to a new cold block if the condition is 0, and goes on in a new block. The answer goes to [`trap`](Self::trap).
    pub(super) fn trap_unless(&mut self, condition: Value) -> Block {
        let (cold, next) = (self.calls.builder().create_block(), self.calls.builder().create_block());
        self.calls.builder().set_cold_block(cold);
        self.calls.builder().ins().brif(condition, next, &[], cold, &[]);
        self.calls.builder().seal_block(cold);
        self.calls.builder().seal_block(next);
        self.calls.builder().switch_to_block(next);
        cold
    }

    /// Fills the cold block: records the error and returns. `operands` emits the `x` and `y` of [`Helper::Trap`].
    pub(super) fn trap(
        &mut self,
        cold: Block,
        code: TrapCode,
        line: u32,
        operands: impl FnOnce(&mut Self) -> (Value, Value),
    ) {
        let hot = self.calls.builder().current_block();
        self.calls.builder().switch_to_block(cold);
        let code = self.calls.builder().ins().iconst(I64, (code as u64).cast_signed());
        let line = self.calls.builder().ins().iconst(I64, i64::from(line));
        let (x, y) = operands(self);
        let context = self.context;
        self.calls.call_runtime(Helper::Trap, &[context, code, line, x, y]);
        let failed = self.failed;
        self.calls.builder().ins().jump(failed, &[]);
        if let Some(hot) = hot {
            self.calls.builder().switch_to_block(hot);
        }
    }
}
