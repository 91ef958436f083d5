//! Many functions, many threads. One test at a time, because they look at the mappings of the whole process.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use beadwork_arena::{Aliasing, Arena, BlockToken, CodeBlock, Function, UnwindInfo};
use common::{call, code_mappings, function, line_of, returns};

fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A description that fits a function without a frame.
fn frameless() -> UnwindInfo {
    UnwindInfo::new([1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1], []).expect("a plain CIE")
}

/// Pages of a mapping that the kernel holds.
fn resident_pages(entry: *const u8) -> usize {
    let line = line_of(entry).expect("mapped");
    let mut pages = vec![0u8; (line.to - line.from) / 4096];
    // SAFETY: the range is a whole mapping, the vector has a byte per page.
    let failed = unsafe { libc::mincore(line.from as *mut _, line.to - line.from, pages.as_mut_ptr()) };
    assert_eq!(failed, 0);
    pages.iter().filter(|&&page| page & 1 == 1).count()
}

#[test]
fn p29_100_000_small_functions_need_few_mappings_and_leave_nothing() {
    let _alone = alone();
    for (aliasing, size) in [(Aliasing::DualMapped, 300), (Aliasing::Private, 300)] {
        let (count, before) = (100_000u32, common::maps().len());
        let arena = Arena::builder().aliasing(aliasing).build().expect("Linux");
        let unwind = frameless();
        let mut blocks: Vec<CodeBlock> = Vec::new();
        let mut most = 0;
        for first in (0..count).step_by(32) {
            let codes: Vec<_> = (first..first + 32).map(|value| returns(value, size)).collect();
            let batch: Vec<_> =
                codes.iter().map(|code| Function { unwind: Some(&unwind), ..function("f", code) }).collect();
            blocks.extend(arena.place(&batch).expect("room"));
            if first % 3_200 == 0 {
                most = most.max(common::maps().len() - before);
            }
        }
        let stats = arena.stats();
        assert_eq!(stats.live_blocks, count as usize);
        assert!(most <= 64 && stats.mappings <= 64, "{most} mappings, counted {}", stats.mappings);
        assert!(stats.unwind_tables <= 300, "{} tables", stats.unwind_tables);
        for (value, block) in blocks.iter().enumerate().step_by(97) {
            assert_eq!(call(block.entry()), value as u32);
        }
        let entry = blocks[0].entry();
        let held = resident_pages(entry) * 4096;
        assert_eq!(held, stats.resident_bytes, "what is counted is what the kernel holds");
        // Half by token in bulk and in a scattered order, the rest partly by dropping.
        let tokens: Vec<BlockToken> =
            blocks.split_off(count as usize / 2).into_iter().map(CodeBlock::into_token).collect();
        for group in 0..8 {
            let group: Vec<_> = tokens.iter().copied().skip(group).step_by(8).collect();
            arena.free_many(&group).expect("released and live");
        }
        arena.trim();
        assert!(arena.stats().resident_bytes <= stats.resident_bytes / 2 + (1 << 16));
        assert_eq!(resident_pages(entry) * 4096, arena.stats().resident_bytes);
        assert_eq!(call(blocks[4_711].entry()), 4_711);
        let tokens: Vec<BlockToken> =
            blocks.split_off(2_000).into_iter().map(CodeBlock::into_token).collect();
        arena.free_many(&tokens).expect("released and live");
        drop(blocks);
        arena.trim();
        let stats = arena.stats();
        assert_eq!((stats.live_bytes, stats.live_blocks, stats.unwind_tables), (0, 0, 0));
        assert_eq!((stats.resident_bytes, stats.regions), (0, 1));
        drop(arena);
        assert!(code_mappings() == 0 || aliasing == Aliasing::Private);
    }
}

