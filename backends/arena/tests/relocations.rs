//! Relocations as byte patterns, for every processor on this one.

use beadwork_arena::relocate::apply;
use beadwork_arena::{RelocationError, RelocationKind as Kind};

/// Applies to instruction words and answers them.
fn words(
    kind: Kind,
    place: u64,
    symbol: u64,
    addend: i64,
    field: &[u32],
) -> Result<Vec<u32>, RelocationError> {
    let mut bytes: Vec<u8> = field.iter().flat_map(|word| word.to_le_bytes()).collect();
    apply(kind, place, symbol, addend, &mut bytes)?;
    Ok(bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))).collect())
}

fn out_of_range(result: Result<Vec<u32>, RelocationError>) -> bool {
    matches!(result, Err(RelocationError::OutOfRange { .. }))
}

#[test]
fn absolute_fields_hold_symbol_plus_addend() {
    let mut field = [0xff; 10];
    assert_eq!(apply(Kind::Abs8, 0, 0x1122_3344_5566_7788, -8, &mut field), Ok(()));
    assert_eq!(field, [0x80, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xff, 0xff]);
    assert_eq!(words(Kind::Abs4, 0, 0xffff_fff0, 15, &[7]), Ok(vec![0xffff_ffff]));
    assert!(out_of_range(words(Kind::Abs4, 0, 0xffff_fff0, 16, &[7])));
    assert!(out_of_range(words(Kind::Abs4, 0, 0, -1, &[7])));
    assert_eq!(words(Kind::X86Abs4Signed, 0, 0, -1, &[7]), Ok(vec![0xffff_ffff]));
    assert!(out_of_range(words(Kind::X86Abs4Signed, 0, 0x8000_0000, 0, &[7])));
}

#[test]
fn x86_distances_count_from_the_field() {
    // call rel32 at 0x1000: the field is at 0x1001, and the addend of -4 counts from the next instruction.
    assert_eq!(words(Kind::X86PcRel4, 0x1001, 0x2000, -4, &[0]), Ok(vec![0xffb]));
    assert_eq!(words(Kind::X86PcRel4, 0x2001, 0x1000, -4, &[0]), Ok(vec![-0x1005i32 as u32]));
    assert_eq!(words(Kind::X86PcRel4, 0x10_0000_0000, 0x10_7fff_ffff, 0, &[0]), Ok(vec![0x7fff_ffff]));
    assert!(out_of_range(words(Kind::X86PcRel4, 0x10_0000_0000, 0x10_8000_0000, 0, &[0])));
    assert_eq!(words(Kind::X86PcRel4, 0x10_8000_0000, 0x10_0000_0000, 0, &[0]), Ok(vec![0x8000_0000]));
    assert!(out_of_range(words(Kind::X86PcRel4, 0x10_8000_0001, 0x10_0000_0000, 0, &[0])));
    assert_eq!(words(Kind::X86PcRel8, 0x1000, 0, 0, &[0, 0]), Ok(vec![0xffff_f000, 0xffff_ffff]));
}

#[test]
fn aarch64_calls_reach_128_mib_and_keep_their_opcode() {
    let bl = 0x9400_0000;
    assert_eq!(words(Kind::Aarch64Call26, 0x1000, 0x1008, 0, &[bl]), Ok(vec![0x9400_0002]));
    assert_eq!(words(Kind::Aarch64Call26, 0x1000, 0xffc, 0, &[bl]), Ok(vec![0x97ff_ffff]));
    assert_eq!(words(Kind::Aarch64Call26, 0x1000, 0xffc, 0, &[0x1400_0000]), Ok(vec![0x17ff_ffff]));
    let far = 0x1_0000_0000u64;
    assert_eq!(words(Kind::Aarch64Call26, far, far + (1 << 27) - 4, 0, &[bl]), Ok(vec![0x95ff_ffff]));
    assert_eq!(words(Kind::Aarch64Call26, far, far - (1 << 27), 0, &[bl]), Ok(vec![0x9600_0000]));
    assert!(out_of_range(words(Kind::Aarch64Call26, far, far + (1 << 27), 0, &[bl])));
    assert!(out_of_range(words(Kind::Aarch64Call26, far, far - (1 << 27) - 4, 0, &[bl])));
    assert!(out_of_range(words(Kind::Aarch64Call26, 0x1000, 0x1002, 0, &[bl])));
}

