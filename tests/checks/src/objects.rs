//! Objects as they lie in memory, against what their own relocations say.
//!
//! The linker computes distances, makes cells and stubs, and leaves the rest to the arena. Here the object is read anew, by the rules of
//! x86-64's psABI alone, and its memory looked at: each field, and what it leads to.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use beadwork_arena::Arena;
use beadwork_object::{Layout, Outside, link};
use object::read::elf::{ElfFile64, ElfSection64};
use object::{
    LittleEndian, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags,
    SectionIndex, SymbolSection, elf,
};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Names the objects of the corpus define.
const NAMES: [&str; 6] = ["first", "second", "f", "g", "main", "twice"];

/// What was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Looked {
    /// Fields with a value of their own.
    pub values: usize,
    /// Fields that lead to a cell, with the cell.
    pub cells: usize,
    /// Fields that lead to a stub, with the stub and its cell.
    pub stubs: usize,
}

impl Looked {
    pub fn fields(self) -> usize {
        self.values + self.cells + self.stubs
    }
}

impl std::ops::AddAssign for Looked {
    fn add_assign(&mut self, other: Looked) {
        self.values += other.values;
        self.cells += other.cells;
        self.stubs += other.stubs;
    }
}

/// The address of a thing outside: always the same for a name, for some within 31 bits.
fn outside(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let hash = hasher.finish();
    if hash & 1 == 0 { hash } else { hash >> 33 }
}

/// Links an object and places what it defines; panics where memory is not what the object says. `knows` whether things outside have
/// addresses. `look` gets to see each run of bytes, with the comparison it has just passed.
pub fn run(
    arena: &Arena,
    (whole, knows): (bool, bool),
    object: &[u8],
    mut look: impl FnMut(&[u8], &dyn Fn(&[u8]) -> Result<Looked, String>),
) -> Looked {
    let layout = if whole { Layout::Whole } else { Layout::Sections };
    let mut resolve = |name: &str| knows.then(|| Outside { address: outside(name), name: name.to_owned() });
    let Ok(mut linked) = link(object, layout, &mut resolve) else { return Looked::default() };
    let parts: Vec<_> = NAMES.iter().filter_map(|name| Some((*name, linked.take(name)?))).collect();
    let relocations: Vec<_> = (0..).zip(&parts).map(|(own, (_, part))| part.relocations_at(0, own)).collect();
    let functions: Vec<_> = parts.iter().zip(&relocations).map(|((_, part), at)| part.function(at)).collect();
    let (before, mut looked) = (arena.stats().live_bytes, Looked::default());
    if let Ok(blocks) = arena.place(&functions) {
        let entries: Vec<u64> = blocks.iter().map(|block| block.entry().addr() as u64).collect();
        for (((block, (name, part)), relocations), &start) in
            blocks.iter().zip(&parts).zip(&relocations).zip(&entries)
        {
            assert!(part.entry < part.code.len() && block.entry().addr().is_multiple_of(part.align));
            assert_eq!(
                entry(object, whole, name),
                Some(part.entry as u64),
                "{name} begins where its symbol is"
            );
            // SAFETY: the block lives, and nobody writes to it.
            #[allow(unsafe_code)]
            let placed = unsafe { std::slice::from_raw_parts(block.entry(), part.code.len()) };
            let expected = crate::arena::relocated(&part.code, relocations, start, &entries);
            assert!(Some(placed) == expected.as_deref(), "the arena changes its own fields and nothing else");
            let compare = |bytes: &[u8]| compare(object, whole, name, start, bytes);
            looked += compare(placed).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
            look(placed, &compare);
        }
    }
    assert_eq!(arena.stats().live_bytes, before, "what was placed is freed");
    looked
}

/// Where a symbol is in its run. Of several with that name, it is the last.
fn entry(object: &[u8], whole: bool, name: &str) -> Option<u64> {
    let file = ElfFile64::<LittleEndian>::parse(object).ok()?;
    let (sections, _) = sections(&file, whole, name).ok()?;
    let symbols = file.symbols().filter(|symbol| symbol.name() == Ok(name));
    let place = |symbol: object::read::elf::ElfSymbol64<'_, '_, LittleEndian>| match symbol.section() {
        SymbolSection::Section(index) => Some(sections.get(&index)?.wrapping_add(symbol.address())),
        _ => None,
    };
    symbols.filter_map(place).last()
}

type Section<'d, 'f> = ElfSection64<'d, 'f, LittleEndian>;

fn is(section: &Section<'_, '_>, flag: u32) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags } if sh_flags & u64::from(flag) != 0)
}

/// A field, and what is to be there.
struct Field {
    offset: u64,
    r_type: u32,
    /// What it refers to, and whether that is outside.
    symbol: (u64, bool),
    addend: i64,
}

impl Field {
    fn width(&self) -> u64 {
        if matches!(self.r_type, elf::R_X86_64_64 | elf::R_X86_64_PC64) { 8 } else { 4 }
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(self.width())
    }
}

/// Compares the run in which `name` is defined, which begins at `start`, with the object. Fields that overlap have no value that could be
/// told, and fields outside of what the object has in the run may change anything; such objects are left out.
fn compare(object: &[u8], whole: bool, name: &str, start: u64, bytes: &[u8]) -> Result<Looked, String> {
    let file = ElfFile64::<LittleEndian>::parse(object).map_err(|error| error.to_string())?;
    let (sections, end) = sections(&file, whole, name)?;
    let mut fields = fields(&file, &sections, start)?;
    fields.sort_by_key(|field| field.offset);
    if fields.iter().any(|field| field.end() > end) {
        return Ok(Looked::default());
    }
    let memory = Memory { start, bytes };
    let mut looked = Looked::default();
    for (at, field) in fields.iter().enumerate() {
        let before = fields[..at].iter().all(|other| other.end() <= field.offset);
        if before && fields.get(at + 1).is_none_or(|next| next.offset >= field.end()) {
            looked += memory.look(field)?;
        }
    }
    Ok(looked)
}

