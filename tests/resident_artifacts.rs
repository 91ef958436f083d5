//! The code cache and what keeps code across processes: asked before compiles, given what is compiled ahead of time.

mod common;
use beadwork::resident::*;
use beadwork::*;
use common::cache::*;
use common::*;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// A store in memory, and what was asked of it.
#[derive(Clone, Default)]
struct Kept(Arc<Inner>);

#[derive(Default)]
struct Inner {
    keys: Mutex<BTreeSet<Key>>,
    /// Keys whose artifacts are broken.
    broken: Mutex<BTreeSet<Key>>,
    loads: AtomicUsize,
    prepared: AtomicUsize,
    full: AtomicBool,
    panics: AtomicBool,
    /// Held up between compiling and keeping.
    hold: Mutex<Option<(Latch, Latch)>>,
}

impl Kept {
    fn with(keys: impl IntoIterator<Item = Key>) -> Kept {
        let kept = Kept::default();
        kept.0.keys.lock().unwrap().extend(keys);
        kept
    }

    fn keys(&self) -> Vec<Key> {
        self.0.keys.lock().unwrap().iter().copied().collect()
    }
}

impl Artifacts<Key> for Kept {
    fn contains(&self, key: &Key) -> bool {
        self.0.keys.lock().unwrap().contains(key)
    }

    fn load(&self, key: &Key, _: &mut Job<'_>) -> Result<Option<CompiledCode>, CompileError> {
        self.0.loads.fetch_add(1, SeqCst);
        assert!(!self.0.panics.load(SeqCst), "a store that panics");
        let usable = self.contains(key) && !self.0.broken.lock().unwrap().contains(key);
        Ok(usable.then(|| CompiledCode::new(addr(two))))
    }

    fn prepare(&self, unit: &Unit<Key>, _: &mut Job<'_>) -> Result<Prepared, CompileError> {
        assert_eq!((unit.source(), unit.purpose()), (&source(*unit.key())[..], Purpose::Prepare));
        self.0.prepared.fetch_add(1, SeqCst);
        if let Some((inside, go)) = &*self.0.hold.lock().unwrap() {
            inside.open();
            go.wait();
        }
        let (kept, key) = (self.clone(), *unit.key());
        let keep = move || {
            if kept.0.full.load(SeqCst) {
                return Err(io::Error::other("no room"));
            }
            let fresh = kept.0.keys.lock().unwrap().insert(key);
            Ok(if fresh { Put::Stored } else { Put::Kept })
        };
        Ok(Prepared::new(code(), keep))
    }

    fn keys(&self) -> io::Result<Vec<Key>> {
        Ok(Kept::keys(self))
    }

    fn clear(&self) -> io::Result<()> {
        self.0.keys.lock().unwrap().clear();
        Ok(())
    }

    fn counts(&self) -> ArtifactCounts {
        let refused = self.0.broken.lock().unwrap().len();
        ArtifactCounts::new(Kept::keys(self).len() as u64, refused as u64)
    }
}

fn cache(seen: &Seen, kept: &Kept) -> CodeCacheBuilder<Key> {
    CodeCache::builder(seen.tier(3)).engine(inline_engine()).artifacts(kept.clone())
}

fn origin(m: &CacheMutator<Key>, key: Key) -> Option<Origin> {
    match look(m, key) {
        Lookup::Compiled { code, origin } => {
            assert_eq!(code.as_ptr() == addr(two), origin == Origin::Loaded);
            Some(origin)
        }
        Lookup::Interpret(_) => None,
    }
}

