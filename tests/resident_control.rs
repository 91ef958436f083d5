//! The code cache: enabling, clearing, pausing, ending.

mod common;
use beadwork::resident::*;
use beadwork::*;
use common::cache::*;
use common::*;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Threads of this process whose name begins so.
fn threads(name: &str) -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, |tasks| {
        let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|comm| comm.starts_with(name)).count()
    })
}

#[test]
fn c2_a_disabled_cache_answers_so_and_starts_no_thread_until_it_is_enabled_and_something_is_hot() {
    let seen = Seen::default();
    let engine = Engine::builder().workers(2).thread_names("c2-pool").capacity(64);
    let cache = CodeCache::builder(seen.tier(3)).engine(engine).disabled().build().unwrap();
    let m = cache.mutator();
    assert!(!cache.is_enabled());
    assert!((0..100).all(|_| why(&m, 1) == Some(Interpret::Disabled)));
    assert!(matches!(cache.compile(&1, &source(1)), Err(CacheError::Refused(PromoteError::Disabled))));
    assert_eq!((cache.stats().hits, cache.stats().misses), (0, 0));
    cache.set_enabled(true).unwrap();
    assert!(cache.is_enabled());
    assert!((0..2).all(|_| why(&m, 1) == Some(Interpret::NotReady)));
    assert_eq!(threads("c2-pool"), 0);
    assert_eq!(why(&m, 1), Some(Interpret::NotReady));
    cache.drain(LONG).unwrap();
    assert!(look(&m, 1).code().is_some());
    // C10, by the name they were given. A thread names itself, in its own time.
    eventually("both threads have their name", || threads("c2-pool") == 2);
}

#[test]
fn c2_disabling_lets_a_running_compile_finish_and_keeps_code() {
    let (backend, inside, go) = held();
    let cache = CodeCache::<Key>::builder(Tier::new(backend).policy(Threshold::new(1)))
        .engine(Engine::builder().workers(1).capacity(64))
        .build()
        .unwrap();
    let m = cache.mutator();
    assert_eq!(why(&m, 1), Some(Interpret::NotReady));
    inside.wait();
    cache.set_enabled(false).unwrap();
    assert_eq!(why(&m, 1), Some(Interpret::Disabled));
    go.open();
    cache.drain(LONG).unwrap();
    assert_eq!(why(&m, 1), Some(Interpret::Disabled));
    assert!(m.get(&1).is_some());
    cache.set_enabled(true).unwrap();
    assert!(look(&m, 1).code().is_some());
}

/// A store that cannot be read the first time.
struct Unreadable(AtomicUsize);

