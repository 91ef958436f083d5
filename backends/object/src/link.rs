//! Links an object: runs of bytes, with relocations for what only their places decide.
//!
//! A run is code, then constants and tables, then a *cell* with the address of each thing outside, then a *stub* for each of
//! those that is called directly. Distances inside the run are computed here; cells are absolute addresses, which the arena fills in.

use crate::elf::{self as types, ARCHITECTURE};
use crate::frames::{self, FrameError};
use crate::part::{ITSELF, Part};
use beadwork_arena::relocate::{self, RelocationError};
use beadwork_arena::{Relocation, RelocationKind, Target};
use object::read::elf::{ElfFile64, ElfSection64};
use object::{
    LittleEndian, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags,
    SectionIndex, SymbolIndex, SymbolSection, elf,
};
use std::collections::HashMap;

/// What a name in an object means here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outside {
    /// Its address, or the number it stands for.
    pub address: u64,
    /// What it is called beyond this object.
    pub name: String,
}

/// How an object is cut into runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// All of it is one run.
    Whole,
    /// Each section of code is a run, and there is nothing else in it.
    Sections,
}

/// An object that was linked.
#[derive(Debug)]
pub struct Linked {
    /// The runs. Their entries are their first bytes; [`take`](Linked::take) sets them.
    parts: Vec<Part>,
    symbols: HashMap<String, (usize, usize)>,
}

impl Linked {
    /// Takes out the run in which a symbol is defined, with its entry there; `None` if there is no such symbol, or its run was taken.
    pub fn take(&mut self, symbol: &str) -> Option<Part> {
        let &(run, entry) = self.symbols.get(symbol)?;
        let part = self.parts.get_mut(run).filter(|part| !part.code.is_empty() && entry < part.code.len())?;
        let name = part.name.clone();
        let empty = Part {
            name,
            code: Vec::new(),
            relocations: Vec::new(),
            imports: Vec::new(),
            unwind: None,
            ..*part
        };
        Some(Part { entry, ..std::mem::replace(part, empty) })
    }
}

/// Why an object cannot be linked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It is no ELF object of 64 bits, or damaged.
    #[error("the object cannot be read: {0}")]
    Object(#[from] object::Error),
    /// For another processor.
    #[error("the object is for another processor")]
    Architecture,
    /// It refers to something that nobody knows.
    #[error("the code refers to `{0}`, which has no address here; give it one as a runtime symbol")]
    Unknown(String),
    /// It has data that is written.
    #[error(
        "section `{0}` is written at run time; keep such data in the VM and give its address as a runtime symbol"
    )]
    Writable(String),
    /// It refers to something that is not loaded with it.
    #[error("the code refers to section `{0}`, which is not part of it")]
    NotPlaced(String),
    /// It has a relocation that is not supported.
    #[error(
        "relocation {kind} in section `{section}` cannot be placed; thread-local and other special references are not supported"
    )]
    Kind {
        /// Its type.
        kind: u32,
        /// Where it applies.
        section: String,
    },
    /// A distance that does not fit its field, or a field outside of its section.
    #[error("relocation in section `{section}`: {error}")]
    Distance {
        /// Where it applies.
        section: String,
        /// What is wrong.
        error: RelocationError,
    },
    /// A section asks for a place that no code needs.
    #[error("section `{section}` asks for alignment {align}; it must be a power of two of at most 64 KiB")]
    Alignment {
        /// The section.
        section: String,
        /// The alignment asked for.
        align: u64,
    },
    /// It does not fit 4 GiB.
    #[error("more than 4 GiB of code and data")]
    TooLarge,
    /// How to unwind through it cannot be told.
    #[error("unwind information: {0}")]
    Frames(#[from] FrameError),
}

type File<'d> = ElfFile64<'d, LittleEndian>;
type Section<'d, 'f> = ElfSection64<'d, 'f, LittleEndian>;

/// Bytes of a cell, and of a stub: `jmp [rip + cell]`, padded.
const CELL: usize = 8;

/// The largest alignment of a section.
const MAX_ALIGN: u64 = 1 << 16;

