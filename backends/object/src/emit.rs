//! Makes one object of the parts of a function.

use crate::elf;
use crate::part::{ITSELF, Part};
use beadwork_arena::{RelocationKind, Target};
use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use std::collections::HashMap;

/// Why no object can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// Nothing writes objects for this processor.
    #[error("objects for this processor are not supported")]
    Architecture,
    /// A field for which ELF has no relocation that stands for itself.
    #[error("a field of kind {0:?} has no place in an object")]
    Kind(RelocationKind),
    /// An address of this process, or another part, without a name.
    #[error("`{part}` refers to an address that has no name")]
    Address {
        /// The part.
        part: String,
    },
    /// What the writer said.
    #[error("{0}")]
    Write(String),
}

/// One object of all parts: a section of code for each, with a symbol of the name given at its first instruction. It depends on the arguments only.
///
/// # Errors
/// [`EmitError`] if a part refers to something that has no name, or has a field that objects cannot have.
pub fn emit(parts: &[(String, &Part)]) -> Result<Vec<u8>, EmitError> {
    write(parts, false)
}

/// As [`emit`], for `objdump` and its like, and not to be kept: an address without a name becomes an absolute symbol called by its digits, parts
/// refer to each other, and fields that objects cannot have are left out.
///
/// # Errors
/// [`EmitError`] if nothing writes objects for this processor.
pub fn emit_to_read(parts: &[(String, &Part)]) -> Result<Vec<u8>, EmitError> {
    write(parts, true)
}

fn write(parts: &[(String, &Part)], to_read: bool) -> Result<Vec<u8>, EmitError> {
    let architecture = elf::ARCHITECTURE.ok_or(EmitError::Architecture)?;
    let mut writer = Writer {
        object: Object::new(BinaryFormat::Elf, architecture, Endianness::Little),
        to_read,
        sections: Vec::new(),
        outside: HashMap::new(),
        frames: None,
    };
    for (number, (symbol, part)) in parts.iter().enumerate() {
        writer.define(number, symbol, part);
    }
    for (number, (_, part)) in parts.iter().enumerate() {
        writer.fill(writer.sections[number], part)?;
    }
    writer.object.write().map_err(|error| EmitError::Write(error.to_string()))
}

struct Writer<'o> {
    object: Object<'o>,
    /// Whether people are to read it, and nobody to link it.
    to_read: bool,
    /// Of the parts.
    sections: Vec<SectionId>,
    outside: HashMap<String, SymbolId>,
    frames: Option<SectionId>,
}

fn symbol(name: &str, value: u64, section: SymbolSection, scope: SymbolScope) -> Symbol {
    let kind = if section == SymbolSection::Undefined { SymbolKind::Unknown } else { SymbolKind::Text };
    let flags = SymbolFlags::None;
    Symbol { name: name.as_bytes().to_vec(), value, size: 0, kind, scope, weak: false, section, flags }
}

impl Writer<'_> {
    fn define(&mut self, number: usize, name: &str, part: &Part) {
        let section = format!(".text.{number}").into_bytes();
        let section = self.object.add_section(Vec::new(), section, SectionKind::Text);
        self.object.append_section_data(section, &part.code, part.align as u64);
        let defined = SymbolSection::Section(section);
        self.object.add_symbol(symbol(name, part.entry as u64, defined, SymbolScope::Linkage));
        self.sections.push(section);
    }

    fn fill(&mut self, section: SectionId, part: &Part) -> Result<(), EmitError> {
        let own = self.object.section_symbol(section);
        let mut imports = part.imports.iter().peekable();
        for (at, relocation) in part.relocations.iter().enumerate() {
            let import = imports.next_if(|(index, _)| *index == at);
            let (target, addend) = match (import, relocation.target) {
                (Some((_, name)), _) => (self.outside(name, None), relocation.addend),
                (None, Target::Local(ITSELF, offset)) => (own, relocation.addend.wrapping_add(offset.into())),
                (None, target) if self.to_read => match target {
                    Target::Address(address) => {
                        (self.outside(&format!("{address:#x}"), Some(address)), relocation.addend)
                    }
                    Target::Local(number, offset) => match self.sections.get(number as usize) {
                        Some(&other) => {
                            let other = self.object.section_symbol(other);
                            (other, relocation.addend.wrapping_add(offset.into()))
                        }
                        None => continue,
                    },
                },
                (None, _) => return Err(EmitError::Address { part: part.name.clone() }),
            };
            match self.relocate(section, relocation.offset.into(), relocation.kind, target, addend) {
                Err(EmitError::Kind(_)) if self.to_read => {}
                relocated => relocated?,
            }
        }
        if let Some(unwind) = &part.unwind {
            let (image, pc_begin_at) = unwind.to_eh_frame(part.code.len() as u64);
            let frames = match self.frames {
                Some(frames) => frames,
                None => self.object.add_section(Vec::new(), b".eh_frame".to_vec(), SectionKind::ReadOnlyData),
            };
            self.frames = Some(frames);
            let start = self.object.append_section_data(frames, &image, 8);
            self.relocate(frames, start + pc_begin_at as u64, RelocationKind::Abs8, own, 0)?;
        }
        Ok(())
    }

    /// The symbol of something outside: undefined, or at an address.
    fn outside(&mut self, name: &str, address: Option<u64>) -> SymbolId {
        match self.outside.get(name) {
            Some(&known) => known,
            None => {
                let (section, scope) = match address {
                    Some(_) => (SymbolSection::Absolute, SymbolScope::Linkage),
                    None => (SymbolSection::Undefined, SymbolScope::Unknown),
                };
                let new = self.object.add_symbol(symbol(name, address.unwrap_or(0), section, scope));
                self.outside.insert(name.to_owned(), new);
                new
            }
        }
    }

    fn relocate(
        &mut self,
        section: SectionId,
        offset: u64,
        kind: RelocationKind,
        symbol: SymbolId,
        addend: i64,
    ) -> Result<(), EmitError> {
        let r_type = elf::r_type(self.object.architecture(), kind).ok_or(EmitError::Kind(kind))?;
        let relocation = Relocation { offset, symbol, addend, flags: RelocationFlags::Elf { r_type } };
        self.object.add_relocation(section, relocation).map_err(|error| EmitError::Write(error.to_string()))
    }
}
