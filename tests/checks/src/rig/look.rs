//! Compares what can be seen of the engine with the model.

use super::{Events, Inner, SITES, entry, loop_entry, tier};
use crate::faults;
use crate::model::{Function, Model, Pending, TIERS};
use beadwork::{Bead, BeadState, Core, PendingState, TierId};
use std::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Relaxed};

/// How the engine shows what a function waits for.
pub(super) fn shown(state: &BeadState) -> Pending {
    match state.pending {
        None => Pending::None,
        Some(PendingState::Queued(tier)) => Pending::Queued(tier.get()),
        Some(PendingState::Compiling(tier)) => Pending::Compiling(tier.get()),
        Some(PendingState::CompilingThenQueued(tier)) => Pending::Followed(tier.get()),
        Some(other) => panic!("a new kind of waiting: {other:?}"),
    }
}

impl Inner {
    pub(super) fn compare(&self) {
        let wrong = faults::wrong();
        assert!(wrong.is_none(), "within a compile: {wrong:?}");
        // Safe to free: nothing runs here.
        self.back.lock().expect("not poisoned").clear();
        let mut model = self.model.borrow_mut();
        for function in &mut model.live {
            let state = self.engine.state(function.bead).expect("it is live");
            assert!(state.version >= function.version, "versions never fall");
            function.version = state.version;
        }
        for function in &model.live {
            self.compare_function(function);
            let code = function.code.map(|piece| &model.pieces[piece]);
            for site in SITES {
                let there = code.is_some_and(|code| code.sites.contains(&site));
                let there = there && !function.suppressed.contains(&site);
                let expected = function.code.filter(|_| there).map(|piece| loop_entry(piece, site));
                let m = self.m.borrow();
                let found = m.as_ref().and_then(|m| m.osr_entry(function.bead, site)).map(|code| code.addr());
                assert_eq!(found, expected, "{} loop {site}", function.bead);
                let known = function.loops.iter().find(|known| known.site == site);
                let failures = known.map_or(0, |known| known.failures);
                assert_eq!(
                    self.engine.osr_failures(function.bead, site),
                    failures,
                    "no good, or did not come"
                );
            }
            let entries = code.map_or(0, |code| code.sites.len() as u32);
            assert_eq!(self.engine.osr_entries(function.bead), Ok(entries));
        }
        for &bead in model.gone.iter().rev().take(4) {
            self.compare_gone(bead);
        }
        self.compare_told(&mut model);
        let heard = [self.heard[0].load(Relaxed), self.heard[1].load(Relaxed)];
        assert_eq!(heard, [model.told.0, model.told.1], "callbacks hear of everything once");
        let shots = model.live.iter().filter(|function| function.shot.is_some()).count();
        assert_eq!(self.shots.load(Relaxed), shots, "closures are dropped when they are not wanted");
        for &(bead, slot) in self.slots.borrow().iter() {
            let code =
                model.live.iter().find(|function| function.bead == bead).and_then(|function| function.code);
            // SAFETY: the engine lives, and its slots stay where they are.
            #[allow(unsafe_code)]
            let cell: &AtomicPtr<u8> = unsafe { &*slot.as_ptr() };
            assert_eq!(cell.load(Acquire).addr() as u64, code.map_or(0, entry), "slot of {bead}");
        }
        if !self.setup.hands_back {
            for &piece in
                self.answered.iter().flat_map(|answered| answered.borrow().clone()).collect::<Vec<_>>().iter()
            {
                assert_eq!(self.was_freed(piece), 0, "piece {piece} may be running");
            }
        }
        for (lease, piece) in self.leases.borrow().iter() {
            assert_eq!((lease.addr(), self.was_freed(*piece)), (entry(*piece), 0), "leased code stays");
        }
    }