/// Links an object. `resolve` knows what the object refers to by name; it is asked once for each reference.
///
/// # Errors
/// [`LinkError`]; whatever the bytes, there is no panic.
pub fn link(
    object: &[u8],
    layout: Layout,
    resolve: &mut dyn FnMut(&str) -> Option<Outside>,
) -> Result<Linked, LinkError> {
    let file = File::parse(object)?;
    if Some(file.architecture()) != ARCHITECTURE {
        return Err(LinkError::Architecture);
    }
    let mut image = Image { file: &file, resolve, runs: Vec::new(), bases: HashMap::new() };
    // Code first, so that what describes the frames of the whole run begins with it.
    for wanted in [true, false] {
        for section in file.sections() {
            if is_code(&section) == wanted {
                image.place(&section, layout)?;
            }
        }
    }
    let mut bases: Vec<_> = image.bases.iter().map(|(&section, &base)| (section, base)).collect();
    bases.sort_unstable_by_key(|(_, base)| *base);
    for (index, base) in bases {
        image.relocate(&file.section_by_index(index)?, base)?;
    }
    image.runs.iter_mut().try_for_each(Run::stubs)?;
    let mut symbols = HashMap::new();
    for symbol in file.symbols() {
        if let Some((run, offset)) = image.place_of(&symbol).ok().flatten() {
            symbols.insert(
                symbol.name()?.to_owned(),
                (run, usize::try_from(offset).map_err(|_| LinkError::TooLarge)?),
            );
        }
    }
    let Image { runs, bases, .. } = image;
    let mut described = frames::describe(&file, |index| bases.get(&index).copied())?;
    let parts = runs.into_iter().enumerate();
    let parts = parts.map(|(number, Run { part, .. })| Part { unwind: described.remove(&number), ..part });
    Ok(Linked { parts: parts.collect(), symbols })
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
    file: &'f File<'d>,
    resolve: &'f mut dyn FnMut(&str) -> Option<Outside>,
    runs: Vec<Run>,
    /// The run each section lies in, and where.
    bases: HashMap<SectionIndex, (usize, usize)>,
}

/// A run of bytes.
struct Run {
    part: Part,
    cells: Vec<Cell>,
}

/// A thing that is reached through its address.
struct Cell {
    target: Target,
    /// Its name, if it is not of this object.
    import: Option<String>,
    /// Fields of the code that refer to the cell, and those that are to jump through it, each with its addend.
    reads: Vec<(usize, i64)>,
    jumps: Vec<(usize, i64)>,
}

impl<'d, 'f> Image<'d, 'f> {
    fn place(&mut self, section: &Section<'d, 'f>, layout: Layout) -> Result<(), LinkError> {
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
        match layout {
            Layout::Sections if !is_code(section) => return Err(LinkError::NotPlaced(name(section))),
            Layout::Whole if !self.runs.is_empty() => (),
            _ => self.runs.push(Run::new()),
        }
        let number = self.runs.len() - 1;
        let part = &mut self.runs[number].part;
        // 0 means 1. Bounded, since what lies before is filled up.
        let align = section.align().max(1);
        if !align.is_power_of_two() || align > MAX_ALIGN {
            return Err(LinkError::Alignment { section: name(section), align });
        }
        let align = usize::try_from(align).map_err(|_| LinkError::TooLarge)?;
        let base = part.code.len().checked_next_multiple_of(align).ok_or(LinkError::TooLarge)?;
        u32::try_from(base).map_err(|_| LinkError::TooLarge)?;
        let bytes = section.data()?;
        part.code.resize(base, 0);
        part.code.extend_from_slice(bytes);
        part.align = part.align.max(align);
        self.bases.insert(section.index(), (number, base));
        u32::try_from(part.code.len()).map_err(|_| LinkError::TooLarge)?;
        Ok(())
    }

    /// Where a symbol of this object lies, `None` if it is not of this object.
    fn place_of(&self, symbol: &impl ObjectSymbol<'d>) -> Result<Option<(usize, u64)>, LinkError> {
        match symbol.section() {
            SymbolSection::Section(index) => match self.bases.get(&index) {
                Some(&(run, base)) => Ok(Some((run, (base as u64).wrapping_add(symbol.address())))),
                None => Err(LinkError::NotPlaced(name(&self.file.section_by_index(index)?))),
            },
            SymbolSection::Common => Err(LinkError::Writable(".bss".to_owned())),
            _ => Ok(None),
        }
    }

