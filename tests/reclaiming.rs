//! Retired code is freed whoever passes safepoints, or nobody; and not before the last who may run it has left.

#![allow(unsafe_code, reason = "forgets mutators and reenters")]

mod common;
use beadwork::*;
use common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

/// Of many retired pieces, those that may still wait for company.
const FEW: usize = 100;

/// An engine with a worker that has worked before, and a function of which nothing is compiled.
fn worked(configure: impl FnOnce(EngineBuilder) -> EngineBuilder) -> (Engine, Bead) {
    let builder = configure(Engine::builder().capacity(64).workers(1).tier(Tier::new(trivial())));
    let engine = builder.build().unwrap();
    let all = beads(&engine, 2);
    engine.compile_now(all[0], T1, LONG).unwrap();
    engine.drain(LONG).unwrap();
    (engine, all[1])
}

#[test]
fn retired_code_is_freed_where_there_is_no_mutator() {
    let alive = Alive::default();
    let (engine, bead) = worked(|builder| builder);
    (0..1_000).for_each(|_| _ = engine.install(bead, T1, alive.code()).unwrap());
    eventually("a worker frees it", || alive.count() < FEW);
}

#[test]
fn retired_code_is_freed_after_visits_that_ended() {
    let alive = Alive::default();
    let (engine, bead) = worked(|builder| builder);
    for _ in 0..1_000 {
        let pin = engine.pin();
        engine.install(bead, T1, alive.code()).unwrap();
        assert!(pin.dispatch(bead).is_some());
    }
    eventually("a worker frees it", || alive.count() < FEW);
}

#[test]
fn retired_code_is_freed_after_a_shutdown() {
    let alive = Alive::default();
    let (engine, bead) = worked(|builder| builder);
    let mut m = engine.mutator();
    engine.shutdown(LONG).unwrap();
    for _ in 0..1_000 {
        engine.install(bead, T1, alive.code()).unwrap();
        m.safepoint();
    }
    assert!(alive.count() < FEW, "{}", alive.count());
}

#[test]
fn an_engine_with_workers_tells_of_retired_code_that_is_held_back() {
    let (alive, told) = (Alive::default(), Arc::new(AtomicUsize::new(0)));
    let tell = told.clone();
    let (engine, bead) = worked(|builder| {
        builder.retired_limit(64).on_event(move |event| {
            if let Event::HeldBack { .. } = event {
                tell.fetch_add(1, SeqCst);
            }
        })
    });
    let _stuck = engine.mutator_named("stuck");
    (0..1_000).for_each(|_| _ = engine.install(bead, T1, alive.code()).unwrap());
    eventually("no safepoint is passed, and it is told all the same", || told.load(SeqCst) > 0);
}

#[test]
fn a_visit_after_others_were_forgotten_protects_what_it_dispatched() {
    let alive = Alive::default();
    let engine = Engine::builder().capacity(64).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.install(bead, T1, alive.code()).unwrap();
    drop(engine.pin());
    // SAFETY: there is no other mutator, so none in use.
    unsafe { engine.forget_other_mutators(&[]) };
    let pin = engine.pin();
    assert!(pin.dispatch(bead).is_some());
    engine.invalidate(bead).unwrap();
    engine.reclaim();
    assert_eq!(alive.count(), 1);
    drop(pin);
    engine.reclaim();
    assert_eq!(alive.count(), 0);
}

#[test]
fn of_two_reentries_the_last_takes_the_thread_offline_again() {
    let alive = Alive::default();
    let engine = Engine::builder().capacity(64).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.install(bead, T1, alive.code()).unwrap();
    let mut m = engine.mutator();
    m.offline_native(|raw| {
        // SAFETY: inside of `offline_native` and on its thread, and there are no native frames.
        let (first, last) = unsafe { (Reentered::from_raw(raw), Reentered::from_raw(raw)) };
        drop(first);
        assert!(last.dispatch(bead).is_some());
        engine.invalidate(bead).unwrap();
        engine.reclaim();
        assert_eq!(alive.count(), 1);
        drop(last);
        engine.reclaim();
        assert_eq!(alive.count(), 0);
    });
}

#[test]
fn a_handle_of_another_function_at_the_same_place_gets_no_lease() {
    let engine = Engine::builder().capacity(64).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.install(bead, T1, code()).unwrap();
    assert!(engine.lease(bead).is_some());
    let forged = Bead::from_bits(bead.to_bits() + 64).unwrap();
    assert!(!engine.owns(forged) && !engine.is_live(forged));
    assert!(engine.lease(forged).is_none());
}

