//! Panics through real frames, with both ways of cutting tables.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::register::Unwinder;
use super::table::{NewRecord, Tables};
use crate::{Arena, CodeBlock, Function, UnwindInfo};

const BOTH: [Unwinder; 2] = [Unwinder::List, Unwinder::Index];
/// Version 1, no augmentation, code align 1, data align -8, return address in 16; CFA = rsp + 8, it lies at CFA - 8.
const CIE: [u8; 10] = [1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1];

type Native = extern "C-unwind" fn();

extern "C-unwind" fn throws() {
    resume_unwind(Box::new(42u32));
}

extern "C-unwind" fn looks() {
    let trace = std::backtrace::Backtrace::force_capture().to_string();
    resume_unwind(Box::new(trace));
}

/// `sub rsp, frame; mov rax, callee; call rax; add rsp, frame; ret`, with a description that fits `described`.
fn frame(callee: Native, frame: u8, described: u8) -> (Vec<u8>, UnwindInfo) {
    let mut code = vec![0x48, 0x83, 0xec, frame, 0x48, 0xb8];
    code.extend_from_slice(&(callee as usize as u64).to_le_bytes());
    code.extend_from_slice(&[0xff, 0xd0, 0x48, 0x83, 0xc4, frame, 0xc3]);
    // After 4 bytes CFA = rsp + frame + 8; after 16 more CFA = rsp + 8.
    let fde = [0x44, 0x0e, described + 8, 0x50, 0x0e, 8];
    (code, UnwindInfo::new(CIE, fde).expect("a plain CIE"))
}

fn place(arena: &Arena, (code, unwind): &(Vec<u8>, UnwindInfo)) -> CodeBlock {
    let function = Function { name: "frame", code, align: 16, relocations: &[], unwind: Some(unwind) };
    arena.place(&[function]).expect("room").remove(0)
}

fn arena(unwinder: Unwinder) -> Arena {
    let mut builder = Arena::builder();
    builder.unwinder = Some(unwinder);
    builder.build().expect("Linux")
}

/// Calls the code and answers what it panicked with.
fn panics_with<T: 'static>(block: &CodeBlock) -> Option<T> {
    // SAFETY: the tests pass live blocks made by `frame`.
    let code: Native = unsafe { std::mem::transmute(block.entry()) };
    catch_unwind(|| code()).err().and_then(|payload| payload.downcast().ok()).map(|payload| *payload)
}

#[test]
fn a_panic_passes_through_placed_frames_and_is_caught() {
    for unwinder in BOTH {
        let arena = arena(unwinder);
        let inner = place(&arena, &frame(throws, 0x28, 0x28));
        // SAFETY: a live block with such a function.
        let callee: Native = unsafe { std::mem::transmute(inner.entry()) };
        let outer = place(&arena, &frame(callee, 0x48, 0x48));
        assert_eq!(panics_with::<u32>(&outer), Some(42));
    }
}

#[test]
fn a_backtrace_passes_through_placed_frames() {
    for unwinder in BOTH {
        let arena = arena(unwinder);
        let block = place(&arena, &frame(looks, 0x38, 0x38));
        let trace = panics_with::<String>(&block).expect("a trace");
        assert!(trace.contains("a_backtrace_passes_through_placed_frames"), "{trace}");
    }
}

#[test]
fn reused_bytes_are_unwound_by_their_new_description() {
    for unwinder in BOTH {
        let arena = arena(unwinder);
        let _left = place(&arena, &frame(throws, 8, 8));
        let old = place(&arena, &frame(throws, 0x28, 0x28));
        let _right = place(&arena, &frame(throws, 8, 8));
        for frame_size in [0x18, 0x58, 0x08, 0x48] {
            // The unwinder has seen, and may have sorted, the old description.
            assert_eq!(panics_with::<u32>(&old), Some(42));
            let entry = old.entry();
            let token = place(&arena, &frame(throws, 0x68, 0x68)).into_token();
            arena.free_many(&[token]).expect("released");
            drop(old_for_reuse(&arena, entry));
            let new = place(&arena, &frame(throws, frame_size, frame_size));
            assert_ne!(new.entry(), entry, "the old block is still live");
            assert_eq!(panics_with::<u32>(&new), Some(42));
        }
        let entry = old.entry();
        drop(old);
        let new = place(&arena, &frame(throws, 0x68, 0x68));
        assert_eq!(new.entry(), entry);
        assert_eq!(panics_with::<u32>(&new), Some(42));
    }
}

