//! What goes when code memory is short: code that nobody has called since it was marked.

use super::{Model, Pending, TIERS};
use beadwork::Bead;
use std::time::Duration;

/// When code is evicted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) bytes: u64,
    pub(crate) idle: Duration,
}

/// A function that was marked, its code, and its calls by then.
struct Mark {
    bead: Bead,
    version: u32,
    calls: u32,
    at: Duration,
}

#[derive(Default)]
pub(crate) struct Eviction {
    pub(crate) limits: Option<Limits>,
    marks: Vec<Mark>,
    /// The index the next sweep begins at.
    hand: u32,
    swept: Duration,
    /// Since the last comparison.
    pub(crate) evicted: Vec<(Bead, u64)>,
    pub(crate) count: u64,
}

impl Model {
    /// Bytes of code that is not on its way out.
    pub(crate) fn bytes(&self) -> u64 {
        let pieces = self.live.iter().flat_map(|function| [function.code, function.kept]).flatten();
        pieces.map(|piece| self.pieces[piece].bytes).sum()
    }

    /// Somebody who compiles looks after the memory: before it begins, and after each batch.
    pub(crate) fn sweep(&mut self) {
        let Some(Limits { bytes: limit, idle }) = self.eviction.limits else { return };
        let mut excess = self.bytes().saturating_sub(limit - limit / 8);
        if excess == 0 || self.now - self.eviction.swept < idle / 2 {
            return;
        }
        // First what only waits for a revert; what that comes to is for the next sweep to see.
        if self.live.iter_mut().filter_map(|function| function.kept.take()).count() > 0 {
            excess = 0;
        }
        self.eviction.swept = self.now;
        let mut cold = Vec::new();
        for mark in std::mem::take(&mut self.eviction.marks) {
            if self.now - mark.at < idle {
                self.eviction.marks.push(mark);
                continue;
            }
            let Some(function) = self.live.iter_mut().find(|function| function.bead == mark.bead) else {
                continue;
            };
            let Some(piece) = function.code.map(|piece| &self.pieces[piece]) else { continue };
            if piece.version != mark.version {
                continue;
            }
            let spared = function.slotted || function.pending != Pending::None;
            if function.calls == mark.calls && !spared && excess > 0 {
                excess = excess.saturating_sub(piece.bytes);
                cold.push((mark.bead, piece.bytes));
            } else {
                function.watched = false;
            }
        }
        self.mark();
        for (bead, bytes) in cold {
            self.eviction.evicted.push((bead, bytes));
            self.eviction.count += 1;
            self.invalidate(bead);
        }
    }

    /// Marks what may go, from where the last sweep ended; no more at once than there are indices.
    fn mark(&mut self) {
        for _ in 0..self.used {
            let index = self.eviction.hand % self.used;
            self.eviction.hand = index + 1;
            let Some(function) = self.live.iter_mut().find(|function| function.bead.index() == index) else {
                continue;
            };
            let Some(piece) =
                function.code.filter(|_| !function.slotted && function.pending == Pending::None)
            else {
                continue;
            };
            let (bead, version) = (function.bead, self.pieces[piece].version);
            if self.eviction.marks.iter().all(|mark| mark.bead != bead) {
                function.watched = function.tier == TIERS;
                self.eviction.marks.push(Mark { bead, version, calls: function.calls, at: self.now });
            }
        }
    }
}
