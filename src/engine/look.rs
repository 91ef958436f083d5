//! Looking at an engine: what it knows of a function, and what it did.

use super::Engine;
use crate::error::Stale;
use crate::fault::Fault;
use crate::id::{Bead, TierId};
use crate::state::Pending;
use crate::stats::{Stats, read};
use std::time::Duration;

impl Engine {
    /// Whether the handle names a function that is registered now.
    pub fn is_live(&self, bead: Bead) -> bool {
        self.shared().table.live(bead).is_ok()
    }

    /// Whether this engine has handed the handle out, live or not. False proves a stray; true does not prove the
    /// opposite, since two engines hand out equal handles.
    pub fn owns(&self, bead: Bead) -> bool {
        let table = &self.shared().table;
        bead.index() < table.used() && bead.tag() <= u64::from(table.state(bead.index()).load().tag())
    }

    /// How many beads there is room for.
    pub fn capacity(&self) -> u32 {
        self.shared().table.capacity()
    }

    /// What is going on with a function.
    ///
    /// # Errors
    /// [`Stale`] if it is not live; so for every method that returns it.
    pub fn state(&self, bead: Bead) -> Result<BeadState, Stale> {
        let now = self.shared().table.live(bead)?;
        Ok(BeadState {
            tier: now.tier(),
            pending: match now.pending() {
                Pending::None => None,
                Pending::Queued => Some(PendingState::Queued(now.target())),
                Pending::Compiling => Some(PendingState::Compiling(now.target())),
                Pending::Followed => Some(PendingState::CompilingThenQueued(now.target())),
            },
            version: now.version(),
        })
    }

    /// The tier the function runs at.
    pub fn tier(&self, bead: Bead) -> Result<TierId, Stale> {
        self.shared().table.live(bead).map(|state| state.tier())
    }

    /// The version of the function: raised by everything that starts or ends a compile or takes code back.
    pub fn version(&self, bead: Bead) -> Result<u32, Stale> {
        self.shared().table.live(bead).map(|state| state.version())
    }

    /// Calls counted so far. Calls of code that no higher tier waits for are not counted.
    pub fn invocations(&self, bead: Bead) -> Result<u32, Stale> {
        let calls = self.shared().table.budgets.calls(bead.index());
        self.shared().table.live(bead).map(|_| calls)
    }

    /// The failures of a function at a tier since its last success there.
    pub fn fault(&self, bead: Bead, tier: TierId) -> Option<Fault> {
        let _no_fork = self.shared().gate.enter();
        self.shared().faults.get(bead, tier)
    }

    /// Calls `visit` for every function that is live when it is looked at. Costs a read of one word per index ever
    /// used; runs beside everything else.
    pub fn walk(&self, mut visit: impl FnMut(Bead)) {
        let table = &self.shared().table;
        for index in 0..table.used() {
            let state = table.state(index).load();
            if state.live() {
                visit(Bead::new(index, state.tag()));
            }
        }
    }

    /// A snapshot of what the engine did and holds. Costs some locks and a look at every page of the columns.
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let _no_fork = shared.gate.enter();
        let (retired, retired_bytes) = shared.table.grace.waiting();
        let counters = &shared.counters;
        Stats {
            beads: shared.table.live_len().into(),
            capacity: shared.table.capacity().into(),
            requested: read(&counters.requested),
            evicted: read(&counters.evicted),
            loop_tables_refused: read(&counters.loop_tables_refused),
            queued: shared.drain.queued() as u64,
            compiling: shared.drain.compiling().len() as u64,
            installed: read(&counters.installed),
            discarded: read(&counters.discarded),
            failed: read(&counters.failed),
            reclaimed: read(&counters.reclaimed),
            retired: retired as u64,
            code_bytes: read(&counters.code_bytes),
            retired_bytes: retired_bytes as u64,
            column_bytes: (shared.table.resident_bytes()
                + shared.info.resident_bytes()
                + shared.drain.lanes.resident_bytes()) as u64,
            compile_time: Duration::from_nanos(read(&counters.compile_nanos)),
            mutators: shared.table.grace.mutators() as u64,
            deopts: shared.deopts.counters.snapshot(shared.deopts.len(), shared.table.kept.holds()),
        }
    }
}

/// What is going on with a function; see [`Engine::state`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BeadState {
    /// The tier it runs at.
    pub tier: TierId,
    /// What it waits for.
    pub pending: Option<PendingState>,
    /// See [`Engine::version`].
    pub version: u32,
}

/// What a function waits for. It runs as before meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PendingState {
    /// Queued for this tier.
    Queued(TierId),
    /// Being compiled for this tier.
    Compiling(TierId),
    /// Being compiled, and asked for at this higher tier when that ends.
    CompilingThenQueued(TierId),
}
