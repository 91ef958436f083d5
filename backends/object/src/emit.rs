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
    let architecture = elf::ARCHITECTURE.ok_or(EmitError::Architecture)?;
    let mut writer = Writer {
        object: Object::new(BinaryFormat::Elf, architecture, Endianness::Little),
        undefined: HashMap::new(),
        frames: None,
    };
    for (number, (symbol, part)) in parts.iter().enumerate() {
        writer.part(number, symbol, part)?;
    }
    writer.object.write().map_err(|error| EmitError::Write(error.to_string()))
}

struct Writer<'o> {
    object: Object<'o>,
    undefined: HashMap<String, SymbolId>,
    frames: Option<SectionId>,
}

fn symbol(name: &str, value: u64, section: SymbolSection, scope: SymbolScope) -> Symbol {
    let kind = if section == SymbolSection::Undefined { SymbolKind::Unknown } else { SymbolKind::Text };
    let flags = SymbolFlags::None;
    Symbol { name: name.as_bytes().to_vec(), value, size: 0, kind, scope, weak: false, section, flags }
}

impl Writer<'_> {
    fn part(&mut self, number: usize, name: &str, part: &Part) -> Result<(), EmitError> {
        let section = format!(".text.{number}").into_bytes();
        let section = self.object.add_section(Vec::new(), section, SectionKind::Text);
        self.object.append_section_data(section, &part.code, part.align as u64);
        let defined = SymbolSection::Section(section);
        self.object.add_symbol(symbol(name, part.entry as u64, defined, SymbolScope::Linkage));
        let own = self.object.section_symbol(section);
        let mut imports = part.imports.iter().peekable();
        for (at, relocation) in part.relocations.iter().enumerate() {
            let import = imports.next_if(|(index, _)| *index == at);
            let (target, addend) = match (import, relocation.target) {
                (Some((_, name)), _) => (self.undefined(name), relocation.addend),
                (None, Target::Local(ITSELF, offset)) => (own, relocation.addend.wrapping_add(offset.into())),
                (None, _) => return Err(EmitError::Address { part: part.name.clone() }),
            };
            self.relocate(section, relocation.offset.into(), relocation.kind, target, addend)?;
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

    fn undefined(&mut self, name: &str) -> SymbolId {
        match self.undefined.get(name) {
            Some(&known) => known,
            None => {
                let new =
                    self.object.add_symbol(symbol(name, 0, SymbolSection::Undefined, SymbolScope::Unknown));
                self.undefined.insert(name.to_owned(), new);
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
