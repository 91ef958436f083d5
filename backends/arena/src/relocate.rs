//! Relocations as a pure function over bytes, for every processor on every processor.
//!
//! Following the ELF psABIs: S is the symbol's address, A the addend, P the address of the field.

/// How a field of the code is computed from its target.
///
/// The doc of each variant gives the value, the field's width and the names other tools use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RelocationKind {
    /// S + A, 8 bytes little-endian (`Reloc::Abs8`, `R_X86_64_64`, `R_AARCH64_ABS64`, `R_RISCV_64`).
    Abs8,
    /// S + A, 4 bytes unsigned (`Reloc::Abs4`, `R_X86_64_32`).
    Abs4,
    /// S + A, 4 bytes sign-extended by the instruction (`R_X86_64_32S`).
    X86Abs4Signed,
    /// S + A − P, 4 bytes signed (`Reloc::X86PCRel4`, `X86CallPCRel4`, `X86CallPLTRel4`; `R_X86_64_PC32`, `PLT32`).
    X86PcRel4,
    /// S + A − P, 8 bytes (`R_X86_64_PC64`).
    X86PcRel8,
    /// (S + A − P) / 4 in the low 26 bits of a `bl` or `b` (`Reloc::Arm64Call`, `R_AARCH64_CALL26`, `JUMP26`); ±128 MiB.
    Aarch64Call26,
    /// Page(S + A) − Page(P) in an `adrp` (`Reloc::Aarch64AdrPrelPgHi21`, `R_AARCH64_ADR_PREL_PG_HI21`); ±4 GiB.
    Aarch64AdrPrelPgHi21,
    /// Low 12 bits of S + A in an `add` (`Reloc::Aarch64AddAbsLo12Nc`, `R_AARCH64_ADD_ABS_LO12_NC`).
    Aarch64AddAbsLo12Nc,
    /// S + A − P over an `auipc`/`jalr` pair, 8 bytes (`Reloc::RiscvCallPlt`, `R_RISCV_CALL_PLT`); ±2 GiB.
    RiscvCallPlt,
    /// High part of S + A − P in an `auipc` (`Reloc::RiscvPCRelHi20`, `R_RISCV_PCREL_HI20`); ±2 GiB.
    RiscvPcRelHi20,
    /// Low 12 bits that belong to an earlier [`RiscvPcRelHi20`](Self::RiscvPcRelHi20), in an I-type instruction
    /// (`Reloc::RiscvPCRelLo12I`, `R_RISCV_PCREL_LO12_I`). Its target names the `auipc`; [`apply`] is given the
    /// place and symbol of that `auipc`'s relocation.
    RiscvPcRelLo12I,
}

/// Why a relocation could not be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelocationError {
    /// The value does not fit the field.
    #[error(
        "{kind:?} at {place:#x} cannot hold the value {value:#x}; call far targets through an absolute address"
    )]
    OutOfRange {
        /// The kind of field.
        kind: RelocationKind,
        /// Address of the field.
        place: u64,
        /// The value, sign-extended.
        value: i128,
    },
    /// The field is not inside the code.
    #[error("the {width}-byte field of {kind:?} is not inside the {len} bytes of code")]
    OutsideCode {
        /// The kind of field.
        kind: RelocationKind,
        /// Its width in bytes.
        width: usize,
        /// Length of the code (or of the bytes given to [`apply`]).
        len: usize,
    },
    /// A low part whose target is not an instruction with a high part.
    #[error("{kind:?} must name, in the same function, an instruction that has a RiscvPcRelHi20 relocation")]
    Unpaired {
        /// The kind of field.
        kind: RelocationKind,
    },
}

impl RelocationKind {
    /// Bytes of code the relocation covers.
    pub const fn width(self) -> usize {
        match self {
            Self::Abs8 | Self::X86PcRel8 | Self::RiscvCallPlt => 8,
            _ => 4,
        }
    }

    /// Whether the processor this crate was compiled for has such a field.
    pub const fn is_native(self) -> bool {
        match self {
            Self::Abs8 | Self::Abs4 => true,
            Self::X86Abs4Signed | Self::X86PcRel4 | Self::X86PcRel8 => cfg!(target_arch = "x86_64"),
            Self::Aarch64Call26 | Self::Aarch64AdrPrelPgHi21 | Self::Aarch64AddAbsLo12Nc => {
                cfg!(target_arch = "aarch64")
            }
            Self::RiscvCallPlt | Self::RiscvPcRelHi20 | Self::RiscvPcRelLo12I => {
                cfg!(target_arch = "riscv64")
            }
        }
    }
}