/// A block placed and freed at the first hole after `entry`.
fn old_for_reuse(arena: &Arena, entry: *const u8) -> CodeBlock {
    let block = place(arena, &frame(throws, 0x48, 0x48));
    assert_ne!(block.entry(), entry);
    assert_eq!(panics_with::<u32>(&block), Some(42));
    block
}

#[test]
fn interleaved_batches_are_all_unwound() {
    for unwinder in BOTH {
        let arena = arena(unwinder);
        let mut blocks: Vec<_> = (0..400u32)
            .map(|i| {
                let size = 8 + 16 * (i % 7) as u8;
                place(&arena, &frame(throws, size, size))
            })
            .collect();
        // Holes everywhere, filled again by other frames in another order.
        for start in [3, 1, 2] {
            let gone: Vec<_> =
                (start..blocks.len()).step_by(4).rev().map(|at| blocks.swap_remove(at)).collect();
            let count = gone.len();
            let tokens: Vec<_> = gone.into_iter().map(CodeBlock::into_token).collect();
            arena.free_many(&tokens).expect("released");
            for i in 0..count / 2 {
                let size = 8 + 16 * (i % 5) as u8;
                blocks.push(place(&arena, &frame(throws, size, size)));
            }
            for block in &blocks {
                assert_eq!(panics_with::<u32>(block), Some(42));
            }
        }
        let tables = arena.stats().unwind_tables;
        assert!(if unwinder == Unwinder::List { tables <= 16 } else { tables == blocks.len() }, "{tables}");
    }
}

#[test]
fn a_live_function_can_be_unwound_at_every_moment_while_others_come_and_go() {
    for unwinder in BOTH {
        let arena = arena(unwinder);
        let kept: Vec<_> = (0..8).map(|_| place(&arena, &frame(throws, 0x28, 0x28))).collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut live = Vec::new();
                while !stop.load(Relaxed) {
                    live.push(place(&arena, &frame(throws, 0x18, 0x18)));
                    if live.len() > 40 {
                        live.drain(..30).for_each(drop);
                    }
                }
            });
            // A gap would abort the process, not fail an assertion.
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                for round in 0..3_000 {
                    assert_eq!(panics_with::<u32>(&kept[round % kept.len()]), Some(42));
                }
            }));
            stop.store(true, Relaxed);
            assert!(outcome.is_ok());
        });
    }
}

#[test]
fn without_unwind_nothing_is_registered() {
    let arena = Arena::builder().unwind(false).build().expect("Linux");
    let _block = place(&arena, &frame(throws, 8, 8));
    let stats = arena.stats();
    assert_eq!((stats.unwind_tables, stats.unwind_records_written), (0, 0));
}

#[test]
fn tables_stay_few_and_never_interleave() {
    let unwind = UnwindInfo::new(CIE, []).expect("a plain CIE");
    // An address range that no code of this process lies in.
    let mut tables = Tables::new(Unwinder::List, 0x1000_0000);
    let mut live: Vec<u32> = Vec::new();
    let mut random = 7u32;
    for round in 0..6_000u32 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let granules: Vec<u32> = (0..1 + random % 8)
            .map(|i| if random >> 30 == 0 { (random >> 4) % 60_000 } else { round * 10 } + i)
            .filter(|granule| !live.contains(granule))
            .collect();
        let records: Vec<_> =
            granules.iter().map(|&granule| NewRecord { granule, len: 32, unwind: &unwind }).collect();
        tables.add(&records);
        live.extend(&granules);
        if round % 3 == 0 {
            let keep = live.len() / 8 * 7;
            let gone: Vec<u32> =
                (keep..live.len()).map(|_| live.swap_remove(random as usize % live.len())).collect();
            tables.remove(&gone);
        }
        tables.check(&live);
    }
    let few = 16 + live.len() / 256;
    assert!(tables.len() <= few, "{} tables for {} functions", tables.len(), live.len());
    tables.remove(&live);
    assert_eq!(tables.len(), 0);
}
