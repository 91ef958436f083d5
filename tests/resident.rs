//! The code cache: lookups, what they answer and what they count.

mod common;
use beadwork::resident::*;
use beadwork::*;
use common::cache::*;
use common::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

#[test]
fn c1_a_key_is_interpreted_until_it_is_hot_and_then_answers_its_own_code() {
    let compiler = FnBackend::new(|job: &mut Job<'_>| {
        let native = if *Unit::<String>::of(job)?.key() == "one" { one } else { two };
        Ok(CompiledCode::new(addr(native)))
    });
    let tier = Tier::new(compiler).policy(Threshold::new(3));
    let cache = CodeCache::<String>::builder(tier).engine(inline_engine()).build().unwrap();
    let m = cache.mutator();
    let look = |key: &str| m.lookup(&key.to_string(), key.as_bytes()).code().map(|code| code.as_ptr());
    for _ in 0..3 {
        assert_eq!((look("one"), look("two")), (None, None));
    }
    cache.drain(LONG).unwrap();
    for _ in 0..1_000 {
        assert_eq!((look("one"), look("two")), (Some(addr(one)), Some(addr(two))));
    }
    assert_eq!(look("three"), None);
}

#[test]
fn c1_a_lookup_says_why_there_is_no_code() {
    let seen = Seen::default();
    let tier = seen.tier_by(3, |_, _| Err(CompileError::failed("no such thing")));
    let cache = CodeCache::builder(tier).engine(inline_engine()).build().unwrap();
    let m = cache.mutator();
    assert_eq!(m.lookup(&1, &[][..]).interpret(), Some(Interpret::Ineligible));
    (0..3).for_each(|_| assert_eq!(why(&m, 1), Some(Interpret::NotReady)));
    cache.drain(LONG).unwrap();
    assert_eq!(why(&m, 1), Some(Interpret::Failed));
    cache.set_enabled(false).unwrap();
    assert_eq!(why(&m, 1), Some(Interpret::Disabled));
    assert_eq!(seen.keys(), [1], "and it is not tried again at once");
}

#[test]
fn c1_sources_are_fetched_once_for_a_request_and_never_for_a_hit() {
    let seen = Seen::default();
    let cache = inline_cache(&seen);
    let (m, fetched) = (cache.mutator(), AtomicUsize::new(0));
    let look = || {
        let fetch = || {
            fetched.fetch_add(1, SeqCst);
            source(1)
        };
        m.lookup(&1, Lazy::new(fetch)).code().is_some()
    };
    assert!(!look() && !look());
    assert_eq!(fetched.load(SeqCst), 0);
    assert!(!look());
    assert_eq!(fetched.load(SeqCst), 1);
    cache.drain(LONG).unwrap();
    assert!((0..10_000).all(|_| look()));
    assert_eq!(fetched.load(SeqCst), 1);
}

#[test]
fn a_source_that_panics_or_turns_out_too_large_leaves_the_key_interpreted() {
    let seen = Seen::default();
    let cache = inline_cache(&seen);
    let m = cache.mutator();
    let panics = || -> Vec<u8> { panic!("no source") };
    for _ in 0..6 {
        assert!(m.lookup(&1, Lazy::new(panics)).code().is_none());
        cache.drain(LONG).unwrap();
    }
    let lookups = (0..6).map(|_| {
        let answer = m.lookup(&2, Lazy::new(|| vec![0; DEFAULT_SOURCE_LIMIT + 1])).interpret();
        cache.drain(LONG).unwrap();
        answer.unwrap()
    });
    let answers: Vec<_> = lookups.collect();
    assert_eq!(answers[..3], [Interpret::NotReady; 3]);
    assert_eq!(answers[3..], [Interpret::Ineligible; 3]);
    assert!(seen.keys().is_empty());
    assert_eq!(cache.stats().failed, 0, "nothing was compiled, so nothing failed");
    // It is a matter of that lookup's source, not of the key.
    make_hot(&cache, &m, 1);
}

#[test]
fn who_compiles_by_name_hears_that_the_source_cannot_be_fetched_or_is_too_large() {
    let seen = Seen::default();
    let cache = inline_cache(&seen);
    let panics = || Lazy::new(|| -> Vec<u8> { panic!("no source") });
    let large = || Lazy::new(|| vec![0; DEFAULT_SOURCE_LIMIT + 1]);
    let ineligible = CacheError::Ineligible { bytes: None, limit: DEFAULT_SOURCE_LIMIT };
    assert_eq!(cache.compile(&1, panics()), Err(ineligible.clone()));
    assert_eq!(cache.compile(&2, large()), Err(ineligible.clone()));
    assert_eq!(cache.compile_sync(&3, panics(), LONG), Err(ineligible.clone()));
    assert_eq!(cache.compile_sync(&4, large(), LONG), Err(ineligible));
    cache.drain(LONG).unwrap();
    assert!(seen.keys().is_empty());
    for key in 1..=4 {
        cache.compile_sync(&key, &source(key), LONG).unwrap();
        // Not fetched now that there is code.
        cache.compile(&key, panics()).unwrap();
        cache.compile_sync(&key, panics(), LONG).unwrap();
    }
    assert_eq!(seen.keys(), [1, 2, 3, 4]);
}

