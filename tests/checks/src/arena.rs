//! Any sequence of placements and frees of an arena: what is live lies apart, aligned, as it was given, and is never writable
//! and executable at once; what is freed is gone.
#![cfg(target_os = "linux")]

#[cfg(feature = "arbitrary")]
use arbitrary::Arbitrary;
use beadwork_arena::{Aliasing, Arena, CodeBlock, Function, Relocation, RelocationKind, Target};

/// What is done to an arena.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
pub enum ArenaOp {
    Place(Vec<Code>),
    Free(u8),
    FreeMany(Vec<u8>),
    Trim,
}

/// One function of a batch.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
pub struct Code {
    pub bytes: Vec<u8>,
    /// Mostly a power of two; anything else is to be refused.
    pub align: u16,
    pub fields: Vec<Field>,
}

/// A relocation.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
pub struct Field {
    pub offset: u32,
    pub kind: u8,
    /// A function of the batch and an offset in it, or an address.
    pub local: Option<(u8, u16)>,
    pub address: u64,
    pub addend: i64,
}

const KINDS: [RelocationKind; 11] = [
    RelocationKind::Abs8,
    RelocationKind::Abs4,
    RelocationKind::X86Abs4Signed,
    RelocationKind::X86PcRel4,
    RelocationKind::X86PcRel8,
    RelocationKind::Aarch64Call26,
    RelocationKind::Aarch64AdrPrelPgHi21,
    RelocationKind::Aarch64AddAbsLo12Nc,
    RelocationKind::RiscvCallPlt,
    RelocationKind::RiscvPcRelHi20,
    RelocationKind::RiscvPcRelLo12I,
];

/// A block and the bytes that are to be there.
struct Live {
    block: CodeBlock,
    bytes: Vec<u8>,
}

impl Live {
    fn range(&self) -> std::ops::Range<usize> {
        let start = self.block.entry().addr();
        start..start + self.block.len()
    }
}

/// Does it all; panics where something is not as it should be.
pub fn run(operations: &[ArenaOp], aliasing: Aliasing) {
    let built = Arena::builder().aliasing(aliasing).region_bytes(1 << 16).max_bytes(Some(1 << 20)).build();
    let (arena, mut live) = (built.expect("Linux"), Vec::new());
    for operation in operations {
        match operation {
            ArenaOp::Place(batch) => place(&arena, batch, &mut live),
            ArenaOp::Free(at) if !live.is_empty() => drop(live.swap_remove(usize::from(*at) % live.len())),
            ArenaOp::FreeMany(which) => free_many(&arena, which, &mut live),
            ArenaOp::Trim => arena.trim(),
            ArenaOp::Free(_) => (),
        }
        compare(&arena, &live);
    }
    no_writable_code();
    live.clear();
    let stats = arena.stats();
    assert_eq!((stats.live_blocks, stats.live_bytes), (0, 0), "nothing leaks");
}

fn place(arena: &Arena, batch: &[Code], live: &mut Vec<Live>) {
    let fields: Vec<Vec<Relocation>> =
        batch.iter().map(|code| code.fields.iter().map(relocation).collect()).collect();
    let functions: Vec<Function<'_>> = batch
        .iter()
        .zip(&fields)
        .map(|(code, relocations)| Function {
            name: "f",
            code: &code.bytes,
            align: code.align.into(),
            relocations,
            unwind: None,
        })
        .collect();
    let before = arena.stats().live_bytes;
    let Ok(blocks) = arena.place(&functions) else {
        assert_eq!(arena.stats().live_bytes, before, "nothing of a refused batch stays");
        return;
    };
    assert_eq!(blocks.len(), batch.len());
    let entries: Vec<u64> = blocks.iter().map(|block| block.entry().addr() as u64).collect();
    for ((block, code), relocations) in blocks.into_iter().zip(batch).zip(&fields) {
        assert!(code.align.is_power_of_two() && !code.bytes.is_empty());
        assert!(block.entry().addr().is_multiple_of(code.align.into()), "alignment {}", code.align);
        let bytes = relocated(&code.bytes, relocations, block.entry().addr() as u64, &entries);
        live.push(Live { block, bytes: bytes.expect("what does not fit its field is refused") });
    }
}