#[test]
fn aarch64_page_addresses_split_into_adrp_and_add() {
    let (adrp, add) = (0x9000_0001, 0x9100_0021);
    // Three pages on: immlo = 3, immhi = 0.
    assert_eq!(words(Kind::Aarch64AdrPrelPgHi21, 0x1ffc, 0x4123, 0, &[adrp]), Ok(vec![0xf000_0001]));
    // Four pages on: immlo = 0, immhi = 1.
    assert_eq!(words(Kind::Aarch64AdrPrelPgHi21, 0x1ffc, 0x5123, 0, &[adrp]), Ok(vec![0x9000_0021]));
    assert_eq!(words(Kind::Aarch64AdrPrelPgHi21, 0x5000, 0x4fff, 0, &[adrp]), Ok(vec![0xf0ff_ffe1]));
    assert!(out_of_range(words(Kind::Aarch64AdrPrelPgHi21, 0, 1 << 32, 0, &[adrp])));
    assert_eq!(words(Kind::Aarch64AddAbsLo12Nc, 0, 0x5123, 0, &[add]), Ok(vec![0x9104_8c21]));
    assert_eq!(words(Kind::Aarch64AddAbsLo12Nc, 0, 0x5fff, 1, &[add]), Ok(vec![add]));
}

#[test]
fn riscv_distances_split_with_a_signed_low_part() {
    let (auipc, jalr) = (0x0000_0097, 0x0000_80e7);
    assert_eq!(words(Kind::RiscvCallPlt, 0x1000, 0x1010, 0, &[auipc, jalr]), Ok(vec![auipc, 0x0100_80e7]));
    // 0x800 needs the high part rounded up and the low part negative.
    assert_eq!(
        words(Kind::RiscvCallPlt, 0x1000, 0x1800, 0, &[auipc, jalr]),
        Ok(vec![0x0000_1097, 0x8000_80e7])
    );
    assert_eq!(words(Kind::RiscvCallPlt, 0x1000, 0xffe, 0, &[auipc, jalr]), Ok(vec![auipc, 0xffe0_80e7]));
    let at = 0x1_0000_0000u64;
    let reach = (1 << 31) - 0x800;
    assert!(words(Kind::RiscvCallPlt, at, at + reach - 2, 0, &[auipc, jalr]).is_ok());
    assert!(out_of_range(words(Kind::RiscvCallPlt, at, at + reach, 0, &[auipc, jalr])));
    assert_eq!(words(Kind::RiscvPcRelHi20, 0x1000, 0x1800, 0, &[0x517]), Ok(vec![0x1517]));
    assert_eq!(words(Kind::RiscvPcRelLo12I, 0x1000, 0x1800, 0, &[0x5_0513]), Ok(vec![0x8005_0513]));
}

#[test]
fn applying_twice_is_applying_once() {
    let kinds = [
        Kind::Abs8,
        Kind::Abs4,
        Kind::X86Abs4Signed,
        Kind::X86PcRel4,
        Kind::X86PcRel8,
        Kind::Aarch64Call26,
        Kind::Aarch64AdrPrelPgHi21,
        Kind::Aarch64AddAbsLo12Nc,
        Kind::RiscvCallPlt,
        Kind::RiscvPcRelHi20,
        Kind::RiscvPcRelLo12I,
    ];
    for kind in kinds {
        let field = [0x9777_7797, 0x1234_80e7];
        let once = words(kind, 0x4000, 0x1_2344, 4, &field).expect("in range");
        words(kind, 0x4000, 0x2_0000, 0, &once).expect("in range");
        assert_eq!(words(kind, 0x4000, 0x1_2344, 4, &once), Ok(once.clone()), "{kind:?}");
        // Too short a field is refused and left alone.
        let mut short = vec![1; kind.width() - 1];
        let refused = apply(kind, 0x4000, 0x4000, 0, &mut short);
        assert_eq!(
            refused,
            Err(RelocationError::OutsideCode { kind, width: kind.width(), len: kind.width() - 1 })
        );
        assert_eq!(short, vec![1; kind.width() - 1]);
    }
}