#[test]
fn a_backend_that_takes_keys_for_another_type_fails_and_says_so() {
    let tier = Tier::new(FnBackend::new(|job: &mut Job<'_>| Unit::<u8>::of(job).map(|_| code())));
    let cache = CodeCache::<Key>::builder(tier).engine(inline_engine()).build().unwrap();
    let error = cache.compile_sync(&1, &source(1), LONG).unwrap_err();
    assert!(error.to_string().contains("no u8"), "{error}");
}

#[test]
fn c1_clones_share_everything() {
    let seen = Seen::default();
    let cache = inline_cache(&seen);
    let other = cache.clone();
    make_hot(&cache, &cache.mutator(), 1);
    assert!(look(&other.mutator(), 1).code().is_some());
    assert_eq!(other.stats(), cache.stats());
    other.clear_resident();
    assert!(look(&cache.mutator(), 1).code().is_none());
}

#[test]
fn c3_ineligible_sources_leave_no_trace() {
    let seen = Seen::default();
    let with = |limit| {
        CodeCache::<Key>::builder(seen.tier(1)).engine(inline_engine()).source_limit(limit).build().unwrap()
    };
    let large = vec![0; DEFAULT_SOURCE_LIMIT + 1];
    for (cache, source, eligible) in [
        (with(DEFAULT_SOURCE_LIMIT), &large[..], false),
        (with(DEFAULT_SOURCE_LIMIT), &large[1..], true),
        (with(0), &large[..], true),
        (with(0), &[][..], false),
    ] {
        let m = cache.mutator();
        let ineligible = Some(Interpret::Ineligible);
        assert_eq!(m.lookup(&1, source).interpret() != ineligible, eligible);
        assert_eq!(m.lookup(&1, Lazy::new(Vec::new).sized(source.len())).interpret() != ineligible, eligible);
        let stats = cache.stats();
        assert_eq!((stats.keys, stats.misses), if eligible { (1, 2) } else { (0, 0) });
        assert_eq!(cache.compile(&1, source).is_ok(), eligible);
        if !eligible {
            let refused = CacheError::Ineligible {
                bytes: Some(source.len()),
                limit: if source.is_empty() { 0 } else { DEFAULT_SOURCE_LIMIT },
            };
            assert_eq!(cache.compile_sync(&1, source, LONG), Err(refused));
            assert_eq!(m.lookup_blocking(&1, source, LONG).interpret(), ineligible);
            assert_eq!(cache.stats(), stats);
        }
    }
}

#[test]
fn c4_a_blocking_cache_compiles_at_the_first_lookup() {
    for workers in [0, 1] {
        let seen = Seen::default();
        let engine = Engine::builder().workers(workers).capacity(64);
        let cache =
            CodeCache::builder(seen.tier(1_000)).engine(engine).disabled().blocking(LONG).build().unwrap();
        assert!(cache.is_enabled(), "that is implied");
        let m = cache.mutator();
        assert!(look(&m, 1).code().is_some() && look(&m, 2).code().is_some() && look(&m, 1).code().is_some());
        assert_eq!(seen.keys(), [1, 2]);
        assert_eq!((cache.stats().hits, cache.stats().misses), (1, 2));
    }
}

#[test]
fn c4_blocking_lookups_and_compiles_work_without_workers_and_never_hang() {
    let seen = Seen::default();
    let cache = inline_cache(&seen);
    let m = cache.mutator();
    assert!(m.lookup_blocking(&1, &source(1), LONG).code().is_some());
    cache.compile_sync(&2, &source(2), LONG).unwrap();
    cache.compile(&3, &source(3)).unwrap();
    assert!(m.get(&2).is_some() && m.get(&3).is_none());
    cache.drain(LONG).unwrap();
    assert!(m.get(&3).is_some());
    // Nobody works, so the wait ends by its time.
    let _paused = cache.pause();
    let waited = cache.compile_sync(&4, &source(4), Duration::from_millis(1));
    assert!(matches!(waited, Err(CacheError::Wait(CompileNowError::Timeout { .. }))), "{waited:?}");
}

#[test]
fn c4_threads_that_wait_for_one_key_share_its_compile_and_its_failure() {
    for fails in [false, true] {
        let seen = Seen::default();
        let (inside, go) = (Latch::default(), Latch::default());
        let (entered, may_go, alive) = (inside.clone(), go.clone(), seen.alive.clone());
        let tier = seen.tier_by(1_000, move |_, _| {
            entered.open();
            may_go.wait();
            if fails { Err(CompileError::failed("as it happens")) } else { Ok(alive.code()) }
        });
        let cache = CodeCache::<Key>::builder(tier)
            .engine(Engine::builder().workers(2).capacity(64))
            .build()
            .unwrap();
        let (results, waiting) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let wait = || {
                waiting.fetch_add(1, SeqCst);
                let result = cache.compile_sync(&1, &source(1), LONG);
                results.lock().unwrap().push(result);
            };
            scope.spawn(wait);
            inside.wait();
            (0..3).for_each(|_| drop(scope.spawn(wait)));
            eventually("they come", || waiting.load(SeqCst) == 4);
            // Those that have not asked yet when it ends find its result, or, of a failed one, ask for one more.
            go.open();
        });
        let results = results.into_inner().unwrap();
        if fails {
            let failed = Err(CacheError::Compile(CompileError::failed("as it happens")));
            assert!(results.iter().all(|result| *result == failed), "{results:?}");
        } else {
            assert_eq!(results, vec![Ok(()); 4]);
            assert_eq!(seen.keys(), [1]);
        }
    }
}