/// The code with its fields filled in by the rules of x86-64's psABI, as code of a batch with those entries that begins at `base`; `None`
/// if a value does not fit. Numbers here are wider than any address, so nothing wraps by itself.
pub fn relocated(code: &[u8], relocations: &[Relocation], base: u64, entries: &[u64]) -> Option<Vec<u8>> {
    const ALL: i128 = 1 << 64;
    let mut code = code.to_vec();
    for field in relocations {
        let target = match field.target {
            Target::Address(address) => i128::from(address),
            Target::Local(function, offset) => i128::from(entries[function as usize]) + i128::from(offset),
        };
        let place = i128::from(base) + i128::from(field.offset);
        let absolute = (target + i128::from(field.addend)).rem_euclid(ALL);
        let signed = |value: i128| if value < ALL / 2 { value } else { value - ALL };
        let relative = signed((absolute - place).rem_euclid(ALL));
        let (value, width, least, most) = match field.kind {
            RelocationKind::Abs8 => (absolute, 8, 0, ALL - 1),
            RelocationKind::Abs4 => (absolute, 4, 0, (1 << 32) - 1),
            RelocationKind::X86Abs4Signed => (signed(absolute), 4, -(1 << 31), (1 << 31) - 1),
            RelocationKind::X86PcRel4 => (relative, 4, -(1 << 31), (1 << 31) - 1),
            RelocationKind::X86PcRel8 => (relative, 8, -ALL / 2, ALL / 2 - 1),
            other => panic!("{other:?} is no field of x86-64"),
        };
        if !(least..=most).contains(&value) {
            return None;
        }
        let at = field.offset as usize;
        for (byte, cell) in code[at..at + width].iter_mut().enumerate() {
            *cell = (value >> (8 * byte) & 0xff) as u8;
        }
    }
    Some(code)
}

fn relocation(field: &Field) -> Relocation {
    Relocation {
        offset: field.offset,
        kind: KINDS[usize::from(field.kind) % KINDS.len()],
        target: match field.local {
            Some((function, offset)) => Target::Local(function.into(), offset.into()),
            None => Target::Address(field.address),
        },
        addend: field.addend,
    }
}

fn free_many(arena: &Arena, which: &[u8], live: &mut Vec<Live>) {
    let mut tokens = Vec::new();
    for &at in which {
        if !live.is_empty() {
            tokens.push(live.swap_remove(usize::from(at) % live.len()).block.into_token());
        }
    }
    arena.free_many(&tokens).expect("each is live");
    if let Some(&token) = tokens.first() {
        assert!(arena.free_many(&[token]).is_err(), "what is freed is not freed again");
    }
}

fn compare(arena: &Arena, live: &[Live]) {
    let mut ranges: Vec<_> = live.iter().map(Live::range).collect();
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "blocks overlap: {ranges:x?}");
    for piece in live {
        for (offset, byte) in piece.bytes.iter().enumerate() {
            // SAFETY: a live block's memory is readable, and changed by nobody.
            #[allow(unsafe_code)]
            let found = unsafe { piece.block.entry().add(offset).read() };
            assert_eq!(found, *byte, "code and its fields are as they were placed");
        }
    }
    let stats = arena.stats();
    assert_eq!(stats.live_blocks, live.len());
    assert!(stats.live_bytes >= ranges.iter().map(|range| range.len()).sum());
}

fn no_writable_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    for line in maps.lines() {
        let access = line.split_whitespace().nth(1).unwrap_or_default();
        assert!(!(access.contains('w') && access.contains('x')), "writable and executable: {line}");
    }
}
