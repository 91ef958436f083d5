//! Placing, running, freeing, and everything that is refused.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code)]

mod common;

use beadwork_arena::{
    Aliasing, Arena, ArenaError, BlockToken, Function, Relocation, RelocationError, RelocationKind, Target,
};
use common::{call, calls, function, place_one, returns};

const BOTH: [Aliasing; 2] = [Aliasing::DualMapped, Aliasing::Private];

fn arena(aliasing: Aliasing) -> Arena {
    Arena::builder().aliasing(aliasing).build().expect("Linux")
}

#[test]
fn nothing_is_mapped_before_the_first_placement() {
    for aliasing in BOTH {
        let arena = arena(aliasing);
        assert!(arena.place(&[]).expect("empty batches are fine").is_empty());
        assert_eq!(arena.stats().mappings, 0);
        let _block = place_one(&arena, &returns(1, 6));
        assert_eq!(arena.stats().mappings, 2);
    }
}

#[test]
fn functions_of_a_batch_call_each_other_and_the_outside() {
    extern "C" fn seven() -> u32 {
        7
    }
    for aliasing in BOTH {
        let arena = arena(aliasing);
        let outside = calls(Target::Address(seven as *const () as u64));
        let absolute = calls(Target::Local(0, 0));
        // jmp rel32 to function 1.
        let relative = [0xe9, 0, 0, 0, 0];
        let jump = Relocation {
            offset: 1,
            kind: RelocationKind::X86PcRel4,
            target: Target::Local(1, 0),
            addend: -4,
        };
        let batch = [
            Function { relocations: &[outside.1], ..function("outside", &outside.0) },
            Function { relocations: &[absolute.1], ..function("absolute", &absolute.0) },
            Function { relocations: &[jump], ..function("relative", &relative) },
        ];
        let blocks = arena.place(&batch).expect("a good batch");
        for block in &blocks {
            assert_eq!(call(block.entry()), 7);
        }
    }
}

#[test]
fn freed_space_is_reused_exactly_and_freed_bytes_are_poisoned() {
    let arena = arena(Aliasing::DualMapped);
    let mut blocks: Vec<_> = (0..8).map(|i| place_one(&arena, &returns(i, 100))).collect();
    let (entry, stats) = (blocks[3].entry(), arena.stats());
    drop(blocks.remove(3));
    // SAFETY: still mapped and readable: the region has live blocks.
    assert_eq!(unsafe { std::slice::from_raw_parts(entry, 128) }, [0xcc; 128]);
    assert_eq!(arena.stats().live_bytes, stats.live_bytes - 128);
    let again = place_one(&arena, &returns(42, 100));
    assert_eq!(again.entry(), entry);
    assert_eq!(call(again.entry()), 42);
    assert_eq!(arena.stats().resident_bytes, stats.resident_bytes);
    assert_eq!(blocks.iter().map(|block| call(block.entry())).collect::<Vec<_>>(), [0, 1, 2, 4, 5, 6, 7]);
}

#[test]
fn private_pages_are_reused_only_when_their_whole_batch_is_free() {
    let arena = arena(Aliasing::Private);
    let code = returns(5, 64);
    let batch = [function("a", &code), function("b", &code)];
    let mut first = arena.place(&batch).expect("room");
    let entry = first[0].entry();
    drop(first.remove(0));
    let second = arena.place(&batch).expect("room");
    assert_ne!(second[0].entry(), entry);
    assert_eq!(call(first[0].entry()), 5);
    drop(first);
    let third = arena.place(&batch).expect("room");
    assert_eq!(third[0].entry(), entry);
    assert_eq!(call(third[1].entry()), 5);
}

#[test]
fn every_alignment_is_kept() {
    for aliasing in BOTH {
        let arena = arena(aliasing);
        let code = returns(3, 40);
        let batch: Vec<_> =
            (0..17).map(|i| Function { align: 1 << (i * 7 % 17), ..function("f", &code) }).collect();
        for (block, function) in arena.place(&batch).expect("room").iter().zip(&batch) {
            assert_eq!(block.entry().addr() % function.align, 0);
            assert_eq!(call(block.entry()), 3);
        }
    }
}

#[test]
fn p27_no_mapping_is_ever_writable_and_executable() {
    for aliasing in BOTH {
        let arena = arena(aliasing);
        let mut blocks = Vec::new();
        for i in 0..50 {
            blocks.push(place_one(&arena, &returns(i, 300)));
            let line = common::line_of(blocks[blocks.len() - 1].entry()).expect("mapped");
            assert!(line.access.starts_with("r-x"), "{line:?}");
            assert!(common::writable_and_executable().is_empty());
            if i % 3 == 0 {
                drop(blocks.remove(0));
                assert!(common::writable_and_executable().is_empty());
            }
        }
    }
}

