//! Objects that compilers made, as they lie in memory; see `beadwork_checks::objects`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use beadwork_arena::Arena;
use beadwork_checks::objects::{Looked, run};

#[test]
fn every_field_of_the_corpus_objects_is_what_its_relocation_says_and_a_wrong_byte_in_one_is_found() {
    let arena = Arena::builder().region_bytes(1 << 20).build().expect("executable memory");
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/objects");
    let (mut looked, mut objects) = (Looked::default(), 0);
    for file in std::fs::read_dir(corpus).expect("the corpus") {
        let path = file.expect("a file").path();
        let input = std::fs::read(&path).expect("readable");
        // The fuzz target reads two flags first.
        let [_, _, object @ ..] = &input[..] else { panic!("{} is short", path.display()) };
        for whole in [true, false] {
            let found = run(&arena, (whole, true), object, |placed, compare| {
                let there = compare(placed).expect("it was the same a moment ago");
                let wrong = |at: &usize| {
                    let mut changed = placed.to_vec();
                    changed[*at] ^= 0x10;
                    compare(&changed).is_err()
                };
                let found = (0..placed.len()).filter(wrong).count();
                assert!(found >= 4 * there.fields(), "{found} bytes of {} fields", there.fields());
            });
            looked += found;
            objects += usize::from(found.fields() > 0);
        }
    }
    println!("{objects} objects, {looked:?}");
    assert!(looked.values > 30 && looked.cells > 0 && looked.stubs > 5, "{looked:?}");
}
