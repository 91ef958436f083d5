//! Calls and loops, and what policies ask for because of them.

use crate::model::{Pending, THRESHOLDS, TIERS};
use crate::rig::look::shown;
use crate::rig::{Inner, SITES, entry};
use beadwork::Bead;

/// Iterations of all loops of a function; from 8,000 on an entry that was no good is used again, which the model leaves out.
const MOST_ITERATIONS: u32 = 7_000;

impl Inner {
    pub(super) fn dispatch(&self, of: u8, calls: u8) {
        let Some(bead) = self.pick(of) else { return };
        for _ in 0..calls {
            let m = self.m.borrow();
            let Some(m) = m.as_ref() else { return };
            let code = m.dispatch(bead).map(|code| code.addr());
            let expected = self.with(bead, |function| {
                function.calls += u32::from(function.tier < TIERS);
                function.code.map(entry)
            });
            assert_eq!(code, expected.flatten());
            if expected.is_some() {
                self.adopt(bead, None);
            }
        }
    }

    /// A policy may have asked for a compile: whether it was right to, or to leave it.
    fn adopt(&self, bead: Bead, iterations: Option<u32>) {
        let pending = shown(&self.engine.state(bead).expect("it is live"));
        let mut model = self.model.borrow_mut();
        let (disabled, off) = (model.disabled, model.tiers_off);
        let Some(function) = model.get(bead) else { return };
        function.undisturbed &= !disabled && off == [false; TIERS as usize];
        let calls = function.calls + iterations.unwrap_or(0) / beadwork::ITERATIONS_PER_CALL;
        let first = function.tier == 0 && calls == THRESHOLDS[0] && !function.is_pausing(1);
        let due = function.undisturbed && iterations.is_none() && first;
        assert!(!due || pending == Pending::Queued(1), "{bead} is hot at {calls} calls and {pending:?}");
        if pending == function.pending {
            return;
        }
        let Some(target) = pending.target() else {
            panic!("a call of {bead} cancelled {:?}", function.pending)
        };
        let may = |tier: u8| {
            let above = if iterations.is_some() { tier >= function.tier } else { tier > function.tier };
            above
                && tier <= function.highest()
                && !off[usize::from(tier) - 1]
                && calls >= THRESHOLDS[usize::from(tier) - 1]
                && !function.is_pausing(tier)
        };
        assert!(!disabled && may(target), "{bead} is asked for at {target} by {calls} calls: {function:?}");
        assert!(function.pending.target().is_none_or(|before| before < target));
        function.pending = pending;
        function.shot = None;
    }

    pub(super) fn back_edge(&self, bead: Bead, site: u8, times: u8) {
        let site = 1 + u64::from(site) % SITES;
        let used_up = self.with(bead, |function| {
            function.iterations += u32::from(times);
            function.iterations > MOST_ITERATIONS
        });
        if used_up == Some(true) {
            return;
        }
        for _ in 0..times {
            let m = self.m.borrow();
            let Some(m) = m.as_ref() else { return };
            let found = m.back_edge(bead, site).map(|code| code.addr());
            let mut model = self.model.borrow_mut();
            let function = model.live.iter().find(|function| function.bead == bead);
            let code = function.and_then(|function| Some((function, function.code?)));
            let code = code.filter(|(function, piece)| {
                model.pieces[*piece].sites.contains(&site) && !function.suppressed.contains(&site)
            });
            assert_eq!(found, code.map(|(_, piece)| entry(piece) + site));
            let iterations = model.get(bead).map(|function| function.iterations);
            drop(model);
            if let Some(iterations) = iterations {
                self.adopt(bead, Some(iterations));
            }
        }
    }
}