#[test]
fn c1_c7_a_key_with_an_artifact_is_loaded_at_its_first_lookup_and_the_answer_says_so() {
    let (seen, kept) = (Seen::default(), Kept::with([1]));
    let cache = cache(&seen, &kept).build().unwrap();
    let m = cache.mutator();
    assert_eq!((origin(&m, 1), origin(&m, 2)), (None, None));
    cache.drain(LONG).unwrap();
    // By a thread that used it lately, too.
    assert_eq!([origin(&m, 1), origin(&m, 1)], [Some(Origin::Loaded); 2]);
    make_hot_again(&cache, &m, 2);
    assert_eq!([origin(&m, 2), origin(&m, 2)], [Some(Origin::Compiled); 2]);
    assert_eq!((seen.keys(), cache.stats().loaded, cache.stats().succeeded), (vec![2], 1, 2));
}

fn make_hot_again(cache: &CodeCache<Key>, m: &CacheMutator<Key>, key: Key) {
    (0..3).for_each(|_| _ = look(m, key));
    cache.drain(LONG).unwrap();
}

#[test]
fn c7_an_artifact_that_cannot_be_used_is_compiled_instead_also_if_its_store_panics() {
    for panics in [false, true] {
        let (seen, kept) = (Seen::default(), Kept::with([1]));
        kept.0.broken.lock().unwrap().insert(1);
        kept.0.panics.store(panics, SeqCst);
        let cache = cache(&seen, &kept).build().unwrap();
        let m = cache.mutator();
        make_hot_again(&cache, &m, 1);
        assert_eq!(origin(&m, 1), Some(Origin::Compiled));
        assert_eq!((seen.keys(), cache.stats().failed), (vec![1], 0));
    }
}

#[test]
fn c7_what_is_prepared_is_kept_and_made_resident_and_loaded_by_the_next_process() {
    let (seen, kept) = (Seen::default(), Kept::default());
    let first = cache(&seen, &kept).build().unwrap();
    let m = first.mutator();
    first.prepare(&1, &source(1)).unwrap();
    let many = (2..=50).map(|key| (key, Lazy::new(move || source(key))));
    assert_eq!(first.prepare_batch(many), []);
    let refused = first.prepare_batch([(60, &b""[..])]);
    assert!(matches!(refused[..], [(0, CacheError::Ineligible { .. })]));
    first.drain(LONG).unwrap();
    assert!((1..=50).all(|key| origin(&m, key) == Some(Origin::Compiled)));
    assert_eq!(kept.keys(), (1..=50).collect::<Vec<_>>());
    assert_eq!((first.stats().kept, first.stats().persisted, seen.keys().len()), (50, 50, 0));

    let second = cache(&seen, &kept).preload(true).build().unwrap();
    second.drain(LONG).unwrap();
    let m = second.mutator();
    assert!((1..=50).all(|key| origin(&m, key) == Some(Origin::Loaded)));
    assert_eq!((second.stats().hits, second.stats().misses, second.stats().loaded), (50, 0, 50));
}

#[test]
fn c7_preparing_a_key_that_runs_keeps_its_code_until_the_new_is_there() {
    let (seen, kept) = (Seen::default(), Kept::default());
    let cache = cache(&seen, &kept).build().unwrap();
    let m = cache.mutator();
    make_hot(&cache, &m, 1);
    cache.prepare(&1, &source(1)).unwrap();
    assert_eq!(origin(&m, 1), Some(Origin::Compiled));
    cache.drain(LONG).unwrap();
    assert_eq!((origin(&m, 1), kept.keys()), (Some(Origin::Compiled), vec![1]));
    // There is an artifact now, and that will do.
    cache.prepare(&1, &source(1)).unwrap();
    cache.drain(LONG).unwrap();
    assert_eq!((origin(&m, 1), kept.0.prepared.load(SeqCst)), (Some(Origin::Loaded), 1));
}

