//! Relocations: the ELF names of the arena's kinds.

use beadwork_arena::RelocationKind::{self, *};
use object::{Architecture, elf};

/// What objects made here are for.
pub(crate) const ARCHITECTURE: Option<Architecture> = if cfg!(target_arch = "x86_64") {
    Some(Architecture::X86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(Architecture::Aarch64)
} else if cfg!(target_arch = "riscv64") {
    Some(Architecture::Riscv64)
} else {
    None
};

/// One row for each type of which both directions are wanted. On RISC-V low parts name their high parts by symbols of their own, so
/// only what a field states by itself is here.
const TYPES: [(Architecture, u32, RelocationKind); 10] = [
    (Architecture::X86_64, elf::R_X86_64_64, Abs8),
    (Architecture::X86_64, elf::R_X86_64_32, Abs4),
    (Architecture::X86_64, elf::R_X86_64_32S, X86Abs4Signed),
    (Architecture::X86_64, elf::R_X86_64_PC32, X86PcRel4),
    (Architecture::X86_64, elf::R_X86_64_PC64, X86PcRel8),
    (Architecture::Aarch64, elf::R_AARCH64_ABS64, Abs8),
    (Architecture::Aarch64, elf::R_AARCH64_CALL26, Aarch64Call26),
    (Architecture::Aarch64, elf::R_AARCH64_ADR_PREL_PG_HI21, Aarch64AdrPrelPgHi21),
    (Architecture::Aarch64, elf::R_AARCH64_ADD_ABS_LO12_NC, Aarch64AddAbsLo12Nc),
    (Architecture::Riscv64, elf::R_RISCV_64, Abs8),
];

/// The kind of a relocation type.
pub(crate) fn kind(architecture: Architecture, r_type: u32) -> Option<RelocationKind> {
    TYPES.iter().find(|row| (row.0, row.1) == (architecture, r_type)).map(|row| row.2)
}

/// The relocation type of a kind.
pub(crate) fn r_type(architecture: Architecture, kind: RelocationKind) -> Option<u32> {
    TYPES.iter().find(|row| (row.0, row.2) == (architecture, kind)).map(|row| row.1)
}