#[test]
fn c5_every_lookup_is_a_hit_or_a_miss_exactly() {
    const THREADS: u64 = 4;
    const LOOKUPS: u64 = 20_000;
    let seen = Seen::default();
    let engine = Engine::builder().workers(1).capacity(1 << 12);
    let cache = CodeCache::builder(seen.tier(3)).engine(engine).build().unwrap();
    let found = AtomicUsize::new(0);
    let start = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cache, found, start) = (&cache, &found, &start);
            scope.spawn(move || {
                let mut m = cache.mutator();
                start.wait();
                for n in 0..LOOKUPS {
                    if look(&m, n % 50 * (thread + 1)).code().is_some() {
                        found.fetch_add(1, SeqCst);
                    }
                    m.safepoint();
                    if n % 4_000 == 0 {
                        cache.clear_resident();
                    }
                }
            });
        }
    });
    let stats = cache.stats();
    assert_eq!(stats.hits, found.load(SeqCst) as u64);
    assert_eq!(stats.hits + stats.misses, THREADS * LOOKUPS);
}

#[test]
fn c5_get_counts_nothing_and_get_tracked_counts_hits_and_misses_and_neither_has_anything_compiled() {
    let seen = Seen::default();
    let cache = inline_cache(&seen);
    let m = cache.mutator();
    for _ in 0..10 {
        assert!(m.get(&1).is_none() && m.get_tracked(&1).is_none());
    }
    assert_eq!((cache.stats().keys, cache.stats().misses), (0, 10));
    make_hot(&cache, &m, 1);
    assert!(m.get(&1).is_some() && m.get_tracked(&1).is_some());
    assert_eq!((cache.stats().hits, cache.stats().misses), (1, 13));
    assert_eq!(cache.lease(&1).unwrap().as_ptr(), m.get(&1).unwrap().as_ptr());
    assert!(cache.lease(&2).is_none());
    assert_eq!(cache.stats().hits, 1);
}

#[test]
fn c10_a_callback_hears_of_every_attempt_and_its_panic_is_contained() {
    let seen = Seen::default();
    let alive = seen.alive.clone();
    let tier = seen.tier_by(3, move |key, job| {
        let unit = Unit::<Key>::of(job)?;
        unit.note_phase("translate", Duration::from_millis(2));
        unit.note_phase("emit", Duration::from_millis(3));
        match key {
            1 => Ok(alive.code().with_compile_time(Duration::from_millis(9))),
            _ => Err(CompileError::failed("not this one")),
        }
    });
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let cache = CodeCache::builder(tier)
        .engine(inline_engine())
        .on_completion(move |done: &Completion<'_, Key>| {
            let ok = match done.outcome {
                Attempt::Installed { bytes } => Ok(bytes),
                Attempt::Failed(error) => Err(error.to_string()),
                Attempt::Discarded => Err("discarded".to_string()),
            };
            let took = if ok.is_ok() { done.duration } else { Duration::ZERO };
            hears.lock().unwrap().push((*done.key, done.purpose, ok, took, done.phases.to_vec()));
            panic!("a callback");
        })
        .build()
        .unwrap();
    let m = cache.mutator();
    make_hot(&cache, &m, 1);
    assert!(cache.compile_sync(&2, &source(2), LONG).is_err());
    let phases = vec![("translate", Duration::from_millis(2)), ("emit", Duration::from_millis(3))];
    let expected = [
        (1, Purpose::Run, Ok(16), Duration::from_millis(9), phases.clone()),
        (2, Purpose::Run, Err("not this one".to_string()), Duration::ZERO, phases),
    ];
    assert_eq!(*heard.lock().unwrap(), expected);
    // P31: nothing came to an end with it.
    make_hot_alone(&cache, 1);
}

