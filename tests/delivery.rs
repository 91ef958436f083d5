//! Deliveries: what happened to code, handed over at the VM's own time, in order, once.

mod common;
use beadwork::*;
use common::*;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

const T1: TierId = TierId::BASELINE;

/// A side table a VM's backend would send.
#[derive(PartialEq, Eq, Debug)]
struct StackMap(u32);

fn delivering(limit: usize) -> Engine {
    let backend = FnBackend::new(|job: &mut Job<'_>| Ok(code().payload(StackMap(job.bead().index()))));
    let builder = Engine::builder().capacity(1 << 10).inline().tier(Tier::new(backend));
    builder.delivery(true).delivery_limit(limit).build().unwrap()
}

/// Reads as text what is delivered.
fn texts(engine: &Engine) -> Vec<String> {
    let mut texts = Vec::new();
    let handed = engine.mutator().deliver(|delivery| {
        texts.push(match delivery {
            Delivery::Installed { bead, tier, payload, .. } => {
                let map = payload.map(|payload| payload.downcast::<StackMap>().unwrap().0);
                format!("{} at {tier} with {map:?}", bead.index())
            }
            Delivery::Invalidated { bead } => format!("{} invalidated", bead.index()),
            Delivery::Removed { bead } => format!("{} removed", bead.index()),
            Delivery::Lost { count } => format!("{count} lost"),
            other => panic!("{other:?}"),
        });
    });
    assert_eq!(handed, texts.iter().filter(|text| !text.ends_with("lost")).count());
    texts
}

#[test]
fn everything_that_happened_to_code_is_delivered_once_in_order_with_typed_payloads() {
    let engine = delivering(usize::MAX);
    let all = beads(&engine, 3);
    engine.compile_now(all[0], T1, LONG).unwrap();
    engine.install(all[1], T1, code().payload(StackMap(77))).unwrap();
    engine.install(all[1], T1, code()).unwrap();
    let assumption = engine.assumption();
    engine.install(all[2], T1, code().assumes(assumption)).unwrap();
    engine.invalidate(all[0]).unwrap();
    engine.invalidate(all[0]).unwrap();
    engine.invalidate_assumption(assumption);
    engine.blacklist(all[1]).unwrap();
    engine.compile_now(all[0], T1, LONG).unwrap();
    engine.reload(all[0]).unwrap();
    engine.remove(all[1]).unwrap();
    assert_eq!(engine.deliveries(), 10);
    let told = texts(&engine);
    let expected = [
        "0 at T1 with Some(0)",
        "1 at T1 with Some(77)",
        "1 at T1 with None",
        "2 at T1 with None",
        "0 invalidated",
        "2 invalidated",
        "1 invalidated",
        "0 at T1 with Some(0)",
        "0 invalidated",
        "1 removed",
    ];
    assert_eq!(told, expected);
    assert!(texts(&engine).is_empty() && engine.deliveries() == 0);
}

#[test]
fn without_delivery_payloads_are_dropped_and_nothing_waits() {
    let engine = inline(10, |_| Ok(code()));
    let (bead, payload) = (beads(&engine, 1)[0], Arc::new(()));
    engine.install(bead, T1, code().payload(payload.clone())).unwrap();
    assert_eq!(Arc::strong_count(&payload), 1);
    assert_eq!(engine.deliver(|delivery| panic!("{delivery:?}")), 0);
}

#[test]
fn payloads_of_code_that_is_not_installed_or_not_delivered_are_dropped_once() {
    let engine = delivering(usize::MAX);
    let (bead, payload) = (beads(&engine, 1)[0], Arc::new(()));
    let broken = engine.assumption();
    engine.invalidate_assumption(broken);
    engine.install(bead, T1, code().payload(payload.clone()).assumes(broken)).unwrap_err();
    engine.install(bead, T1, CompiledCode::new(std::ptr::null()).payload(payload.clone())).unwrap_err();
    assert_eq!((Arc::strong_count(&payload), engine.deliveries()), (1, 0));
    engine.install(bead, T1, code().payload(payload.clone())).unwrap();
    assert_eq!(Arc::strong_count(&payload), 2);
    drop(engine);
    assert_eq!(Arc::strong_count(&payload), 1, "it went with the engine");
}

#[test]
fn a_payload_whose_drop_panics_is_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("payload");
        }
    }
    let engine = inline(10, |_| Ok(code().payload(Bomb)));
    let bead = beads(&engine, 1)[0];
    assert!(engine.compile_now(bead, T1, LONG).is_ok());
    assert!(engine.install(bead, T1, code().payload(Bomb)).is_ok());
    let wide = CompiledCode::new(std::ptr::without_provenance(1 << 48)).payload(Bomb);
    assert!(engine.install(bead, T1, wide).is_err());
    let engine = delivering(usize::MAX);
    engine.install(beads(&engine, 1)[0], T1, code().payload(Bomb)).unwrap();
    drop(engine);
}

