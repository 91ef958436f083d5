//! A factor for the length of the queue.

use super::scale::Scale;
use super::{Activity, HalfLife, Policy, Verdict};

/// Requests that wait per worker at which [`Policy::scaled_by_load`] doubles the thresholds of a baseline tier:
/// HotSpot's `Tier3LoadFeedback`.
pub const BASELINE_LOAD_FEEDBACK: u32 = 5;

/// Requests that wait per worker at which [`Policy::scaled_by_load`] doubles the thresholds of an optimizing tier:
/// HotSpot's `Tier4LoadFeedback`.
pub const OPTIMIZING_LOAD_FEEDBACK: u32 = 3;

/// A policy whose thresholds grow with its tier's queue; made by [`Policy::scaled_by_load`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScaledByLoad<P> {
    inner: P,
    feedback: u32,
}

impl<P: Policy> ScaledByLoad<P> {
    pub(super) fn new(inner: P, feedback: u32) -> ScaledByLoad<P> {
        ScaledByLoad { inner, feedback }
    }

    fn factor(&self, activity: &Activity) -> f64 {
        if self.feedback == 0 {
            return 1.0;
        }
        let per_doubling = f64::from(self.feedback) * f64::from(activity.workers.max(1));
        f64::from(activity.queued) / per_doubling + 1.0
    }
}

impl<P: Policy> Policy for ScaledByLoad<P> {
    fn decide(&self, activity: &Activity) -> Verdict {
        self.decide_scaled(activity, Scale::ONE)
    }

    fn decide_scaled(&self, activity: &Activity, scale: Scale) -> Verdict {
        self.inner.decide_scaled(activity, scale.times_passing(self.factor(activity)))
    }

    fn half_life(&self) -> Option<HalfLife> {
        self.inner.half_life()
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::backend::FnBackend;
    use crate::code::CompiledCode;
    use crate::engine::Engine;
    use crate::id::Core;
    use crate::job::Job;
    use crate::policy::Threshold;
    use crate::policy::testing::{after, asks};
    use crate::tier::Tier;
    use std::time::Duration;

    fn loaded(queued: u32, workers: u32) -> impl Fn(u32) -> Activity {
        move |calls| Activity { queued, workers, ..after(calls) }
    }

    fn threshold_at(feedback: u32, queued: u32, workers: u32) -> u32 {
        *asks(&Threshold::new(1_000).scaled_by_load(feedback), loaded(queued, workers)).last().unwrap()
    }

    #[test]
    fn thresholds_double_for_each_feedback_of_requests_per_worker() {
        let thresholds = [0, 1, 5, 10, 100].map(|queued| threshold_at(BASELINE_LOAD_FEEDBACK, queued, 1));
        assert_eq!(thresholds, [1_000, 1_200, 2_000, 3_000, 21_000]);
        assert_eq!(threshold_at(OPTIMIZING_LOAD_FEEDBACK, 3, 1), 2_000);
        assert_eq!(
            threshold_at(OPTIMIZING_LOAD_FEEDBACK, 12, 4),
            2_000,
            "a queue shared by more workers is shorter"
        );
    }

    #[test]
    fn without_feedback_or_without_a_queue_nothing_is_scaled() {
        assert_eq!(threshold_at(0, 1_000_000, 1), 1_000);
        assert_eq!(threshold_at(5, 0, 0), 1_000);
    }

    #[test]
    fn a_function_notices_soon_that_the_queue_has_emptied() {
        let policy = Threshold::new(500).scaled_by_load(5);
        // The threshold is a million calls now; the function asks every thousand whether it still is.
        let asked = asks(&policy, |calls| match calls {
            ..5_000 => loaded(10_000, 1)(calls),
            _ => loaded(0, 1)(calls),
        });
        assert_eq!(asked, [1, 1_001, 2_001, 3_001, 4_001, 5_001]);
    }

    #[test]
    fn a_policy_that_waits_long_by_itself_is_not_asked_more_often() {
        let policy = Threshold::new(10_000).scaled_by_load(5);
        assert_eq!(asks(&policy, loaded(5, 1)), [1, 10_001, 15_001, 17_501, 18_751, 19_751, 20_000]);
    }
    /// The longest queue while cohorts of 20 functions, each called `calls` times in turn, become hot one after another,
    /// and one request in 500 calls is compiled.
    fn longest_queue(policy: impl Policy, calls: u32) -> u64 {
        extern "C" fn native() {}
        let backend = FnBackend::new(|_: &mut Job<'_>| Ok(CompiledCode::new(native as *const u8)));
        let tier = Tier::new(backend).policy(policy);
        let engine =
            Engine::builder().capacity(1 << 10).inline().clock(|| Duration::ZERO).tier(tier).build().unwrap();
        let mutator = engine.mutator();
        let (mut called, mut longest) = (0, 0);
        for _ in 0..40 {
            let cohort: Vec<_> = (0..20).map(|core| engine.register(Core::new(core)).unwrap()).collect();
            for _ in 0..calls {
                for &bead in &cohort {
                    mutator.dispatch(bead);
                    called += 1;
                    if called % 500 == 0 {
                        longest = longest.max(engine.stats().queued);
                        engine.run_pending(1);
                    }
                }
            }
        }
        longest
    }

    #[test]
    fn a_stream_of_newly_hot_functions_keeps_the_queue_under_the_formulas_bound() {
        // A request into a queue of q takes 100 * (q / 5 + 1) calls, so with 300 calls each, q is 10 at most.
        let throttled = longest_queue(Threshold::new(100).scaled_by_load(5), 300);
        assert!((2..=10 + 1).contains(&throttled), "{throttled} waited");
        let unthrottled = longest_queue(Threshold::new(100), 300);
        assert!(unthrottled > 100, "{unthrottled} waited without the factor, so the stream is no test");
    }
}
