//! Code that is taken back by its version, and code that is taken back to be compiled anew; always under the publishing
//! bit.

use super::Table;
use super::kept::Taking;
use crate::assumption::Dependent;
use crate::error::Stale;
use crate::id::{Bead, TierId};
use crate::state::{Ended, Pending, Ticket};
use std::sync::atomic::Ordering::Acquire;

/// What became of code that relied on something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Revoked {
    /// It was installed, and is taken back; what was pending is cancelled. The version afterwards.
    Code(u32),
    /// It was being compiled; that compile has lost its claim. A request for a higher tier that followed it may be queued now.
    Compile(Ended),
    /// It was gone already, or the VM was about to install it and will find that it cannot.
    Nothing,
}

/// What a reload found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    pub(crate) had_code: bool,
    /// Something was queued or being compiled.
    pub(crate) was_pending: bool,
    /// The tier it had or waited for, the higher of them.
    pub(crate) wanted: TierId,
    /// Queued again for this tier: the caller puts a token into its lane.
    pub(crate) queued: Option<TierId>,
    /// The version at which what was there had ended.
    pub(crate) version: u32,
}

impl Table {
    /// Takes a dependent's code back, or its right to be installed (edge ASSUME).
    pub(crate) fn revoke(&self, dependent: &Dependent) -> Revoked {
        let Dependent { bead, version, claim } = *dependent;
        let state = self.state(bead.index());
        if let Some(tier) = claim.filter(|_| !mutant!("assume-claim-stays")) {
            // Listed by the ticket's version, raised once.
            let ended = state.abandon(Ticket { bead, version: version - 1, tier });
            if ended != Ended::Superseded {
                self.start_over(bead.index());
                return Revoked::Compile(ended);
            }
        }
        // Who had a claim has installed it, or never will. The VM has, or will find when it has the bit, which is taken here before,
        // that something was broken since it was listed.
        self.invalidate_version(bead, version).ok().flatten().map_or(Revoked::Nothing, Revoked::Code)
    }

    /// Whether code of that version is neither installed, nor held, nor can be installed any more. False is always a safe answer.
    pub(crate) fn is_gone(&self, bead: Bead, version: u32) -> bool {
        // Locked throughout, so that the version does not go from one place to the other meanwhile (K1, K2).
        let kept = self.kept.for_install(TierId::MAX);
        if kept.as_ref().and_then(|kept| kept.get(&bead)).is_some_and(|code| code.version == version) {
            return false;
        }
        let now = self.state(bead.index()).load();
        if !now.is(bead) {
            return true;
        }
        if (now.version() < version && !mutant!("assume-struck-before")) || now.publishing() {
            return false;
        }
        // The word has reached that version. Had the code been installed, then by a release (edge PUBLISH) that the load
        // above has acquired, so this is its version or that of later code, which may be about to be installed only now.
        // Acquire, edge ASSUME, partner is the store in `publish`: by then the code before is unlinked.
        now.tier() == TierId::INTERPRETER || self.code_version.get(bead.index()).load(Acquire) != version
    }

    /// Whether code that embeds addresses of this bead may still run: its index is pinned, and not because it was used again, which
    /// it is only when no such code is left (edge REUSE).
    pub(crate) fn code_may_remain(&self, bead: Bead) -> bool {
        let now = self.state(bead.index()).load();
        let tag = u64::from(now.tag());
        let used_again = tag > bead.tag() + 1 || (now.live() && tag != bead.tag());
        !used_again && self.pins.pinned(bead.index())
    }

    /// Takes back code, and compiles of it, because the source changed; queues the bead again for the tier it had or waited
    /// for, now or `earlier`, the highest of them, if `again` and that tier is not barred. Counts stay. A bead without any of it is left
    /// as it is.
    pub(crate) fn reload(&self, bead: Bead, earlier: TierId, again: bool) -> Result<Taken, Stale> {
        let Taking { kept, held } = self.publishing_to_take(bead).ok_or(Stale(bead))?;
        let before = held.before();
        let (had_code, was_pending) =
            (before.tier() != TierId::INTERPRETER, before.pending() != Pending::None);
        let tier = before.wanted().max(earlier);
        let spared = mutant!("s1-reload-spares") && before.pending() == Pending::Compiling;
        if tier == TierId::INTERPRETER || spared {
            held.release(|_| ());
            return Ok(Taken {
                had_code,
                was_pending,
                wanted: tier,
                queued: None,
                version: before.version(),
            });
        }
        let old = had_code.then(|| self.clear_cells(bead.index(), &held, before.tag()));
        let new = held.release(|state| {
            state.raise_version();
            state.set_tier(TierId::INTERPRETER);
            state.set_pending(Pending::None);
            if again && state.bars(tier).is_none() {
                // The end of one request and the start of another, as in `demote`.
                state.raise_version();
                state.queue_for(tier);
            }
        });
        self.drop_held(kept, bead);
        old.into_iter().for_each(|old| self.retire(old));
        let queued = (new.pending() == Pending::Queued).then_some(tier);
        let version = new.version() - u32::from(queued.is_some());
        Ok(Taken { had_code, was_pending, wanted: tier, queued, version })
    }
}
