//! Objects nobody would write: linking and placing one ends with code or an error, and code that is placed is what the object says.
#![no_main]

use beadwork_arena::Arena;
use beadwork_checks::arena::relocated;
use beadwork_object::{Layout, Outside, link};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// Small, so that it is full now and then.
static ARENA: LazyLock<Arena> = LazyLock::new(|| {
    let builder = Arena::builder().region_bytes(1 << 20).max_bytes(Some(1 << 24));
    builder.build().expect("executable memory")
});

/// Names the objects of the corpus define.
const NAMES: [&str; 6] = ["first", "second", "f", "g", "main", "twice"];

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (whole, knows, object) = input;
    let layout = if whole { Layout::Whole } else { Layout::Sections };
    let mut asked = 0u64;
    let mut resolve = |name: &str| {
        asked += 1;
        let address = name.len() as u64 + (asked << 32);
        knows.then(|| Outside { address, name: name.to_owned() })
    };
    let Ok(mut linked) = link(object, layout, &mut resolve) else { return };
    let parts: Vec<_> = NAMES.iter().filter_map(|name| linked.take(name)).collect();
    let relocations: Vec<_> = (0..).zip(&parts).map(|(own, part)| part.relocations_at(0, own)).collect();
    let functions: Vec<_> = parts.iter().zip(&relocations).map(|(part, at)| part.function(at)).collect();
    let before = ARENA.stats().live_bytes;
    if let Ok(blocks) = ARENA.place(&functions) {
        let entries: Vec<u64> = blocks.iter().map(|block| block.entry().addr() as u64).collect();
        for ((block, part), relocations) in blocks.iter().zip(&parts).zip(&relocations) {
            assert!(part.entry < part.code.len() && block.entry().addr().is_multiple_of(part.align));
            // SAFETY: the block lives, and nobody writes to it.
            let placed = unsafe { std::slice::from_raw_parts(block.entry(), part.code.len()) };
            let expected = relocated(&part.code, relocations, block.entry().addr() as u64, &entries);
            assert!(Some(placed) == expected.as_deref(), "code and each of its fields are what they are to be");
        }
    }
    assert_eq!(ARENA.stats().live_bytes, before, "what was placed is freed");
});