#[test]
fn a_refused_batch_leaves_nothing_behind() {
    for aliasing in BOTH {
        let arena = arena(aliasing);
        let _keep = place_one(&arena, &returns(9, 6));
        let before = arena.stats();
        let good = returns(1, 6);
        let far =
            Relocation { offset: 1, kind: RelocationKind::X86PcRel4, target: Target::Address(1), addend: -4 };
        let with = |relocation: &Relocation| {
            let relocations = [*relocation];
            let bad = Function { relocations: &relocations, ..function("bad", &good) };
            arena.place(&[function("good", &good), bad]).map(|_| ())
        };
        assert!(matches!(
            with(&far),
            Err(ArenaError::Relocation { source: RelocationError::OutOfRange { .. }, offset: 1, .. })
        ));
        assert!(matches!(
            with(&Relocation { offset: 3, ..far }),
            Err(ArenaError::Relocation { source: RelocationError::OutsideCode { width: 4, len: 6, .. }, .. })
        ));
        assert!(matches!(
            with(&Relocation { offset: u32::MAX, ..far }),
            Err(ArenaError::Relocation { source: RelocationError::OutsideCode { .. }, .. })
        ));
        assert!(matches!(
            with(&Relocation { kind: RelocationKind::Aarch64Call26, ..far }),
            Err(ArenaError::ForeignRelocation { .. })
        ));
        for target in [Target::Local(2, 0), Target::Local(0, 7)] {
            let refused = with(&Relocation { target, ..far });
            assert!(matches!(refused, Err(ArenaError::LocalOutsideBatch { batch: 2, .. })));
        }
        for align in [0, 3, 1 << 31] {
            let bad = Function { align, ..function("bad", &good) };
            assert!(matches!(arena.place(&[bad]), Err(ArenaError::BadAlignment { .. })));
        }
        assert!(matches!(arena.place(&[function("bad", &[])]), Err(ArenaError::EmptyCode { .. })));
        let after = arena.stats();
        assert_eq!((after.live_bytes, after.live_blocks), (before.live_bytes, before.live_blocks));
        assert_eq!((after.regions, after.placements), (before.regions, before.placements));
        assert_eq!(after.unwind_tables, before.unwind_tables);
    }
}

#[test]
fn code_larger_than_a_region_gets_its_own_and_the_limit_is_kept() {
    for aliasing in BOTH {
        let arena =
            Arena::builder().aliasing(aliasing).region_bytes(64 << 10).max_bytes(Some(1 << 20)).build();
        let arena = arena.expect("Linux");
        let small = place_one(&arena, &returns(1, 6));
        let large = place_one(&arena, &returns(2, 300_000));
        assert_eq!((call(small.entry()), call(large.entry())), (1, 2));
        let stats = arena.stats();
        assert_eq!(stats.regions, 2);
        let code = returns(3, 800_000);
        let Err(ArenaError::CapacityExhausted { asked, used, max }) = arena.place(&[function("huge", &code)])
        else {
            panic!("1 MiB cannot hold more than that");
        };
        assert!(asked >= 800_000 && used == stats.reserved_bytes && max == 1 << 20);
        assert_eq!(arena.stats().live_blocks, 2);
        // A batch that fits partly is not placed partly.
        let code = returns(4, 40_000);
        let batch = vec![function("part", &code); 30];
        assert!(matches!(arena.place(&batch), Err(ArenaError::CapacityExhausted { .. })));
        assert_eq!(arena.stats().live_blocks, 2);
        drop(large);
        assert!(
            arena.stats().reserved_bytes <= 2 * (64 << 10),
            "at most one empty region of the usual size is kept"
        );
        assert_eq!(call(small.entry()), 1);
    }
}

#[test]
fn only_released_blocks_can_be_freed_by_token_and_only_once() {
    for aliasing in BOTH {
        let arena = arena(aliasing);
        let code = returns(6, 50);
        let mut blocks = arena.place(&[function("f", &code); 4]).expect("room");
        let kept = blocks.remove(0);
        let tokens: Vec<_> = blocks.into_iter().map(beadwork_arena::CodeBlock::into_token).collect();
        let entry = arena.entry_for(tokens[0]).expect("live");
        assert_eq!(call(entry), 6);
        assert_eq!(BlockToken::from_bits(tokens[0].to_bits()), tokens[0]);
        // Every granule number that is not the start of a released block is refused, and nothing is freed.
        let first = tokens[0].to_bits();
        for bits in [0, 1, first + 1, u32::MAX] {
            let token = BlockToken::from_bits(bits);
            let refused = arena.free_many(&[tokens[1], token]);
            assert_eq!(refused, Err(ArenaError::NotLive { token, position: 1 }));
        }
        let twice = [tokens[0], tokens[1], tokens[0]];
        assert_eq!(arena.free_many(&twice), Err(ArenaError::NotLive { token: tokens[0], position: 2 }));
        assert_eq!(arena.stats().live_blocks, 4);
        assert_eq!(arena.free_many(&tokens), Ok(3 * 64));
        assert_eq!(arena.free_many(&tokens[..1]), Err(ArenaError::NotLive { token: tokens[0], position: 0 }));
        assert_eq!(arena.free_many(&[]), Ok(0));
        assert_eq!(call(kept.entry()), 6);
        drop(kept);
        assert_eq!(arena.stats().live_bytes, 0);
    }
}

#[test]
fn names_are_written_for_perf_once_per_placement() {
    let arena = Arena::builder().perf_map(true).build().expect("Linux");
    let code = returns(1, 6);
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let block = arena.place(&[function("alpha", &code), function("be\nta", &code)]).expect("room");
    let text = std::fs::read_to_string(&path).expect("written");
    let expected = format!("{:x} 6 alpha\n{:x} 6 be?ta\n", block[0].entry().addr(), block[1].entry().addr());
    assert!(text.ends_with(&expected), "{text}");
    assert_eq!(arena.stats().perf_map_errors, 0);
    let tokens: Vec<_> = block.into_iter().map(beadwork_arena::CodeBlock::into_token).collect();
    assert_eq!(arena.name_for(tokens[0]).as_deref(), Some("alpha"));
    assert_eq!(arena.free_many(&tokens), Ok(64));
    assert_eq!(arena.name_for(tokens[0]), None);
    let _ = std::fs::remove_file(path);
}