    /// Requests and evictions, in the order of each function.
    fn compare_told(&self, model: &mut Model) {
        let Events { mut requests, evicted } =
            std::mem::take(&mut *self.events.lock().expect("not poisoned"));
        requests.sort_by_key(|request| request.bead.to_bits());
        let mut expected = std::mem::take(&mut model.requests);
        expected.sort_by_key(|request| request.bead.to_bits());
        assert_eq!(requests, expected, "what was asked for, why, and after how many calls");
        assert_eq!(evicted, std::mem::take(&mut model.eviction.evicted), "what was evicted");
        let stats = self.engine.stats();
        assert_eq!(stats.code_bytes - stats.retired_bytes, model.bytes(), "bytes of code");
        let counts =
            [stats.requested, stats.installed, stats.failed, stats.evicted, stats.loop_tables_refused];
        assert_eq!(counts, [model.requested, model.installed, model.failed, model.eviction.count, 0]);
        if self.depth.get() == 0 {
            let discarded = model.begun - model.compiled - model.failed;
            assert_eq!((stats.compiling, stats.discarded), (0, discarded), "each compile comes to something");
        }
    }

    /// Of a batch, functions are claimed before the first of them is compiled.
    pub(super) fn meet_claims(&self) {
        let mut model = self.model.borrow_mut();
        for (bead, pending) in
            model.live.iter().map(|function| (function.bead, function.pending)).collect::<Vec<_>>()
        {
            if let Pending::Queued(tier) = pending
                && self.engine.state(bead).is_ok_and(|state| shown(&state) == Pending::Compiling(tier))
            {
                model.claim(bead, tier);
            }
        }
    }

    fn compare_function(&self, function: &Function) {
        let bead = function.bead;
        let state = self.engine.state(bead).expect("it is live");
        assert_eq!((state.tier.get(), shown(&state)), (function.tier, function.pending), "{bead}");
        let m = self.m.borrow();
        let code = m.as_ref().and_then(|m| m.code(bead)).map(|code| code.addr());
        assert_eq!(code, function.code.map(entry), "code of {bead}");
        assert_eq!(self.engine.core(bead), Ok(Core::new(function.core)));
        assert_eq!(self.engine.invocations(bead), Ok(function.calls), "calls of {bead}");
        for number in 1..=TIERS {
            let failures = self.engine.fault(bead, tier(number)).map_or(0, |fault| fault.failures);
            assert_eq!(
                failures,
                function.faults[usize::from(number) - 1].0,
                "failures of {bead} at {number}"
            );
        }
        for piece in [function.code, function.kept].into_iter().flatten() {
            assert_eq!(self.was_freed(piece), 0, "{bead} uses what is freed");
        }
    }

    /// A handle of a function that is gone answers nothing, for ever.
    fn compare_gone(&self, bead: Bead) {
        let m = self.m.borrow();
        let Some(m) = m.as_ref() else { return };
        assert!(m.dispatch(bead).is_none() && m.code(bead).is_none() && m.osr_entry(bead, 1).is_none());
        assert!(!self.engine.is_live(bead) && self.engine.owns(bead));
        assert!(self.engine.state(bead).is_err() && self.engine.core(bead).is_err());
        assert_eq!(self.engine.fault(bead, TierId::BASELINE), None);
        assert!(self.engine.deopts(bead).is_none() && self.engine.lease(bead).is_none());
    }

    /// Everything that nobody can be in any more is freed, once.
    pub(super) fn compare_freed(&self) {
        let model = self.model.borrow();
        let mut used = vec![false; model.pieces.len()];
        for piece in model.live.iter().flat_map(|function| [function.code, function.kept]).flatten() {
            used[piece] = true;
        }
        self.leases.borrow().iter().for_each(|&(_, piece)| used[piece] = true);
        let freed = self.freed.lock().expect("not poisoned");
        for (piece, used) in used.into_iter().enumerate() {
            assert_eq!(freed[piece], u32::from(!used), "piece {piece}");
        }
        if self.depth.get() == 0 {
            let waiting = model.live.iter().filter(|function| function.pending != Pending::None).count();
            let expected = if self.setup.snapshots { waiting } else { 0 };
            assert_eq!(self.notes.load(Relaxed), expected, "a snapshot for each that waits");
        }
        let stats = self.engine.stats();
        assert_eq!(stats.beads, model.live.len() as u64);
    }
}
