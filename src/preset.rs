//! Whole configurations by purpose.

use crate::backend::Backend;
use crate::builder::EngineBuilder;
use crate::policy::{Manual, Policy, Threshold};
use crate::tier::Tier;

/// What kind of program the VM runs, as a choice of thresholds and limits; see [`EngineBuilder::preset`].
///
/// The figures are those of Zyntax and Rayzor, whose users asked for them. Thresholds are calls counted from a function's
/// first, for the first compiled tier, the second and so on.
///
/// | preset | thresholds | LLVM | parallel | else |
/// |---|---|---|---|---|
/// | `Default` | 100, 1,000 | | 4 | |
/// | `Development` | 10, 100 | | 2 | block profiling, detailed log |
/// | `Production` | 1,000, 10,000 | | 8 | sampling 1/10 |
/// | `ProductionLlvm` | 1,000, 10,000 | second | 8 | sampling 1/10 |
/// | `Script` | 5, 50, 200 | | 2 | foreground |
/// | `Application` | 10, 100, 500, 2,000 | fourth | 4 | |
/// | `Server` | 5, 50, 200, 500 | fourth | 8 | |
/// | `Benchmark` | 2, 3, 5 | fourth, by hand | 4 | foreground, log |
/// | `Embedded` | | | 1 | interpreter only, no sampling |
/// | `Stress` | 2, 4, 8, 16 | | all | jitter 1, block profiling, log |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Preset {
    /// A balance, where nothing is known of the program.
    #[default]
    Default,
    /// Working on a program: promoted early, profiled by block, and everything is logged.
    Development,
    /// Promoted late, with little overhead for profiles.
    Production,
    /// Production with LLVM as the top tier.
    ProductionLlvm,
    /// Command-line tools and scripts: early code, nothing expensive, repeatable.
    Script,
    /// Desktop programs: quick start, LLVM for what stays hot.
    Application,
    /// Long-running services: everything optimized soon.
    Server,
    /// Measurements: native code almost at once, the last step by hand when warm.
    Benchmark,
    /// Little memory: no tier is entered by itself.
    Embedded,
    /// Testing the VM: functions enter tiers very early, at moments left to chance and repeated by the
    /// [seed](EngineBuilder::seed).
    Stress,
}

/// The figures of a [`Preset`], to be read, or changed before they are [used](EngineBuilder::preset).
///
/// ```
/// use beadwork::Preset;
/// let mut values = Preset::Server.values();
/// assert_eq!(values.thresholds, [5, 50, 200, 500]);
/// values.max_parallel = 2;
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct PresetValues {
    /// Calls at which functions enter the preset's tiers, lowest first. Empty: the interpreter only.
    pub thresholds: &'static [u32],
    /// Which of the preset's tiers is meant for LLVM, counted from 0; `None` if none is. It has no threshold if
    /// it lies behind the last: it is entered by hand, with [`Engine::promote`](crate::Engine::promote).
    pub llvm: Option<usize>,
    /// The most workers that compile for one tier at once; fewer if the engine has fewer.
    pub max_parallel: usize,
    /// Compiles on the thread that asks, at once, instead of in the background: [`EngineBuilder::foreground`].
    pub foreground: bool,
    /// Counts executions of basic blocks; for the VM to read when it generates code.
    pub block_profiling: bool,
    /// Counts one event of so many: [`EngineBuilder::sampling`]. 1 is every event; 0, with no tier to promote to, is
    /// none.
    pub sampling: u32,
    /// Logs every promotion; for the VM to read when it sets up its `tracing` subscriber.
    pub detailed_log: bool,
    /// The [jitter](Policy::jitter) of the thresholds.
    pub jitter: f64,
}

impl PresetValues {
    /// What most presets share.
    const COMMON: PresetValues = PresetValues {
        thresholds: &[],
        llvm: None,
        max_parallel: 4,
        foreground: false,
        block_profiling: false,
        sampling: 1,
        detailed_log: false,
        jitter: 0.0,
    };

    fn policy(&self, tier: usize) -> Option<impl Policy> {
        self.thresholds.get(tier).map(|&calls| Threshold::new(calls).jitter(self.jitter))
    }
}

