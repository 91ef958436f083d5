//! When is a function worth compiling? A [`Policy`] answers, and is asked only when a budget runs out.

mod activity;
mod boxed;
mod constant;
mod decay;
mod jitter;
mod load;
mod manual;
mod memory;
mod scale;
mod size;
#[cfg(all(test, not(beadwork_loom)))]
mod testing;
mod threshold;
mod tiered;

pub use activity::{Activity, HalfLife, Verdict};
pub use boxed::BoxedPolicy;
pub use constant::Scaled;
pub use decay::Decaying;
pub use jitter::Jittered;
pub use load::{BASELINE_LOAD_FEEDBACK, OPTIMIZING_LOAD_FEEDBACK, ScaledByLoad};
pub use manual::Manual;
pub use memory::{CODE_MEMORY_PRESSURE_FROM, ScaledByCodeMemory};
pub(crate) use scale::Scale;
pub use size::ScaledBySize;
pub use threshold::Threshold;
pub use tiered::Tiered;

/// Decides when functions enter the tier it guards. Any `Fn(&Activity) -> Verdict` is one.
///
/// It is consulted on the mutator's thread at a function's first call and then each time the calls it asked for
/// have passed, never per call, so it may take its time; but it must not block. A panic in it is contained and
/// logged, and it is asked again after 10,000 calls.
///
/// # Combining
/// Every policy can be wrapped by the methods below, in any order and as often as wanted:
///
/// ```
/// use beadwork::{BASELINE_LOAD_FEEDBACK, CODE_MEMORY_PRESSURE_FROM, HalfLife, Policy, Threshold};
/// use std::time::Duration;
///
/// let policy = Threshold::new(500)
///     .decay(HalfLife::Time(Duration::from_secs(10)))
///     .scaled_by_load(BASELINE_LOAD_FEEDBACK)
///     .scaled_by_code_memory(CODE_MEMORY_PRESSURE_FROM)
///     .jitter(0.05);
/// # let _ = policy;
/// ```
///
/// All but [`decay`](Policy::decay) are factors. A factor of 2 doubles the thresholds inside: the wrapped policy is shown
/// half the calls and half the heat (rounded down), and the wait it asks for is stretched to the call at
/// which twice the count it waits for is reached (rounded up, at least 1, saturating). Several factors are multiplied
/// first and divide once, so their order makes no difference. A [`Manual`] policy stays manual under every factor.
///
/// Load and memory pressure can be over long before a wait stretched by them is. So they stretch a wait to 1,000 calls at
/// most, or to what it would be without them if that is longer; the policy is then asked anew.
pub trait Policy: Send + Sync + 'static {
    /// Promote now, or ask again when?
    fn decide(&self, activity: &Activity) -> Verdict;

    /// How fast [`Activity::heat`] fades for this policy; not at all by default. Asked once, when the engine is built. Where the
    /// policies of several tiers differ, that of the next tier up counts.
    fn half_life(&self) -> Option<HalfLife> {
        None
    }

    /// Decides with thresholds multiplied by the product of the factors around this policy. Wrappers pass it on.
    #[doc(hidden)]
    fn decide_scaled(&self, activity: &Activity, scale: Scale) -> Verdict {
        scale.apply(activity, |shown| self.decide(shown))
    }

    /// Makes counts fade, so that only what is hot now is compiled: what was counted a `half_life` ago counts half.
    /// Around a policy that has a half-life, this one replaces it.
    ///
    /// HotSpot's interpreter once halved all counters every 30 seconds or so (`CounterHalfLifeTime`).
    fn decay(self, half_life: HalfLife) -> Decaying<Self>
    where
        Self: Sized,
    {
        Decaying::new(self, half_life)
    }

    /// Multiplies thresholds by a chance factor between `1 - fraction` and `1 + fraction`, drawn anew from
    /// [`Activity::random`] each time the policy is asked. `fraction` is clamped to 0..=1; not a number means 0.
    ///
    /// Without it, a function called in a loop whose length divides the budget is asked for, and switched to native
    /// code, in the same iteration every time. A threshold of n is crossed within `n * (1 ± fraction)`.
    fn jitter(self, fraction: f64) -> Jittered<Self>
    where
        Self: Sized,
    {
        Jittered::new(self, fraction)
    }

    /// Raises thresholds while requests pile up in the tier's lane: they double when `feedback` requests
    /// wait for each worker, and grow linearly with the queue:
    ///
    /// ```text
    /// factor = queued / (feedback * workers) + 1
    /// ```
    ///
    /// [`BASELINE_LOAD_FEEDBACK`] (5) and [`OPTIMIZING_LOAD_FEEDBACK`] (3) are HotSpot's values; 0 turns it off. The
    /// formula is that of `CompilationPolicy::threshold_scale` in HotSpot's
    /// `src/hotspot/share/compiler/compilationPolicy.cpp`, with [`Activity::queued`] and [`Activity::workers`].
    fn scaled_by_load(self, feedback: u32) -> ScaledByLoad<Self>
    where
        Self: Sized,
    {
        ScaledByLoad::new(self, feedback)
    }

    /// Raises thresholds as code memory fills up, from the given fraction of
    /// [`EngineBuilder::code_limit`](crate::EngineBuilder::code_limit) on:
    ///
    /// ```text
    /// factor = exp(limit / free - 1 / (1 - from_fraction))    where the exponent is positive, else 1
    /// ```
    ///
    /// With 0.5 ([`CODE_MEMORY_PRESSURE_FROM`]) the factor is 1 up to half, 7.4 at three quarters and 2,981 at nine tenths.
    /// When no byte is free, or so few that the factor is beyond every number (1 in 711), nothing is promoted, whatever
    /// the wrapped policy says; promotion resumes within 1,000 calls of a function after memory was freed. Without a
    /// limit the factor is 1. The fraction is clamped to 0..=1; 1 means no pressure before memory is full, and not a
    /// number means 0.5.
    ///
    /// The formula is that of `CompilationPolicy::threshold_scale` in HotSpot's
    /// `src/hotspot/share/compiler/compilationPolicy.cpp` with `CodeCache::reverse_free_ratio` and
    /// `IncreaseFirstTierCompileThresholdAt`. There it keeps room for the optimizing tier by holding back the first
    /// one only; for that, wrap only the first tier's policy.
    fn scaled_by_code_memory(self, from_fraction: f64) -> ScaledByCodeMemory<Self>
    where
        Self: Sized,
    {
        ScaledByCodeMemory::new(self, from_fraction)
    }

    /// Multiplies thresholds by the function's size relative to `reference`, from a quarter to four times, because a large
    /// function costs more to compile:
    ///
    /// ```text
    /// factor = clamp(size / reference, 1/4, 4)    where the size is known, else 1
    /// ```
    ///
    /// Both are in the units of [`BeadInfo::size`](crate::BeadInfo::size); a reference of 0 counts as 1. JavaScriptCore
    /// multiplies its thresholds by a curve from 0.9 to 6 fitted to code size
    /// (`CodeBlock::optimizationThresholdScalingFactor`, `Source/JavaScriptCore/bytecode/CodeBlock.cpp`). V8 multiplies its
    /// budgets by bytecode length (`TieringManager::InterruptBudgetFor`, `src/execution/tiering-manager.cc`), and then
    /// counts bytes executed rather than calls.
    fn scaled_by_size(self, reference: u32) -> ScaledBySize<Self>
    where
        Self: Sized,
    {
        ScaledBySize::new(self, reference)
    }

    /// Multiplies thresholds by a constant, like HotSpot's `CompileThresholdScaling`. A factor that is not finite or
    /// not above 0 counts as 1.
    fn scaled(self, factor: f64) -> Scaled<Self>
    where
        Self: Sized,
    {
        Scaled::new(self, factor)
    }

    /// The same policy as a value of one type, whatever was put around it: for configurations that are read while the program
    /// runs. Can be wrapped further.
    fn boxed(self) -> BoxedPolicy
    where
        Self: Sized,
    {
        BoxedPolicy::new(self)
    }
}

impl<F: Fn(&Activity) -> Verdict + Send + Sync + 'static> Policy for F {
    fn decide(&self, activity: &Activity) -> Verdict {
        self(activity)
    }
}