#[test]
fn handles_of_a_larger_engine_find_nothing() {
    let build = |capacity| Engine::builder().capacity(capacity).inline().tier(Tier::new(trivial())).build();
    let (small, large) = (build(64).unwrap(), build(1_024).unwrap());
    let own = beads(&small, 60);
    for &bead in &own {
        small.install(bead, T1, code().osr(1, addr(two))).unwrap();
    }
    for &other in &beads(&large, 1_000)[64..] {
        assert!(!small.is_live(other) && small.lease(other).is_none() && !small.drop_kept(other));
        assert!(small.bailout(other, BailoutInfo::new(1)).is_err() && small.deopts(other).is_none());
        assert!(small.invalidate(other).is_err() && small.invalidate_version(other, 1).is_err());
        assert!(small.reload(other).is_err() && small.demote(other, T1).is_err());
        assert!(small.osr_failed(other, 1).is_err() && small.osr_entries(other).is_err());
        assert!(small.core(other).is_err() && small.set_core(other, Core::ZERO).is_err());
    }
    let m = small.mutator();
    assert!(own.iter().all(|&bead| m.dispatch(bead).is_some() && m.osr_entry(bead, 1).is_some()));
}

#[test]
fn taking_deliveries_ends_with_what_waited_when_it_began() {
    let engine = Engine::builder().capacity(64).delivery(true).delivery_limit(4).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let last = (0..4).map(|_| engine.install(bead, T1, code()).unwrap()).max().unwrap();
    let mut taken = 0;
    engine.deliver(|delivery| {
        taken += 1;
        assert!(taken < 1_000, "it does not end");
        if let Delivery::Installed { version, .. } = delivery {
            assert!(version <= last);
        }
        (0..2).for_each(|_| _ = engine.install(bead, T1, code()).unwrap());
    });
    assert!(taken > 0);
}

#[test]
fn taking_deliveries_ends_beside_a_thread_that_makes_more() {
    let engine = Engine::builder().capacity(64).delivery(true).delivery_limit(4).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let (made, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|s| {
        let _end = Finally(|| stop.store(true, SeqCst));
        s.spawn(|| {
            while !stop.load(SeqCst) {
                engine.install(bead, T1, code()).unwrap();
                made.fetch_add(1, SeqCst);
            }
        });
        eventually("some are lost", || made.load(SeqCst) > 10);
        let mut taken = 0;
        engine.deliver(|_| {
            taken += 1;
            assert!(taken < 1_000, "of four that waited");
            // More than the limit meanwhile.
            let before = made.load(SeqCst);
            eventually("more are made", || made.load(SeqCst) > before + 10);
        });
        assert!(taken > 0);
    });
}

#[test]
fn every_owner_handed_back_among_panics_and_leases_is_dropped_once() {
    let alive = Alive::default();
    let times = AtomicUsize::new(0);
    let made = alive.clone();
    let tier = || {
        let alive = made.clone();
        FnBackend::new(move |_: &mut Job<'_>| Ok(alive.code()))
    };
    let engine = Engine::builder()
        .capacity(64)
        .workers(2)
        .hand_back(move |back| {
            assert!(!times.fetch_add(1, SeqCst).is_multiple_of(100), "told to panic");
            drop(back);
        })
        .tier(Tier::new(tier()).policy(Threshold::new(20)))
        .tier(Tier::new(tier()).policy(Threshold::new(60)))
        .build()
        .unwrap();
    let all = beads(&engine, 16);
    thread::scope(|s| {
        for thread in 0..4 {
            let (engine, all, alive) = (&engine, &all, &alive);
            s.spawn(move || {
                let (mut m, mut leases) = (engine.mutator(), vec![]);
                for round in 0..2_000 {
                    let bead = all[(round * 7 + thread) % all.len()];
                    match (round + thread) % 8 {
                        0 => _ = engine.invalidate(bead),
                        1 => _ = engine.reload(bead),
                        2 => _ = engine.install(bead, T2, alive.code().osr(1, addr(two))),
                        3 => leases.extend(engine.lease(bead)),
                        4 if leases.len() > 20 => leases.clear(),
                        5 => _ = engine.demote(bead, T1),
                        _ => (0..30).for_each(|_| _ = m.dispatch(bead)),
                    }
                    m.safepoint();
                }
            });
        }
    });
    engine.drain(LONG).unwrap();
    engine.invalidate_all();
    engine.reclaim();
    let stats = engine.stats();
    assert_eq!((stats.code_bytes, stats.retired, alive.count()), (0, 0, 0), "{stats}");
    assert!(alive.ever() > 1_000);
}