#[test]
fn a_taker_that_panics_loses_what_it_was_given_and_no_more() {
    let engine = delivering(usize::MAX);
    let all = beads(&engine, 3);
    all.iter().for_each(|&bead| _ = engine.install(bead, T1, code()).unwrap());
    let mut m = engine.mutator();
    assert!(catch_unwind(AssertUnwindSafe(|| m.deliver(|_| panic!("taker")))).is_err());
    assert_eq!(texts(&engine), ["1 at T1 with None", "2 at T1 with None"]);
}

#[test]
fn while_one_thread_takes_deliveries_others_get_none_and_do_not_wait() {
    let engine = delivering(usize::MAX);
    let all = beads(&engine, 2);
    all.iter().for_each(|&bead| _ = engine.install(bead, T1, code()).unwrap());
    let mut handed = 0;
    engine.deliver(|_| {
        handed += 1;
        assert_eq!(engine.deliver(|_| panic!("out of turn")), 0);
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| engine.deliver(|_| ())).join().unwrap());
        assert_eq!(elsewhere, 0);
        // What comes meanwhile is for the next time, so a taker that causes deliveries comes to an end.
        engine.install(all[0], T1, code()).unwrap();
    });
    assert_eq!((handed, engine.deliveries()), (2, 2));
}

#[test]
fn with_a_limit_the_oldest_are_dropped_and_the_drain_says_how_many() {
    let engine = delivering(2);
    let (bead, payload) = (beads(&engine, 1)[0], Arc::new(()));
    for _ in 0..3 {
        engine.install(bead, T1, code().payload(payload.clone())).unwrap();
    }
    engine.invalidate(bead).unwrap();
    assert_eq!(Arc::strong_count(&payload), 2);
    let mut told = Vec::new();
    engine.deliver(|delivery| told.push(delivery));
    assert!(matches!(
        told[..],
        [Delivery::Lost { count: 2 }, Delivery::Installed { .. }, Delivery::Invalidated { .. }]
    ));
    assert!(texts(&engine).is_empty());
}

#[test]
fn deliveries_come_after_the_install_took_effect_and_in_order_of_versions_for_each_function() {
    let fallback = FnBackend::new(|_: &mut Job<'_>| Ok(code().payload(StackMap(0))));
    let engine = Engine::builder()
        .capacity(1 << 10)
        .workers(2)
        .tier(Tier::new(fallback))
        .delivery(true)
        .build()
        .unwrap();
    let (all, working) = (beads(&engine, 3), AtomicUsize::new(3));
    /// What the VM's own tables say: the version of the code it has.
    type Tables = HashMap<Bead, Option<u32>>;
    let mut tables: (Tables, Tables) = Default::default();
    let take = |delivery, (have, last): &mut (Tables, Tables)| match delivery {
        Delivery::Installed { bead, version, .. } => {
            assert!(engine.version(bead).unwrap() >= version, "told before it took effect");
            let before = last.insert(bead, Some(version)).flatten().unwrap_or(0);
            assert!(before < version, "{version} told after {before}");
            have.insert(bead, Some(version));
        }
        Delivery::Invalidated { bead } => {
            let before = have.insert(bead, None).flatten();
            assert!(before.is_some(), "taken back before it was there");
        }
        other => panic!("{other:?}"),
    };
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (engine, all, working) = (&engine, &all, &working);
            scope.spawn(move || {
                for round in 0..10_000 {
                    let bead = all[round % all.len()];
                    match thread {
                        0 => _ = engine.install(bead, T1, code()).unwrap(),
                        1 => engine.invalidate(bead).unwrap(),
                        _ if round % 3 == 0 => _ = engine.reload(bead).unwrap(),
                        _ => engine.promote(bead, T1).unwrap(),
                    }
                }
                working.fetch_sub(1, SeqCst);
            });
        }
        let mut m = engine.mutator();
        while working.load(SeqCst) > 0 {
            m.deliver(|delivery| take(delivery, &mut tables));
            m.safepoint();
        }
    });
    engine.drain(LONG).unwrap();
    engine.deliver(|delivery| take(delivery, &mut tables));
    for &bead in &all {
        let have = tables.0.get(&bead).copied().flatten();
        assert_eq!(have.is_some(), engine.tier(bead) == Ok(T1), "the tables agree with the engine");
    }
}
