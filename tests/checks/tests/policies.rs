//! Policies and profiles for any numbers.

use beadwork::{
    BlockCounters, CompileError, CompiledCode, Core, Engine, FnBackend, HalfLife, Job, Policy, Threshold,
    Tier, TierId,
};
use beadwork_checks::from_env;
use proptest::prelude::*;
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
}
