//! The description of one function, independent of where it will be placed and of who made it.

use std::sync::Arc;

use super::image::{ImageBuilder, PC_BEGIN};
use crate::error::UnwindError;

/// How to unwind through one function, in DWARF terms.
///
/// Byte-exactly, with integers in the target's byte order (little-endian on every supported target):
/// * `cie`: a CIE of `.eh_frame` **without** its length and id fields: version (1, 3 or 4), augmentation string with its
///   NUL, \[address and segment size if version 4,\] code alignment (ULEB128), data alignment (SLEB128), return address
///   register, \[augmentation length and data if the string starts with `z`\], initial instructions, and any
///   number of trailing `DW_CFA_nop` (0). FDE addresses are absolute: without `R` in the augmentation, or with
///   `DW_EH_PE_absptr` (0); the constructors rewrite other encodings to 0.
/// * `fde`: an FDE **without** its length, CIE pointer, `pc_begin` and `pc_range` fields: \[augmentation length and
///   data if the CIE has `z`\], the call-frame instructions, any number of trailing nops.
///
/// The arena adds the fields left out: lengths, CIE pointers, the 8-byte absolute `pc_begin` of the placed function and
/// the 8-byte `pc_range`, which is the length of its code. Functions with equal CIE bytes share one CIE.
///
/// The instructions themselves are not checked. Wrong ones make unwinding through the function undefined, as
/// wrong code makes calling it undefined; both are part of what the caller of generated code vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnwindInfo {
    pub(crate) cie: Arc<[u8]>,
    pub(crate) fde: Box<[u8]>,
}

/// One function's description as found in an `.eh_frame` section, with what is needed to match it to its function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdeRecord {
    /// Offset of the `pc_begin` field in the section: where an object file's relocation for this function applies.
    pub pc_begin_at: usize,
    /// Value of the `pc_begin` field; a pc-relative one is relative to `pc_begin_at`. Zero before relocation.
    pub pc_begin: i64,
    /// Length of the described code in bytes.
    pub pc_range: u64,
    /// The position-independent rest.
    pub unwind: UnwindInfo,
}

/// No function has a record near this size; the bound keeps every 32-bit length of a table in range.
const MAX_RECORD: usize = 1 << 16;

impl UnwindInfo {
    /// A description from its two parts, laid out as the type's documentation says.
    ///
    /// Functions of one code generator usually have the same CIE: pass clones of one `Arc`.
    ///
    /// # Errors
    /// [`UnwindError`] when the CIE's header cannot be used or a part is larger than 64 KiB.
    pub fn new(cie: impl Into<Arc<[u8]>>, fde: impl Into<Box<[u8]>>) -> Result<Self, UnwindError> {
        let (mut cie, fde) = (cie.into(), fde.into());
        for bytes in [cie.len(), fde.len()] {
            if bytes > MAX_RECORD {
                return Err(UnwindError::TooLarge { bytes });
            }
        }
        if let Some((at, encoding)) = pointer_encoding(&cie, 0)?
            && encoding != 0
        {
            let mut bytes = cie.to_vec();
            bytes[at] = 0;
            cie = bytes.into();
        }
        Ok(Self { cie, fde })
    }

    /// The description in an `.eh_frame` image of one function, such as gimli's `write_eh_frame` emits.
    ///
    /// Absolute and pc-relative addresses are accepted; their value is ignored. A terminator may follow.
    ///
    /// # Errors
    /// [`UnwindError`] when the image is malformed, or describes no or several functions.
    pub fn from_eh_frame(image: &[u8]) -> Result<Self, UnwindError> {
        let mut records = Self::split_eh_frame(image)?;
        match (records.pop(), records.len()) {
            (Some(record), 0) => Ok(record.unwind),
            (last, rest) => Err(UnwindError::NotOneFunction { found: rest + usize::from(last.is_some()) }),
        }
    }

    /// The opposite: an `.eh_frame` image of one function of `pc_range` bytes, without a terminator, so that images of several can
    /// follow each other; and where in it the 8-byte absolute address of the function belongs, which is 0 until then.
    pub fn to_eh_frame(&self, pc_range: u64) -> (Vec<u8>, usize) {
        let mut image = ImageBuilder::default();
        let record = image.push(&self.cie, &self.fde, 0, pc_range);
        (image.into_bytes(), record as usize + PC_BEGIN)
    }

