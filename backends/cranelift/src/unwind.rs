//! From Cranelift's unwind descriptions to the arena's.

use crate::stage::Part;
use beadwork_arena::{UnwindError, UnwindInfo};
use cranelift_codegen::gimli::write::{self, Address, EhFrame, EndianVec, FrameTable};
use cranelift_codegen::gimli::{self, RunTimeEndian};
use cranelift_codegen::isa::TargetIsa;

/// Why the description of a batch could not be converted.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DescribeError {
    #[error("writing unwind information: {0}")]
    Write(#[from] write::Error),
    #[error("unwind information: {0}")]
    Convert(#[from] UnwindError),
}

/// Converts the descriptions of a whole batch at once, so that its functions share one CIE.
pub(crate) fn describe(
    isa: &dyn TargetIsa,
    batch: &[&Part],
) -> Result<Vec<Option<UnwindInfo>>, DescribeError> {
    let mut described = vec![None; batch.len()];
    let Some(cie) = isa.create_systemv_cie() else { return Ok(described) };
    let mut table = FrameTable::default();
    let cie = table.add_cie(cie);
    for (position, part) in batch.iter().enumerate() {
        if let Some(unwind) = &part.unwind {
            // The arena replaces the address; until then it says which function the record is of.
            table.add_fde(cie, unwind.to_fde(Address::Constant(position as u64)));
        }
    }
    let endian = match isa.endianness() {
        cranelift_codegen::ir::Endianness::Little => RunTimeEndian::Little,
        cranelift_codegen::ir::Endianness::Big => RunTimeEndian::Big,
    };
    let mut image = EhFrame::from(EndianVec::<gimli::RunTimeEndian>::new(endian));
    table.write_eh_frame(&mut image)?;
    for record in UnwindInfo::split_eh_frame(image.0.slice())? {
        if let Some(slot) = usize::try_from(record.pc_begin).ok().and_then(|at| described.get_mut(at)) {
            *slot = Some(record.unwind);
        }
    }
    Ok(described)
}