#[test]
fn p28_the_work_of_a_batch_does_not_grow_with_the_code_placed_before() {
    let _alone = alone();
    for aliasing in [Aliasing::DualMapped, Aliasing::Private] {
        let arena = Arena::builder().aliasing(aliasing).build().expect("Linux");
        let unwind = frameless();
        let code = returns(1, 100);
        let batch = [Function { unwind: Some(&unwind), ..function("f", &code) }; 16];
        let mut blocks = Vec::new();
        let mut place = || {
            let before = arena.stats();
            blocks.extend(arena.place(&batch).expect("room"));
            let after = arena.stats();
            let records = after.unwind_records_written - before.unwind_records_written;
            (after.bytes_written - before.bytes_written, after.protect_calls - before.protect_calls, records)
        };
        place();
        let early = place();
        // 16 functions of 100 bytes in whole granules, and in private mode one change to writable and one back.
        let protects = if aliasing == Aliasing::Private { 2 } else { 0 };
        assert_eq!((early.0, early.1), (16 * 128, protects));
        let mut records = 0;
        for _ in 0..2_000 {
            let late = place();
            assert_eq!((late.0, late.1), (early.0, early.1));
            assert!(late.2 <= 2_048, "one placement copied {} unwind records", late.2);
            records += late.2;
        }
        // Merging copies a record a logarithmic number of times, never once per batch.
        assert!(records <= 2_000 * 16 * 12, "{records}");
    }
}

#[test]
fn no_two_live_blocks_overlap_under_concurrent_placing_and_freeing() {
    let _alone = alone();
    let arena = Arena::builder().region_bytes(256 << 10).build().expect("Linux");
    let owned: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());
    let claim = |block: &CodeBlock| {
        let (from, to) = (block.entry().addr(), block.entry().addr() + block.len());
        let mut owned = owned.lock().expect("no panic while held");
        let before = owned.range(..to).next_back().map(|(_, &to)| to);
        owned.insert(from, to);
        assert!(before.is_none_or(|end| end <= from), "{from:#x} is inside another live block");
    };
    let disown = |block: &CodeBlock| {
        let gone = owned.lock().expect("no panic while held").remove(&block.entry().addr());
        assert_eq!(gone, Some(block.entry().addr() + block.len()));
    };
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (arena, claim, disown) = (&arena, &claim, &disown);
            scope.spawn(move || {
                let unwind = frameless();
                let mut random = thread.wrapping_mul(0x9e37_79b9) | 1;
                let mut live: Vec<(u32, CodeBlock)> = Vec::new();
                for round in 0..3_000 {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let codes: Vec<_> = (0..1 + random % 5)
                        .map(|i| returns(round * 8 + i, 6 + (random >> (8 + i)) as usize % 900))
                        .collect();
                    let batch: Vec<_> = codes
                        .iter()
                        .map(|code| Function {
                            align: 1 << (random >> 13 & 7),
                            unwind: (random & 0x100 == 0).then_some(&unwind),
                            ..function("f", code)
                        })
                        .collect();
                    for (i, block) in arena.place(&batch).expect("room").into_iter().enumerate() {
                        claim(&block);
                        live.push((round * 8 + i as u32, block));
                    }
                    if live.len() > 100 {
                        let gone = live.split_off(random as usize % 100);
                        gone.iter().for_each(|(_, block)| disown(block));
                        let tokens: Vec<_> = gone.into_iter().map(|(_, block)| block.into_token()).collect();
                        arena.free_many(&tokens).expect("released and live");
                    }
                    if let Some((value, block)) = live.get(random as usize % 128) {
                        assert_eq!(call(block.entry()), *value);
                    }
                    if round % 500 == 0 {
                        arena.trim();
                    }
                }
                for (value, block) in live {
                    assert_eq!(call(block.entry()), value);
                    disown(&block);
                }
            });
        }
    });
    let stats = arena.stats();
    assert_eq!((stats.live_bytes, stats.live_blocks, stats.unwind_tables), (0, 0, 0));
    assert!(stats.regions <= 1);
}
