//! Units of several functions: whose bodies the code of a function contains, and what undoes that.
//!
//! Code that contains the body of another function reaches it without a slot, so it has to go when that body is not what
//! a call of the function means any more. Each function whose body somebody contains has a *standing*: an assumption that ends with
//! the next change of what a call of it means. Containing code relies on it, like on any other.

use crate::assumption::Assumption;
use crate::error::Stale;
use crate::id::{Bead, TierId};
use crate::job::Job;
use crate::shared::Shared;
use crate::sync::{AtomicUsize, Mutex, lock};
use std::collections::HashMap;
use std::sync::atomic::Ordering::AcqRel;

/// The standing of each function whose body is contained in other code.
#[derive(Default)]
pub(crate) struct Units {
    standings: Mutex<HashMap<Bead, Assumption>>,
    /// How many there are, so that nobody takes the lock while there is none.
    len: AtomicUsize,
}

impl Units {
    /// The standing of a function, made if it has none. What the caller reads of the function afterwards is what the standing is about.
    pub(crate) fn standing(&self, bead: Bead, make: impl FnOnce() -> Assumption) -> Assumption {
        let mut standings = lock(&self.standings);
        if let Some(&standing) = standings.get(&bead) {
            return standing;
        }
        let standing = make();
        standings.insert(bead, standing);
        // AcqRel, edge UNIT, partner is the one in `get`.
        self.len.fetch_add(1, mutant!("unit-asked", AcqRel));
        standing
    }

    /// The standing of a function that has just changed, to be broken and then [forgotten](Units::forget).
    pub(crate) fn get(&self, bead: Bead) -> Option<Assumption> {
        // AcqRel, edge UNIT: a read-modify-write that changes nothing, so that of this and the one in `standing` the later sees
        // what was before the earlier.
        if self.len.fetch_add(0, AcqRel) == 0 {
            return None;
        }
        lock(&self.standings).get(&bead).copied()
    }

    /// A standing is broken, and all that relied on it is gone.
    pub(crate) fn forget(&self, bead: Bead, broken: Assumption) {
        let mut standings = lock(&self.standings);
        if standings.get(&bead) == Some(&broken) {
            standings.remove(&bead);
            // AcqRel, edge UNIT, as in `get`.
            self.len.fetch_sub(1, AcqRel);
        }
    }
}

/// What the engine does for a job whose code contains other functions.
pub(crate) trait UnitHost {
    /// The standing of a live function, if code of that tier may contain its body.
    fn standing(&self, bead: Bead, tier: TierId) -> Result<Option<Assumption>, Stale>;
}

impl UnitHost for Shared {
    fn standing(&self, bead: Bead, tier: TierId) -> Result<Option<Assumption>, Stale> {
        self.table.live(bead)?;
        let standing = {
            let _no_fork = self.gate.enter();
            self.units.standing(bead, || self.assumptions.make())
        };
        // If it was removed meanwhile, nobody would end the standing any more. Whoever bars it from now on does.
        let now = self.table.live(bead).inspect_err(|_| self.changed_meaning(bead))?;
        let may = now.bars(tier).is_none() && self.admits(bead, tier);
        Ok(may.then_some(standing))
    }
}

impl Shared {
    /// A call of the function means something else from now on: takes the code back that contains its body. Outside any section, and
    /// after the change.
    pub(crate) fn changed_meaning(&self, bead: Bead) {
        let standing = {
            let _no_fork = self.gate.enter();
            self.units.get(bead)
        };
        let Some(standing) = standing.filter(|_| !mutant!("unit-unbroken")) else { return };
        // Of two threads that do this for one function, each returns only when all of that code is gone.
        let lost = self.take_what_relies_on(standing);
        {
            let _no_fork = self.gate.enter();
            self.units.forget(bead, standing);
        }
        // Who hears of it may have it compiled at once, on a new standing.
        lost.into_iter().for_each(|lost| self.tell_all_lost(lost));
    }
}