/// Where the sections of a run lie in it, and where the last one ends: code first, then the rest, each aligned.
fn sections(
    file: &ElfFile64<'_, LittleEndian>,
    whole: bool,
    name: &str,
) -> Result<(HashMap<SectionIndex, u64>, u64), String> {
    let loaded = |section: &Section<'_, '_>| {
        is(section, elf::SHF_ALLOC) && section.size() > 0 && section.name() != Ok(".eh_frame")
    };
    let (mut sections, mut end) = (HashMap::new(), 0u64);
    let home = |symbol: object::read::elf::ElfSymbol64<'_, '_, LittleEndian>| match symbol.section() {
        SymbolSection::Section(index) if symbol.name() == Ok(name) => Some(index),
        _ => None,
    };
    let home = file.symbols().filter_map(home).last();
    for code in [true, false] {
        for section in
            file.sections().filter(|section| loaded(section) && is(section, elf::SHF_EXECINSTR) == code)
        {
            if whole || Some(section.index()) == home {
                let base = end.next_multiple_of(section.align().max(1));
                sections.insert(section.index(), base);
                end = base + section.data().map_err(|error| error.to_string())?.len() as u64;
            }
        }
    }
    Ok((sections, end))
}

fn fields(
    file: &ElfFile64<'_, LittleEndian>,
    sections: &HashMap<SectionIndex, u64>,
    start: u64,
) -> Result<Vec<Field>, String> {
    let mut fields = Vec::new();
    for (&index, &base) in sections {
        let section = file.section_by_index(index).map_err(|error| error.to_string())?;
        for (offset, relocation) in section.relocations() {
            let RelocationFlags::Elf { r_type } = relocation.flags() else { return Err("no ELF".to_owned()) };
            let RelocationTarget::Symbol(symbol) = relocation.target() else {
                return Err("no symbol".to_owned());
            };
            let symbol = file.symbol_by_index(symbol).map_err(|error| error.to_string())?;
            let symbol = match symbol.section() {
                SymbolSection::Section(index) => {
                    let base = sections.get(&index).ok_or("of a section that is not there")?;
                    (start.wrapping_add(*base).wrapping_add(symbol.address()), false)
                }
                _ => (outside(symbol.name().map_err(|error| error.to_string())?), true),
            };
            fields.push(Field {
                offset: base.saturating_add(offset),
                r_type,
                symbol,
                addend: relocation.addend(),
            });
        }
    }
    Ok(fields)
}

struct Memory<'m> {
    start: u64,
    bytes: &'m [u8],
}

impl Memory<'_> {
    fn read<const WIDTH: usize>(&self, address: u64) -> Result<[u8; WIDTH], String> {
        let at = usize::try_from(address.wrapping_sub(self.start)).ok();
        let found = at.and_then(|at| self.bytes.get(at..)?.first_chunk());
        found.copied().ok_or_else(|| format!("{address:#x} lies outside"))
    }

    /// A distance of 32 bits.
    fn distance(&self, address: u64) -> Result<u64, String> {
        self.read(address).map(|bytes| i64::from(i32::from_le_bytes(bytes)).cast_unsigned())
    }

    fn cell(&self, address: u64, holds: u64) -> Result<(), String> {
        let found = u64::from_le_bytes(self.read(address)?);
        if found == holds {
            Ok(())
        } else {
            Err(format!("the cell at {address:#x} has {found:#x} for {holds:#x}"))
        }
    }

    /// The psABI's table 4.9, in its letters.
    fn look(&self, field: &Field) -> Result<Looked, String> {
        let (p, (s, is_outside), a) = (self.start + field.offset, field.symbol, field.addend.cast_unsigned());
        let value = |found: u64, expected: u64| match found == expected {
            true => Ok(Looked { values: 1, ..Looked::default() }),
            false => {
                Err(format!("{:#x} at {p:#x} where {expected:#x} was to be: type {}", found, field.r_type))
            }
        };
        let absolute = s.wrapping_add(a);
        let relative = absolute.wrapping_sub(p);
        match field.r_type {
            elf::R_X86_64_64 => value(u64::from_le_bytes(self.read(p)?), absolute),
            elf::R_X86_64_32 => value(u32::from_le_bytes(self.read(p)?).into(), absolute),
            elf::R_X86_64_32S => value(self.distance(p)?, absolute),
            elf::R_X86_64_PC32 => value(self.distance(p)?, relative),
            elf::R_X86_64_PC64 => value(u64::from_le_bytes(self.read(p)?), relative),
            elf::R_X86_64_PLT32 if !is_outside => value(self.distance(p)?, relative),
            elf::R_X86_64_PLT32 => {
                let stub = self.distance(p)?.wrapping_add(p).wrapping_sub(a);
                // jmp [rip + ...]
                if self.read(stub)? != [0xff, 0x25] {
                    return Err(format!("no stub at {stub:#x}"));
                }
                let behind = stub.wrapping_add(6);
                self.cell(behind.wrapping_add(self.distance(stub + 2)?), s)?;
                Ok(Looked { stubs: 1, ..Looked::default() })
            }
            elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX => {
                self.cell(self.distance(p)?.wrapping_add(p).wrapping_sub(a), s)?;
                Ok(Looked { cells: 1, ..Looked::default() })
            }
            other => Err(format!("type {other} was linked")),
        }
    }
}
