//! Links the object of one function: one run of bytes, with relocations for what only its place decides.
//!
//! The run is the code, then the constants and tables, then a *cell* with the address of each thing outside, then a *stub* for each of
//! those that is called directly. Distances inside the run are computed here; cells are absolute addresses, which the arena fills in.

use crate::env::Environment;
use crate::frames::{self, FrameError};
use crate::libcalls;
use beadwork_arena::relocate::{self, RelocationError};
use beadwork_arena::{Relocation, RelocationKind, Target, UnwindInfo};
use object::read::elf::{ElfFile64, ElfSection64};
use object::{
    LittleEndian, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags,
    SectionIndex, SymbolIndex, SymbolSection, elf,
};
use std::collections::HashMap;

/// A function without a place.
pub(crate) struct Linked {
    pub(crate) code: Vec<u8>,
    pub(crate) align: usize,
    /// Targets inside the function itself are left at batch position 0.
    pub(crate) relocations: Vec<Relocation>,
    pub(crate) unwind: Option<UnwindInfo>,
    /// Offset of the first instruction.
    pub(crate) entry: usize,
}

/// Why an object cannot be linked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("LLVM's object cannot be read: {0}")]
    Object(#[from] object::Error),
    #[error("LLVM's object has no symbol `{0}`")]
    NoEntry(String),
    #[error("the code refers to `{0}`, which has no address here; give one with LlvmBuilder::symbol")]
    Unknown(String),
    #[error(
        "section `{0}` is written at run time; keep such data in the VM and give its address with LlvmBuilder::symbol"
    )]
    Writable(String),
    #[error("the code refers to section `{0}`, which is not part of it")]
    NotPlaced(String),
    #[error(
        "relocation {kind} in section `{section}` cannot be placed; thread-local and other special references are not supported"
    )]
    Kind { kind: u32, section: String },
    #[error("relocation in section `{section}`: {error}")]
    Distance { section: String, error: RelocationError },
    #[error("more than 4 GiB of code and data")]
    TooLarge,
    #[error("unwind information: {0}")]
    Frames(#[from] FrameError),
}

type File<'d> = ElfFile64<'d, LittleEndian>;
type Section<'d, 'f> = ElfSection64<'d, 'f, LittleEndian>;

/// Bytes of a cell, and of a stub: `jmp [rip + cell]`, padded.
const CELL: usize = 8;

pub(crate) fn link(env: &Environment, object: &[u8], symbol: &str) -> Result<Linked, LinkError> {
    let file = File::parse(object)?;
    let mut image = Image {
        env,
        file: &file,
        code: Vec::new(),
        align: 16,
        bases: HashMap::new(),
        cells: Vec::new(),
        relocations: Vec::new(),
    };
    // Code first, so that what describes the frames of the whole run begins with it.
    for wanted in [true, false] {
        for section in file.sections() {
            if is_code(&section) == wanted {
                image.place(&section)?;
            }
        }
    }
    let bases: Vec<_> = image.bases.iter().map(|(&section, &base)| (section, base)).collect();
    for (index, base) in bases {
        image.relocate(&file.section_by_index(index)?, base)?;
    }
    image.stubs()?;
    let entry = file.symbol_by_name(symbol).filter(|symbol| !symbol.is_undefined());
    let entry = entry.ok_or_else(|| LinkError::NoEntry(symbol.to_owned()))?;
    let entry = image.offset_of(&entry)?.ok_or_else(|| LinkError::NoEntry(symbol.to_owned()))? as usize;
    let unwind = frames::describe(&file, |index| image.bases.get(&index).copied())?;
    let Image { code, align, relocations, .. } = image;
    Ok(Linked { code, align, relocations, unwind, entry })
}

fn flags(section: &Section<'_, '_>) -> u64 {
    match section.flags() {
        SectionFlags::Elf { sh_flags } => sh_flags,
        _ => 0,
    }
}

fn is_code(section: &Section<'_, '_>) -> bool {
    flags(section) & u64::from(elf::SHF_EXECINSTR) != 0
}

fn name(section: &Section<'_, '_>) -> String {
    section.name().unwrap_or("?").to_owned()
}

struct Image<'d, 'f> {
    env: &'f Environment,
    file: &'f File<'d>,
    code: Vec<u8>,
    align: usize,
    /// Where each section lies.
    bases: HashMap<SectionIndex, usize>,
    cells: Vec<Cell>,
    relocations: Vec<Relocation>,
}

/// A thing that is reached through its address.
struct Cell {
    target: Target,
    /// Fields of the code that refer to the cell, and those that are to jump through it, each with its addend.
    reads: Vec<(usize, i64)>,
    jumps: Vec<(usize, i64)>,
}

impl<'d, 'f> Image<'d, 'f> {
    fn place(&mut self, section: &Section<'d, 'f>) -> Result<(), LinkError> {
        let flags = flags(section);
        if flags & u64::from(elf::SHF_ALLOC) == 0 || section.size() == 0 || section.name()? == frames::SECTION
        {
            return Ok(());
        }
        // Tables of addresses are written once, by relocation.
        let constant = flags & u64::from(elf::SHF_WRITE) == 0 || section.name()?.starts_with(".data.rel.ro");
        if !constant || flags & u64::from(elf::SHF_TLS) != 0 {
            return Err(LinkError::Writable(name(section)));
        }
        let align = usize::try_from(section.align().max(1)).map_err(|_| LinkError::TooLarge)?;
        let base = self.code.len().checked_next_multiple_of(align).ok_or(LinkError::TooLarge)?;
        self.code.resize(base, 0);
        self.code.extend_from_slice(section.data()?);
        self.align = self.align.max(align);
        self.bases.insert(section.index(), base);
        u32::try_from(self.code.len()).map_err(|_| LinkError::TooLarge)?;
        Ok(())
    }

