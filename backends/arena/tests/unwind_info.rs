//! Unwind images taken apart.

use beadwork_arena::{UnwindError, UnwindInfo};
use gimli::write::FrameDescriptionEntry;
use gimli::write::{Address, CallFrameInstruction, CommonInformationEntry, EhFrame, EndianVec, FrameTable};
use gimli::{Encoding, Format, LittleEndian, X86_64};

/// What a code generator that uses gimli emits for one function: the CIE Cranelift makes for System V x86-64.
fn by_gimli() -> Vec<u8> {
    let encoding = Encoding { format: Format::Dwarf32, version: 1, address_size: 8 };
    let mut cie = CommonInformationEntry::new(encoding, 1, -8, X86_64::RA);
    cie.add_instruction(CallFrameInstruction::Cfa(X86_64::RSP, 8));
    cie.add_instruction(CallFrameInstruction::Offset(X86_64::RA, -8));
    let mut fde = FrameDescriptionEntry::new(Address::Constant(0x1234), 0x40);
    fde.add_instruction(1, CallFrameInstruction::CfaOffset(16));
    fde.add_instruction(1, CallFrameInstruction::Offset(X86_64::RBP, -16));
    fde.add_instruction(4, CallFrameInstruction::CfaRegister(X86_64::RBP));
    let mut table = FrameTable::default();
    let cie = table.add_cie(cie);
    table.add_fde(cie, fde);
    let mut section = EhFrame::from(EndianVec::new(LittleEndian));
    table.write_eh_frame(&mut section).expect("a plain table");
    section.0.into_vec()
}

#[test]
fn what_gimli_writes_is_the_description_written_by_hand() {
    let image = by_gimli();
    let records = UnwindInfo::split_eh_frame(&image).expect("good");
    assert_eq!((records.len(), records[0].pc_begin, records[0].pc_range), (1, 0x1234, 0x40));
    let hand = [0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6];
    assert_eq!(UnwindInfo::from_eh_frame(&image), Ok(records[0].unwind.clone()));
    let nops = image.len() - records[0].pc_begin_at - 16 - hand.len();
    let hand: Vec<u8> = hand.iter().copied().chain(std::iter::repeat_n(0, nops)).collect();
    let mut cie = vec![1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1];
    cie.resize(image[0] as usize - 4, 0);
    assert_eq!(UnwindInfo::new(cie, hand), Ok(records[0].unwind.clone()));
}

/// A CIE and an FDE as `write_eh_frame` of gimli lays them out, with the given augmentation.
fn image(augmentation: &[u8], data: &[u8], address: usize, functions: usize) -> Vec<u8> {
    let mut cie = vec![0, 0, 0, 0, 1];
    cie.extend_from_slice(augmentation);
    cie.extend_from_slice(&[0, 1, 0x78, 16]);
    cie.extend_from_slice(data);
    cie.extend_from_slice(&[0x0c, 7, 8, 0x90, 1]);
    cie.resize(cie.len().next_multiple_of(8) + 4, 0);
    let mut image = (cie.len() as u32).to_le_bytes().to_vec();
    image.extend_from_slice(&cie);
    for index in 0..functions {
        let at = image.len();
        let mut fde = (at as u32 + 4).to_le_bytes().to_vec();
        fde.extend_from_slice(&(0x1000 + index as u64).to_le_bytes()[..address]);
        fde.extend_from_slice(&0x40u64.to_le_bytes()[..address]);
        if augmentation.first() == Some(&b'z') {
            fde.push(0);
        }
        fde.extend_from_slice(&[0x41, 0x0e, 16]);
        image.extend_from_slice(&(fde.len() as u32).to_le_bytes());
        image.extend_from_slice(&fde);
    }
    image
}

#[test]
fn an_image_of_one_function_splits_into_its_parts() {
    let direct = UnwindInfo::new([1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1, 0, 0, 0, 0, 0], [0x41, 0x0e, 16])
        .expect("good");
    let mut bytes = image(b"", &[], 8, 1);
    assert_eq!(UnwindInfo::from_eh_frame(&bytes).map(|info| format!("{info:?}").len() > 10), Ok(true));
    bytes.extend_from_slice(&[0; 4]);
    let parsed = UnwindInfo::split_eh_frame(&bytes).expect("good");
    assert_eq!((parsed.len(), parsed[0].pc_begin, parsed[0].pc_range), (1, 0x1000, 0x40));
    assert_eq!(bytes[parsed[0].pc_begin_at..parsed[0].pc_begin_at + 8], 0x1000u64.to_le_bytes());
    assert_eq!(
        format!("{:?}", parsed[0].unwind).split("fde").nth(1),
        format!("{direct:?}").split("fde").nth(1)
    );
}

#[test]
fn a_section_with_relative_addresses_becomes_absolute() {
    // DW_EH_PE_pcrel | sdata4, as compilers write it.
    let section = image(b"zR", &[1, 0x1b], 4, 3);
    let records = UnwindInfo::split_eh_frame(&section).expect("good");
    assert_eq!(records.iter().map(|record| record.pc_begin).collect::<Vec<_>>(), [0x1000, 0x1001, 0x1002]);
    assert_eq!(records[2].unwind, records[1].unwind);
    // The same with DW_EH_PE_absptr and 8-byte addresses is the same description.
    let absolute = UnwindInfo::from_eh_frame(&image(b"zR", &[1, 0], 8, 1)).expect("good");
    assert_eq!(records[0].unwind, absolute);
}

#[test]
fn every_malformed_image_is_a_typed_error() {
    assert_eq!(UnwindInfo::from_eh_frame(&[]), Err(UnwindError::NotOneFunction { found: 0 }));
    assert_eq!(
        UnwindInfo::from_eh_frame(&image(b"", &[], 8, 2)),
        Err(UnwindError::NotOneFunction { found: 2 })
    );
    assert_eq!(UnwindInfo::from_eh_frame(&[0xff; 16]), Err(UnwindError::Dwarf64 { at: 0 }));
    let personality = image(b"zPR", &[6, 0, 0, 0, 0, 0, 0], 8, 1);
    assert_eq!(UnwindInfo::from_eh_frame(&personality), Err(UnwindError::Augmentation { character: 'P' }));
    let indirect = image(b"zR", &[1, 0x9b], 8, 1);
    assert_eq!(UnwindInfo::from_eh_frame(&indirect), Err(UnwindError::PointerEncoding { encoding: 0x9b }));
    assert_eq!(UnwindInfo::new([9, 0, 1, 1, 1], []), Err(UnwindError::CieVersion { version: 9 }));
    let large = vec![0; 70_000];
    assert_eq!(UnwindInfo::new([1, 0, 1, 0x78, 16], large), Err(UnwindError::TooLarge { bytes: 70_000 }));
    let mut orphan = image(b"", &[], 8, 1);
    let cie = 4 + u32::from_le_bytes([orphan[0], orphan[1], orphan[2], orphan[3]]) as usize;
    orphan[cie + 4] -= 1;
    assert_eq!(UnwindInfo::from_eh_frame(&orphan), Err(UnwindError::MissingCie { at: cie }));
    // Cut off anywhere, or with any byte changed, it is refused or accepted, but never a panic.
    let good = image(b"zR", &[1, 0x1b], 4, 2);
    for end in 0..good.len() {
        let _ = UnwindInfo::split_eh_frame(&good[..end]);
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[end] = byte;
            let _ = UnwindInfo::split_eh_frame(&bad);
        }
    }
    assert!(UnwindInfo::split_eh_frame(&good[..good.len() - 1]).is_err());
}
