//! The source of functions changed: their code is taken back and asked for again, or replaced at once.

use super::Engine;
use crate::code::CompiledCode;
use crate::drain::Crew;
use crate::error::{InstallError, PromoteError, Stale};
use crate::event::Event;
use crate::id::{Bead, Group, Reason, TierId};
use crate::stats::add;

/// What [`Engine::reload`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reloaded {
    /// Code and compiles of the old source are gone, and it is queued for this tier: the one it had or waited for, the higher
    /// of them.
    Queued(TierId),
    /// Code and compiles of the old source are gone, and it may not be compiled again now. It is interpreted.
    Refused(PromoteError),
    /// It had no code and waited for none.
    Nothing,
}

/// Code that [`Engine::swap_matching`] replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Superseded {
    /// The function.
    pub bead: Bead,
    /// The tier it ran at; the interpreter if it had no code.
    pub old_tier: TierId,
    /// The version of the code that was replaced; `None` if it had none.
    pub old_version: Option<u32>,
    /// The version of the code that runs now.
    pub version: u32,
}

/// What [`Engine::swap_matching`] did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Swapped {
    /// What was replaced, in order of indices.
    pub superseded: Vec<Superseded>,
    /// Code that was not installed, and why. Those functions run as before.
    pub refused: Vec<(Bead, InstallError)>,
}

impl Engine {
    /// Takes a function's code back because its source changed, and asks for the tier it had or waited for again, ahead of
    /// what is merely hot. The function is interpreted until then; its counts stay.
    ///
    /// A compile in flight was of the old source: its late result is dropped. A [submitted](Engine::submit) compile that
    /// still waits is dropped too, and the tier's backend compiles instead. Threads that [wait](Engine::compile_now) for the
    /// function go on waiting for the new code.
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn reload(&self, bead: Bead) -> Result<Reloaded, Stale> {
        self.reload_for(bead, TierId::INTERPRETER)
    }

    /// Reloads a function that had or waited for `earlier`, which it may have lost meanwhile.
    fn reload_for(&self, bead: Bead, earlier: TierId) -> Result<Reloaded, Stale> {
        let (shared, now) = (self.shared(), self.shared().now());
        let wanted = shared.table.live(bead)?.wanted().max(earlier);
        // The tier's filter is foreign code, so it is asked before anything is taken.
        let allowed = if wanted == TierId::INTERPRETER { Ok(()) } else { self.check(bead, wanted) };
        let calls = shared.table.budgets.calls(bead.index());
        let asks = allowed.is_ok() && wanted != TierId::INTERPRETER;
        // Of the new source.
        let snapshot = if asks { shared.take_snapshot(bead) } else { None };
        let (mut pushed, mut dropped) = (false, None);
        let reload = || {
            // What the old source's blocks counted says nothing of the new one's. Before a worker can take the request, so that a
            // compile of the new source neither sees it nor loses what its own code counts.
            shared.table.profiles.start_over(bead);
            let (taken, rest) = shared.snapshots.attach(
                bead,
                snapshot,
                || shared.table.reload(bead, earlier, allowed.is_ok()),
                |taken| taken.ok().and_then(|taken| Some((taken.queued?, taken.version + 1))),
            );
            dropped = rest;
            let taken = taken?;
            if let Some(tier) = taken.queued {
                pushed = shared.push(bead, tier, Reason::Reload, calls, now);
            }
            Ok::<_, Stale>(taken)
        };
        let (taken, told) = shared.take_back(bead, reload, |taken| taken.had_code)?;
        shared.dispose(dropped);
        shared.changed_meaning(bead);
        if taken.was_pending {
            // Who waits looks at the state, and goes on waiting if it is queued again.
            shared.over(bead, TierId::MAX, taken.version);
        }
        shared.tell_taken(told);
        if let Some(tier) = taken.queued {
            add(&shared.counters.requested, 1);
            shared.emit(&Event::Queued { bead, tier, reason: Reason::Reload, calls });
        }
        if pushed {
            shared.wake();
        }
        Ok(match (taken.queued, allowed) {
            (Some(tier), _) => Reloaded::Queued(tier),
            (None, _) if taken.wanted == TierId::INTERPRETER => Reloaded::Nothing,
            (None, Err(reason)) => Reloaded::Refused(reason),
            // Barred between the question and the answer.
            (None, Ok(())) => match self.check(bead, taken.wanted) {
                Err(reason) => Reloaded::Refused(reason),
                Ok(()) => {
                    let cap = TierId::INTERPRETER;
                    Reloaded::Refused(PromoteError::Barred { bead, tier: taken.wanted, cap })
                }
            },
        })
    }