impl Artifacts<Key> for Unreadable {
    fn contains(&self, _: &Key) -> bool {
        false
    }
    fn load(&self, _: &Key, _: &mut Job<'_>) -> Result<Option<CompiledCode>, CompileError> {
        Ok(None)
    }
    fn prepare(&self, _: &Unit<Key>, _: &mut Job<'_>) -> Result<Prepared, CompileError> {
        Err(CompileError::failed("not here"))
    }
    fn keys(&self) -> io::Result<Vec<Key>> {
        match self.0.fetch_add(1, SeqCst) {
            0 => Err(io::Error::other("not mounted yet")),
            1 => panic!("not quite"),
            _ => Ok(vec![]),
        }
    }
    fn clear(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn c2_a_start_that_failed_leaves_the_cache_disabled_and_can_be_tried_again() {
    let seen = Seen::default();
    let builder = || CodeCache::builder(seen.tier(1)).engine(inline_engine()).preload(true);
    let refused = builder().artifacts(Unreadable(AtomicUsize::new(0))).build();
    assert!(matches!(refused, Err(CacheBuildError::Preload(_))));
    let cache = builder().artifacts(Unreadable(AtomicUsize::new(0))).disabled().build().unwrap();
    for _ in 0..2 {
        assert!(cache.set_enabled(true).is_err());
        assert!(!cache.is_enabled());
    }
    cache.set_enabled(true).unwrap();
    assert!(cache.is_enabled());
    assert_eq!(why(&cache.mutator(), 1), Some(Interpret::NotReady));
}

#[test]
fn c6_a_clear_is_done_when_it_returns_also_on_a_disabled_cache() {
    let seen = Seen::default();
    let cache = inline_cache(&seen);
    let mut m = cache.mutator();
    (1..=5).for_each(|key| make_hot(&cache, &m, key));
    assert!(why(&m, 6).is_some());
    cache.set_enabled(false).unwrap();
    assert_eq!(cache.clear_resident(), 6);
    assert!((1..=6).all(|key| m.get(&key).is_none()));
    let stats = cache.stats();
    assert_eq!((stats.keys, stats.resident, stats.code_bytes), (0, 0, 0));
    assert_eq!(seen.alive.count(), 5, "this thread may be in it");
    m.safepoint();
    cache.engine().reclaim();
    assert_eq!(seen.alive.count(), 0);
    assert_eq!(cache.clear_resident(), 0);
    cache.clear_persisted().unwrap();
    // What was cleared comes back as new.
    cache.set_enabled(true).unwrap();
    make_hot(&cache, &m, 1);
}

#[test]
fn p4_a_cleared_compile_that_ends_late_leaves_the_newer_one_and_who_waits_for_it_alone() {
    let seen = Seen::default();
    let (gates, alive) = (Arc::new([Latch::default(), Latch::default()]), seen.alive.clone());
    let (inside, compile, holds) =
        (Arc::new([Latch::default(), Latch::default()]), AtomicUsize::new(0), gates.clone());
    let entered = inside.clone();
    let tier = seen.tier_by(1_000, move |_, _| {
        let number = compile.fetch_add(1, SeqCst);
        entered[number].open();
        holds[number].wait();
        Ok(alive.code())
    });
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let cache = CodeCache::<Key>::builder(tier.batch(1))
        .engine(Engine::builder().workers(2).capacity(64))
        .on_completion(move |done| {
            hears.lock().unwrap().push(matches!(done.outcome, Attempt::Installed { .. }));
        })
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        let wait = || cache.compile_sync(&1, &source(1), LONG);
        let older = scope.spawn(wait);
        inside[0].wait();
        assert_eq!(cache.clear_resident(), 1);
        assert_eq!(older.join().unwrap(), Err(CacheError::Cleared), "told at once");
        let newer = scope.spawn(wait);
        inside[1].wait();
        gates[0].open();
        eventually("the older compile ends", || cache.stats().discarded == 1);
        assert!(cache.mutator().get(&1).is_none() && !newer.is_finished());
        gates[1].open();
        assert_eq!(newer.join().unwrap(), Ok(()));
    });
    assert!(cache.mutator().get(&1).is_some());
    assert_eq!(*heard.lock().unwrap(), [false, true]);
    assert_eq!(seen.alive.count(), 1, "what came too late is freed");
}

#[test]
fn p22_control_of_a_cache_that_never_started_never_blocks() {
    ends(|| {
        let seen = Seen::default();
        let cache = CodeCache::builder(seen.tier(1)).disabled().build().unwrap();
        for _ in 0..10_000 {
            assert_eq!(cache.clear_resident(), 0);
            cache.clear_persisted().unwrap();
            assert_eq!(cache.clear_all().unwrap(), 0);
            let _ = cache.compile(&1, &source(1));
            drop(cache.pause());
        }
        cache.drain(LONG).unwrap();
    });
}

#[test]
fn c12_pauses_nest_never_wait_and_may_come_before_anything_else() {
    let seen = Seen::default();
    let engine = Engine::builder().workers(1).capacity(64);
    let cache = CodeCache::builder(seen.tier(1)).engine(engine).build().unwrap();
    let (outer, inner) = (cache.pause(), cache.pause());
    let m = cache.mutator();
    assert_eq!(why(&m, 1), Some(Interpret::NotReady));
    drop(outer);
    assert!(cache.drain(Duration::from_millis(1)).is_err());
    assert!(seen.keys().is_empty());
    drop(inner);
    cache.drain(LONG).unwrap();
    assert_eq!(seen.keys(), [1]);
    assert!(look(&m, 1).code().is_some());
}