    /// Splits an `.eh_frame` section (of an object file, say) into one record per function, in section order.
    ///
    /// # Errors
    /// [`UnwindError`] at the first record that is malformed or that the arena cannot carry.
    pub fn split_eh_frame(section: &[u8]) -> Result<Vec<FdeRecord>, UnwindError> {
        let mut cies: Vec<(usize, Arc<[u8]>, Header)> = Vec::new();
        let mut records = Vec::new();
        let mut at = 0;
        while at < section.len() {
            let truncated = UnwindError::Truncated { at };
            let length = u32_at(section, at).ok_or(truncated)?;
            if length == 0 {
                break;
            }
            if length == u32::MAX {
                return Err(UnwindError::Dwarf64 { at });
            }
            let body = at + 4;
            let end = body.checked_add(length as usize).ok_or(truncated)?;
            let record = section.get(body..end).ok_or(truncated)?;
            let id = u32_at(record, 0).ok_or(truncated)?;
            if id == 0 {
                let bytes = &record[4..];
                let header = header(bytes, at)?;
                cies.push((at, Self::new(bytes, [])?.cie, header));
            } else {
                // The CIE pointer counts back from its own field.
                let cie_at = body.checked_sub(id as usize).ok_or(UnwindError::MissingCie { at })?;
                let found = cies.iter().find(|(start, ..)| *start == cie_at);
                let (_, cie, header) = found.ok_or(UnwindError::MissingCie { at })?;
                let width = header.address_width()?;
                let pc_begin = int_at(record, 4, width).ok_or(truncated)?;
                let pc_range = int_at(record, 4 + width, width).ok_or(truncated)?;
                let pc_range = if width == 4 { u64::from(pc_range as u32) } else { pc_range as u64 };
                let fde = record.get(4 + 2 * width..).ok_or(truncated)?;
                if fde.len() > MAX_RECORD {
                    return Err(UnwindError::TooLarge { bytes: fde.len() });
                }
                let unwind = Self { cie: cie.clone(), fde: fde.into() };
                records.push(FdeRecord { pc_begin_at: body + 4, pc_begin, pc_range, unwind });
            }
            at = end;
        }
        Ok(records)
    }
}

/// What of a CIE's header matters: where the pointer encoding of its FDEs stands, and what it is.
struct Header {
    encoding: Option<(usize, u8)>,
}

impl Header {
    /// Bytes of `pc_begin` and of `pc_range`.
    fn address_width(&self) -> Result<usize, UnwindError> {
        let encoding = self.encoding.map_or(0, |(_, encoding)| encoding);
        match (encoding & 0xf0, encoding & 0x0f) {
            (0x00 | 0x10, 0x00 | 0x04 | 0x0c) => Ok(8),
            (0x00 | 0x10, 0x03 | 0x0b) => Ok(4),
            _ => Err(UnwindError::PointerEncoding { encoding }),
        }
    }
}

fn pointer_encoding(cie: &[u8], at: usize) -> Result<Option<(usize, u8)>, UnwindError> {
    let header = header(cie, at)?;
    header.address_width()?;
    Ok(header.encoding)
}

/// Reads a CIE's header (`cie` starts at the version); `at` is named in errors.
fn header(cie: &[u8], at: usize) -> Result<Header, UnwindError> {
    let truncated = UnwindError::Truncated { at };
    let version = *cie.first().ok_or(truncated)?;
    if !matches!(version, 1 | 3 | 4) {
        return Err(UnwindError::CieVersion { version });
    }
    let name_len = cie[1..].iter().position(|&byte| byte == 0).ok_or(truncated)?;
    let name = &cie[1..1 + name_len];
    let mut pos = name_len + 2 + if version == 4 { 2 } else { 0 };
    let skip_leb = |pos: &mut usize| -> Result<(), UnwindError> {
        while *cie.get(*pos).ok_or(truncated)? & 0x80 != 0 {
            *pos += 1;
        }
        *pos += 1;
        Ok(())
    };
    skip_leb(&mut pos)?;
    skip_leb(&mut pos)?;
    if version == 1 {
        pos += 1
    } else {
        skip_leb(&mut pos)?
    }
    if cie.len() < pos {
        return Err(truncated);
    }
    let Some((b'z', rest)) = name.split_first() else {
        return match name.first() {
            None => Ok(Header { encoding: None }),
            Some(&other) => Err(UnwindError::Augmentation { character: other.into() }),
        };
    };
    skip_leb(&mut pos)?;
    let mut encoding = None;
    for &character in rest {
        match character {
            b'R' => {
                encoding = Some((pos, *cie.get(pos).ok_or(truncated)?));
                pos += 1;
            }
            b'S' | b'B' | b'G' => {}
            other => return Err(UnwindError::Augmentation { character: other.into() }),
        }
    }
    Ok(Header { encoding })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn int_at(bytes: &[u8], at: usize, width: usize) -> Option<i64> {
    let bytes = bytes.get(at..)?;
    if width == 8 {
        Some(i64::from_le_bytes(*bytes.first_chunk()?))
    } else {
        Some(i32::from_le_bytes(*bytes.first_chunk()?).into())
    }
}
