//! What happened to each function lately, for whoever asks why it runs as it does.
//!
//! A record is written where events are told, on slow paths only, and goes with its function.

use crate::contain::contain;
use crate::engine::Engine;
use crate::error::Stale;
use crate::event::Event;
use crate::id::Bead;
use crate::shared::Shared;
use crate::sync::{Mutex, lock};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Something that happened to a function; see [`Engine::history`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// When, by the engine's clock: to some milliseconds, if it was [given](crate::EngineBuilder::clock) none.
    pub at: Duration,
    /// What.
    pub event: Event,
}

type History = VecDeque<HistoryEntry>;

/// The newest events of each function that had any.
pub(crate) struct Histories {
    /// Entries kept for each function; 0 if none are.
    limit: usize,
    by_bead: Mutex<HashMap<Bead, History>>,
}

impl Histories {
    pub(crate) fn new(limit: usize) -> Histories {
        Histories { limit, by_bead: Mutex::new(HashMap::new()) }
    }

    /// Whether the engine keeps any.
    pub(crate) fn is_kept(&self) -> bool {
        self.limit > 0
    }
}

impl Shared {
    /// Remembers an event. Called where events are told: outside of sections and locks.
    pub(crate) fn remember(&self, event: &Event) {
        let Some(bead) = event.bead().filter(|_| self.histories.is_kept()) else { return };
        let entry = HistoryEntry { at: (self.settings.clock)(), event: event.clone() };
        let (oldest, all) = self.note(bead, entry);
        // Errors of backends are foreign, and so is their drop.
        if let Err(message) = contain(|| drop((oldest, all))) {
            tracing::error!(target: "beadwork", message, "dropping an error of a backend panicked");
        }
    }

    /// Answers what is not remembered any more.
    fn note(&self, bead: Bead, entry: HistoryEntry) -> (Option<HistoryEntry>, Option<History>) {
        let _no_fork = self.gate.enter();
        let mut histories = lock(&self.histories.by_bead);
        let history = histories.entry(bead).or_default();
        let oldest = if history.len() == self.histories.limit { history.pop_front() } else { None };
        history.push_back(entry);
        // Events of different threads come in any order, so that one may follow `Removed`. Whichever is noted last finds the
        // function gone, as each is noted after it happened.
        let gone = self.table.live(bead).is_err();
        (oldest, if gone { histories.remove(&bead) } else { None })
    }
}

impl Engine {
    /// What happened to a function lately, oldest first: promotions, installs, failures and bailouts with their reasons. Empty unless
    /// the engine was built with a [history](crate::EngineBuilder::history). Costs a lock and the clones.
    ///
    /// # Errors
    /// [`Stale`] if the function is not live: its history went with it.
    pub fn history(&self, bead: Bead) -> Result<Vec<HistoryEntry>, Stale> {
        let shared = self.shared();
        let _no_fork = shared.gate.enter();
        shared.table.live(bead)?;
        Ok(lock(&shared.histories.by_bead)
            .get(&bead)
            .map_or_else(Vec::new, |history| history.iter().cloned().collect()))
    }
}
