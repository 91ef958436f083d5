//! Deoptimization: what is known of failed speculations, who decides, and what is remembered.
//!
//! Compiled code speculates behind guards. A guard that fails leaves the code by a *bailout*, and the VM tells the engine:
//! the [policy](DeoptPolicy) proposes what happens to the code, the [governor] keeps that proposal from becoming a storm, and
//! [`Table::deoptimize`](crate::table::Table::deoptimize) does it.

use crate::contain::contain;
use crate::id::{Bead, TierId};
use crate::sync::{Arc, AtomicUsize, Mutex, lock};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

mod counters;
mod governor;
mod history;
mod policies;

pub(crate) use counters::DeoptCounters;
pub use counters::DeoptStats;
use governor::Ledger;
pub use governor::{
    DEOPT_CYCLE_LIMIT, DEOPT_KEEP_BURST, DEOPT_KEEP_PER_SECOND, DEOPT_REENTRY_CALLS, DEOPT_TIER_LIMIT,
};
pub use history::{BailoutInfo, DeoptDecision, DeoptHistory, Recovery};
pub use policies::{AlwaysRecompile, DeoptPolicy, DeoptThreshold, ExponentialBackoff, TieredDeopt, Tolerate};

/// What is remembered of a function that bailed out. Plain values only, so it is forgotten under the lock.
struct Record {
    history: DeoptHistory,
    ledger: Ledger,
}

impl Record {
    fn new(bead: Bead, tier: TierId, info: BailoutInfo) -> Record {
        let history = DeoptHistory::new(bead, tier, info);
        Record { history, ledger: Ledger::default() }
    }
}

/// The policy, the governor, and what is remembered. Functions that never bailed out are not here.
pub(crate) struct Deopts {
    policy: Arc<dyn DeoptPolicy>,
    governed: bool,
    all: Mutex<HashMap<Bead, Record>>,
    /// How many there are, so that nobody takes the lock while nothing ever bailed out.
    len: AtomicUsize,
    pub(crate) counters: DeoptCounters,
}

impl Deopts {
    pub(crate) fn new(policy: Arc<dyn DeoptPolicy>, governed: bool) -> Deopts {
        let (all, len) = (Mutex::new(HashMap::new()), AtomicUsize::new(0));
        Deopts { policy, governed, all, len, counters: DeoptCounters::default() }
    }

    /// The history as it is if this bailout counts.
    pub(crate) fn view(&self, bead: Bead, tier: TierId, info: BailoutInfo) -> DeoptHistory {
        let all = lock(&self.all);
        let (before, ledger) =
            all.get(&bead).map_or_else(Default::default, |record| (Some(record.history), record.ledger));
        let repeats = ledger.repeats_with(tier, &info);
        before.unwrap_or_else(|| DeoptHistory::new(bead, tier, info)).after(tier, info, repeats)
    }

    /// Asks the policy, which is foreign code: outside every section. One that panics is answered for by a pause.
    pub(crate) fn ask(&self, history: &DeoptHistory) -> Recovery {
        contain(|| self.policy.decide(history)).unwrap_or_else(|message| {
            let _ = contain(|| {
                tracing::error!(target: "beadwork", bead = %history.bead, message, "a deopt policy panicked");
            });
            Recovery::Pause { calls: DEOPT_REENTRY_CALLS }
        })
    }

    /// Has the governor rule, and `act` do it; answers what `act` answered. `None` says that the version was gone, and nothing
    /// is recorded.
    ///
    /// `act` takes the publishing bit. The lock is held meanwhile, so whoever sees that the code is gone finds the pause that goes
    /// with it, and whoever ends the function later finds what to forget.
    pub(crate) fn settle<T>(
        &self,
        view: &DeoptHistory,
        proposal: Recovery,
        now: u32,
        act: impl FnOnce(Recovery) -> Option<(DeoptDecision, T)>,
    ) -> Option<(DeoptDecision, T)> {
        let (bead, tier, info) = (view.bead, view.tier, view.last);
        let mut all = lock(&self.all);
        let is_new = !all.contains_key(&bead);
        all.entry(bead).or_insert_with(|| Record::new(bead, tier, info));
        // Before the code goes: who reads the state afterwards does not pass by the lock (edge DEOPT). Relaxed: the publishing
        // bit orders it.
        if !mutant!("deopt-record-late") {
            self.len.store(all.len(), Relaxed);
        }
        let record = all.get_mut(&bead)?;
        let repeats = record.ledger.repeats_with(tier, &info);
        let mut ledger = record.ledger;
        let ruling = ledger.rule(self.governed, proposal, tier, &info, now);
        let Some((decision, done)) = act(ruling) else {
            if is_new {
                all.remove(&bead);
                self.len.store(all.len(), Relaxed);
            }
            return None;
        };
        if mutant!("deopt-record-late") {
            self.len.fetch_add(1, Relaxed);
        }
        record.history = record.history.after(tier, info, repeats);
        record.history.note(decision);
        record.ledger = ledger;
        self.counters.count(decision, self.governed && ruling != proposal);
        Some((decision, done))
    }

    /// Calls a function has to wait until it may be asked for at `tier`, 0 if it may be.
    pub(crate) fn wait(&self, bead: Bead, tier: TierId, calls: u32) -> u32 {
        self.with(bead, |record| record.ledger.not_before(tier).saturating_sub(calls)).unwrap_or(0)
    }

    pub(crate) fn history(&self, bead: Bead) -> Option<DeoptHistory> {
        self.with(bead, |record| record.history)
    }

    fn with<T>(&self, bead: Bead, look: impl FnOnce(&Record) -> T) -> Option<T> {
        // Relaxed: who has seen the code go, or the bead's end, sees this raised (edge DEOPT).
        if self.len.load(Relaxed) == 0 {
            return None;
        }
        lock(&self.all).get(&bead).map(look)
    }

    /// Forgets a function, because it is gone or because the VM says so.
    pub(crate) fn forget(&self, bead: Bead) -> Option<DeoptHistory> {
        // Relaxed: as in `with`.
        if self.len.load(Relaxed) == 0 {
            return None;
        }
        let mut all = lock(&self.all);
        let forgotten = all.remove(&bead);
        self.len.store(all.len(), Relaxed);
        forgotten.map(|record| record.history)
    }

    /// Functions of which something is remembered.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }
}