    /// Where a symbol of this object lies, `None` if it is not of this object.
    fn offset_of(&self, symbol: &impl ObjectSymbol<'d>) -> Result<Option<u64>, LinkError> {
        match symbol.section() {
            SymbolSection::Section(index) => match self.bases.get(&index) {
                Some(&base) => Ok(Some(base as u64 + symbol.address())),
                None => Err(LinkError::NotPlaced(name(&self.file.section_by_index(index)?))),
            },
            SymbolSection::Common => Err(LinkError::Writable(".bss".to_owned())),
            _ => Ok(None),
        }
    }

    fn target(&self, index: SymbolIndex) -> Result<Target, LinkError> {
        let symbol = self.file.symbol_by_index(index)?;
        if let Some(offset) = self.offset_of(&symbol)? {
            return Ok(Target::Local(0, u32::try_from(offset).map_err(|_| LinkError::TooLarge)?));
        }
        let name = symbol.name()?;
        let address = self.env.symbols.address_of(name).or_else(|| libcalls::address(name));
        Ok(Target::Address(address.ok_or_else(|| LinkError::Unknown(name.to_owned()))?))
    }

    fn relocate(&mut self, section: &Section<'d, 'f>, base: usize) -> Result<(), LinkError> {
        for (offset, relocation) in section.relocations() {
            let refused = |kind| LinkError::Kind { kind, section: name(section) };
            let RelocationFlags::Elf { r_type } = relocation.flags() else { return Err(refused(0)) };
            let RelocationTarget::Symbol(symbol) = relocation.target() else { return Err(refused(r_type)) };
            let target = self.target(symbol)?;
            let at = base + offset as usize;
            let addend = relocation.addend();
            let far = matches!(target, Target::Address(_));
            let kind = match r_type {
                elf::R_X86_64_64 => RelocationKind::Abs8,
                elf::R_X86_64_32 => RelocationKind::Abs4,
                elf::R_X86_64_32S => RelocationKind::X86Abs4Signed,
                elf::R_X86_64_PC64 => RelocationKind::X86PcRel8,
                elf::R_X86_64_PLT32 if far => {
                    self.cell(target).jumps.push((at, addend));
                    continue;
                }
                elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => RelocationKind::X86PcRel4,
                elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX => {
                    self.cell(target).reads.push((at, addend));
                    continue;
                }
                other => return Err(refused(other)),
            };
            let relative = matches!(kind, RelocationKind::X86PcRel4 | RelocationKind::X86PcRel8);
            match target {
                Target::Local(_, to) if relative => self
                    .apply(kind, at, u64::from(to), addend)
                    .map_err(|error| LinkError::Distance { section: name(section), error })?,
                _ => self.leave(at, kind, target, addend)?,
            }
        }
        Ok(())
    }

    fn cell(&mut self, target: Target) -> &mut Cell {
        let at = self.cells.iter().position(|cell| cell.target == target).unwrap_or_else(|| {
            self.cells.push(Cell { target, reads: Vec::new(), jumps: Vec::new() });
            self.cells.len() - 1
        });
        &mut self.cells[at]
    }

    /// Appends cells and stubs, and points the code at them.
    fn stubs(&mut self) -> Result<(), LinkError> {
        let inside = |error| LinkError::Distance { section: "stubs".to_owned(), error };
        for cell in std::mem::take(&mut self.cells) {
            let at = self.append(&[0; CELL])?;
            self.leave(at, RelocationKind::Abs8, cell.target, 0)?;
            for (field, addend) in cell.reads {
                self.apply(RelocationKind::X86PcRel4, field, at as u64, addend).map_err(inside)?;
            }
            if cell.jumps.is_empty() {
                continue;
            }
            let stub = self.append(&[0xff, 0x25, 0, 0, 0, 0, 0xcc, 0xcc])?;
            self.apply(RelocationKind::X86PcRel4, stub + 2, at as u64, -4).map_err(inside)?;
            for (field, addend) in cell.jumps {
                self.apply(RelocationKind::X86PcRel4, field, stub as u64, addend).map_err(inside)?;
            }
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8; CELL]) -> Result<usize, LinkError> {
        let at = self.code.len().next_multiple_of(CELL);
        self.code.resize(at, 0);
        self.code.extend_from_slice(bytes);
        u32::try_from(self.code.len()).map_err(|_| LinkError::TooLarge)?;
        Ok(at)
    }

    /// Computes a distance inside the run.
    fn apply(
        &mut self,
        kind: RelocationKind,
        at: usize,
        to: u64,
        addend: i64,
    ) -> Result<(), RelocationError> {
        let len = self.code.len();
        let outside = RelocationError::OutsideCode { kind, width: kind.width(), len };
        let field = self.code.get_mut(at..).ok_or(outside)?;
        relocate::apply(kind, at as u64, to, addend, field)
    }

    /// Leaves a field to the arena.
    fn leave(
        &mut self,
        at: usize,
        kind: RelocationKind,
        target: Target,
        addend: i64,
    ) -> Result<(), LinkError> {
        let offset = u32::try_from(at).map_err(|_| LinkError::TooLarge)?;
        self.relocations.push(Relocation { offset, kind, target, addend });
        Ok(())
    }
}