#[test]
fn c7_in_ahead_of_time_mode_what_becomes_hot_is_kept() {
    let (seen, kept) = (Seen::default(), Kept::default());
    let cache = cache(&seen, &kept).aot(true).build().unwrap();
    let m = cache.mutator();
    make_hot(&cache, &m, 1);
    cache.compile_sync(&2, &source(2), LONG).unwrap();
    assert_eq!((kept.keys(), seen.keys().len()), (vec![1, 2], 0));
    // Without a place to keep artifacts, the mode changes nothing.
    let without = CodeCache::builder(seen.tier(3)).engine(inline_engine()).aot(true).build().unwrap();
    make_hot(&without, &without.mutator(), 1);
    assert_eq!(without.prepare(&1, &source(1)), Err(CacheError::NoArtifacts));
    assert_eq!((without.preload().unwrap(), seen.keys()), (0, vec![1]));
}

#[test]
fn c7_an_artifact_that_cannot_be_written_runs_all_the_same() {
    let (seen, kept) = (Seen::default(), Kept::default());
    kept.0.full.store(true, SeqCst);
    let cache = cache(&seen, &kept).build().unwrap();
    cache.prepare(&1, &source(1)).unwrap();
    cache.drain(LONG).unwrap();
    assert_eq!(origin(&cache.mutator(), 1), Some(Origin::Compiled));
    assert_eq!((cache.stats().kept, cache.stats().not_kept, cache.stats().failed), (0, 1, 0));
}

#[test]
fn c7_preloading_passes_over_what_cannot_be_used_and_remembers_nothing_of_it() {
    let (seen, kept) = (Seen::default(), Kept::with(0..100));
    kept.0.broken.lock().unwrap().extend((0..100).step_by(2));
    let cache = cache(&seen, &kept).cold_limit(4).build().unwrap();
    assert_eq!(cache.preload().unwrap(), 100);
    cache.drain(LONG).unwrap();
    let stats = cache.stats();
    assert_eq!((stats.keys, stats.resident, stats.loaded, stats.failed), (50, 50, 50, 0));
    let m = cache.mutator();
    assert!((1..100).step_by(2).all(|key| origin(&m, key) == Some(Origin::Loaded)));
    // They are compiled like any other.
    make_hot_again(&cache, &m, 0);
    assert_eq!(origin(&m, 0), Some(Origin::Compiled));
}

#[test]
fn c6_what_is_being_prepared_when_artifacts_are_cleared_is_not_kept() {
    let (seen, kept) = (Seen::default(), Kept::with([7]));
    let (inside, go) = (Latch::default(), Latch::default());
    *kept.0.hold.lock().unwrap() = Some((inside.clone(), go.clone()));
    let engine = Engine::builder().workers(1).capacity(64);
    let cache = CodeCache::builder(seen.tier(3)).engine(engine).artifacts(kept.clone()).build().unwrap();
    cache.prepare(&1, &source(1)).unwrap();
    inside.wait();
    cache.clear_persisted().unwrap();
    assert!(kept.keys().is_empty());
    go.open();
    cache.drain(LONG).unwrap();
    assert_eq!((kept.keys().len(), cache.stats().not_kept), (0, 1));
    let m = cache.mutator();
    assert_eq!(origin(&m, 1), Some(Origin::Compiled), "it runs here all the same");
    // Asked for since, it is kept.
    cache.prepare(&2, &source(2)).unwrap();
    cache.drain(LONG).unwrap();
    assert_eq!(kept.keys(), [2]);
    assert_eq!(cache.clear_all().unwrap(), 2);
    assert!(kept.keys().is_empty() && m.get(&1).is_none());
}

