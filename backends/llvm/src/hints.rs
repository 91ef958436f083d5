//! What the optimizer is told of how often code runs.

use crate::error::BuildError;
use crate::unit::FunctionUnit;
use inkwell::values::InstructionValue;

impl<'c> FunctionUnit<'c, '_> {
    /// States how often a branch, a switch or a select went each way, in the order of its targets: by a
    /// [profile](beadwork::Job::profile), or by what the language knows. LLVM lays out blocks, inlines and allocates
    /// registers by it. Only the ratios count.
    ///
    /// Counts are scaled to 32 bits and raised by one, as clang does, so that a way never seen is still a way.
    ///
    /// # Errors
    /// As inkwell, if `branch` cannot have metadata.
    pub fn set_branch_weights(&self, branch: InstructionValue<'c>, counts: &[u64]) -> Result<(), BuildError> {
        let context = self.context();
        let scale = counts.iter().max().map_or(1, |max| max / u64::from(u32::MAX) + 1);
        let name = context.metadata_string("branch_weights").into();
        let weight = |count: &u64| context.i32_type().const_int(count / scale + 1, false).into();
        let weights: Vec<_> = std::iter::once(name).chain(counts.iter().map(weight)).collect();
        branch.set_metadata(context.metadata_node(&weights), context.get_kind_id("prof"))?;
        Ok(())
    }

    /// States how often the function was called, which gives the weights of its branches a scale. Without it LLVM knows what is
    /// cold within the function only.
    ///
    /// # Errors
    /// Before [`begin`](FunctionUnit::begin).
    pub fn set_entry_count(&self, calls: u64) -> Result<(), BuildError> {
        let context = self.context();
        let name = context.metadata_string("function_entry_count").into();
        let calls = context.i64_type().const_int(calls, false).into();
        let node = context.metadata_node(&[name, calls]);
        self.function()?.as_global_value().set_metadata(node, context.get_kind_id("prof"));
        Ok(())
    }
}
