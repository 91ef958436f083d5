//! Code comes and goes: what the VM installs, takes back and is told of.

use crate::model::{Delivered, Pending, TIERS};
use crate::op::{Made, Proposal};
use crate::rig::{Inner, PROPOSAL, tier};
use beadwork::{BailoutInfo, Bead, Delivery, DeoptDecision, Recovery, Reloaded, TierId};

impl Inner {
    pub(super) fn install(&self, bead: Bead, to: u8, made: Made) {
        let (piece, code) = self.make(made, &[], &[]);
        let live = self.with(bead, |_| ()).is_some();
        let broken = self.model.borrow().is_in_vain(piece);
        let good = live && !broken && (1..=TIERS).contains(&to);
        match self.engine.install(bead, tier(to), code) {
            Ok(version) => {
                assert!(good, "{bead} at {to}");
                self.model.borrow_mut().install(bead, to, piece, version);
                self.model.borrow_mut().changed_meaning(bead);
                assert_eq!(self.engine.version(bead), Ok(version));
            }
            Err(error) => {
                assert!(!good, "{error}");
                assert_eq!(self.was_freed(piece), 1, "what is refused is freed");
            }
        }
    }

    pub(super) fn swap_all(&self, to: u8) {
        let all = self.all();
        let mut made = Vec::new();
        let swapped = self.engine.swap_matching(tier(to), |bead| {
            let (piece, code) = self.make(Made::default(), &[], &[]);
            made.push((bead, piece));
            Some(code)
        });
        assert_eq!(made.iter().map(|(bead, _)| *bead).collect::<Vec<_>>(), all);
        if !(1..=TIERS).contains(&to) {
            assert_eq!((swapped.refused.len(), swapped.superseded.len()), (all.len(), 0));
            return;
        }
        for ((bead, piece), superseded) in made.into_iter().zip(&swapped.superseded) {
            let mut model = self.model.borrow_mut();
            let old = model.get(bead).and_then(|function| function.code).map(|old| model.pieces[old].version);
            assert_eq!((superseded.bead, superseded.old_version), (bead, old));
            model.install(bead, to, piece, superseded.version);
        }
        all.iter().for_each(|&bead| self.model.borrow_mut().changed_meaning(bead));
    }

    pub(super) fn invalidate_version(&self, bead: Bead, held: bool) {
        let version_of = |piece: Option<usize>| Some(self.model.borrow().pieces[piece?].version);
        let (code, kept) = self.with(bead, |function| (function.code, function.kept)).unwrap_or_default();
        let version = version_of(if held { kept } else { code }).unwrap_or(u32::MAX);
        let answer = self.engine.invalidate_version(bead, version);
        if version != u32::MAX && version_of(code) == Some(version) {
            self.model.borrow_mut().invalidate(bead);
            assert_eq!(answer, Ok(true));
        } else if version != u32::MAX {
            self.with(bead, |function| function.kept = None);
            assert_eq!(answer, Ok(false));
        } else {
            assert_ne!(answer, Ok(true));
        }
    }

    pub(super) fn reload(&self, bead: Bead) {
        let answer = self.engine.reload(bead);
        let expected = self.model.borrow_mut().reload(bead, 0);
        self.model.borrow_mut().changed_meaning(bead);
        let pending = self.with(bead, |function| function.pending);
        match (answer, expected) {
            (Err(_), None) => (),
            (Ok(Reloaded::Nothing), Some(false)) => (),
            (Ok(Reloaded::Queued(to)), Some(true)) => assert_eq!(pending, Some(Pending::Queued(to.get()))),
            (Ok(Reloaded::Refused(_)), Some(true)) => assert_eq!(pending, Some(Pending::None)),
            (answer, expected) => panic!("{answer:?} where {expected:?} was expected"),
        }
    }

    pub(super) fn bail_out(&self, bead: Bead, proposal: Proposal, outdated: bool) {
        let proposal = match proposal {
            Proposal::Keep => Recovery::Keep,
            Proposal::Recompile => Recovery::Recompile,
            Proposal::Pause(calls) => Recovery::Pause { calls: calls.into() },
            Proposal::Revert => Recovery::Revert,
            Proposal::Cap(cap) => Recovery::Cap(tier(cap % (TIERS + 1))),
            Proposal::Blacklist => Recovery::Blacklist,
        };
        PROPOSAL.set(proposal);
        let code = self.with(bead, |function| (function.tier, function.code));
        let (at, code) = code.unwrap_or_default();
        let version = code.map(|piece| self.model.borrow().pieces[piece].version).filter(|_| !outdated);
        let decision = self.engine.bailout(bead, BailoutInfo::new(version.unwrap_or(u32::MAX)).guard(1));
        if self.with(bead, |_| ()).is_none() {
            assert!(decision.is_err());
            return;
        }
        if version.is_none() {
            assert_eq!(decision, Ok(DeoptDecision::Outdated));
            return;
        }
        let bailed = self.model.borrow_mut().bail_out(bead, proposal).expect("it runs");
        let below = TierId::new(at - 1).expect("it runs");
        let expected = match proposal {
            Recovery::Keep => DeoptDecision::Keep,
            Recovery::Recompile if bailed.queued => DeoptDecision::Recompile,
            Recovery::Revert if bailed.queued && at == 1 => DeoptDecision::Recompile,
            Recovery::Recompile | Recovery::Revert if bailed.queued || bailed.reverted => {
                DeoptDecision::Revert { at_once: bailed.reverted }
            }
            Recovery::Recompile | Recovery::Revert => DeoptDecision::Pause { calls: 0 },
            Recovery::Pause { calls } => DeoptDecision::Pause { calls },
            Recovery::Cap(cap) => DeoptDecision::Cap(cap.min(below)),
            _ => DeoptDecision::Blacklist,
        };
        assert_eq!(decision, Ok(expected));
    }

    pub(super) fn break_assumption(&self, number: u8) {
        let (assumption, number) = {
            let model = self.model.borrow();
            if model.assumptions.is_empty() {
                return self.nothing_done();
            }
            model.assumptions[usize::from(number) % model.assumptions.len()]
        };
        let expected = self.model.borrow_mut().break_premise(number);
        assert_eq!(self.engine.invalidate_assumption(assumption), expected, "functions that relied on it");
        assert!(!self.engine.is_valid(assumption));
    }

    pub(super) fn deliver(&self) {
        let mut expected = std::mem::take(&mut self.model.borrow_mut().deliveries);
        let mut delivered = Vec::new();
        self.engine.deliver(|delivery| {
            delivered.push(match delivery {
                Delivery::Installed { bead, tier, version, .. } => {
                    Delivered::Installed(bead, tier.get(), version)
                }
                Delivery::Invalidated { bead } => Delivered::Invalidated(bead),
                Delivery::Reverted { bead, version } => Delivered::Reverted(bead, version),
                Delivery::Removed { bead } => Delivered::Removed(bead),
                other => panic!("{other:?}"),
            });
        });
        // The order is that of each function's own history.
        delivered.sort_by_key(Delivered::bead);
        expected.sort_by_key(Delivered::bead);
        assert_eq!(delivered, expected);
    }
}
