//! The code cache: what is bounded, what goes, and that nobody starves.

mod common;
use beadwork::resident::*;
use beadwork::*;
use common::cache::*;
use common::*;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A cache without threads and with a clock of the test's.
fn timed(seen: &Seen, time: &Time) -> CodeCacheBuilder<Key> {
    CodeCache::builder(seen.tier(3)).engine(inline_engine().clock(time.clock()))
}

#[test]
fn c8_code_that_is_not_used_for_long_goes_and_every_use_keeps_it() {
    let (seen, time) = (Seen::default(), Time::default());
    let cache = timed(&seen, &time).idle_after(Some(Duration::from_secs(600))).build().unwrap();
    let mut m = cache.mutator();
    (1..=6).for_each(|key| make_hot(&cache, &m, key));
    for minute in 1..=20 {
        time.set(minute * 60_000);
        // A miss looks at the clock, and sweeps when it is time.
        assert!(why(&m, 100 + minute).is_some());
        assert!(look(&m, 1).code().is_some());
        assert!(m.get(&2).is_some());
        assert!(m.get_tracked(&3).is_some());
        assert!(cache.lease(&4).is_some());
        // By a thread that did not use it before.
        assert!(look(&cache.mutator(), 6).code().is_some());
        // The first look at the clock after key 5 was used was in the first minute.
        assert_eq!(cache.stats().resident, if minute < 11 { 6 } else { 5 }, "minute {minute}");
    }
    assert_eq!(cache.stats().evicted, 1);
    m.safepoint();
    cache.engine().reclaim();
    assert_eq!(seen.alive.count(), 5, "their memory goes too");
    make_hot(&cache, &m, 5);
    // Without any lookup, by request.
    time.set(60 * 60_000);
    cache.sweep();
    time.set(70 * 60_000);
    cache.sweep();
    assert_eq!(cache.stats().resident, 0);
    assert_eq!(cache.stats().evicted, 7);
}

#[test]
fn c8_what_was_used_since_anybody_looked_at_the_clock_stays_however_long_that_was() {
    let (seen, time) = (Seen::default(), Time::default());
    let cache = timed(&seen, &time).idle_after(Some(Duration::from_secs(600))).build().unwrap();
    let m = cache.mutator();
    (1..=5).for_each(|key| make_hot(&cache, &m, key));
    // None of these looks at the clock.
    for minute in 1..=60 {
        time.set(minute * 60_000);
        assert!(m.get(&1).is_some());
        assert!(cache.lease(&2).is_some());
        assert!(look(&m, 3).code().is_some());
        assert!(cache.mutator().get_tracked(&4).is_some());
    }
    assert_eq!(cache.sweep(), 0, "the sweep itself is the first that does");
    assert!((1..=4).all(|key| m.get(&key).is_some()));
    time.set(70 * 60_000);
    assert_eq!(cache.sweep(), 1, "nobody used it between the two");
    assert!((1..=4).all(|key| m.get(&key).is_some()) && m.get(&5).is_none());
    // A compile sweeps, too.
    time.set(90 * 60_000);
    make_hot(&cache, &m, 6);
    assert!((1..=4).all(|key| m.get(&key).is_some()));
}

#[test]
fn c8_hits_alone_keep_time_moving() {
    let (seen, time) = (Seen::default(), Time::default());
    let cache = timed(&seen, &time).idle_after(Some(Duration::from_secs(600))).build().unwrap();
    let m = cache.mutator();
    (1..=2).for_each(|key| make_hot(&cache, &m, key));
    for minute in 1..=20 {
        time.set(minute * 60_000);
        (0..2_000).for_each(|_| assert!(look(&m, 1).code().is_some()));
    }
    assert!(m.get(&2).is_none());
}

