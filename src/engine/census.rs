//! All functions at once: which tier they run at, how hot they are, and which are the hottest.

use super::Engine;
use crate::id::{Bead, TierId};
use crate::stats::Stats;
use crate::sync::Arc;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

const TIERS: usize = TierId::MAX.get() as usize + 1;

/// From how many counted calls on a function is warm, and hot; see [`Engine::census`].
///
/// The default is 100 and 1,000, at which Zyntax and Rayzor promote by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeatLimits {
    /// Calls from which a function is warm.
    pub warm: u32,
    /// Calls from which it is hot.
    pub hot: u32,
}

impl Default for HeatLimits {
    fn default() -> HeatLimits {
        HeatLimits { warm: 100, hot: 1_000 }
    }
}

/// How many functions run at each tier, and how hot they are. Prints as two lines:
///
/// ```text
/// Tiered Compilation: 950 Interpreter (T0), 45 Baseline (T1), 5 Optimized (T2)
/// Profile: 1000 functions (5 hot, 45 warm, 950 cold), 1000000 total calls
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Census {
    /// Functions registered and not removed.
    pub functions: u64,
    /// Functions by the tier they run at, the interpreter first; zero for tiers the engine does not have.
    pub tiers: [u64; TIERS],
    /// The engine's highest tier.
    pub top: TierId,
    /// Functions with at least [`HeatLimits::hot`] calls.
    pub hot: u64,
    /// Functions with at least [`HeatLimits::warm`] calls that are not hot.
    pub warm: u64,
    /// All others.
    pub cold: u64,
    /// Calls counted, of all functions together. Calls of code that no higher tier waits for are not counted.
    pub calls: u64,
}

impl Census {
    /// What a tier is called in reports: by its place among the engine's tiers.
    fn name(&self, tier: u8) -> &'static str {
        match (tier, self.top.get()) {
            (0, _) => "Interpreter",
            (1, _) => "Baseline",
            (tier, top) if tier == top => "Optimized",
            _ => "Standard",
        }
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (tier, functions) in (0..=self.top.get()).zip(self.tiers) {
            let before = if tier == 0 { "Tiered Compilation: " } else { ", " };
            write!(f, "{before}{functions} {} (T{tier})", self.name(tier))?;
        }
        write!(
            f,
            "\nProfile: {} functions ({} hot, {} warm, {} cold), {} total calls",
            self.functions, self.hot, self.warm, self.cold, self.calls
        )
    }
}

/// A function and how often it was called; see [`Engine::hot_functions`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HotFunction {
    /// The function.
    pub bead: Bead,
    /// The name given at registration.
    pub name: Option<Arc<str>>,
    /// The tier it runs at.
    pub tier: TierId,
    /// Calls counted so far.
    pub calls: u32,
}

impl fmt::Display for HotFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10} calls  {}  {}", self.calls, self.tier, self.bead)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))
    }
}

/// An engine's [`Census`] and [`Stats`]. Prints as a report of some lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// Functions by tier and heat.
    pub census: Census,
    /// What the engine did and holds.
    pub stats: Stats,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.census, self.stats)
    }
}

impl Engine {
    /// Counts the functions by tier and heat. Costs a read of three words per index ever used; runs beside everything else, so the
    /// sum is of no one instant unless the engine is quiet.
    pub fn census(&self, limits: HeatLimits) -> Census {
        let mut census = Census {
            functions: 0,
            tiers: [0; TIERS],
            top: self.shared().drain.lanes.top(),
            hot: 0,
            warm: 0,
            cold: 0,
            calls: 0,
        };
        self.walk_counted(|_, tier, calls| {
            census.functions += 1;
            census.tiers[usize::from(tier.get())] += 1;
            census.calls += u64::from(calls);
            *match calls {
                calls if calls >= limits.hot => &mut census.hot,
                calls if calls >= limits.warm => &mut census.warm,
                _ => &mut census.cold,
            } += 1;
        });
        census
    }

    /// Functions by the tier they run at, the interpreter first. Costs as [`census`](Engine::census).
    pub fn tier_distribution(&self) -> [u64; TIERS] {
        self.census(HeatLimits::default()).tiers
    }

    /// The `most` functions with the most calls counted, the hottest first. Costs as [`census`](Engine::census), and a heap of `most`.
    pub fn hot_functions(&self, most: usize) -> Vec<HotFunction> {
        let mut hottest = BinaryHeap::new();
        self.walk_counted(|bead, tier, calls| {
            if calls > 0 && most > 0 {
                hottest.push(Reverse((calls, bead, tier)));
                if hottest.len() > most {
                    hottest.pop();
                }
            }
        });
        let named = |Reverse((calls, bead, tier))| HotFunction { bead, name: self.name(bead), tier, calls };
        hottest.into_sorted_vec().into_iter().map(named).collect()
    }

    /// The [census](Engine::census) with default limits, and the [statistics](Engine::stats).
    pub fn report(&self) -> Report {
        Report { census: self.census(HeatLimits::default()), stats: self.stats() }
    }

    fn walk_counted(&self, mut visit: impl FnMut(Bead, TierId, u32)) {
        let table = &self.shared().table;
        for index in 0..table.used() {
            let state = table.state(index).load();
            if state.live() {
                visit(Bead::new(index, state.tag()), state.tier(), table.budgets.calls(index));
            }
        }
    }
}
