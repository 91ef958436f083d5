//! Calls and loops, and what policies ask for because of them.

use crate::model::{Pending, THRESHOLDS, TIERS};
use crate::rig::look::shown;
use crate::rig::{Inner, SITES, entry};
use beadwork::Bead;

/// Iterations of all loops of a function; from 8,000 on an entry that was no good is used again, which the model leaves out.
const MOST_ITERATIONS: u32 = 7_000;

/// Iterations without a break after which a loop's first question has been asked, whatever other loops ran before.
const LONG_LOOP: u32 = 64;

impl Inner {
    pub(super) fn dispatch(&self, number: usize, of: u8, calls: u16) {
        let Some(bead) = self.pick(of) else { return self.nothing_done() };
        let m = [&self.m, &self.other][number].borrow();
        let Some(m) = m.as_ref() else { return self.nothing_done() };
        for _ in 0..calls {
            self.dispatches.set(self.dispatches.get() + 1);
            let code = m.dispatch(bead).map(|code| code.addr());
            self.model.borrow_mut().call(bead);
            let known = self.with(bead, |function| (function.code, function.pending));
            let piece = known.and_then(|(code, _)| code);
            assert_eq!(code, piece.map(entry));
            let mut answered = self.answered[number].borrow_mut();
            if answered.last() != piece.as_ref() {
                answered.extend(piece);
            }
            self.same_wanted(bead);
        }
    }

    /// Policies have asked for what the model says.
    fn same_wanted(&self, bead: Bead) {
        let pending = self.engine.state(bead).ok().map(|state| shown(&state));
        let known = self.with(bead, |function| (function.pending, function.calls));
        let (wanted, calls) = known.unzip();
        assert_eq!(pending, wanted, "what {bead} waits for after {calls:?} calls");
    }

    pub(super) fn native_call(&self, bead: Bead, times: u8) {
        for _ in 0..times {
            if let Some(m) = &*self.m.borrow() {
                m.native_call(bead);
            }
            // A budget of 0 says that the code has counted the call: here, that nothing was granted yet.
            self.with(bead, |function| function.calls += u32::from(function.ask_in > 0));
            self.model.borrow_mut().consult(bead);
            self.same_wanted(bead);
        }
    }

    pub(super) fn native_loop(&self, bead: Bead, site: u8, times: u8) {
        let site = 1 + u64::from(site) % SITES;
        let iterations = self.with(bead, |function| {
            function.iterations += u32::from(times);
            function.iterations
        });
        if iterations.is_some_and(|iterations| iterations > MOST_ITERATIONS) {
            return self.nothing_done();
        }
        if let Some(m) = &*self.m.borrow() {
            m.native_iterations(bead, site, times.into());
        }
        // What it is granted is the interpreted loop's, too, and may be more than that would be.
        self.with(bead, |function| function.undisturbed = false);
        if let Some(iterations) = iterations {
            self.adopt(bead, iterations, 0);
        }
    }

    /// An iteration of a loop may have had a compile asked for: whether it was right to, or to leave it. When exactly loops are
    /// told of is left open, since loops push each other out of a mutator's places.
    fn adopt(&self, bead: Bead, iterations: u32, in_a_row: u32) {
        let pending = shown(&self.engine.state(bead).expect("it is live"));
        let mut model = self.model.borrow_mut();
        let (disabled, off) = (model.disabled, model.tiers_off);
        let Some(function) = model.get(bead) else { return };
        function.undisturbed &= !disabled && off == [false; TIERS as usize];
        let due = function.undisturbed && function.tier == 0 && in_a_row >= LONG_LOOP;
        assert!(!due || pending != Pending::None, "a loop of {bead} runs long, and nothing is asked for");
        if pending == function.pending {
            return;
        }
        let calls = function.calls + iterations / beadwork::ITERATIONS_PER_CALL;
        let Some(target) = pending.target() else {
            panic!("a loop of {bead} cancelled {:?}", function.pending)
        };
        let may = |tier: u8| {
            tier >= function.tier
                && tier <= function.highest()
                && !off[usize::from(tier) - 1]
                && calls >= THRESHOLDS[usize::from(tier) - 1]
                && function.pause(tier, calls) == 0
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
            return self.nothing_done();
        }
        for in_a_row in 1..=u32::from(times) {
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
                self.adopt(bead, iterations, in_a_row);
            }
        }
    }
}