    /// [Reloads](Engine::reload) every function that has code or waits for some; answers how many. Costs a read of one word
    /// per index ever used, and a reload for each of those.
    pub fn reload_all(&self) -> usize {
        self.reload_matching(|_| true)
    }

    /// [Reloads](Engine::reload) the functions `matches` agrees to; answers how many had code or waited for some.
    pub fn reload_matching(&self, mut matches: impl FnMut(Bead) -> bool) -> usize {
        let mut matching = Vec::new();
        self.walk(|bead| matching.extend(matches(bead).then_some(bead)));
        self.reload_these(matching)
    }

    /// [Reloads](Engine::reload) the functions of a group; answers how many had code or waited for some, `None` if the group
    /// has ended. Costs time proportional to the group.
    pub fn reload_group(&self, group: Group) -> Option<usize> {
        Some(self.reload_these(self.group_members(group)?))
    }

    /// What a function wants is noted before any is reloaded: that takes code away from those that contain its body.
    fn reload_these(&self, beads: Vec<Bead>) -> usize {
        let wants = |bead| Some((bead, self.shared().table.live(bead).ok()?.wanted()));
        let noted: Vec<_> = beads.into_iter().filter_map(wants).collect();
        let reloads = |&(bead, wanted): &(Bead, TierId)| {
            self.reload_for(bead, wanted).is_ok_and(|reloaded| reloaded != Reloaded::Nothing)
        };
        noted.iter().filter(|noted| reloads(noted)).count()
    }

    /// [Invalidates](Engine::invalidate) every function; answers how many had code or waited for some. Costs a read of one
    /// word per index ever used, and an invalidation for each live one.
    pub fn invalidate_all(&self) -> usize {
        self.invalidate_matching(|_| true)
    }

    /// [Invalidates](Engine::invalidate) the functions `matches` agrees to; answers how many had code or waited for some.
    pub fn invalidate_matching(&self, mut matches: impl FnMut(Bead) -> bool) -> usize {
        let mut matching = Vec::new();
        self.walk(|bead| matching.extend(matches(bead).then_some(bead)));
        self.invalidate_these(&matching)
    }

    /// [Invalidates](Engine::invalidate) the functions of a group; answers how many had code or waited for some, `None` if the
    /// group has ended. Costs time proportional to the group.
    pub fn invalidate_group(&self, group: Group) -> Option<usize> {
        Some(self.invalidate_these(&self.group_members(group)?))
    }

    /// Code that contains bodies of these goes at the end, so that what is one of these itself is counted as such.
    fn invalidate_these(&self, beads: &[Bead]) -> usize {
        let invalidated = beads.iter().filter(|&&bead| self.invalidate_one(bead, |_| ()) == Ok(true)).count();
        beads.iter().for_each(|&bead| self.shared().changed_meaning(bead));
        invalidated
    }

    /// Replaces code at once, without a time at which it is interpreted: asks `code` for every live function first, and then
    /// [installs](Engine::install) at `tier` what it gives. Answers what was superseded.
    ///
    /// Each function goes over to its new code by one store, while others run; there is no moment at which all of them do. Old
    /// code is freed when every mutator has passed a safepoint.
    pub fn swap_matching(&self, tier: TierId, mut code: impl FnMut(Bead) -> Option<CompiledCode>) -> Swapped {
        let (mut given, mut changed, mut swapped) = (Vec::new(), Vec::new(), Swapped::default());
        self.walk(|bead| given.extend(code(bead).map(|code| (bead, code))));
        for (bead, code) in given {
            match self.install_over(bead, tier, code, |bead| changed.push(bead)) {
                Ok(installed) => swapped.superseded.push(Superseded {
                    bead,
                    old_tier: installed.old_tier,
                    old_version: installed.old_version,
                    version: installed.version,
                }),
                Err(error) => swapped.refused.push((bead, error)),
            }
        }
        // Only now, when those that contain others' bodies have their new code, too.
        changed.into_iter().for_each(|bead| self.shared().changed_meaning(bead));
        swapped
    }
}
