//! Requests for compiles, and compiles of them.

use crate::model::Asked;
use crate::op::Compile;
use crate::rig::compile::{Shot, run_shot};
use crate::rig::{DEPTH, Inner, tier};
use beadwork::{Bead, CompileNowError, PromoteError, Reason};
use std::time::Duration;

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);

impl Inner {
    /// Whether the engine answered a request as the model did.
    fn same(&self, bead: Bead, expected: Option<Asked>, answer: Result<(), PromoteError>) {
        match (expected, answer) {
            (None, Err(PromoteError::Stale(stale))) => assert_eq!(stale.0, bead),
            (Some(Asked::NoSuchTier), Err(PromoteError::NoSuchTier { .. })) => (),
            // What is wrong in two ways is refused for one of them.
            (None, Err(PromoteError::NoSuchTier { .. } | PromoteError::Disabled)) => (),
            (Some(Asked::Disabled), Err(PromoteError::Disabled)) => (),
            (Some(Asked::Barred(highest)), Err(PromoteError::Barred { cap, .. })) => {
                assert_eq!(cap.get().min(15), highest);
            }
            (Some(Asked::Already | Asked::Queued), Ok(())) => (),
            (expected, answer) => panic!("{bead}: {answer:?} where {expected:?} was expected"),
        }
    }

    pub(super) fn promote(&self, bead: Bead, to: u8) {
        let expected = self.model.borrow_mut().ask(bead, to, Reason::Asked);
        self.same(bead, expected, self.engine.promote(bead, tier(to)));
    }

    pub(super) fn promote_group(&self, group: u8, to: u8) {
        let (group, members) = {
            let model = self.model.borrow();
            if model.groups.is_empty() {
                return self.nothing_done();
            }
            model.groups[usize::from(group) % model.groups.len()].clone()
        };
        let refused = self.engine.promote_group(group, tier(to)).expect("the group is there");
        for bead in self.members(&members) {
            let expected = self.model.borrow_mut().ask(bead, to, Reason::Asked);
            let answer = refused.iter().find(|(of, _)| *of == bead).map_or(Ok(()), |(_, error)| Err(*error));
            self.same(bead, expected, answer);
        }
    }

    pub(super) fn submit(&self, bead: Bead, to: u8) {
        let number = self.shots_made.get();
        self.shots_made.set(number + 1);
        let expected = self.model.borrow_mut().ask(bead, to, Reason::Asked);
        let shot = Shot::new(&self.shots);
        let answer = self.engine.submit(bead, tier(to), move |job| run_shot(shot, number, job));
        let answer = answer.map_err(|refused| refused.reason);
        if expected == Some(Asked::Already) {
            assert!(matches!(answer, Err(PromoteError::Pending { .. })), "{answer:?}");
            return;
        }
        if answer.is_ok() {
            self.with(bead, |function| function.shot = Some(number));
        }
        self.same(bead, expected, answer);
    }

    pub(super) fn run(&self, all: bool, compiles: &[Compile]) {
        if self.depth.get() >= DEPTH {
            return self.nothing_done();
        }
        let outer = self.script.replace(compiles.iter().cloned().collect());
        // What is compiled in between has the model sweep, too.
        self.model.borrow_mut().sweep();
        self.engine.run_pending(if all { usize::MAX } else { 1 });
        self.model.borrow_mut().sweep();
        self.script.replace(outer);
        if all && self.pauses.borrow().is_empty() && self.depth.get() == 0 {
            let model = self.model.borrow();
            for function in &model.live {
                let waits =
                    function.pending.target().is_some_and(|tier| !model.tiers_off[usize::from(tier) - 1]);
                assert!(!waits, "{} waits for ever: {:?}", function.bead, function.pending);
            }
        }
    }

    pub(super) fn compile_now(&self, bead: Bead, to: u8, compiles: &[Compile]) {
        if self.depth.get() > 0 {
            return self.nothing_done();
        }
        let expected = self.model.borrow_mut().ask(bead, to, Reason::Now);
        let stands = !self.pauses.borrow().is_empty() || self.model.borrow().tiers_off.contains(&true);
        // Nothing happens meanwhile that could make it wait for ever.
        let plain = compiles.iter().map(|compile| Compile { meanwhile: Vec::new(), what: compile.what });
        self.script.replace(plain.collect());
        let asked = matches!(expected, Some(Asked::Already | Asked::Queued));
        let compiles = asked && !stands && self.with(bead, |function| function.tier < to) == Some(true);
        if compiles {
            self.model.borrow_mut().sweep();
        }
        let answer = self.engine.compile_now(bead, tier(to), if stands { Duration::ZERO } else { LONG });
        self.script.take();
        if compiles {
            self.model.borrow_mut().sweep();
        }
        match answer {
            Ok(version) => {
                let model = self.model.borrow();
                let function = model.live.iter().find(|function| function.bead == bead).expect("it is live");
                let piece = function.code.expect("it has code");
                assert!(function.tier >= to && model.pieces[piece].version == version);
            }
            Err(CompileNowError::Refused(error)) if !asked => self.same(bead, expected, Err(error)),
            Err(CompileNowError::Timeout { .. }) => assert!(stands),
            // It failed, or a failure at a lower tier has capped it.
            Err(
                CompileNowError::Compile(_) | CompileNowError::Superseded(_) | CompileNowError::Refused(_),
            ) => {
                assert!(asked);
            }
            Err(other) => panic!("{other}"),
        }
    }
}
