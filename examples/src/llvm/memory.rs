//! Arrays, with the layout of [`heap`](crate::heap), and what else goes through the runtime.

use beadwork_llvm::inkwell::IntPredicate;
use beadwork_llvm::inkwell::values::{BasicValue, IntValue, PointerValue};

use super::{Op, Result, Translation};
use crate::bytecode::{PrintKind, Reg};
use crate::heap::{DATA_OFFSET, LENGTH_OFFSET};
use crate::runtime::{Helper, TrapCode};

impl<'c> Translation<'_, 'c, '_> {
    /// Translates accesses of arrays and `print`.
    pub(super) fn memory(&mut self, op: &Op) -> Result<()> {
        match *op {
            Op::Load { dst, array, index } => {
                let place = self.element(array, index)?;
                let value = self.b().build_load(self.word(), place, "")?.into_int_value();
                if let Some(load) = value.as_instruction() {
                    self.apart(load, false)?;
                }
                self.set(dst, value)
            }
            Op::LoadF { dst, array, index } => {
                let place = self.element(array, index)?;
                let value = self.b().build_load(self.float(), place, "")?.into_float_value();
                if let Some(load) = value.as_instruction() {
                    self.apart(load, true)?;
                }
                self.set_float(dst, value)
            }
            Op::Store { array, index, src } => {
                let place = self.element(array, index)?;
                let value = self.get(src)?;
                let store = self.b().build_store(place, value)?;
                self.apart(store, false)
            }
            Op::StoreF { array, index, src } => {
                let place = self.element(array, index)?;
                let value = self.get_float(src)?;
                let store = self.b().build_store(place, value)?;
                self.apart(store, true)
            }
            Op::Len { dst, array } => {
                let array = self.get(array)?;
                let array = self.pointer(array)?;
                let length = self.length(array)?;
                self.set(dst, length)
            }
            Op::Array { dst, len, init } => {
                let init = self.get(init)?;
                self.array(dst, len, init)
            }
            Op::ArrayF { dst, len, init } => {
                let init = self.get_float_bits(init)?;
                self.array(dst, len, init)
            }
            Op::Print { src, kind } => {
                let word = if kind == PrintKind::Float { self.get_float_bits(src)? } else { self.get(src)? };
                let (kind, line) = (self.number(i64::from(kind as u8)), self.number(i64::from(self.line())));
                self.runtime(Helper::Print, &[word, kind, line]).map(drop)
            }
            // All others are translated elsewhere.
            _ => Ok(()),
        }
    }

    /// HEAP-FIXED: a length never changes, and HEAP-LIVE: it can be read wherever the address is known.
    fn length(&mut self, array: PointerValue<'c>) -> Result<IntValue<'c>> {
        let place = self.at(array, i64::from(LENGTH_OFFSET))?;
        let length = self.b().build_load(self.word(), place, "")?;
        if let Some(load) = length.as_instruction_value() {
            self.constant_load(load)?;
        }
        Ok(length.into_int_value())
    }

    /// The address of the element's word, after the bounds check.
    fn element(&mut self, array: Reg, index: Reg) -> Result<PointerValue<'c>> {
        let (array, index) = (self.get(array)?, self.get(index)?);
        let array = self.pointer(array)?;
        let length = self.length(array)?;
        // A negative index is a huge unsigned one, and a length is never negative.
        let inside = self.b().build_int_compare(IntPredicate::ULT, index, length, "")?;
        self.trap_unless(inside, TrapCode::IndexOutOfRange, self.line(), [index, length])?;
        let data = self.at(array, i64::from(DATA_OFFSET))?;
        let offset = self.b().build_left_shift(index, self.number(3), "")?;
        self.unit.offset(data, offset)
    }

    fn array(&mut self, dst: Reg, length: Reg, init: IntValue<'c>) -> Result<()> {
        let length = self.get(length)?;
        let line = self.number(i64::from(self.line()));
        let array = self.runtime(Helper::Array, &[length, init, line])?;
        self.set(dst, array)
    }
}