#[test]
fn c7_what_is_prepared_while_it_waits_or_is_compiled_to_run_is_kept_all_the_same() {
    // Waiting, on a cache without threads.
    let (seen, kept) = (Seen::default(), Kept::default());
    let waiting = cache(&seen, &kept).build().unwrap();
    waiting.compile(&1, &source(1)).unwrap();
    waiting.prepare(&1, &source(1)).unwrap();
    // What is prepared runs, too, so this changes nothing.
    waiting.compile(&1, &source(1)).unwrap();
    waiting.drain(LONG).unwrap();
    assert_eq!((kept.keys(), seen.keys().len()), (vec![1], 0));

    // Being compiled.
    let (seen, kept) = (Seen::default(), Kept::default());
    let (inside, go) = (Latch::default(), Latch::default());
    let (entered, may_go) = (inside.clone(), go.clone());
    let tier = seen.tier_by(3, move |_, _| {
        entered.open();
        may_go.wait();
        Ok(code())
    });
    let engine = Engine::builder().workers(1).capacity(64);
    let cache = CodeCache::builder(tier).engine(engine).artifacts(kept.clone()).build().unwrap();
    cache.compile(&1, &source(1)).unwrap();
    inside.wait();
    cache.prepare(&1, &source(1)).unwrap();
    go.open();
    cache.drain(LONG).unwrap();
    assert_eq!((kept.keys(), seen.keys()), (vec![1], vec![1]));
    assert_eq!(cache.stats().kept, 1);
    assert_eq!(origin(&cache.mutator(), 1), Some(Origin::Compiled));
}

#[test]
fn c6_c7_what_is_prepared_again_after_a_clear_is_kept() {
    for running in [false, true] {
        let (seen, kept) = (Seen::default(), Kept::default());
        let (inside, go) = (Latch::default(), Latch::default());
        *kept.0.hold.lock().unwrap() = running.then(|| (inside.clone(), go.clone()));
        let engine = Engine::builder().workers(1).capacity(64);
        let cache = CodeCache::builder(seen.tier(3)).engine(engine).artifacts(kept.clone()).build().unwrap();
        let paused = if running { None } else { Some(cache.pause()) };
        cache.prepare(&1, &source(1)).unwrap();
        if running {
            inside.wait();
        }
        cache.clear_persisted().unwrap();
        cache.prepare(&1, &source(1)).unwrap();
        go.open();
        drop(paused);
        cache.drain(LONG).unwrap();
        assert_eq!(kept.keys(), [1], "running: {running}");
    }
}

#[test]
fn c7_a_prepare_that_meets_the_same_one_makes_no_second_artifact() {
    let (seen, kept) = (Seen::default(), Kept::default());
    let (inside, go) = (Latch::default(), Latch::default());
    *kept.0.hold.lock().unwrap() = Some((inside.clone(), go.clone()));
    let engine = Engine::builder().workers(1).capacity(64);
    let cache = CodeCache::builder(seen.tier(3)).engine(engine).artifacts(kept.clone()).build().unwrap();
    cache.prepare(&1, &source(1)).unwrap();
    inside.wait();
    cache.prepare(&1, &source(1)).unwrap();
    go.open();
    cache.drain(LONG).unwrap();
    assert_eq!((kept.0.prepared.load(SeqCst), cache.stats().dispatched), (1, 1));
}

#[test]
fn c4_c7_a_key_asked_for_while_its_broken_artifact_waits_to_be_loaded_is_compiled() {
    for ask in 0..4 {
        let (seen, kept) = (Seen::default(), Kept::with([1]));
        kept.0.broken.lock().unwrap().insert(1);
        let cache = cache(&seen, &kept).build().unwrap();
        let m = cache.mutator();
        assert_eq!(cache.preload().unwrap(), 1);
        match ask {
            0 => cache.compile(&1, &source(1)).unwrap(),
            1 => cache.compile_sync(&1, &source(1), LONG).unwrap(),
            2 => cache.prepare(&1, &source(1)).unwrap(),
            _ => assert!(m.lookup_blocking(&1, &source(1), LONG).code().is_some()),
        }
        cache.drain(LONG).unwrap();
        assert_eq!(origin(&m, 1), Some(Origin::Compiled), "ask {ask}");
        let stats = cache.stats();
        assert_eq!((stats.keys, stats.resident, stats.failed), (1, 1, 0), "ask {ask}");
        // It does not linger: what is cleared afterwards stays so.
        cache.clear_resident();
        cache.drain(LONG).unwrap();
        assert_eq!((cache.stats().keys, cache.stats().queued), (0, 0));
    }
}

