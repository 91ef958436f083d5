//! Arrays, with the layout of [`heap`](crate::heap), and what else goes through the runtime.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F64, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type as ClifType, Value};

use super::{Op, Translation};
use crate::bytecode::{PrintKind, Reg};
use crate::heap::{DATA_OFFSET, LENGTH_OFFSET};
use crate::runtime::{Helper, TrapCode};

impl Translation<'_, '_> {
    /// Translates accesses of arrays and `print`.
    pub(super) fn memory(&mut self, op: &Op) {
        match *op {
            Op::Load { dst, array, index } => {
                let value = self.load(I64, array, index);
                self.set(dst, value);
            }
            Op::LoadF { dst, array, index } => {
                let value = self.load(F64, array, index);
                self.set_float(dst, value);
            }
            Op::Store { array, index, src } => {
                let address = self.element(array, index);
                let value = self.get(src);
                self.calls.builder().ins().store(MemFlagsData::trusted(), value, address, DATA_OFFSET);
            }
            Op::StoreF { array, index, src } => {
                let address = self.element(array, index);
                let value = self.get_float(src);
                self.calls.builder().ins().store(MemFlagsData::trusted(), value, address, DATA_OFFSET);
            }
            Op::Len { dst, array } => {
                let array = self.get(array);
                let length = self.length(array);
                self.set(dst, length);
            }
            Op::Array { dst, len, init } => {
                let init = self.get(init);
                self.array(dst, len, init);
            }
            Op::ArrayF { dst, len, init } => {
                let init = self.get_float_bits(init);
                self.array(dst, len, init);
            }
            Op::Print { src, kind } => {
                let word = if kind == PrintKind::Float { self.get_float_bits(src) } else { self.get(src) };
                let kind = self.calls.builder().ins().iconst(I64, i64::from(kind as u8));
                let line = i64::from(self.line());
                let line = self.calls.builder().ins().iconst(I64, line);
                let context = self.context;
                self.runtime(Helper::Print, &[context, word, kind, line]);
            }
            // All others are translated elsewhere.
            _ => {}
        }
    }

    /// HEAP-FIXED: a length never changes, and HEAP-LIVE: it can be read wherever the address is known.
    fn length(&mut self, array: Value) -> Value {
        let flags = MemFlagsData::trusted().with_readonly().with_can_move();
        self.calls.builder().ins().load(I64, flags, array, LENGTH_OFFSET)
    }

    /// The address of the element's word less [`DATA_OFFSET`], after the bounds check.
    fn element(&mut self, array: Reg, index: Reg) -> Value {
        let (array, index) = (self.get(array), self.get(index));
        let length = self.length(array);
        // A negative index is a huge unsigned one, and a length is never negative.
        let inside = self.calls.builder().ins().icmp(IntCC::UnsignedLessThan, index, length);
        let outside = self.trap_unless(inside);
        self.trap(outside, TrapCode::IndexOutOfRange, self.line(), |_| (index, length));
        let offset = self.calls.builder().ins().ishl_imm_u(index, 3);
        self.calls.builder().ins().iadd(array, offset)
    }

    fn load(&mut self, ty: ClifType, array: Reg, index: Reg) -> Value {
        let address = self.element(array, index);
        self.calls.builder().ins().load(ty, MemFlagsData::trusted(), address, DATA_OFFSET)
    }

    fn array(&mut self, dst: Reg, length: Reg, init: Value) {
        let length = self.get(length);
        let line = i64::from(self.line());
        let line = self.calls.builder().ins().iconst(I64, line);
        let context = self.context;
        let array = self.runtime(Helper::Array, &[context, length, init, line]);
        self.set(dst, array);
    }
}
