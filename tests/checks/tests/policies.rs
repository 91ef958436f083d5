//! Policies and profiles for any numbers.

use beadwork::{
    BeadInfo, BlockCounters, CompileError, CompiledCode, Core, Engine, FnBackend, HalfLife, Job, Policy,
    SavedProfile, Threshold, Tier, TierId,
};
use beadwork_checks::from_env;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const T1: TierId = TierId::BASELINE;

/// The call at which a function is asked for, if it is within `most`.
fn asked_at(policy: impl Policy, seed: u64, scale: f64, most: u32) -> Option<u32> {
    let backend = FnBackend::new(|_: &mut Job<'_>| Err(CompileError::Unfinished));
    let tier = Tier::new(backend).policy(policy);
    let engine =
        Engine::builder().capacity(1).inline().seed(seed).clock(|| Duration::ZERO).tier(tier).build();
    let engine = engine.expect("an engine");
    engine.set_threshold_scale(scale);
    let (bead, m) = (engine.register(Core::ZERO).expect("room"), engine.mutator());
    (1..=most).find(|_| {
        let _ = m.dispatch(bead);
        engine.state(bead).is_ok_and(|state| state.pending.is_some())
    })
}

/// The call at which a function is asked for whose calls come in bursts, with so many ticks of the engine after each.
fn asked_in_bursts(policy: impl Policy, (bursts, calls, ticks): (u32, u32, u32)) -> Option<u32> {
    let tier = Tier::new(FnBackend::new(|_: &mut Job<'_>| Err(CompileError::Unfinished))).policy(policy);
    let engine = Engine::builder().capacity(1).inline().clock(|| Duration::ZERO).tier(tier).build();
    let engine = engine.expect("an engine");
    let (bead, m) = (engine.register(Core::ZERO).expect("room"), engine.mutator());
    for burst in 0..bursts {
        for call in 1..=calls {
            m.tick(bead);
            if engine.state(bead).is_ok_and(|state| state.pending.is_some()) {
                return Some(burst * calls + call);
            }
        }
        (0..ticks).for_each(|_| engine.decay_tick());
    }
    None
}

const TAG: u64 = 11;

/// What a run does to a function: its key, calls, and the tier it ends at.
type Done = (u64, u32, u8);

/// Runs a program with these functions that knows `before`; answers the profile after it.
fn run(functions: &[Done], before: &SavedProfile) -> SavedProfile {
    let engine = saving(functions.len() as u32);
    let m = engine.mutator();
    for &(key, calls, tier) in functions {
        let bead = engine.register_with(Core::ZERO, &BeadInfo::new().key(key)).expect("room");
        (0..calls).for_each(|_| m.tick(bead));
        if let Some(tier) = TierId::new(tier).filter(|&tier| tier > TierId::INTERPRETER) {
            engine.install(bead, tier, CompiledCode::new(std::ptr::without_provenance(16))).expect("live");
        }
    }
    engine.remember(before)
}

/// An engine of three tiers that promotes nothing by itself.
fn saving(functions: u32) -> Engine {
    let tier = || {
        let code = |_: &mut Job<'_>| Ok(CompiledCode::new(std::ptr::without_provenance(16)));
        Tier::new(FnBackend::new(code)).policy(beadwork::Manual)
    };
    let builder = Engine::builder().capacity(functions.max(1) as usize).inline();
    builder.tier(tier()).tier(tier()).tier(tier()).build().expect("an engine")
}

/// Some runs of a program whose functions have the keys 1 to 8, each at most once in a run.
fn runs() -> impl Strategy<Value = Vec<Vec<Done>>> {
    let done = (prop_oneof![0..40u32, 0..2_000u32], 0..4u8);
    let functions = prop::collection::btree_map(1..9u64, done, 0..8);
    let flat = |map: BTreeMap<u64, (u32, u8)>| map.into_iter().map(|(key, (calls, tier))| (key, calls, tier));
    prop::collection::vec(functions.prop_map(move |map| flat(map).collect()), 1..7)
}

/// `PROPTEST_CASES` says how many cases.
fn config() -> ProptestConfig {
    let cases = from_env("PROPTEST_CASES", 64) as u32;
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_threshold_is_crossed_at_that_very_call(calls in 0..3_000u32, seed: u64) {
        prop_assert_eq!(asked_at(Threshold::new(calls), seed, 1.0, 4_000), Some(calls.max(1)));
    }

    #[test]
    fn jitter_stays_within_its_fraction(calls in 1..2_000u32, fraction in 0.0..=1.0f64, seed: u64) {
        let at = asked_at(Threshold::new(calls).jitter(fraction), seed, 1.0, 2 * calls + 2).expect("asked for");
        let (least, most) = (f64::from(calls) * (1.0 - fraction), f64::from(calls) * (1.0 + fraction));
        prop_assert!(f64::from(at) + 1.0 >= least && f64::from(at) <= most + 1.0, "{} of {}", at, calls);
    }

    #[test]
    fn a_scale_multiplies_thresholds(calls in 1..500u32, factor in 0.1..8.0f64) {
        let by_policy = asked_at(Threshold::new(calls).scaled(factor), 0, 1.0, 5_000);
        let by_engine = asked_at(Threshold::new(calls), 0, factor, 5_000);
        prop_assert_eq!(by_policy, by_engine);
        let wanted = (f64::from(calls) * factor).max(1.0);
        let at = f64::from(by_policy.expect("asked for"));
        prop_assert!((at - wanted).abs() <= 1.0, "{} for {}", at, wanted);
    }

    #[test]
    fn wrappers_take_any_number(calls: u32, a: f64, b: f64, size: u32, load: u32, seed: u64) {
        let policy = Threshold::new(calls)
            .jitter(a)
            .scaled(b)
            .scaled_by_load(load)
            .scaled_by_size(size)
            .scaled_by_code_memory(a)
            .decay(HalfLife::Ticks(load));
        asked_at(policy, seed, b, 50);
    }

    #[test]
    fn a_profile_says_what_was_counted(counts in prop::collection::vec(0..1_000u64, 1..20)) {
        let kept: Arc<Mutex<Option<BlockCounters>>> = Arc::default();
        let (keeps, blocks) = (kept.clone(), counts.len() as u32);
        let backend = FnBackend::new(move |job: &mut Job<'_>| {
            *keeps.lock().unwrap() = job.block_counters(blocks);
            Ok(CompiledCode::new(std::ptr::without_provenance(16)))
        });
        let nothing = FnBackend::new(|_: &mut Job<'_>| Err(CompileError::Unfinished));
        let engine = Engine::builder()
            .capacity(4)
            .inline()
            .tier(Tier::new(backend).counts_itself(true))
            .tier(Tier::new(nothing))
            .build()
            .expect("an engine");
        let bead = engine.register(Core::ZERO).expect("room");
        engine.promote(bead, T1).expect("accepted");
        engine.run_pending(1);
        let counters = kept.lock().unwrap().take().expect("counters");
        for (block, &count) in (0..).zip(&counts) {
            let address = counters.addr(block).expect("in range");
            // SAFETY: the engine lives, and so do its counters' columns.
            #[allow(unsafe_code)]
            let cell: &AtomicU64 = unsafe { &*std::ptr::with_exposed_provenance(address) };
            cell.fetch_add(count, Relaxed);
        }
        prop_assert_eq!(counters.addr(blocks), None);
        let profile = engine.profile(bead).expect("live").expect("counted");
        prop_assert_eq!(profile.blocks(), &counts[..]);
        for other in 1..blocks {
            let (taken, not) = (counts[0], counts[other as usize]);
            let bias = (taken + not > 0).then(|| taken as f64 / (taken + not) as f64);
            prop_assert_eq!(profile.bias(0, other), bias);
        }
        engine.reset_profile(bead).expect("live");
        let profile = engine.profile(bead).expect("live").expect("counted");
        prop_assert!(profile.blocks().iter().all(|&count| count == 0));
    }

    #[test]
    fn a_higher_threshold_or_factor_never_asks_earlier(
        calls in 1..800u32, more in 0..400u32, (a, b) in (0.1..4.0f64, 0.1..4.0f64), seed: u64
    ) {
        let at = |calls, factor| asked_at(Threshold::new(calls).scaled(factor), seed, 1.0, 6_000).expect("asked for");
        prop_assert!(at(calls, a) <= at(calls + more, a));
        prop_assert!(at(calls, a.min(b)) <= at(calls, a.max(b)));
        let by_size = |reference| asked_at(Threshold::new(calls).scaled_by_size(reference), seed, 1.0, 6_000);
        prop_assert_eq!(by_size(1 + more), Some(calls), "a function of unknown size is as any other");
    }

    #[test]
    fn what_fades_is_asked_for_if_hot_within_a_half_life_never_if_not_and_never_earlier_than_what_does_not(
        calls in 2..200u32, half_life in 1..6u32, bursts in 2..20u32
    ) {
        let ask = |threshold: u32| {
            let policy = Threshold::new(threshold).decay(HalfLife::Ticks(half_life));
            asked_in_bursts(policy, (bursts, calls, half_life))
        };
        prop_assert_eq!(ask(calls), Some(calls), "hot in its first burst");
        // Each half-life halves: bursts of n never come to more than 2n. When within a wait its calls came is estimated.
        prop_assert_eq!(ask(4 * calls + 4), None);
        let (threshold, shape) = (calls + calls / 3, (bursts, calls, half_life));
        let steady = asked_in_bursts(Threshold::new(threshold), shape);
        prop_assert_eq!(steady, (threshold <= bursts * calls).then_some(threshold));
        prop_assert!(ask(threshold).is_none_or(|at| Some(at) >= steady));
    }

    #[test]
    fn profiles_of_many_runs_halve_add_up_and_survive_bytes(runs in runs()) {
        let mut known: BTreeMap<u64, (u32, u8)> = BTreeMap::new();
        let mut profile = SavedProfile::empty(TAG);
        for functions in &runs {
            profile = run(functions, &profile);
            known.values_mut().for_each(|(calls, _)| *calls /= 2);
            for &(key, calls, tier) in functions.iter().filter(|(_, calls, tier)| *calls > 0 || *tier > 0) {
                let old = known.entry(key).or_default();
                // A short run does not make it cold.
                *old = (old.0 + calls, if calls < old.0 { tier.max(old.1) } else { tier });
            }
            // A function that ran compiled is remembered as long as a call is left, others while there are 16.
            known.retain(|_, (calls, tier)| *calls >= if *tier > 0 { 1 } else { 16 });
            let read = SavedProfile::from_bytes(profile.as_bytes(), TAG).expect("it is whole");
            prop_assert_eq!(read.as_bytes(), profile.as_bytes());
            prop_assert_eq!(read.len(), known.len());
            for key in 0..10 {
                let found = read.get(key).map(|known| (known.calls, known.tier.get()));
                prop_assert_eq!(found, known.get(&key).copied(), "key {}", key);
            }
        }
    }

    #[test]
    fn a_profile_with_any_byte_changed_added_or_gone_or_of_something_else_is_refused(
        runs in runs(), at: prop::sample::Index, bit in 0..8u8, tail in prop::collection::vec(any::<u8>(), 1..64)
    ) {
        let profile = runs.iter().fold(SavedProfile::empty(TAG), |before, functions| run(functions, &before));
        let whole = profile.as_bytes().to_vec();
        let refused = |bytes: &[u8]| SavedProfile::from_bytes(bytes, TAG).is_err();
        let (mut changed, mut longer) = (whole.clone(), whole.clone());
        changed[at.index(whole.len())] ^= 1 << bit;
        longer.extend(tail);
        prop_assert!(refused(&changed) && refused(&longer) && refused(&whole[..at.index(whole.len())]));
        prop_assert!(SavedProfile::from_bytes(&whole, TAG + 1).is_err() && !refused(&whole));
    }

    #[test]
    fn what_is_recalled_is_promoted_or_refused_or_left_and_never_two_of_these(
        runs in runs(), blacklisted in any::<u16>(), caps in prop::collection::vec(0..5u8, 9)
    ) {
        let profile = runs.iter().fold(SavedProfile::empty(TAG), |before, functions| run(functions, &before));
        let engine = saving(9);
        let beads: Vec<_> = (0..9).map(|key| {
            let info = BeadInfo::new().key(key + 1);
            engine.register_with(Core::ZERO, &info).expect("room")
        }).collect();
        for (number, &bead) in beads.iter().enumerate() {
            engine.set_tier_cap(bead, TierId::new(caps[number]).expect("in range")).expect("live");
            if blacklisted >> number & 1 == 1 {
                engine.blacklist(bead).expect("live");
            }
        }
        let recalled = engine.recall(&profile);
        let (mut promoted, mut unknown, mut refused) = (0, 0, Vec::new());
        for (number, &bead) in beads.iter().enumerate() {
            let pending = engine.state(bead).expect("live").pending.is_some();
            let known = profile.get(number as u64 + 1);
            let barred = blacklisted >> number & 1 == 1;
            let wanted = known.map_or(TierId::INTERPRETER, |known| known.tier);
            let may = !barred && wanted.get() <= caps[number];
            prop_assert_eq!(pending, wanted > TierId::INTERPRETER && may, "{}", bead);
            promoted += usize::from(pending);
            unknown += usize::from(known.is_none());
            refused.extend((wanted > TierId::INTERPRETER && !may).then_some(bead));
        }
        let mut told: Vec<_> = recalled.refused.iter().map(|(bead, _)| *bead).collect();
        told.sort_by_key(|bead| bead.index());
        prop_assert_eq!((recalled.promoted, recalled.unknown, told), (promoted, unknown, refused));
        prop_assert_eq!(recalled.delayed, 0);
        engine.run_pending(usize::MAX);
        let running = beads.iter().filter(|&&bead| engine.tier(bead).expect("live") > TierId::INTERPRETER).count();
        prop_assert_eq!(running, promoted);
    }
}
