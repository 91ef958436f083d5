//! How to unwind through the functions of an object, as one description for each run of bytes.

use crate::link::LinkError;
use beadwork_arena::{UnwindError, UnwindInfo};
use object::read::elf::ElfFile64;
use object::{
    LittleEndian, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SymbolSection,
};
use std::collections::HashMap;

/// The section with the descriptions.
pub(crate) const SECTION: &str = ".eh_frame";

/// Why the descriptions cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// They are malformed, or of a kind the arena cannot carry.
    #[error(transparent)]
    Unwind(#[from] UnwindError),
    /// One describes something else.
    #[error("the description at byte {0} is of no function of this object")]
    Stray(usize),
    /// They cannot be made one.
    #[error(
        "the functions of the module have descriptions that cannot be joined ({0}); inline the helpers, or give them the same attributes"
    )]
    Joined(&'static str),
}

/// A function with its description.
struct Frame {
    start: usize,
    info: UnwindInfo,
    /// Offset of its record in the section.
    at: usize,
}

/// The description of each run that has one; `base` says which run a section lies in, and where.
pub(crate) fn describe(
    file: &ElfFile64<'_, LittleEndian>,
    base: impl Fn(SectionIndex) -> Option<(usize, usize)>,
) -> Result<HashMap<usize, UnwindInfo>, LinkError> {
    let Some(section) = file.section_by_name(SECTION) else { return Ok(HashMap::new()) };
    let bytes = section.data()?;
    let relocations: HashMap<u64, _> = section.relocations().collect();
    let mut runs: HashMap<usize, Vec<Frame>> = HashMap::new();
    for record in UnwindInfo::split_eh_frame(bytes).map_err(FrameError::from)? {
        let stray = || LinkError::from(FrameError::Stray(record.pc_begin_at));
        let relocation = relocations.get(&(record.pc_begin_at as u64)).ok_or_else(stray)?;
        let RelocationTarget::Symbol(symbol) = relocation.target() else { return Err(stray()) };
        let symbol = file.symbol_by_index(symbol)?;
        let SymbolSection::Section(index) = symbol.section() else { return Err(stray()) };
        let (run, start) = base(index).ok_or_else(stray)?;
        let start = (start as u64).wrapping_add(symbol.address()).wrapping_add_signed(relocation.addend());
        let start = usize::try_from(start).map_err(|_| stray())?;
        // Length and the distance to the common record stand before the address.
        let frame = Frame { start, at: record.pc_begin_at - 8, info: record.unwind };
        runs.entry(run).or_default().push(frame);
    }
    let described = runs.into_iter().map(|(run, mut frames)| {
        frames.sort_by_key(|frame| frame.start);
        match frames.as_slice() {
            [only] if only.start == 0 => Ok((run, only.info.clone())),
            several => Ok((run, join(bytes, several)?)),
        }
    });
    described.collect()
}

/// One description of several functions: between them it goes back to the state every function starts with.
fn join(section: &[u8], frames: &[Frame]) -> Result<UnwindInfo, FrameError> {
    const REMEMBER: u8 = 0x0a;
    const RESTORE: u8 = 0x0b;
    let mut program = vec![0]; // no augmentation data
    let (mut cie, mut place) = (None, 0);
    for frame in frames {
        let (own, instructions) = parts(section, frame.at).ok_or(FrameError::Joined("unknown layout"))?;
        if *cie.get_or_insert(own) != own {
            return Err(FrameError::Joined("different kinds of frames"));
        }
        if program.len() > 1 {
            program.push(RESTORE);
        }
        let ahead = frame.start.checked_sub(place).and_then(|ahead| u32::try_from(ahead).ok());
        let ahead = ahead.ok_or(FrameError::Joined("overlapping functions"))?;
        // The gap, if any, is described like a function's first instruction.
        program.push(0x04);
        program.extend_from_slice(&ahead.to_le_bytes());
        program.push(REMEMBER);
        program.extend_from_slice(instructions);
        place = frame.start + advance(instructions).ok_or(FrameError::Joined("unknown instructions"))?;
    }
    let cie = cie.ok_or(FrameError::Joined("nothing described"))?;
    Ok(UnwindInfo::new(cie, program)?)
}

/// Common record and instructions of a description, if both are laid out as LLVM does on this machine: `zR`, 4-byte addresses
/// relative to themselves, code counted in single bytes.
fn parts(section: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    let record = |at: usize| {
        let length = u32::from_le_bytes(*section.get(at..)?.first_chunk()?) as usize;
        section.get(at + 4..)?.get(..length)
    };
    let fde = record(at)?;
    let back = u32::from_le_bytes(*fde.first_chunk()?) as usize;
    let cie = record((at + 4).checked_sub(back)?)?.get(4..)?;
    // Version, augmentation, code alignment 1; the data alignment and return address are a byte each; the encoding is the data.
    if !matches!(cie, [1, b'z', b'R', 0, 1, _, _, 1, 0x1b, ..]) {
        return None;
    }
    let [0, instructions @ ..] = fde.get(12..)? else { return None };
    Some((cie, instructions))
}

/// By how many bytes instructions of a description move on in the code, `None` if one of them is unknown.
fn advance(mut rest: &[u8]) -> Option<usize> {
    let mut sum = 0usize;
    while let [opcode, tail @ ..] = rest {
        rest = tail;
        let skip = |rest: &mut &[u8], numbers: usize| (0..numbers).try_for_each(|_| number(rest).map(drop));
        let mut fixed = |rest: &mut &[u8], bytes: usize| {
            let (value, tail) = rest.split_at_checked(bytes)?;
            *rest = tail;
            sum += value.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
            Some(())
        };
        match opcode {
            0x40..=0x7f => sum += usize::from(opcode & 0x3f),
            0x80..=0xbf => skip(&mut rest, 1)?,
            0xc0..=0xff | 0x00 | 0x0a | 0x0b => (),
            0x02 => fixed(&mut rest, 1)?,
            0x03 => fixed(&mut rest, 2)?,
            0x04 => fixed(&mut rest, 4)?,
            0x06..=0x08 | 0x0d | 0x0e | 0x13 | 0x2e => skip(&mut rest, 1)?,
            0x05 | 0x09 | 0x0c | 0x11 | 0x12 | 0x14 | 0x15 => skip(&mut rest, 2)?,
            0x0f => block(&mut rest)?,
            0x10 | 0x16 => {
                skip(&mut rest, 1)?;
                block(&mut rest)?;
            }
            _ => return None,
        }
    }
    Some(sum)
}

/// A LEB128 number; the signed ones are not used for their value.
fn number(rest: &mut &[u8]) -> Option<usize> {
    let end = rest.iter().position(|byte| byte & 0x80 == 0)?;
    let (digits, tail) = rest.split_at_checked(end + 1)?;
    *rest = tail;
    digits.iter().rev().try_fold(0usize, |sum, &byte| Some(sum.checked_mul(128)? | usize::from(byte & 0x7f)))
}

fn block(rest: &mut &[u8]) -> Option<()> {
    let len = number(rest)?;
    *rest = rest.get(len..)?;
    Some(())
}
