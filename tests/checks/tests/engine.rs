//! Any sequence of operations leaves engine and model the same.
//!
//! `BEADWORK_OPERATIONS=10000000 cargo test --release -p beadwork-checks --test engine` runs as many.

use beadwork_checks::{Compile, Done, Made, Op, Proposal, Setup, What, from_env, run};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::Cell;

fn made() -> impl Strategy<Value = Made> {
    let assumes = prop_oneof![3 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let includes = prop_oneof![3 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let sites = (prop_oneof![2 => Just(0), 1 => any::<u8>()], prop::bool::weighted(0.2));
    (sites, assumes, any::<bool>(), includes).prop_map(|((sites, lacks), assumes, early, includes)| Made {
        sites,
        lacks,
        assumes,
        early,
        includes,
    })
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        10 => made().prop_map(What::Code),
        2 => Just(What::Error),
        1 => Just(What::Null),
        1 => Just(What::Wide),
        1 => Just(What::Panic),
        1 => Just(What::Unfinished),
        1 => any::<u8>().prop_map(What::InVain),
    ]
}

fn proposal() -> impl Strategy<Value = Proposal> {
    prop_oneof![
        1 => Just(Proposal::Keep),
        4 => Just(Proposal::Recompile),
        2 => any::<u8>().prop_map(Proposal::Pause),
        3 => Just(Proposal::Revert),
        1 => any::<u8>().prop_map(Proposal::Cap),
        1 => Just(Proposal::Blacklist),
    ]
}

/// Operations that run no compile.
fn plain() -> BoxedStrategy<Op> {
    let (of, tier) = (0..12u8, 0..5u8);
    let (o, t) = (|| of.clone(), || tier.clone());
    prop_oneof![
        6 => any::<bool>().prop_map(|grouped| Op::Register { grouped }),
        1 => any::<u8>().prop_map(Op::RegisterMany),
        3 => o().prop_map(|of| Op::Remove { of }),
        1 => Just(Op::NewGroup),
        1 => any::<u8>().prop_map(Op::RemoveGroup),
        1 => (o(), any::<u16>()).prop_map(|(of, core)| Op::SetCore { of, core }),
        8 => (o(), 0..50u16).prop_map(|(of, calls)| Op::Dispatch { of, calls }),
        // Beyond the pause after a failure, and beyond the time after which what was barred is asked about again.
        1 => (o(), prop_oneof![900..2_100u16, 9_900..12_000u16]).prop_map(|(of, calls)| Op::Dispatch { of, calls }),
        5 => (o(), any::<u8>(), any::<u8>()).prop_map(|(of, site, times)| Op::BackEdge { of, site, times }),
        8 => (o(), t()).prop_map(|(of, tier)| Op::Promote { of, tier }),
        1 => (any::<u8>(), t()).prop_map(|(group, tier)| Op::PromoteGroup { group, tier }),
        3 => (o(), t()).prop_map(|(of, tier)| Op::Submit { of, tier }),
        4 => (o(), t(), made()).prop_map(|(of, tier, made)| Op::Install { of, tier, made }),
        1 => t().prop_map(|tier| Op::SwapAll { tier }),
        3 => o().prop_map(|of| Op::Invalidate { of }),
        2 => (o(), any::<bool>()).prop_map(|(of, held)| Op::InvalidateVersion { of, held }),
        1 => Just(Op::InvalidateAll),
        3 => o().prop_map(|of| Op::Reload { of }),
        1 => Just(Op::ReloadAll),
        2 => (o(), t()).prop_map(|(of, tier)| Op::Demote { of, tier }),
        6 => (o(), proposal(), prop::bool::weighted(0.1))
            .prop_map(|(of, proposal, outdated)| Op::Bailout { of, proposal, outdated }),
        2 => (o(), t()).prop_map(|(of, tier)| Op::Cap { of, tier }),
        2 => (o(), any::<bool>()).prop_map(|(of, on)| Op::Blacklist { of, on }),
        2 => Just(Op::NewAssumption),
        2 => any::<u8>().prop_map(Op::Break),
        1 => Just(Op::Pause),
        2 => Just(Op::Resume),
        1 => prop::bool::weighted(0.8).prop_map(Op::Enable),
        1 => (any::<u8>(), prop::bool::weighted(0.8)).prop_map(|(tier, on)| Op::EnableTier { tier, on }),
        1 => o().prop_map(|of| Op::Lease { of }),
        1 => any::<u8>().prop_map(Op::EndLease),
        1 => o().prop_map(|of| Op::Slot { of }),
        3 => (0..3u8, prop_oneof![2 => Just(0u8), 1 => any::<u8>()])
            .prop_map(|(of, site)| Op::OsrFailed { of, site }),
        // Two loops that take turns are told of before either of them asks.
        2 => (o(), 1..63u8).prop_map(|(of, times)| Op::Turns { of, times }),
        1 => o().prop_map(|of| Op::DropKept { of }),
        1 => Just(Op::DropAllKept),
        1 => o().prop_map(|of| Op::ForgetDeopts { of }),
        2 => Just(Op::Safepoint),
        2 => prop_oneof![
            3 => (o(), 0..20u8).prop_map(|(of, calls)| Op::OtherDispatch { of, calls }),
            2 => (o(), any::<u8>(), any::<u8>()).prop_map(|(of, site, times)| Op::OtherBackEdge { of, site, times }),
            2 => Just(Op::OtherSafepoint),
            1 => Just(Op::OtherOffline),
        ],
        2 => prop_oneof![
            (o(), any::<u8>()).prop_map(|(of, times)| Op::NativeCall { of, times }),
            (o(), any::<u8>(), prop_oneof![0..300u16, any::<u16>()])
                .prop_map(|(of, site, times)| Op::NativeLoop { of, site, times }),
        ],
        2 => Just(Op::Reclaim),
        2 => Just(Op::Deliver),
        4 => (0..60u8).prop_map(Op::Wait),
    ]
    .boxed()
}

fn op() -> impl Strategy<Value = Op> {
    let flat = vec(what().prop_map(|what| Compile { meanwhile: Vec::new(), what }), 0..3);
    let inner = prop_oneof![
        12 => plain(),
        1 => flat.prop_map(|compiles| Op::Run { all: true, compiles }),
    ];
    let compile = (vec(inner, 0..3), what()).prop_map(|(meanwhile, what)| Compile { meanwhile, what });
    let compiles = vec(compile, 0..4).boxed();
    prop_oneof![
        8 => plain(),
        2 => (any::<bool>(), compiles.clone()).prop_map(|(all, compiles)| Op::Run { all, compiles }),
        1 => (0..12u8, 0..5u8, compiles).prop_map(|(of, tier, compiles)| Op::CompileNow { of, tier, compiles }),
    ]
}

/// Operations, now and then such that some functions are left alone for long, as code has to be that is evicted.
fn operations() -> impl Strategy<Value = Vec<Op>> {
    let run = || Op::Run { all: false, compiles: Vec::new() };
    let code = || vec((0..12u8, 1..4u8), 4..8);
    let touches = prop_oneof![
        3 => op(),
        1 => (0..12u8).prop_map(|of| Op::Slot { of }),
        1 => (0..12u8, 1..3u16).prop_map(|(of, calls)| Op::Dispatch { of, calls }),
    ];
    let idle = (code(), vec(touches, 0..4), 40..60u8).prop_map(move |(code, meanwhile, tenths)| {
        let made = Made::default();
        let installs = code.into_iter().map(|(of, tier)| Op::Install { of, tier, made });
        let mut all: Vec<_> = installs.chain([Op::Wait(20), run()]).chain(meanwhile).collect();
        all.extend([Op::Wait(tenths), run()]);
        all
    });
    let some = prop_oneof![30 => op().prop_map(|op| vec![op]), 1 => idle];
    vec(some, 1..150).prop_map(|parts| parts.into_iter().flatten().collect())
}

fn setup() -> impl Strategy<Value = Setup> {
    let flags = (prop::bool::weighted(0.2), any::<bool>(), any::<bool>());
    (flags, 0..4u8).prop_map(|((hands_back, snapshots, evicts), batch)| Setup {
        hands_back,
        snapshots,
        batch,
        evicts,
    })
}

#[test]
fn an_engine_does_what_its_model_does_whatever_is_asked_of_it() {
    let wanted = from_env("BEADWORK_OPERATIONS", 20_000);
    let (done, strategy) = (Cell::new(Done::default()), (setup(), operations()));
    while done.get().operations < wanted {
        let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
        let result = TestRunner::new(config).run(&strategy, |(setup, ops)| {
            let ran = std::panic::catch_unwind(|| run(setup, &ops)).map_err(|payload| {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string()));
                TestCaseError::fail(text.unwrap_or_default())
            })?;
            let mut sum = done.get();
            sum += ran;
            done.set(sum);
            Ok(())
        });
        if let Err(error) = result {
            panic!("{error}");
        }
    }
    let Done { operations, dispatches, evictions, for_loops } = done.get();
    println!("{operations} operations executed, {dispatches} dispatches in them");
    println!("{evictions} functions evicted, {for_loops} compiles asked for because of loops");
    assert!(evictions.min(for_loops) > operations / 1_000, "what is foreseen comes to pass");
}