#[test]
fn c9_keys_with_artifacts_are_not_asked_for_beyond_the_limit_either() {
    let (seen, kept) = (Seen::default(), Kept::with(0..100));
    let cache = cache(&seen, &kept).pending_limit(10).build().unwrap();
    let m = cache.mutator();
    (0..100).for_each(|key| assert_eq!(origin(&m, key), None));
    assert_eq!((cache.stats().queued, cache.stats().turned_away), (10, 90));
    cache.drain(LONG).unwrap();
    // None of the others has lost its first lookup to that.
    while cache.stats().resident < 100 {
        let before = cache.stats().resident;
        (0..100).for_each(|key| _ = origin(&m, key));
        cache.drain(LONG).unwrap();
        assert!(cache.stats().resident >= 100.min(before + 10));
    }
    assert_eq!((cache.stats().loaded, seen.keys().len()), (100, 0));
}

#[test]
fn c1_code_that_runs_keeps_its_origin_until_the_new_is_there() {
    let (seen, kept) = (Seen::default(), Kept::with([1]));
    let (inside, go) = (Latch::default(), Latch::default());
    *kept.0.hold.lock().unwrap() = Some((inside.clone(), go.clone()));
    let engine = Engine::builder().workers(1).capacity(64);
    let cache = CodeCache::builder(seen.tier(3)).engine(engine).artifacts(kept.clone()).build().unwrap();
    cache.compile_sync(&1, &source(1), LONG).unwrap();
    let m = cache.mutator();
    assert_eq!(origin(&m, 1), Some(Origin::Loaded));
    cache.clear_persisted().unwrap();
    cache.prepare(&1, &source(1)).unwrap();
    inside.wait();
    let _go = Finally(|| go.open());
    assert_eq!(origin(&m, 1), Some(Origin::Loaded), "it is being made anew");
    go.open();
    cache.drain(LONG).unwrap();
    assert_eq!(origin(&m, 1), Some(Origin::Compiled));
}

#[test]
fn c11_only_what_this_cache_wrote_counts_as_kept() {
    let (seen, kept) = (Seen::default(), Kept::default());
    let (inside, go) = (Latch::default(), Latch::default());
    *kept.0.hold.lock().unwrap() = Some((inside.clone(), go.clone()));
    let engine = Engine::builder().workers(1).capacity(64);
    let cache = CodeCache::builder(seen.tier(3)).engine(engine).artifacts(kept.clone()).build().unwrap();
    cache.prepare(&1, &source(1)).unwrap();
    inside.wait();
    // By another process, meanwhile.
    kept.0.keys.lock().unwrap().insert(1);
    go.open();
    cache.drain(LONG).unwrap();
    cache.prepare(&2, &source(2)).unwrap();
    cache.drain(LONG).unwrap();
    assert_eq!((cache.stats().kept, cache.stats().not_kept, cache.stats().succeeded), (1, 0, 2));
}

#[test]
fn c7_a_key_that_runs_code_of_a_higher_tier_is_not_prepared_and_the_answer_says_so() {
    let (seen, kept) = (Seen::default(), Kept::default());
    let above = FnBackend::new(|job: &mut Job<'_>| Unit::<Key>::of(job).map(|_| code()));
    let engine = inline_engine().tier(Tier::new(above).policy(Threshold::new(5)));
    let cache = CodeCache::builder(seen.tier(3)).engine(engine).artifacts(kept.clone()).build().unwrap();
    let m = cache.mutator();
    for _ in 0..10 {
        let _ = look(&m, 1);
        cache.drain(LONG).unwrap();
    }
    assert_eq!(cache.prepare(&1, &source(1)), Err(CacheError::Optimized));
    cache.clear_resident();
    cache.prepare(&1, &source(1)).unwrap();
    cache.drain(LONG).unwrap();
    assert_eq!((kept.keys(), cache.stats().kept), (vec![1], 1));
}
