//! Addresses that are computed while the code runs.

use crate::error::BuildError;
use crate::unit::FunctionUnit;
use inkwell::values::{IntValue, PointerValue};

impl<'c> FunctionUnit<'c, '_> {
    /// The address `bytes` behind `pointer` (before it, if negative), in a form the optimizer knows how to follow. Nothing is promised
    /// about what lies there, so any sum will do.
    ///
    /// # Errors
    /// As inkwell's builder, if it has no position.
    pub fn offset(
        &self,
        pointer: PointerValue<'c>,
        bytes: IntValue<'c>,
    ) -> Result<PointerValue<'c>, BuildError> {
        // SAFETY: what can go wrong is an index that does not fit the type, and that here is a byte with one integer index. Without
        // `inbounds` the sum is an address whatever it is.
        Ok(unsafe { self.builder().build_gep(self.context().i8_type(), pointer, &[bytes], "")? })
    }
}
