//! How the code of a function reaches what lies outside it: other functions, the VM's runtime, its own constants.

use crate::error::BuildError;
use crate::symbols::in_module;
use crate::unit::FunctionUnit;
use beadwork::{Bead, CompileError};
use beadwork_object::{Embed, Of};
use inkwell::AddressSpace;
use inkwell::AtomicOrdering;
use inkwell::module::Linkage;
use inkwell::types::{BasicType, FunctionType};
use inkwell::values::{
    BasicMetadataValueEnum, BasicValue, BasicValueEnum, CallSiteValue, FunctionValue, PointerValue,
    UnnamedAddress,
};

impl<'c> FunctionUnit<'c, '_> {
    /// Calls a function of the engine through its slot: whatever code is installed when the call runs, or the
    /// engine's [fallback](beadwork::EngineBuilder::fallback) while there is none. Recursion is such a call, too. Functions that are
    /// [included](FunctionUnit::include) are called directly.
    ///
    /// `signature` and `args` are the guest's. If the backend
    /// [passes callee bits](crate::LlvmBuilder::pass_callee_bits), `callee.to_bits()` is passed before them. The
    /// call costs a load of a constant address more than a direct one.
    ///
    /// **Without a fallback the slot of a function without code holds null**, and this call jumps there. Give the engine
    /// one, or check [`code_pointer`](FunctionUnit::code_pointer) first.
    ///
    /// A callee that is not live any more fails this function after the frontend returned.
    ///
    /// # Errors
    /// As inkwell's builder, if it has no position.
    pub fn call_bead(
        &mut self,
        callee: Bead,
        signature: FunctionType<'c>,
        args: &[BasicMetadataValueEnum<'c>],
    ) -> Result<CallSiteValue<'c>, BuildError> {
        let native = self.native_signature(signature);
        let mut passed = Vec::with_capacity(args.len() + 1);
        if self.env.pass_callee_bits {
            passed.push(self.bits(callee).into());
        }
        passed.extend_from_slice(args);
        if let Some(part) = self.part(callee, native) {
            return Ok(self.builder().build_call(part, &passed, "")?);
        }
        let target = self.code_pointer(callee)?;
        Ok(self.builder().build_indirect_call(native, target, &passed, "")?)
    }

    /// Loads the callee's code pointer, which can change at any time: its code, or else the engine's fallback, or else
    /// null. Use it at once; a pointer kept across a safepoint may have been freed.
    ///
    /// A callee that is not live any more fails this function after the frontend returned.
    ///
    /// # Errors
    /// As inkwell's builder, if it has no position.
    pub fn code_pointer(&mut self, callee: Bead) -> Result<PointerValue<'c>, BuildError> {
        let slot = self.slot(callee);
        let pointer = self.context().ptr_type(AddressSpace::default());
        // Installs change the slot meanwhile. What the code consists of was written before its address; the jump depends on the address.
        Ok(self.load_shared(pointer, slot, 8)?.into_pointer_value())
    }

    /// Loads what other threads may change meanwhile: an atomic load is neither torn nor moved out of loops.
    pub(crate) fn load_shared(
        &self,
        ty: impl BasicType<'c>,
        place: PointerValue<'c>,
        bytes: u32,
    ) -> Result<BasicValueEnum<'c>, BuildError> {
        let loaded = self.builder().build_load(ty, place, "")?;
        if let Some(load) = loaded.as_instruction_value() {
            load.set_alignment(bytes)?;
            load.set_atomic_ordering(AtomicOrdering::Monotonic)?;
        }
        Ok(loaded)
    }

    /// The address of the callee's code pointer, constant as long as this function's code exists.
    ///
    /// A callee that is not live any more fails this function after the frontend returned.
    pub fn slot(&mut self, callee: Bead) -> PointerValue<'c> {
        let address = match self.slots.get(&callee) {
            Some(&address) => address,
            None => match self.job().slot(callee) {
                Ok(slot) => {
                    self.slots.insert(callee, slot.addr());
                    slot.addr()
                }
                Err(stale) => {
                    // Not kept: who builds the function again has to fail, too.
                    self.defer(CompileError::failed(format_args!("a callee cannot be called: {stale}")));
                    0
                }
            },
        };
        let of = Of::bead(callee, self.job());
        self.embed_address(Embed::Slot { of }, address as u64)
    }

    /// A function of the VM's runtime, given to the backend under `name`, to be called with
    /// `builder().build_call(…)`. The type is taken as it is; nothing hidden is passed.
    ///
    /// An unknown name, or one asked for before with another type, fails this function after the frontend returned.
    pub fn symbol(&mut self, name: &str, ty: FunctionType<'c>) -> FunctionValue<'c> {
        self.symbol_value(name);
        let symbol = in_module(&self.env.symbols, name);
        if let Some(known) = self.module().get_function(&symbol) {
            if known.get_type() == ty {
                return known;
            }
            // What is answered then has the type asked for, and another name.
            self.defer(CompileError::failed(format_args!(
                "the runtime symbol `{name}` is used with two types: {} and {ty}",
                known.get_type()
            )));
        }
        let function = self.module().add_function(&symbol, ty, Some(Linkage::External));
        // A call through a cell beside the code, rather than a jump to it.
        self.attribute(function, "nonlazybind", 0);
        function
    }

    /// The address of a runtime symbol, as a constant.
    ///
    /// An unknown name fails this function after the frontend returned.
    pub fn symbol_address(&mut self, name: &str) -> PointerValue<'c> {
        let address = self.symbol_value(name);
        self.embed_symbol(name, address)
    }

    fn symbol_value(&mut self, name: &str) -> u64 {
        self.env.symbols.address_of(name).unwrap_or_else(|| {
            self.defer(CompileError::failed(format_args!(
                "unknown runtime symbol `{name}`; give its address with LlvmBuilder::symbol"
            )));
            0
        })
    }

    /// The address of read-only data that lives as long as the function's code: a string, a table. `align` is a power
    /// of two of at most 4096 bytes.
    ///
    /// Another alignment fails this function after the frontend returned.
    pub fn data(&mut self, bytes: &[u8], align: u32) -> PointerValue<'c> {
        let bytes = self.context().const_string(bytes, false);
        let data = self.module().add_global(bytes.get_type(), None, "beadwork.data");
        data.set_initializer(&bytes);
        data.set_constant(true);
        data.set_linkage(Linkage::Private);
        data.set_unnamed_address(UnnamedAddress::Global);
        if align.is_power_of_two() && align <= 4096 {
            data.set_alignment(align);
        } else {
            self.defer(CompileError::failed(format_args!(
                "data cannot be aligned to {align}; use a power of two of at most 4096"
            )));
        }
        data.as_pointer_value()
    }

    /// An address known while compiling, as a constant. Code with such an address is of no use to another process, so it is not for
    /// code that is to be [kept](crate::LlvmBuilder::archive).
    pub fn address(&self, address: u64) -> PointerValue<'c> {
        let pointer = self.context().ptr_type(AddressSpace::default());
        self.context().i64_type().const_int(address, false).const_to_pointer(pointer)
    }
}
