//! The code cache's profile: what it has learned of its keys goes from run to run.

mod common;
use beadwork::resident::*;
use beadwork::*;
use common::cache::*;
use common::*;
use std::sync::{Arc, Mutex};

/// Keys and tiers.
type Asked = Arc<Mutex<Vec<(Key, u8)>>>;

/// A cache of two tiers, entered at 3 and at 300 calls, with a profile; and what it asked for.
fn remembering(before: &SavedProfile) -> (CodeCache<Key>, Asked) {
    let asked = Asked::default();
    let hears = asked.clone();
    let above = FnBackend::new(|job: &mut Job<'_>| Unit::<Key>::of(job).map(|_| code()));
    let engine = inline_engine().tier(Tier::new(above).policy(Threshold::new(300)));
    let cache = CodeCache::<Key>::builder(Seen::default().tier(3))
        .engine(engine)
        .profile(before.clone(), |key| *key)
        .on_completion(move |done| hears.lock().unwrap().push((*done.key, done.tier.get())))
        .build()
        .unwrap();
    (cache, asked)
}

#[test]
fn d12_keys_that_were_hot_are_asked_for_at_their_first_lookup_at_the_tier_they_had() {
    let run = |before: &SavedProfile, lookups: &[(Key, u32)]| {
        let (cache, asked) = remembering(before);
        let m = cache.mutator();
        for &(key, times) in lookups {
            for _ in 0..times {
                let _ = look(&m, key);
                cache.drain(LONG).unwrap();
            }
        }
        (cache.remember().unwrap(), std::mem::take(&mut *asked.lock().unwrap()))
    };
    let (mut profile, asked) = run(&SavedProfile::empty(7), &[(1, 400), (2, 50), (3, 1), (4, 1)]);
    assert_eq!(asked, [(1, 1), (1, 2), (2, 1)]);
    // Run after run, though nobody counts calls of what has code from the start.
    for _ in 0..20 {
        let (next, asked) = run(&profile, &[(1, 1), (2, 1), (5, 1)]);
        assert_eq!(asked, [(1, 2), (2, 1)]);
        profile = SavedProfile::from_bytes(next.as_bytes(), 7).unwrap();
    }
    assert!(profile.get(3).is_none() && profile.get(5).is_none());
    // What is not looked up any more fades.
    let mut runs = 0;
    while profile.get(1).is_some() {
        profile = run(&profile, &[(2, 1)]).0;
        runs += 1;
        assert!(runs < 20, "{:?}", profile.get(1));
    }
    assert!(profile.get(2).is_some());
    assert!(inline_cache(&Seen::default()).remember().is_none());
}

#[test]
fn d12_keys_whose_code_bailed_out_count_for_longer_before_they_are_asked_for() {
    let (cache, _) = remembering(&SavedProfile::empty(7));
    cache.compile_sync(&1, &source(1), LONG).unwrap();
    let mut bead = None;
    cache.engine().walk(|found| bead = Some(found));
    let version = cache.engine().version(bead.unwrap()).unwrap();
    cache.engine().bailout(bead.unwrap(), BailoutInfo::new(version)).unwrap();
    let m = cache.mutator();
    (0..100).for_each(|_| _ = look(&m, 1));
    let profile = cache.remember().unwrap();
    assert_eq!(profile.get(1).unwrap().bailouts, 1);
    let (cache, asked) = remembering(&profile);
    let m = cache.mutator();
    (0..900).for_each(|_| assert!(look(&m, 1).code().is_none()));
    cache.drain(LONG).unwrap();
    assert!(asked.lock().unwrap().is_empty());
    (0..200).for_each(|_| _ = look(&m, 1));
    cache.drain(LONG).unwrap();
    assert!(m.get(&1).is_some());
}
