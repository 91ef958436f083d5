//! Objects made and linked again.

use beadwork_arena::{Relocation, RelocationKind, Target, UnwindInfo};
use beadwork_object::{EmitError, ITSELF, Layout, LinkError, Outside, Part, emit, emit_to_read, link};

fn reference(offset: u32, target: Target, addend: i64) -> Relocation {
    Relocation { offset, kind: RelocationKind::Abs8, target, addend }
}

/// Two words that are addresses: one outside, one inside.
fn part(name: &str) -> Part {
    // Version 1, no augmentation, code alignment 1, data alignment -8, return address 16.
    let unwind = UnwindInfo::new([1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1], [0x41, 0x0e, 16]).unwrap();
    Part {
        name: name.to_owned(),
        code: (0..48).collect(),
        align: 32,
        entry: 4,
        relocations: vec![
            reference(8, Target::Address(0x1234), 5),
            reference(24, Target::Local(ITSELF, 40), -1),
        ],
        imports: vec![(0, "outside".to_owned())],
        unwind: Some(unwind),
    }
}

fn object() -> Vec<u8> {
    let [first, second] = [part("first"), part("second")];
    emit(&[("first".to_owned(), &first), ("second".to_owned(), &second)]).unwrap()
}

#[test]
fn parts_come_out_of_an_object_as_they_went_in() {
    let mut resolve =
        |name: &str| (name == "outside").then(|| Outside { address: 0x9876, name: "here".to_owned() });
    let mut linked = link(&object(), Layout::Sections, &mut resolve).unwrap();
    for name in ["second", "first"] {
        let (was, is) = (part(name), linked.take(name).unwrap());
        assert_eq!((&was.code, was.align, was.entry), (&is.code, is.align, is.entry));
        assert_eq!(is.imports, [(0, "here".to_owned())]);
        assert_eq!(is.relocations[0], reference(8, Target::Address(0x9876), 5));
        // The addend of a reference to the inside is part of the offset.
        let Target::Local(ITSELF, offset) = is.relocations[1].target else { panic!("{is:?}") };
        assert_eq!(i64::from(offset) + is.relocations[1].addend, 39);
        let image = |part: &Part| part.unwind.as_ref().unwrap().to_eh_frame(48);
        assert_eq!(image(&is), image(&was));
    }
    assert!(linked.take("first").is_none() && linked.take("third").is_none());
}

#[test]
fn what_is_not_known_or_has_no_name_is_an_error_that_says_so() {
    let unknown = link(&object(), Layout::Sections, &mut |_| None).unwrap_err();
    assert!(matches!(&unknown, LinkError::Unknown(name) if name == "outside"), "{unknown}");
    let nameless = Part { imports: Vec::new(), ..part("first") };
    let refused = emit(&[("first".to_owned(), &nameless)]).unwrap_err();
    assert_eq!(refused, EmitError::Address { part: "first".to_owned() });
}

#[test]
fn an_object_to_read_names_addresses_by_their_digits_and_parts_by_their_sections() {
    use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};
    let mut first = Part { imports: Vec::new(), ..part("first") };
    first.relocations[1].target = Target::Local(1, 40);
    let second = part("second");
    let image = emit_to_read(&[("first".to_owned(), &first), ("second".to_owned(), &second)]).unwrap();
    let file = object::File::parse(&*image).unwrap();
    let address = file.symbol_by_name("0x1234").unwrap();
    assert_eq!((address.address(), address.is_undefined()), (0x1234, false));
    let code = file.section_by_name(".text.0").unwrap();
    let targets: Vec<_> =
        code.relocations().map(|(_, relocation)| (relocation.target(), relocation.addend())).collect();
    let section = file.section_by_name(".text.1").unwrap().index();
    let RelocationTarget::Symbol(other) = targets[1].0 else { panic!("{targets:?}") };
    assert_eq!(targets[0], (RelocationTarget::Symbol(address.index()), 5));
    assert_eq!((file.symbol_by_index(other).unwrap().section_index(), targets[1].1), (Some(section), 39));
}

#[test]
fn an_alignment_no_code_needs_is_an_error_and_takes_no_memory() {
    let sound = object();
    let word = |at: usize| u64::from_le_bytes(*sound[at..].first_chunk().unwrap()) as usize;
    // The table of sections: where, and how many of 64 bytes each.
    let (table, count) = (word(0x28), word(0x38) >> 32 & 0xffff);
    for align in [3_u64, 1 << 31, 1 << 62] {
        let mut bytes = sound.clone();
        for section in (1..count).map(|number| table + 64 * number) {
            bytes[section + 48..section + 56].copy_from_slice(&align.to_le_bytes());
        }
        for layout in [Layout::Whole, Layout::Sections] {
            let refused = link(&bytes, layout, &mut |_| None).unwrap_err();
            assert!(matches!(refused, LinkError::Alignment { .. }), "{align}: {refused}");
        }
    }
}

#[test]
fn an_object_depends_on_its_parts_only() {
    assert_eq!(object(), object());
}

#[test]
fn linking_damaged_objects_ends_well() {
    let sound = object();
    let mut random = 1u64;
    let (mut linked, mut refused) = (0, 0);
    for round in 0..5_000 {
        let mut bytes = sound.clone();
        for _ in 0..=round % 3 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 33) as usize % bytes.len();
            match round % 5 {
                4 => bytes.truncate(at.max(1)),
                _ => bytes[at] ^= 1 << (random % 8),
            }
        }
        match link(&bytes, Layout::Sections, &mut |name| Some(Outside { address: 1, name: name.to_owned() }))
        {
            Ok(mut parts) => linked += usize::from(parts.take("first").is_some()),
            Err(_) => refused += 1,
        }
    }
    assert!(linked > 200 && refused > 200, "{linked} linked, {refused} refused");
}
