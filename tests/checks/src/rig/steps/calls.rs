//! Calls and loops, and what policies ask for because of them.

use crate::rig::look::shown;
use crate::rig::{Inner, entry, loop_entry, site};
use beadwork::Bead;

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

    pub(super) fn native_loop(&self, bead: Bead, number: u8, times: u16) {
        let site = site(number);
        if let Some(m) = &*self.m.borrow() {
            m.native_iterations(bead, site, times.into());
        }
        self.model.borrow_mut().native_iterations(bead, site, times.into());
        self.same_wanted(bead);
    }

    pub(super) fn back_edges(&self, by: usize, bead: Bead, number: u8, times: u8) {
        let site = site(number);
        let times = u32::from(times).min(200) + u32::from(times.saturating_sub(200)) * 100;
        let m = [&self.m, &self.other][by].borrow();
        let Some(m) = m.as_ref() else { return self.nothing_done() };
        for _ in 0..times {
            let found = m.back_edge(bead, site).map(|code| code.addr());
            let piece = self.model.borrow_mut().back_edge(by, bead, site);
            assert_eq!(found, piece.map(|piece| loop_entry(piece, site)));
            self.same_wanted(bead);
        }
    }
}