fn make_hot_alone(cache: &CodeCache<Key>, key: Key) {
    cache.clear_resident();
    make_hot(cache, &cache.mutator(), key);
}

#[test]
fn c10_sources_are_dumped_by_key_and_backends_may_add_to_them() {
    let folder = std::env::temp_dir().join(format!("beadwork-dump-{}", std::process::id()));
    let _remove = Finally(|| _ = std::fs::remove_dir_all(&folder));
    let seen = Seen::default();
    let alive = seen.alive.clone();
    let tier = seen.tier_by(3, move |_, job| {
        let folder = Unit::<Key>::of(job)?.dump_dir().map(std::path::Path::to_path_buf);
        std::fs::write(folder.unwrap().join("code.ir"), "nothing").map_err(CompileError::because)?;
        Ok(alive.code())
    });
    let builder = CodeCache::builder(tier).engine(inline_engine());
    let cache = builder.dump(&folder, |key: &Key| format!("../key {key}")).build().unwrap();
    make_hot(&cache, &cache.mutator(), 7);
    let read = |file: &str| std::fs::read(folder.join("___key_7").join(file)).unwrap();
    assert_eq!((read("source.bin"), read("code.ir")), (source(7), b"nothing".to_vec()));
}

#[test]
fn c11_statistics_say_what_was_done_and_is_held() {
    let seen = Seen::default();
    let alive = seen.alive.clone();
    let tier =
        seen.tier_by(3, move |key, _| if key < 3 { Ok(alive.code()) } else { Err(CompileError::failed("")) });
    let cache = CodeCache::builder(tier).engine(inline_engine()).build().unwrap();
    let m = cache.mutator();
    (1..=3).for_each(|key| (0..3).for_each(|_| assert!(why(&m, key).is_some())));
    assert_eq!((cache.stats().queued, cache.stats().in_flight), (3, 0));
    cache.drain(LONG).unwrap();
    (0..5).for_each(|_| assert!(look(&m, 1).code().is_some()));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.queued), (5, 9, 0));
    assert_eq!((stats.dispatched, stats.succeeded, stats.failed, stats.discarded), (3, 2, 1, 0));
    assert_eq!((stats.keys, stats.resident, stats.code_bytes, stats.held_bytes), (3, 2, 32, None));
    assert!(stats.to_string().starts_with("Lookups: 5 hits, 9 misses\nKeys: 3, 2 with code, 32 bytes; "));
}

#[test]
fn a_key_runs_through_the_tiers_above_the_caches_with_its_source() {
    let seen = Seen::default();
    let upper = FnBackend::new(|job: &mut Job<'_>| {
        let unit = Unit::<Key>::of(job)?;
        assert_eq!(unit.source(), source(*unit.key()));
        Ok(CompiledCode::new(addr(two)))
    });
    let engine = inline_engine().tier(Tier::new(upper).policy(Threshold::new(20)));
    let cache = CodeCache::builder(seen.tier(3)).engine(engine).build().unwrap();
    let m = cache.mutator();
    let mut entries = Vec::new();
    for _ in 0..40 {
        let entry = look(&m, 1).code().map(|code| code.as_ptr());
        if entries.last() != Some(&entry) {
            entries.push(entry);
        }
        cache.drain(LONG).unwrap();
    }
    assert_eq!(entries, [None, Some(addr(one)), Some(addr(two))]);
}

#[test]
fn c10_keys_have_the_names_the_vm_gives_them_wherever_people_see_them() {
    let names = Arc::new(Mutex::new(Vec::new()));
    let seen = names.clone();
    let tier = Seen::default().tier_by(3, move |_, job| {
        seen.lock().unwrap().push(job.name().map(|name| name.to_string()));
        Ok(code())
    });
    let name = |key: &Key| if *key == 2 { panic!("no name") } else { format!("contract {key}") };
    let cache = CodeCache::<Key>::builder(tier).engine(inline_engine()).names(name).build().unwrap();
    for key in 1..=3 {
        cache.compile_sync(&key, &source(key), LONG).unwrap();
    }
    let name = |key: u64| Some(format!("contract {key}"));
    assert_eq!(*names.lock().unwrap(), [name(1), None, name(3)]);
    let mut listed = Vec::new();
    cache.engine().walk(|bead| listed.extend(cache.engine().name(bead)));
    assert_eq!(listed, [name(1).unwrap().into(), name(3).unwrap().into()]);
}
