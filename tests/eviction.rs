//! Code memory that runs short: cold code goes, hot code stays, promotion goes on.

mod common;
use beadwork::*;
use common::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();
const SIZE: usize = 1_024;
const IDLE: u64 = 1_000;

struct Rig {
    engine: Engine,
    time: Time,
    alive: Alive,
    evicted: Arc<Mutex<Vec<Bead>>>,
}

/// Room for a hundred functions, and one tier.
fn rig(policy: impl Policy) -> Rig {
    rig_below(0, policy)
}

fn tier(owner: &Alive, policy: impl Policy) -> Tier {
    let owner = owner.clone();
    Tier::new(FnBackend::new(move |_: &mut Job<'_>| Ok(owner.code().with_bytes(SIZE)))).policy(policy)
}

/// With more tiers above.
fn rig_below(above: usize, policy: impl Policy) -> Rig {
    let (time, alive, evicted) = (Time::default(), Alive::default(), Arc::new(Mutex::new(Vec::new())));
    let log = evicted.clone();
    let builder = Engine::builder()
        .capacity(1 << 12)
        .inline()
        .clock(time.clock())
        .code_limit(100 * SIZE as u64)
        .evict_after(Duration::from_millis(IDLE))
        .tier(tier(&alive, policy))
        .on_event(move |event| {
            if let Event::Evicted { bead, bytes } = event {
                assert_eq!(*bytes, SIZE as u64);
                log.lock().unwrap().push(*bead);
            }
        });
    let engine = (0..above).fold(builder, |builder, _| builder.tier(tier(&alive, Manual))).build().unwrap();
    Rig { engine, time, alive, evicted }
}

#[test]
fn code_that_is_not_called_goes_when_memory_is_short_and_what_is_called_stays() {
    let Rig { engine, time, alive, evicted } = rig(Manual);
    let (all, mut m) = (beads(&engine, 99), engine.mutator());
    all.iter().for_each(|&bead| assert!(engine.compile_now(bead, T1, LONG).is_ok()));
    let (hot, cold) = all.split_at(60);
    for round in 1..20 {
        time.set(round * IDLE);
        engine.run_pending(usize::MAX);
        hot.iter().for_each(|&bead| assert!(m.dispatch(bead).is_some(), "{bead} at {round}"));
        m.safepoint();
    }
    let evicted = evicted.lock().unwrap().clone();
    // Down to seven eighths, and no further.
    assert_eq!(evicted.len(), 99 - 87, "{evicted:?}");
    assert!(evicted.iter().all(|bead| cold.contains(bead)));
    assert!(evicted.iter().all(|&bead| m.dispatch(bead).is_none() && engine.is_live(bead)));
    engine.reclaim();
    assert_eq!((alive.count(), engine.stats().evicted), (87, 12));
}

#[test]
fn what_waits_for_a_higher_tier_is_not_evicted_and_its_request_is_served() {
    let Rig { engine, time, evicted, .. } = rig_below(1, Manual);
    let all = beads(&engine, 99);
    all.iter().for_each(|&bead| assert!(engine.compile_now(bead, T1, LONG).is_ok()));
    time.set(IDLE);
    engine.run_pending(usize::MAX);
    // All are marked now, and the first would be the first to go.
    time.set(2 * IDLE);
    assert!(engine.compile_now(all[0], T2, LONG).is_ok());
    assert_eq!(*evicted.lock().unwrap(), all[1..=12]);
}

#[test]
fn what_native_code_may_call_through_a_slot_is_not_evicted() {
    let Rig { engine, time, evicted, .. } = rig(Manual);
    let all = beads(&engine, 99);
    all.iter().for_each(|&bead| assert!(engine.compile_now(bead, T1, LONG).is_ok()));
    engine.slot(all[0]).unwrap();
    time.set(IDLE);
    engine.run_pending(usize::MAX);
    // Marked, and only then does somebody get the address.
    engine.slot(all[1]).unwrap();
    time.set(2 * IDLE);
    engine.run_pending(usize::MAX);
    assert_eq!(*evicted.lock().unwrap(), all[2..14]);
}

#[test]
fn as_many_go_as_it_takes_whatever_was_removed_meanwhile() {
    let Rig { engine, time, evicted, .. } = rig(Manual);
    let (mut all, mut m) = (beads(&engine, 99), engine.mutator());
    all.iter().for_each(|&bead| assert!(engine.compile_now(bead, T1, LONG).is_ok()));
    time.set(IDLE);
    engine.run_pending(usize::MAX);
    let removed: Vec<_> = all.drain(..5).collect();
    removed.iter().for_each(|&bead| assert!(engine.remove(bead).is_ok()));
    m.safepoint();
    engine.reclaim();
    // Others have their places in the table, with code of the same age and as many calls.
    let others = beads(&engine, 5);
    assert!(others.iter().all(|bead| removed.iter().any(|gone| gone.index() == bead.index())));
    others.iter().for_each(|&bead| assert!(engine.compile_now(bead, T1, LONG).is_ok()));
    time.set(2 * IDLE);
    engine.run_pending(usize::MAX);
    assert_eq!(*evicted.lock().unwrap(), all[..12]);
}

#[test]
fn nothing_goes_while_there_is_room_or_before_its_time() {
    let Rig { engine, time, evicted, .. } = rig(Manual);
    let all = beads(&engine, 99);
    all[..80].iter().for_each(|&bead| assert!(engine.compile_now(bead, T1, LONG).is_ok()));
    for round in 1..10 {
        time.set(round * IDLE);
        engine.run_pending(usize::MAX);
    }
    all[80..].iter().for_each(|&bead| assert!(engine.compile_now(bead, T1, LONG).is_ok()));
    time.set(9 * IDLE + IDLE / 2);
    engine.run_pending(usize::MAX);
    assert_eq!(*evicted.lock().unwrap(), []);
}

#[test]
fn p7_promotion_that_stopped_for_want_of_memory_goes_on_after_cold_code_went() {
    let Rig { engine, time, .. } = rig(Threshold::new(10).scaled_by_code_memory(CODE_MEMORY_PRESSURE_FROM));
    let (all, mut m) = (beads(&engine, 250), engine.mutator());
    // Each function is hot for a while and then never called again.
    for (round, &bead) in all.iter().enumerate() {
        let mut calls = 0;
        while m.dispatch(bead).is_none() {
            engine.run_pending(usize::MAX);
            m.safepoint();
            calls += 1;
            time.set(round as u64 * 10 + calls / 10);
            assert!(calls < 1_000_000, "{bead} is never compiled: {:?}", engine.stats());
        }
    }
    assert!(engine.stats().code_bytes <= 100 * SIZE as u64);
}