#[test]
fn a_pause_after_a_failure_goes_on_when_calls_are_counted_from_zero() {
    let compile = |what| vec![Compile { meanwhile: Vec::new(), what }];
    run(
        Setup::default(),
        &[
            Op::Register { grouped: false },
            Op::Dispatch { of: 0, calls: 11 },
            Op::NewAssumption,
            Op::Run { all: true, compiles: compile(What::Error) },
            // Hot enough for the second tier, whose compile takes the counts.
            Op::Dispatch { of: 0, calls: 19 },
            Op::Run { all: false, compiles: compile(What::InVain(0)) },
            Op::Dispatch { of: 0, calls: 6 },
        ],
    );
}

#[test]
fn calls_of_code_that_can_no_longer_be_evicted_are_not_counted_any_more() {
    let install = |of| Op::Install { of, tier: 3, made: Made::default() };
    let run_one = || Op::Run { all: false, compiles: Vec::new() };
    let setup = Setup { evicts: true, ..Setup::default() };
    let mut operations = vec![Op::Register { grouped: false }; 3];
    operations.extend((0..3).map(install));
    // Marked, and counted. Then somebody gets the slot, so that the next sweep leaves it alone.
    operations.extend([Op::Wait(20), run_one(), Op::Dispatch { of: 0, calls: 5 }, Op::Slot { of: 0 }]);
    operations.extend([Op::Wait(40), run_one(), Op::Dispatch { of: 0, calls: 5 }]);
    assert_eq!(run(setup, &operations).evictions, 1);
}
