//! A placement as an ELF object: sections that have addresses and no contents, symbols, unwind information.

use object::Endianness;
use object::elf;
use object::write::elf::{FileHeader, SectionHeader, Sym, Writer};

use super::Named;
use crate::unwind::ImageBuilder;

const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    elf::EM_X86_64
} else if cfg!(target_arch = "aarch64") {
    elf::EM_AARCH64
} else {
    elf::EM_RISCV
};

/// `None` if the writer refuses, which would be for more sections than the format can count.
pub(super) fn write(functions: &[Named]) -> Option<Box<[u8]>> {
    let frames = frames(functions);
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);
    // The writer wants to know everything before the first byte, in the order of the bytes.
    writer.reserve_file_header();
    writer.reserve_null_section_index();
    let (text, eh_frame) = (writer.add_section_name(b".text"), writer.add_section_name(b".eh_frame"));
    // One for each function: they can lie far apart, with functions of other files between them, and GDB wants no overlap.
    let sections: Vec<_> = functions.iter().map(|_| writer.reserve_section_index()).collect();
    writer.reserve_section_index();
    let names: Vec<_> =
        functions.iter().map(|function| writer.add_string(function.name.as_bytes())).collect();
    writer.reserve_null_symbol_index();
    for &section in &sections {
        writer.reserve_symbol_index(Some(section));
    }
    writer.reserve_symtab_section_index();
    writer.reserve_strtab_section_index();
    writer.reserve_shstrtab_section_index();
    let frames_at = writer.reserve(frames.len(), 8);
    writer.reserve_symtab();
    writer.reserve_strtab();
    writer.reserve_shstrtab();
    writer.reserve_section_headers();

    let header = FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_REL,
        e_machine: MACHINE,
        e_entry: 0,
        e_flags: 0,
    };
    writer.write_file_header(&header).ok()?;
    writer.write_align(8);
    writer.write(&frames);
    writer.write_null_symbol();
    for (function, (&section, &name)) in functions.iter().zip(sections.iter().zip(&names)) {
        writer.write_symbol(&Sym {
            name: Some(name),
            section: Some(section),
            st_info: elf::STB_GLOBAL << 4 | elf::STT_FUNC,
            st_other: elf::STV_DEFAULT,
            st_shndx: 0,
            st_value: 0,
            st_size: function.len as u64,
        });
    }
    writer.write_strtab();
    writer.write_shstrtab();
    writer.write_null_section_header();
    let section = |name, flags: u32| SectionHeader {
        name: Some(name),
        sh_type: elf::SHT_NOBITS,
        sh_flags: flags.into(),
        sh_addr: 0,
        sh_offset: frames_at as u64,
        sh_size: 0,
        sh_link: 0,
        sh_info: 0,
        sh_addralign: 1,
        sh_entsize: 0,
    };
    for function in functions {
        writer.write_section_header(&SectionHeader {
            sh_addr: function.address as u64,
            sh_size: function.len as u64,
            ..section(text, elf::SHF_ALLOC | elf::SHF_EXECINSTR)
        });
    }
    writer.write_section_header(&SectionHeader {
        sh_type: elf::SHT_PROGBITS,
        sh_size: frames.len() as u64,
        sh_addralign: 8,
        ..section(eh_frame, elf::SHF_ALLOC)
    });
    writer.write_symtab_section_header(1);
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
    Some(bytes.into())
}

/// Unwind information with the addresses the functions have, so that a backtrace goes on behind them.
fn frames(functions: &[Named]) -> Vec<u8> {
    let mut image = ImageBuilder::default();
    for function in functions {
        if let Some(unwind) = &function.unwind {
            image.push(&unwind.cie, &unwind.fde, function.address as u64, function.len as u64);
        }
    }
    image.finish().bytes().to_vec()
}
