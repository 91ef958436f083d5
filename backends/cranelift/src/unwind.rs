//! From Cranelift's unwind descriptions to the arena's.

use beadwork_arena::{UnwindError, UnwindInfo};
use cranelift_codegen::gimli::write::{self, Address, EhFrame, EndianVec, FrameTable};
use cranelift_codegen::gimli::{self, RunTimeEndian};
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::isa::unwind::CfaUnwindInfo;

/// Why a description could not be converted.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DescribeError {
    #[error("writing unwind information: {0}")]
    Write(#[from] write::Error),
    #[error("unwind information: {0}")]
    Convert(#[from] UnwindError),
}

/// Converts a description; `None` if the processor has no unwind tables.
pub(crate) fn describe(
    isa: &dyn TargetIsa,
    unwind: &CfaUnwindInfo,
) -> Result<Option<UnwindInfo>, DescribeError> {
    let Some(cie) = isa.create_systemv_cie() else { return Ok(None) };
    let mut table = FrameTable::default();
    let cie = table.add_cie(cie);
    // The arena replaces the address.
    table.add_fde(cie, unwind.to_fde(Address::Constant(0)));
    let endian = match isa.endianness() {
        cranelift_codegen::ir::Endianness::Little => RunTimeEndian::Little,
        cranelift_codegen::ir::Endianness::Big => RunTimeEndian::Big,
    };
    let mut image = EhFrame::from(EndianVec::<gimli::RunTimeEndian>::new(endian));
    table.write_eh_frame(&mut image)?;
    Ok(Some(UnwindInfo::from_eh_frame(image.0.slice())?))
}
