//! Functions placed as a group are freed by one token, and are otherwise on their own.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code)]

mod common;

use beadwork_arena::{Aliasing, Arena, ArenaError, BlockToken, Function, Target, UnwindInfo};
use common::{call, calls, function, returns};

const BOTH: [Aliasing; 2] = [Aliasing::DualMapped, Aliasing::Private];

fn arena(aliasing: Aliasing) -> Arena {
    Arena::builder().aliasing(aliasing).region_bytes(1 << 20).build().expect("Linux")
}

#[test]
fn the_functions_of_a_group_are_freed_together_by_one_token_and_others_stay() {
    for aliasing in BOTH {
        let arena = arena(aliasing);
        let codes: Vec<_> = (0..6).map(|i| returns(i, 20 + 30 * i as usize)).collect();
        let f: Vec<_> = codes.iter().map(|code| function("f", code)).collect();
        let groups = arena.place_groups(&[&f[..1], &f[1..4], &f[4..]]).expect("room");
        let entries: Vec<_> = groups.iter().flat_map(|group| group.entries.clone()).collect();
        assert_eq!(entries.iter().map(|&entry| call(entry)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(groups[1].block.entry(), groups[1].entries[0]);
        assert_eq!(groups[1].block.len(), codes[1..4].iter().map(Vec::len).sum());
        assert_eq!(arena.stats().live_blocks, 3);

        let mut tokens: Vec<_> = groups.into_iter().map(|group| group.block.into_token()).collect();
        arena.free_many(&[tokens.remove(1)]).expect("live");
        assert_eq!(arena.stats().live_blocks, 2);
        assert_eq!([0, 4, 5].map(|i| call(entries[i])), [0, 4, 5]);
        arena.free_many(&tokens).expect("live");
        let stats = arena.stats();
        assert_eq!((stats.live_blocks, stats.live_bytes), (0, 0));
    }
}

#[test]
fn freed_groups_are_reused_as_a_whole() {
    let arena = arena(Aliasing::DualMapped);
    let (large, small) = (returns(1, 200), returns(2, 40));
    let keep = arena.place(&[function("keep", &small)]).expect("room");
    let group = [function("a", &large), function("b", &small), function("c", &large)];
    let first = arena.place_groups(&[&group]).expect("room").remove(0);
    let _after = arena.place(&[function("after", &small)]).expect("room");
    let (at, stats) = (first.entries.clone(), arena.stats());
    drop(first);
    // SAFETY: still mapped and readable: the region has live blocks.
    assert_eq!(unsafe { std::slice::from_raw_parts(at[0], 488) }, [0xcc; 488]);
    for _ in 0..100 {
        let again = arena.place_groups(&[&group]).expect("room").remove(0);
        assert_eq!(again.entries, at);
        assert_eq!(arena.stats().live_bytes, stats.live_bytes);
    }
    assert_eq!(call(keep[0].entry()), 2);
}

#[test]
fn alignment_inside_a_group_is_kept_and_wastes_nothing_for_ever() {
    for aliasing in BOTH {
        let arena = arena(aliasing);
        let code = returns(3, 40);
        let group: Vec<_> =
            (0..13).map(|i| Function { align: 1 << (i * 5 % 13), ..function("f", &code) }).collect();
        let places = arena.place_groups(&[&group[..6], &group[6..]]).expect("room");
        let entries: Vec<_> = places.iter().flat_map(|group| group.entries.clone()).collect();
        for (entry, function) in entries.iter().zip(&group) {
            assert_eq!(entry.addr() % function.align, 0, "{aliasing:?}");
            assert_eq!(call(*entry), 3);
        }
        drop(places);
        assert_eq!(arena.stats().live_bytes, 0, "{aliasing:?}");
    }
}

#[test]
fn functions_of_a_group_refer_to_each_other_and_to_other_groups() {
    let arena = arena(Aliasing::DualMapped);
    let seven = returns(7, 6);
    let (to_last, relocation) = calls(Target::Local(2, 0));
    let first = Function { relocations: &[relocation], ..function("first", &to_last) };
    let (to_first, relocation) = calls(Target::Local(0, 0));
    let second = Function { relocations: &[relocation], ..function("second", &to_first) };
    let groups = arena.place_groups(&[&[first, second], &[function("seven", &seven)]]).expect("room");
    assert_eq!((call(groups[0].entries[0]), call(groups[0].entries[1])), (7, 7));
}

#[test]
fn each_function_of_a_group_has_its_name_and_its_unwind_record_until_all_go() {
    let arena = Arena::builder().perf_map(true).build().expect("Linux");
    let code = returns(1, 50);
    let unwind = UnwindInfo::new([1, 0, 1, 0x78, 16], [0x41, 0x0e, 16]).expect("a CIE");
    let with = |name| Function { unwind: Some(&unwind), ..function(name, &code) };
    let group = arena.place_groups(&[&[with("f"), with("f@1"), with("f@2")]]).expect("room").remove(0);
    let stats = arena.stats();
    assert_eq!((stats.unwind_records_written, stats.unwind_tables), (3, 1));
    let token = group.block.into_token();
    // A block's token counts granules, so those of the others can be told from the distance.
    let names: Vec<_> = group
        .entries
        .iter()
        .map(|entry| (entry.addr() - group.entries[0].addr()) as u32 / 32)
        .map(|distance| arena.name_for(BlockToken::from_bits(token.to_bits() + distance)))
        .collect();
    assert_eq!(names, ["f", "f@1", "f@2"].map(|name| Some(name.to_owned())));
    arena.free_many(&[token]).expect("live");
    assert_eq!((arena.stats().unwind_tables, arena.name_for(token)), (0, None));
    let _ = std::fs::remove_file(format!("/tmp/perf-{}.map", std::process::id()));
}

#[test]
fn only_the_group_itself_can_be_freed() {
    let arena = arena(Aliasing::DualMapped);
    let code = returns(1, 50);
    let group = arena.place_groups(&[&[function("a", &code), function("b", &code)]]).expect("room").remove(0);
    let token = group.block.into_token();
    let inner = BlockToken::from_bits(token.to_bits() + 2);
    for tokens in [&[inner][..], &[token, inner]] {
        assert!(matches!(arena.free_many(tokens), Err(ArenaError::NotLive { token, .. }) if token == inner));
    }
    assert_eq!((call(group.entries[0]), call(group.entries[1])), (1, 1));
    arena.free_many(&[token]).expect("live");
}

#[test]
fn a_refused_group_leaves_nothing_behind() {
    for aliasing in BOTH {
        let arena = arena(aliasing);
        let good = returns(1, 50);
        let _keep = arena.place(&[function("keep", &good)]).expect("room");
        let before = (arena.stats().live_blocks, arena.stats().live_bytes);
        let (far, mut relocation) = calls(Target::Local(5, 0));
        for target in [Target::Local(5, 0), Target::Address(0)] {
            relocation.target = target;
            relocation.kind = beadwork_arena::RelocationKind::X86PcRel4;
            let bad = Function { relocations: &[relocation], ..function("bad", &far) };
            assert!(arena.place_groups(&[&[function("good", &good), bad]]).is_err(), "{aliasing:?}");
            assert_eq!((arena.stats().live_blocks, arena.stats().live_bytes), before, "{aliasing:?}");
        }
        let empty = arena.place_groups(&[&[function("good", &good)], &[]]);
        assert!(matches!(empty, Err(ArenaError::EmptyGroup { position: 1 })), "{empty:?}");
        assert_eq!((arena.stats().live_blocks, arena.stats().live_bytes), before);
    }
    assert!(arena(Aliasing::Private).place_groups(&[]).expect("nothing to do").is_empty());
}

#[test]
fn a_poisoned_group_goes_as_a_whole_and_its_neighbours_stay() {
    for aliasing in BOTH {
        let arena = Arena::builder().aliasing(aliasing).poison_freed(true).build().expect("Linux");
        let code = returns(6, 300);
        let group = [function("a", &code), function("b", &code)];
        let groups = [0; 3].map(|_| arena.place_groups(&[&group]).expect("room").remove(0));
        let entries: Vec<_> = groups.iter().flat_map(|group| group.entries.clone()).collect();
        let [first, second, third] = groups;
        drop(second);
        for (entry, freed) in entries.iter().zip([false, false, true, true, false, false]) {
            let access = common::line_of(*entry).expect("still reserved").access;
            assert_eq!(access.starts_with("---"), freed, "{aliasing:?}: {access}");
        }
        assert_eq!(call(entries[0]) + call(entries[5]), 12);
        drop((first, third));
        assert_eq!(arena.stats().live_bytes, 0);
    }
}