/// Applies one relocation to `field`, which starts with the relocated bytes and will be executed or read at `place`.
///
/// Instruction fields keep their opcode and registers; immediate bits are replaced, so applying twice is harmless.
/// A `RiscvPcRelLo12I` takes `place`, `symbol` and `addend` of the high part it belongs to.
///
/// # Errors
/// [`RelocationError`] when the value does not fit or `field` is too short; `field` is then unchanged.
pub fn apply(
    kind: RelocationKind,
    place: u64,
    symbol: u64,
    addend: i64,
    field: &mut [u8],
) -> Result<(), RelocationError> {
    let len = field.len();
    let outside = RelocationError::OutsideCode { kind, width: kind.width(), len };
    let Some(field) = field.get_mut(..kind.width()) else { return Err(outside) };
    // Addresses wrap at 64 bits like the processor's; the sign of a difference is that of its 64-bit value.
    let absolute = symbol.wrapping_add_signed(addend);
    let relative = absolute.wrapping_sub(place).cast_signed();
    let out_of_range = |value: i128| RelocationError::OutOfRange { kind, place, value };
    let small = |value: i64| i32::try_from(value).map_err(|_| out_of_range(value.into()));
    match kind {
        RelocationKind::Abs8 => field.copy_from_slice(&absolute.to_le_bytes()),
        RelocationKind::Abs4 => {
            let value = u32::try_from(absolute).map_err(|_| out_of_range(absolute.into()))?;
            field.copy_from_slice(&value.to_le_bytes());
        }
        RelocationKind::X86Abs4Signed => field.copy_from_slice(&small(absolute.cast_signed())?.to_le_bytes()),
        RelocationKind::X86PcRel4 => field.copy_from_slice(&small(relative)?.to_le_bytes()),
        RelocationKind::X86PcRel8 => field.copy_from_slice(&relative.to_le_bytes()),
        RelocationKind::Aarch64Call26 => {
            if relative % 4 != 0 || !(-(1 << 27)..1 << 27).contains(&relative) {
                return Err(out_of_range(relative.into()));
            }
            patch(field, 0x03ff_ffff, (relative >> 2) as u32);
        }
        RelocationKind::Aarch64AdrPrelPgHi21 => {
            let pages = ((absolute & !0xfff).wrapping_sub(place & !0xfff).cast_signed()) >> 12;
            if !(-(1 << 20)..1 << 20).contains(&pages) {
                return Err(out_of_range(i128::from(pages) << 12));
            }
            let pages = pages as u32;
            patch(field, 0x60ff_ffe0, (pages & 3) << 29 | (pages & 0x1f_fffc) << 3);
        }
        RelocationKind::Aarch64AddAbsLo12Nc => patch(field, 0x003f_fc00, ((absolute & 0xfff) as u32) << 10),
        RelocationKind::RiscvCallPlt => {
            let (high, low) = riscv_parts(relative).ok_or(out_of_range(relative.into()))?;
            let (auipc, jalr) = field.split_at_mut(4);
            patch(auipc, 0xffff_f000, high);
            patch(jalr, 0xfff0_0000, low << 20);
        }
        RelocationKind::RiscvPcRelHi20 => {
            let (high, _) = riscv_parts(relative).ok_or(out_of_range(relative.into()))?;
            patch(field, 0xffff_f000, high);
        }
        RelocationKind::RiscvPcRelLo12I => {
            let (_, low) = riscv_parts(relative).ok_or(out_of_range(relative.into()))?;
            patch(field, 0xfff0_0000, low << 20);
        }
    }
    Ok(())
}

/// Splits a distance into what `auipc` adds (bits 12–31 in place) and the signed 12 bits the next instruction adds.
fn riscv_parts(relative: i64) -> Option<(u32, u32)> {
    // The low part is signed, so the high part is rounded; that shifts the reachable range down by 2 KiB.
    let high = relative.checked_add(0x800)? & !0xfff;
    let high32 = i32::try_from(high).ok()?;
    Some((high32.cast_unsigned(), (relative - high) as u32 & 0xfff))
}

/// Replaces the bits of `mask` in a little-endian instruction word.
fn patch(field: &mut [u8], mask: u32, bits: u32) {
    if let Some(word) = field.first_chunk_mut::<4>() {
        *word = (u32::from_le_bytes(*word) & !mask | bits & mask).to_le_bytes();
    }
}