/// Compiling several functions as one unit.
impl Job<'_> {
    /// Has the code of this job contain the body of another function: inlined, or called directly and not through its slot. Ask first
    /// and read the body then. Answers whether it may; if not, call through the [slot](Job::slot). It may not if `callee` is
    /// blacklisted, capped below this job's [tier](Job::tier) or refused by that tier's [filter](crate::Tier::filter), nor while it is
    /// being redefined.
    ///
    /// A body takes the place of whatever code `callee` runs, code of the VM's own that is [installed](crate::Engine::install)
    /// by then included: if that code does something else than the body, do not include it.
    ///
    /// The code is taken back, and this compile ended, by whatever changes what a call of `callee` means:
    /// [`invalidate`](crate::Engine::invalidate), [`reload`](crate::Engine::reload) and their like for many,
    /// [`remove`](crate::Engine::remove), code of the VM's own ([`install`](crate::Engine::install),
    /// [`swap_matching`](crate::Engine::swap_matching)), [`demote`](crate::Engine::demote),
    /// a lower [`set_tier_cap`](crate::Engine::set_tier_cap) and [`blacklist`](crate::Engine::blacklist). When such a call has returned, no
    /// dispatch answers code with the old body. Who redefines a function stores the new body first, then makes that call, as for
    /// the function's own code.
    ///
    /// What changes only how fast `callee` runs leaves the code alone: a compile at another tier, a bailout, an eviction. The
    /// body is the containing code's: a guard in it that fails [bails out](crate::Engine::bailout) of *this* job's
    /// [version](Job::version), and what it takes for granted is this job's to [assume](Job::assume). So number guards by function and
    /// place: [`BailoutInfo::guard`](crate::BailoutInfo::guard) tells guards of one version apart, whosever body they are in. Likewise
    /// [blocks](Job::block_counters) and [call sites](Job::call_sites) that are counted are those of this job's function, not of a body.
    ///
    /// So each function of a unit
    /// goes on having versions, requests and memory of its own, and two functions that contain each other are compiled, taken back and
    /// freed each for itself. That costs a copy per container, and nothing at run time.
    ///
    /// The backends do this by `FunctionUnit::include`. A function may contain itself: that needs nothing and is always allowed.
    ///
    /// ```
    /// use beadwork::{CompileError, CompiledCode, Engine, FnBackend, Job, TierId, Tier, Threshold};
    /// extern "C" fn caller_with_callee_inlined() {}
    ///
    /// let compiler = FnBackend::new(|job: &mut Job<'_>| {
    ///     let Some(callee) = job.callees().into_iter().next() else { return Err(CompileError::failed("no callee")) };
    ///     if !job.include(callee)? {
    ///         return Err(CompileError::failed("call it through its slot then"));
    ///     }
    ///     // Here a compiler reads the body of `callee`.
    ///     Ok(CompiledCode::new(caller_with_callee_inlined as *const u8))
    /// });
    /// # trait Callees { fn callees(&self) -> Vec<beadwork::Bead>; }
    /// # impl Callees for Job<'_> { fn callees(&self) -> Vec<beadwork::Bead> { CALLEE.get().copied().into_iter().collect() } }
    /// # static CALLEE: std::sync::OnceLock<beadwork::Bead> = std::sync::OnceLock::new();
    /// let engine = Engine::builder().inline().tier(Tier::new(compiler).policy(Threshold::new(2))).build()?;
    /// let (caller, callee) = (engine.register(0.into())?, engine.register(1.into())?);
    /// # CALLEE.set(callee).unwrap();
    /// engine.promote(caller, TierId::BASELINE)?;
    /// engine.run_pending(usize::MAX);
    /// assert!(engine.mutator().code(caller).is_some());
    ///
    /// engine.invalidate(callee)?; // it is redefined
    /// assert!(engine.mutator().code(caller).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Stale`] if `callee` is not live.
    pub fn include(&mut self, callee: Bead) -> Result<bool, Stale> {
        if callee == self.bead() {
            return Ok(true);
        }
        let standing = self.host().standing(callee, self.tier())?;
        Ok(standing.is_some_and(|standing| self.assume(standing)))
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::assumption::Assumptions;

    #[test]
    fn a_function_has_one_standing_until_it_changes_and_then_another() {
        let (units, assumptions, bead) = (Units::default(), Assumptions::new(), Bead::new(7, 0));
        assert_eq!(units.get(bead), None);
        let first = units.standing(bead, || assumptions.make());
        assert_eq!(units.standing(bead, || unreachable!()), first);
        assert_eq!(units.get(Bead::new(7, 1)), None, "another generation");
        assert_eq!((units.get(bead), units.get(bead)), (Some(first), Some(first)), "until it is broken");
        units.forget(bead, first);
        assert_eq!(units.get(bead), None);
        let second = units.standing(bead, || assumptions.make());
        units.forget(bead, first);
        assert!(second != first && units.get(bead) == Some(second), "who comes late ends only what it broke");
    }
}
