//! Any sequence of placements and frees of an arena, see [`beadwork_checks::arena`].
#![cfg(target_os = "linux")]

use beadwork_arena::Aliasing;
use beadwork_checks::arena::{ArenaOp, Code, Field, run};
use beadwork_checks::from_env;
use proptest::collection::vec;
use proptest::prelude::*;

fn field() -> impl Strategy<Value = Field> {
    let local = prop_oneof![Just(None), (0..4u8, 0..64u16).prop_map(Some)];
    // The first kinds are those of x86-64; the others are refused there.
    // Any address, and those at the ends of what fields can hold.
    let near = (0..64u32, -64..64i64).prop_map(|(bit, by)| (1u64 << bit).wrapping_add_signed(by));
    let address = prop_oneof![any::<u64>(), near];
    let addend = prop_oneof![4 => -64..64i64, 1 => any::<i64>()];
    (0..64u32, 0..7u8, local, address, addend).prop_map(|(offset, kind, local, address, addend)| Field {
        offset,
        kind,
        local,
        address,
        addend,
    })
}

fn code() -> impl Strategy<Value = Code> {
    let align = prop_oneof![9 => (0..13u32).prop_map(|shift| 1 << shift), 1 => any::<u16>()];
    let len = prop_oneof![8 => 1..200usize, 1 => 0..5_000usize];
    let fields = prop_oneof![3 => Just(Vec::new()), 1 => vec(field(), 1..3)];
    (len.prop_flat_map(|len| vec(any::<u8>(), len)), align, fields).prop_map(|(bytes, align, fields)| Code {
        bytes,
        align,
        fields,
    })
}

fn op() -> impl Strategy<Value = ArenaOp> {
    prop_oneof![
        4 => vec(code(), 0..5).prop_map(ArenaOp::Place),
        3 => any::<u8>().prop_map(ArenaOp::Free),
        1 => vec(any::<u8>(), 0..6).prop_map(ArenaOp::FreeMany),
        1 => Just(ArenaOp::Trim),
    ]
}

/// `PROPTEST_CASES` says how many cases.
fn config() -> ProptestConfig {
    let cases = from_env("PROPTEST_CASES", 64) as u32;
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn live_code_lies_apart_and_unchanged_and_is_never_writable(ops in vec(op(), 0..40), private in any::<bool>()) {
        run(&ops, if private { Aliasing::Private } else { Aliasing::DualMapped });
    }
}