#[test]
fn c8_the_budget_of_bytes_is_kept_batch_by_batch_and_the_least_recently_used_go() {
    const BUDGET: u64 = 100 * 16;
    let (seen, time) = (Seen::default(), Time::default());
    let cache = timed(&seen, &time).byte_budget(BUDGET).idle_after(None).build().unwrap();
    let mut m = cache.mutator();
    let mut newest = 0;
    for round in 0..100 {
        time.set(1_000 * round);
        let fresh = 1_000 + 20 * round..1_000 + 20 * (round + 1);
        fresh.clone().for_each(|key| (0..3).for_each(|_| assert!(why(&m, key).is_some())));
        while cache.engine().run_pending(8) > 0 {
            let stats = cache.stats();
            assert!(stats.code_bytes <= BUDGET && stats.resident <= 100, "{stats}");
        }
        // These are in use all the time, so none of them may go.
        if round == 0 {
            (0..20).for_each(|key| make_hot(&cache, &m, key));
        }
        assert!((0..20).all(|key| look(&m, key).code().is_some()), "round {round}");
        m.safepoint();
        newest = fresh.end - 1;
    }
    assert!(m.get(&newest).is_some() && m.get(&1_000).is_none());
    let stats = cache.stats();
    assert_eq!(stats.evicted + stats.resident, 2_020);
    assert!(stats.resident > 85, "no more than that had to go: {stats}");
    cache.engine().reclaim();
    assert_eq!(seen.alive.count() as u64, stats.resident);
    // C8: it can come back.
    make_hot(&cache, &m, 1_000);
}

#[test]
fn c8_caches_of_one_process_have_budgets_of_their_own() {
    let (seen, time) = (Seen::default(), Time::default());
    let small = timed(&seen, &time).byte_budget(16 * 10).build().unwrap();
    let large = timed(&seen, &time).build().unwrap();
    for cache in [&small, &large] {
        let m = cache.mutator();
        (0..50).for_each(|key| {
            (0..3).for_each(|_| assert!(why(&m, key).is_some()));
            cache.drain(LONG).unwrap();
        });
    }
    assert_eq!(large.stats().resident, 50);
    assert!(small.stats().resident <= 10);
}

#[test]
fn code_that_is_taken_back_is_counted_no_more_and_its_key_gets_hot_again() {
    let seen = Seen::default();
    let cache = inline_cache(&seen);
    let m = cache.mutator();
    (1..=3).for_each(|key| make_hot(&cache, &m, key));
    assert_eq!(cache.stats().code_bytes, 48);
    assert_eq!(cache.engine().invalidate_all(), 3);
    assert_eq!((cache.stats().code_bytes, cache.stats().resident, cache.stats().keys), (0, 0, 3));
    make_hot(&cache, &m, 2);
    assert_eq!((cache.stats().code_bytes, cache.stats().resident, cache.stats().keys), (16, 1, 3));
}

#[test]
fn c9_a_million_keys_that_come_once_take_bounded_memory_and_a_hot_key_after_them_is_promoted_as_ever() {
    let seen = Seen::default();
    // Not a hundredth of the keys would fit the engine.
    let engine = Engine::builder().inline().capacity(1 << 13);
    let cache = CodeCache::builder(seen.tier(3)).engine(engine).cold_limit(1 << 12).build().unwrap();
    let mut m = cache.mutator();
    for key in 0..1_000_000 {
        assert_eq!(m.lookup(&key, &b"once"[..]).interpret(), Some(Interpret::NotReady));
        m.safepoint();
    }
    let stats = cache.stats();
    assert_eq!((stats.keys, stats.aged_out, stats.misses), (4_096, 995_904, 1_000_000));
    assert_eq!(cache.engine().stats().beads, 4_096);
    make_hot(&cache, &m, 1 << 40);
    assert_eq!(seen.keys(), [1 << 40]);
}

#[test]
fn c9_a_key_that_comes_again_and_again_is_promoted_in_the_midst_of_a_flood() {
    let seen = Seen::default();
    let cache = CodeCache::builder(seen.tier(20)).engine(inline_engine()).cold_limit(1_000).build().unwrap();
    let mut m = cache.mutator();
    for key in 1.. {
        assert!(key < 100_000, "starved");
        let _ = m.lookup(&key, &b"once"[..]);
        if key % 900 == 0 && look(&m, 0).code().is_some() {
            break;
        }
        cache.engine().run_pending(1);
        m.safepoint();
    }
    assert_eq!(seen.keys(), [0]);
}

#[test]
fn a_flood_of_one_key_starves_no_other() {
    let seen = Seen::default();
    let engine = Engine::builder().workers(1).capacity(1 << 10);
    let cache = CodeCache::builder(seen.tier(8)).engine(engine).build().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = |key| {
            let mut m = cache.mutator();
            while !done.load(SeqCst) {
                let _ = look(&m, key);
                m.safepoint();
            }
        };
        let _done = Finally(|| done.store(true, SeqCst));
        scope.spawn(move || flood(1_000));
        let m = cache.mutator();
        for key in 0..20 {
            (0..8).for_each(|_| _ = why(&m, key));
        }
        eventually("all of them are promoted", || (0..20).all(|key| m.get(&key).is_some()));
    });
}