#[test]
fn c13_dropping_the_cache_takes_no_longer_than_its_time_and_compiles_nothing_more() {
    let seen = Seen::default();
    let (inside, go) = (Latch::default(), Latch::default());
    let (entered, may_go) = (inside.clone(), go.clone());
    let tier = seen.tier_by(1, move |_, _| {
        entered.open();
        may_go.wait();
        Ok(code())
    });
    let lives = seen.alive.clone();
    let engine = Engine::builder().workers(2).capacity(1 << 10).close_timeout(Duration::from_millis(1));
    let cache = CodeCache::builder(tier).engine(engine).build().unwrap();
    let m = cache.mutator();
    (0..500).for_each(|key| assert_eq!(why(&m, key), Some(Interpret::NotReady)));
    inside.wait();
    drop(m);
    // The last handle; one compile for each worker is stuck.
    ends(move || drop(cache));
    go.open();
    let Seen { .. } = seen;
    drop(lives);
    let compiled = seen.keys().len();
    assert!((1..=2).contains(&compiled), "{compiled}");
}

#[test]
fn c13_a_quiet_cache_frees_everything_when_it_is_dropped() {
    let seen = Seen::default();
    for workers in [0, 2] {
        let engine = Engine::builder().workers(workers).capacity(1 << 10);
        let cache = CodeCache::builder(seen.tier(1)).engine(engine).build().unwrap();
        let m = cache.mutator();
        (0..100).for_each(|key| assert!(why(&m, key).is_some()));
        cache.drain(LONG).unwrap();
        assert_eq!(seen.alive.count(), 100);
        drop(cache);
        assert!(m.get(&7).is_some(), "a mutator keeps it");
        drop(m);
        assert_eq!(seen.alive.count(), 0);
    }
}

#[test]
fn c10_c11_an_attempt_that_is_given_up_and_comes_back_late_ends_no_newer_one() {
    // Each compile of the key waits at a gate of its own.
    let gates: Arc<Vec<(Latch, Latch)>> = Arc::new((0..2).map(|_| Default::default()).collect());
    let (seen, time, heard) = (Seen::default(), Time::default(), Arc::new(Mutex::new(Vec::new())));
    let (held, tries, alive) = (gates.clone(), AtomicUsize::new(0), seen.alive.clone());
    let tier = seen.tier_by(1_000, move |_, _| {
        let (inside, go) = &held[tries.fetch_add(1, SeqCst)];
        inside.open();
        go.wait();
        Ok(alive.code())
    });
    let hears = heard.clone();
    let cache = CodeCache::<Key>::builder(tier.timeout(Duration::from_secs(1)))
        .engine(Engine::builder().workers(2).capacity(64).clock(time.clock()))
        .on_completion(move |done| hears.lock().unwrap().push(format!("{:?}", done.outcome)))
        .build()
        .unwrap();
    let _go = Finally(|| gates.iter().for_each(|(_, go)| go.open()));
    cache.compile(&1, &source(1)).unwrap();
    gates[0].0.wait();
    time.set(10_000);
    // Its time is over, which whoever waits finds out.
    let waited = cache.compile_sync(&1, &source(1), LONG);
    assert!(matches!(waited, Err(CacheError::Compile(CompileError::TimedOut { .. }))), "{waited:?}");
    cache.compile(&1, &source(1)).unwrap();
    gates[1].0.wait();
    gates[0].1.open();
    eventually("the first comes back", || cache.engine().stats().discarded == 1);
    eventually("and is heard of", || cache.stats().in_flight <= 1);
    gates[1].1.open();
    cache.drain(LONG).unwrap();
    let stats = cache.stats();
    assert_eq!((stats.dispatched, stats.succeeded, stats.failed, stats.in_flight), (2, 1, 1, 0), "{stats}");
    assert_eq!((stats.resident, stats.code_bytes), (1, 16), "{stats}");
    let heard = heard.lock().unwrap();
    assert!(heard.len() == 2 && heard[1].starts_with("Installed"), "{heard:?}");
}
