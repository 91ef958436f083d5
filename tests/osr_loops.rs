//! Loops are counted however their iterations are told, and what was suppressed comes back.

mod common;
use beadwork::*;
use common::*;

const T1: TierId = TierId::BASELINE;

/// The site of the loop whose entry fails.
const SITE: u64 = 7;

/// How long the entry is suppressed at its first failure, in iterations.
const SUPPRESSED: u64 = 8_000;

/// A function whose code has an entry for the loop, which has just failed.
fn suppressed() -> (Engine, Bead) {
    let engine = Engine::builder().capacity(64).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.install(bead, T1, code().osr(SITE, addr(two))).unwrap();
    assert_eq!(u64::from(engine.osr_failed(bead, SITE).unwrap()), SUPPRESSED);
    (engine, bead)
}

/// Whether the entry is found within a hundred times as many iterations.
fn comes_back(engine: &Engine, bead: Bead) -> bool {
    let m = engine.mutator();
    (0..100 * SUPPRESSED).any(|_| m.back_edge(bead, SITE).is_some())
}

#[test]
fn an_entry_whose_wait_two_threads_shared_is_used_again() {
    let (engine, bead) = suppressed();
    let (a, b) = (engine.mutator(), engine.mutator());
    for _ in 0..5_000 {
        a.back_edge(bead, SITE);
        b.back_edge(bead, SITE);
    }
    // What they have not told yet, they tell now.
    drop((a, b));
    assert!(comes_back(&engine, bead));
}

#[test]
fn an_entry_whose_wait_ends_in_short_visits_is_used_again() {
    let (engine, bead) = suppressed();
    let found = (0..2 * SUPPRESSED / 50).any(|_| {
        let pin = engine.pin();
        (0..50).any(|_| pin.back_edge(bead, SITE).is_some())
    });
    assert!(found);
}

#[test]
fn an_entry_is_used_again_although_its_function_has_endless_other_loops() {
    let (engine, bead) = suppressed();
    let m = engine.mutator();
    (1_000..2_000).for_each(|site| (0..64).for_each(|_| _ = m.back_edge(bead, site)));
    drop(m);
    assert!(comes_back(&engine, bead));
}

/// An inline engine whose tier is entered at 1,000 calls, and so in a loop at 8,000 iterations.
fn asking() -> (Engine, Bead) {
    let engine = inline(1_000, |_| Ok(code()));
    let bead = engine.register(Core::ZERO).unwrap();
    (engine, bead)
}

fn asked(engine: &Engine, bead: Bead) -> bool {
    engine.state(bead).unwrap().pending.is_some()
}

#[test]
fn a_nest_of_two_loops_asks_wherever_their_counts_lie() {
    // So many that some pairs share a place in whatever cache there is.
    let never: Vec<_> = (1..=600u64)
        .filter(|&inner| {
            let (engine, bead) = asking();
            let m = engine.mutator();
            !(0..10_000).any(|_| {
                m.back_edge(bead, 0);
                (0..20).for_each(|_| _ = m.back_edge(bead, inner));
                asked(&engine, bead)
            })
        })
        .collect();
    assert!(never.is_empty(), "{never:?}");
}

#[test]
fn a_loop_told_in_short_visits_asks() {
    let (engine, bead) = asking();
    let asks = (0..20_000).any(|_| {
        let pin = engine.pin();
        (0..50).for_each(|_| _ = pin.back_edge(bead, 1));
        asked(&engine, bead)
    });
    assert!(asks);
}

/// How many iterations it takes until the loop asks, after nearly enough of them and what happens then.
fn after_nearly_enough(engine: &Engine, bead: Bead, then: impl FnOnce()) -> Option<u32> {
    let m = engine.mutator();
    (0..7_900).for_each(|_| _ = m.back_edge(bead, 1));
    assert!(!asked(engine, bead));
    then();
    (1..20_000).find(|_| {
        m.back_edge(bead, 1);
        asked(engine, bead)
    })
}

#[test]
fn p11_a_loop_counts_from_zero_after_an_invalidation() {
    let (engine, bead) = asking();
    let iterations = after_nearly_enough(&engine, bead, || {
        engine.install(bead, T1, code()).unwrap();
        engine.invalidate(bead).unwrap();
    });
    assert!(iterations.is_some_and(|iterations| iterations > 7_000), "{iterations:?}");
}

#[test]
fn a_pause_after_a_bailout_is_waited_in_a_loop_too() {
    let engine = Engine::builder()
        .capacity(64)
        .inline()
        .deopt(ExponentialBackoff::default())
        .tier(Tier::new(trivial()).policy(Threshold::new(1_000)))
        .build()
        .unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let iterations = after_nearly_enough(&engine, bead, || {
        let version = engine.install(bead, T1, code()).unwrap();
        let decision = engine.bailout(bead, BailoutInfo::new(version));
        assert_eq!(decision, Ok(DeoptDecision::Pause { calls: 1_000 }));
    });
    assert!(iterations.is_some_and(|iterations| iterations > 7_000), "{iterations:?}");
}

#[test]
fn the_room_of_a_large_table_serves_small_ones_once_it_is_free() {
    let engine = Engine::builder().capacity(64).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let large = (0..4_000).fold(code(), |code, site| code.osr(site, addr(two)));
    engine.install(bead, T1, large).unwrap();
    assert_eq!(engine.osr_entries(bead), Ok(4_000));
    engine.invalidate(bead).unwrap();
    engine.reclaim();
    engine.install(bead, T1, code().osr(1, addr(two))).unwrap();
    assert_eq!((engine.osr_entries(bead), engine.stats().loop_tables_refused), (Ok(1), 0));
}