impl Preset {
    /// Every preset, in the order of the table above.
    pub const ALL: [Preset; 10] = [
        Preset::Default,
        Preset::Development,
        Preset::Production,
        Preset::ProductionLlvm,
        Preset::Script,
        Preset::Application,
        Preset::Server,
        Preset::Benchmark,
        Preset::Embedded,
        Preset::Stress,
    ];

    /// The figures.
    pub const fn values(self) -> PresetValues {
        const COMMON: PresetValues = PresetValues::COMMON;
        const PRODUCTION: PresetValues =
            PresetValues { thresholds: &[1_000, 10_000], max_parallel: 8, sampling: 10, ..COMMON };
        match self {
            Preset::Default => PresetValues { thresholds: &[100, 1_000], ..COMMON },
            Preset::Development => PresetValues {
                thresholds: &[10, 100],
                max_parallel: 2,
                block_profiling: true,
                detailed_log: true,
                ..COMMON
            },
            Preset::Production => PRODUCTION,
            Preset::ProductionLlvm => PresetValues { llvm: Some(1), ..PRODUCTION },
            Preset::Script => {
                PresetValues { thresholds: &[5, 50, 200], max_parallel: 2, foreground: true, ..COMMON }
            }
            Preset::Application => {
                PresetValues { thresholds: &[10, 100, 500, 2_000], llvm: Some(3), ..COMMON }
            }
            Preset::Server => {
                PresetValues { thresholds: &[5, 50, 200, 500], llvm: Some(3), max_parallel: 8, ..COMMON }
            }
            Preset::Benchmark => PresetValues {
                thresholds: &[2, 3, 5],
                llvm: Some(3),
                foreground: true,
                detailed_log: true,
                ..COMMON
            },
            Preset::Embedded => PresetValues { max_parallel: 1, sampling: 0, ..COMMON },
            Preset::Stress => PresetValues {
                thresholds: &[2, 4, 8, 16],
                max_parallel: usize::MAX,
                block_profiling: true,
                detailed_log: true,
                jitter: 1.0,
                ..COMMON
            },
        }
    }
}

impl From<Preset> for PresetValues {
    fn from(preset: Preset) -> PresetValues {
        preset.values()
    }
}