    /// What code of a run refers to by a symbol, and its name if it is not of this object.
    fn target(&mut self, run: usize, index: SymbolIndex) -> Result<(Target, Option<String>), LinkError> {
        let symbol = self.file.symbol_by_index(index)?;
        match self.place_of(&symbol)? {
            Some((own, offset)) if own == run => {
                Ok((Target::Local(ITSELF, u32::try_from(offset).map_err(|_| LinkError::TooLarge)?), None))
            }
            Some(_) => Err(LinkError::NotPlaced(symbol.name()?.to_owned())),
            None => {
                let name = symbol.name()?;
                match (self.resolve)(name) {
                    Some(Outside { address, name }) => Ok((Target::Address(address), Some(name))),
                    None => Err(LinkError::Unknown(name.to_owned())),
                }
            }
        }
    }

    fn relocate(
        &mut self,
        section: &Section<'d, 'f>,
        (number, base): (usize, usize),
    ) -> Result<(), LinkError> {
        for (offset, relocation) in section.relocations() {
            let refused = |kind| LinkError::Kind { kind, section: name(section) };
            let RelocationFlags::Elf { r_type } = relocation.flags() else { return Err(refused(0)) };
            let RelocationTarget::Symbol(symbol) = relocation.target() else { return Err(refused(r_type)) };
            let (target, import) = self.target(number, symbol)?;
            let at = usize::try_from(offset).ok().and_then(|offset| base.checked_add(offset));
            let at = at.ok_or(LinkError::TooLarge)?;
            let addend = relocation.addend();
            let far = matches!(target, Target::Address(_));
            let run = &mut self.runs[number];
            let x86 = self.file.architecture() == object::Architecture::X86_64;
            let kind = match r_type {
                elf::R_X86_64_PLT32 if x86 && far => {
                    run.cell(target, import).jumps.push((at, addend));
                    continue;
                }
                elf::R_X86_64_PLT32 if x86 => RelocationKind::X86PcRel4,
                elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX if x86 => {
                    run.cell(target, import).reads.push((at, addend));
                    continue;
                }
                other => types::kind(self.file.architecture(), other).ok_or_else(|| refused(other))?,
            };
            let relative = matches!(kind, RelocationKind::X86PcRel4 | RelocationKind::X86PcRel8);
            match target {
                Target::Local(_, to) if relative => run
                    .apply(kind, at, u64::from(to), addend)
                    .map_err(|error| LinkError::Distance { section: name(section), error })?,
                _ => run.leave(at, kind, (target, import), addend)?,
            }
        }
        Ok(())
    }
}

impl Run {
    fn new() -> Run {
        let part = Part {
            name: String::new(),
            code: Vec::new(),
            align: 16,
            entry: 0,
            relocations: Vec::new(),
            imports: Vec::new(),
            unwind: None,
        };
        Run { part, cells: Vec::new() }
    }

    fn cell(&mut self, target: Target, import: Option<String>) -> &mut Cell {
        let same = |cell: &Cell| cell.target == target && cell.import == import;
        let at = self.cells.iter().position(same).unwrap_or_else(|| {
            self.cells.push(Cell { target, import, reads: Vec::new(), jumps: Vec::new() });
            self.cells.len() - 1
        });
        &mut self.cells[at]
    }

    /// Appends cells and stubs, and points the code at them.
    fn stubs(&mut self) -> Result<(), LinkError> {
        let inside = |error| LinkError::Distance { section: "stubs".to_owned(), error };
        for cell in std::mem::take(&mut self.cells) {
            let at = self.append(&[0; CELL])?;
            self.leave(at, RelocationKind::Abs8, (cell.target, cell.import), 0)?;
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
        let code = &mut self.part.code;
        let at = code.len().next_multiple_of(CELL);
        code.resize(at, 0);
        code.extend_from_slice(bytes);
        u32::try_from(code.len()).map_err(|_| LinkError::TooLarge)?;
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
        let len = self.part.code.len();
        let outside = RelocationError::OutsideCode { kind, width: kind.width(), len };
        let field = self.part.code.get_mut(at..).ok_or(outside)?;
        relocate::apply(kind, at as u64, to, addend, field)
    }

    /// Leaves a field to the arena.
    fn leave(
        &mut self,
        at: usize,
        kind: RelocationKind,
        (target, import): (Target, Option<String>),
        addend: i64,
    ) -> Result<(), LinkError> {
        let offset = u32::try_from(at).map_err(|_| LinkError::TooLarge)?;
        self.part.imports.extend(import.map(|name| (self.part.relocations.len(), name)));
        self.part.relocations.push(Relocation { offset, kind, target, addend });
        Ok(())
    }
}
