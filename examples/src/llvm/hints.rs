//! What LLVM can use and cannot know.

use beadwork_llvm::inkwell::values::{BasicMetadataValueEnum, InstructionValue};

use super::{Result, Translation};

impl<'c> Translation<'_, 'c, '_> {
    /// HEAP-TYPED: an element of an array of floats is no element of another array, and so an access to one cannot change the other.
    pub(super) fn apart(&self, access: InstructionValue<'c>, float: bool) -> Result<()> {
        let context = self.unit.context();
        let root = context.metadata_node(&[context.metadata_string("strand").into()]);
        let zero: BasicMetadataValueEnum<'c> = self.number(0).into();
        let name = context.metadata_string(if float { "float" } else { "word" });
        let kind = context.metadata_node(&[name.into(), root.into(), zero]);
        let tag = context.metadata_node(&[kind.into(), kind.into(), zero]);
        access.set_metadata(tag, context.get_kind_id("tbaa"))?;
        Ok(())
    }

    /// HEAP-FIXED: what is loaded here never changes.
    pub(super) fn constant_load(&self, load: InstructionValue<'c>) -> Result<()> {
        let context = self.unit.context();
        load.set_metadata(context.metadata_node(&[]), context.get_kind_id("invariant.load"))?;
        Ok(())
    }

    /// The branch goes to its first target but for errors.
    pub(super) fn nearly_always(&self, branch: InstructionValue<'c>) -> Result<()> {
        self.unit.set_branch_weights(branch, &[1 << 20, 0])
    }
}