#[test]
fn requests_that_wait_are_bounded_and_no_hot_key_is_lost_to_that() {
    let seen = Seen::default();
    let cache = CodeCache::builder(seen.tier(3)).engine(inline_engine()).pending_limit(10).build().unwrap();
    let mut m = cache.mutator();
    let mut rounds = 0;
    while (0..100).any(|key| m.get(&key).is_none()) {
        (0..100).for_each(|key| _ = look(&m, key));
        let stats = cache.stats();
        assert!(stats.queued <= 10 && stats.keys == 100, "{stats}");
        cache.drain(LONG).unwrap();
        m.safepoint();
        rounds += 1;
        assert!(rounds < 100, "{stats}");
    }
    assert!(cache.stats().turned_away > 0);
    // What is asked for by name is not refused.
    (100..200).for_each(|key| cache.compile(&key, &source(key)).unwrap());
    assert_eq!(cache.stats().queued, 100);
}

/// A cache with a second tier, entered at the tenth call, whose code takes 48 bytes.
fn two_tiers(seen: &Seen, time: &Time, first: u32, second: u32) -> CodeCacheBuilder<Key> {
    let alive = seen.alive.clone();
    let above = FnBackend::new(move |job: &mut Job<'_>| {
        assert_eq!(Unit::<Key>::of(job)?.source(), source(*Unit::<Key>::of(job)?.key()));
        Ok(alive.code_at(addr(two)).with_bytes(48))
    });
    let engine = inline_engine().clock(time.clock()).tier(Tier::new(above).policy(Threshold::new(second)));
    CodeCache::builder(seen.tier(first)).engine(engine)
}

#[test]
fn c8_c11_code_of_higher_tiers_is_in_the_budget_the_sweep_and_the_figures() {
    // By way of the first tier, and straight to the second.
    for (first, second) in [(3, 10), (10, 3)] {
        let (seen, time) = (Seen::default(), Time::default());
        let idle = Some(Duration::from_secs(600));
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = told.clone();
        let cache = two_tiers(&seen, &time, first, second)
            .byte_budget(10 * 48)
            .idle_after(idle)
            .on_completion(move |done| hears.lock().unwrap().push((*done.key, done.tier)))
            .build()
            .unwrap();
        let mut m = cache.mutator();
        let mut heat = |key| {
            // Of those used within one millisecond any may go.
            time.set(1_000 * key);
            for _ in 0..12 {
                let _ = look(&m, key);
                cache.drain(LONG).unwrap();
            }
            assert_eq!(look(&m, key).code().map(|code| code.as_ptr()), Some(addr(two)));
            m.safepoint();
        };
        heat(1);
        let stats = cache.stats();
        assert_eq!((stats.resident, stats.code_bytes), (1, 48), "{stats}");
        let last = (1, TierId::new(2).unwrap());
        assert_eq!(told.lock().unwrap().last(), Some(&last));
        (2..=40).for_each(&mut heat);
        let stats = cache.stats();
        assert!(stats.resident <= 10 && stats.code_bytes <= 10 * 48 && stats.evicted >= 30, "{stats}");
        assert_eq!(stats.succeeded, stats.dispatched);
        time.set(60_000);
        cache.sweep();
        time.set(700_000);
        cache.sweep();
        assert_eq!((cache.stats().resident, cache.stats().code_bytes), (0, 0));
    }
}

#[test]
fn c9_keys_that_lose_their_code_all_at_once_are_soon_no_more_than_cold_keys_may_be() {
    let seen = Seen::default();
    let cache = CodeCache::builder(seen.tier(3)).engine(inline_engine()).cold_limit(8).build().unwrap();
    let m = cache.mutator();
    (0..100).for_each(|key| make_hot(&cache, &m, key));
    assert_eq!(cache.stats().keys, 100);
    assert_eq!(cache.engine().invalidate_all(), 100);
    let stats = cache.stats();
    assert!(stats.keys <= 8 && stats.resident == 0, "{stats}");
    assert_eq!(stats.aged_out, 100 - stats.keys);
}