impl EngineBuilder {
    /// Adds one tier for each of the backends, lowest first, with the preset's thresholds and its limit on parallel
    /// compiles. Thresholds for which there is no backend are not used; tiers for which there is no threshold get the policy
    /// [`Manual`]. The preset's sampling and foreground mode are set as well.
    ///
    /// Backends of different types are given as `Arc<dyn Backend>`. Tiers added before stay below: with a first tier of
    /// `Threshold::new(1)` everything is compiled at baseline first, and the preset promotes from there.
    ///
    /// ```
    /// use beadwork::{Backend, CompileError, Engine, FnBackend, Job, Preset, Threshold, Tier};
    /// use std::sync::Arc;
    /// # let compiler = || FnBackend::new(|_: &mut Job<'_>| Err(CompileError::failed("none")));
    /// # let (fast, standard, optimizing) = (compiler(), Arc::new(compiler()), Arc::new(compiler()));
    ///
    /// let engine = Engine::builder()
    ///     .tier(Tier::new(fast).policy(Threshold::new(1)))
    ///     .preset(Preset::Default, [standard as Arc<dyn Backend>, optimizing])
    ///     .build()?;
    /// # Ok::<(), beadwork::BuildError>(())
    /// ```
    #[must_use]
    pub fn preset<B: Backend>(
        self,
        preset: impl Into<PresetValues>,
        backends: impl IntoIterator<Item = B>,
    ) -> Self {
        let values = preset.into();
        let builder = self.sampling(values.sampling);
        let builder = if values.foreground { builder.foreground() } else { builder };
        backends.into_iter().enumerate().fold(builder, |builder, (number, backend)| {
            let tier = Tier::new(backend).max_parallel(values.max_parallel);
            builder.tier(match values.policy(number) {
                Some(policy) => tier.policy(policy),
                None => tier.policy(Manual),
            })
        })
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

    extern "C" fn native() {}

    fn backends(count: usize) -> Vec<impl Backend> {
        (0..count)
            .map(|_| FnBackend::new(|_: &mut Job<'_>| Ok(CompiledCode::new(native as *const u8))))
            .collect()
    }

    /// The call at which one function, called all the time, enters each tier; 0 if it never does.
    fn promotions<const TIERS: usize>(builder: EngineBuilder, calls: u32) -> [u32; TIERS] {
        let engine = builder.capacity(16).inline().build().unwrap();
        let bead = engine.register(Core::new(0)).unwrap();
        let mutator = engine.mutator();
        let mut entered = [0; TIERS];
        for call in 1..=calls {
            mutator.dispatch(bead);
            engine.run_pending(usize::MAX);
            match engine.tier(bead).unwrap().get() {
                0 => (),
                tier => {
                    let first = &mut entered[usize::from(tier) - 1];
                    *first = if *first == 0 { call } else { *first };
                }
            }
        }
        entered
    }

    #[test]
    fn the_figures_are_the_documented_ones() {
        let rows = Preset::ALL.map(|preset| {
            let v = preset.values();
            (
                v.thresholds,
                v.llvm,
                v.max_parallel,
                v.foreground,
                v.block_profiling,
                v.sampling,
                v.detailed_log,
            )
        });
        let expected: [(&[u32], _, _, _, _, _, _); 10] = [
            (&[100, 1_000], None, 4, false, false, 1, false),
            (&[10, 100], None, 2, false, true, 1, true),
            (&[1_000, 10_000], None, 8, false, false, 10, false),
            (&[1_000, 10_000], Some(1), 8, false, false, 10, false),
            (&[5, 50, 200], None, 2, true, false, 1, false),
            (&[10, 100, 500, 2_000], Some(3), 4, false, false, 1, false),
            (&[5, 50, 200, 500], Some(3), 8, false, false, 1, false),
            (&[2, 3, 5], Some(3), 4, true, false, 1, true),
            (&[], None, 1, false, false, 0, false),
            (&[2, 4, 8, 16], None, usize::MAX, false, true, 1, true),
        ];
        assert_eq!(rows, expected);
        assert_eq!(Preset::default(), Preset::Default);
    }
    #[test]
    fn each_backend_is_entered_at_its_threshold() {
        let of =
            |preset: Preset| Engine::builder().preset(preset, backends(preset.values().thresholds.len()));
        assert_eq!(promotions(of(Preset::Application), 2_100), [10, 100, 500, 2_000]);
        assert_eq!(promotions(of(Preset::Default), 1_100), [100, 1_000]);
    }

    #[test]
    fn thresholds_without_a_backend_are_unused_and_backends_without_a_threshold_wait_for_the_vm() {
        let two = Engine::builder().preset(Preset::Server, backends(2));
        assert_eq!(promotions(two, 300), [5, 50]);
        let five = Engine::builder().preset(Preset::Benchmark, backends(5));
        assert_eq!(promotions(five, 3_000), [2, 3, 5, 0, 0]);
        let embedded = Engine::builder().preset(Preset::Embedded, backends(1));
        assert_eq!(promotions(embedded, 3_000), [0]);
    }

    #[test]
    fn a_first_tier_for_everything_goes_below_the_presets_tiers() {
        let builder = backends(1).into_iter().fold(Engine::builder(), |builder, baseline| {
            builder.tier(Tier::new(baseline).policy(Threshold::new(1)))
        });
        assert_eq!(promotions(builder.preset(Preset::Default, backends(2)), 1_100), [1, 100, 1_000]);
    }

    #[test]
    fn stress_promotes_at_moments_that_the_seed_chooses() {
        let seeded =
            |seed| promotions::<4>(Engine::builder().seed(seed).preset(Preset::Stress, backends(4)), 40);
        assert_eq!(seeded(1), seeded(1));
        assert!((2..20).any(|seed| seeded(seed) != seeded(1)));
    }

    #[test]
    fn figures_can_be_changed_before_they_are_used() {
        let mut values = Preset::Default.values();
        values.thresholds = &[7];
        assert_eq!(promotions(Engine::builder().preset(values, backends(2)), 100), [7, 0]);
    }
}
