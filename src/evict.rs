//! Eviction: when code memory runs short, code that nobody calls goes.
//!
//! Dispatches of compiled code are not counted, so nobody knows what is cold. A sweep marks some functions: dispatches of
//! their code are counted from then on, by the same flag of the code word by which a higher tier counts. What was not
//! called until a later sweep is taken back; what was is unmarked. That is the second-chance algorithm (Corbató, 1968)
//! with the count for the reference bit; the hot path pays nothing but for marked functions.

use crate::clock;
use crate::drain::Crew;
use crate::event::Event;
use crate::id::{Bead, TierId};
use crate::native::CountingHost;
use crate::shared::Shared;
use crate::state::{Pending, Snapshot};
use crate::stats::{add, read};
use crate::sync::{AtomicU32, Mutex, lock};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The most functions marked at once.
const MARKED: usize = 256;

/// Indices one sweep looks at.
const LOOKED_AT: u32 = 4_096;

/// A function whose dispatches are counted to see whether there are any.
struct Mark {
    bead: Bead,
    code_version: u32,
    calls: u32,
    /// When, in milliseconds of the engine's clock.
    at: u32,
}

#[derive(Default)]
struct Sweeper {
    marks: Vec<Mark>,
    /// The index the next sweep begins at.
    hand: u32,
}

pub(crate) struct Eviction {
    /// How long code has to be without a call; `None` if nothing is evicted.
    idle: Option<Duration>,
    sweeper: Mutex<Sweeper>,
    /// The time of the last sweep, so that they are not more frequent than is of use.
    swept: AtomicU32,
}

impl Eviction {
    pub(crate) fn new(idle: Option<Duration>) -> Eviction {
        Eviction { idle, sweeper: Mutex::default(), swept: AtomicU32::new(0) }
    }
}

/// What a sweep does with one function.
enum Fate {
    Keep,
    Evict(Mark),
}

impl Shared {
    /// Bytes of code that is not retired, if they are more than seven eighths of the limit and code may be evicted.
    fn short_of_memory(&self) -> Option<u64> {
        let limit = self.settings.code_limit.filter(|_| self.eviction.idle.is_some())?;
        let retired = self.table.grace.waiting().1 as u64;
        let bytes = read(&self.counters.code_bytes).saturating_sub(retired);
        (bytes > limit - limit / 8).then(|| bytes - (limit - limit / 8))
    }

    /// Whether a sweep would do something now.
    pub(crate) fn wants_sweep(&self) -> bool {
        let Some(idle) = self.eviction.idle else { return false };
        // Relaxed: only a hint.
        let swept = self.eviction.swept.load(Relaxed);
        self.short_of_memory().is_some() && clock::since(self.now(), swept) >= clock::span(idle) / 2
    }

    /// Takes back code that was not called for a while, if memory is short.
    pub(crate) fn sweep(&self) {
        if !self.wants_sweep() {
            return;
        }
        let (Some(mut excess), Some(idle)) = (self.short_of_memory(), self.eviction.idle) else { return };
        let now = self.now();
        let mut cold = Vec::new();
        {
            let _no_fork = self.gate.enter();
            // What only waits for a revert goes first. It is retired then, so the next sweep sees what that came to.
            if self.table.drop_all_kept() > 0 {
                excess = 0;
            }
            // Relaxed: as above; the lock is what keeps sweeps apart.
            self.eviction.swept.store(now, Relaxed);
            let mut sweeper = lock(&self.eviction.sweeper);
            for mark in std::mem::take(&mut sweeper.marks) {
                if clock::since(now, mark.at) < clock::span(idle) {
                    sweeper.marks.push(mark);
                } else if let Fate::Evict(mark) = self.judge(mark, excess) {
                    let size = self.table.code_bytes(mark.bead) as u64;
                    excess = excess.saturating_sub(size);
                    cold.push((mark, size));
                }
            }
            self.mark_some(&mut sweeper, now);
        }
        for (mark, bytes) in cold {
            // It may have been called since; that is the risk of every cache.
            self.evict(mark.bead, mark.code_version, bytes);
        }
    }

    /// Whether code may go if it is not called. Calls through slots are not counted, except by code that does so itself; and what
    /// waits for a higher tier is not cold.
    fn may_go(&self, state: &Snapshot) -> bool {
        state.live()
            && state.tier() != TierId::INTERPRETER
            && (!state.slotted() || self.counts(state.tier()))
            && state.pending() == Pending::None
    }

    /// What becomes of a marked function, inside a section.
    fn judge(&self, mark: Mark, excess: u64) -> Fate {
        let called = self.table.budgets.calls(mark.bead.index()) != mark.calls;
        // It may have been removed since, asked for, or its slot been taken.
        let may_go = self.table.live(mark.bead).is_ok_and(|state| self.may_go(&state));
        if may_go && !called && excess > 0 && self.table.code_version(mark.bead) == mark.code_version {
            return Fate::Evict(mark);
        }
        self.table.count_dispatches(mark.bead, mark.code_version, None, |tier| self.ticks(tier));
        Fate::Keep
    }

    /// Marks functions from where the last sweep ended, inside a section.
    fn mark_some(&self, sweeper: &mut Sweeper, now: u32) {
        let used = self.table.used();
        for _ in 0..LOOKED_AT.min(used) {
            if sweeper.marks.len() >= MARKED {
                return;
            }
            let index = sweeper.hand % used;
            sweeper.hand = index + 1;
            let state = self.table.state(index).load();
            if !self.may_go(&state) {
                continue;
            }
            let bead = Bead::new(index, state.tag());
            if sweeper.marks.iter().any(|mark| mark.bead == bead) {
                continue;
            }
            let code_version = self.table.code_version(bead);
            // Code that counts its calls itself needs no flag.
            let counted = Some(!self.counts(state.tier()));
            self.table.count_dispatches(bead, code_version, counted, |tier| self.ticks(tier));
            let calls = self.table.budgets.calls(index);
            sweeper.marks.push(Mark { bead, code_version, calls, at: now });
        }
    }

    /// Takes the code that was found cold back, if it is there still and nobody has asked for more since.
    fn evict(&self, bead: Bead, code_version: u32, bytes: u64) {
        let may_go = |state: &Snapshot| self.may_go(state) || mutant!("claim-evicted-unasked");
        let invalidate = || self.table.invalidate_version_if(bead, code_version, may_go);
        let Ok((Some(over), taken)) = self.take_back(bead, invalidate, Option::is_some) else { return };
        self.over(bead, TierId::MAX, over);
        add(&self.counters.evicted, 1);
        self.emit(&Event::Evicted { bead, bytes });
        self.tell_taken(taken);
    }
}
