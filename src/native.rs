//! Counting in native code, the compiler's side: addresses of budgets and counters, and what to emit.
//!
//! Everything that code embeds pins the index of the function it belongs to (see [`crate::pins`]), so that no address
//! ever comes to mean another function.

use crate::drain::Crew;
use crate::error::Stale;
use crate::id::{Bead, Reason, TierId};
use crate::job::Job;
use crate::osr::{ITERATIONS_PER_CALL, Spent};
use crate::profile::{BlockCounters, CallSite, CallSites, Profile, Run, Which};
use crate::promotion::{RECHECK_BARRED, RECHECK_CALLS};
use crate::shared::Shared;
use crate::state::{Pending, Requested};
use std::sync::atomic::Ordering::Relaxed;

/// What the engine does for a job that counts.
pub(crate) trait CountingHost: Sync {
    /// Whether code of the tier is to count its calls itself.
    fn counts(&self, tier: TierId) -> bool;
    /// The address of a budget. The caller has pinned the index.
    fn budget_address(&self, index: u32) -> usize;
    /// Counters for a bead whose index the caller has pinned; the address of the first goes with them.
    fn counters(&self, bead: Bead, which: Which, count: u32) -> Option<(Run, usize)>;
    fn direct(&self, site: CallSite, callee: Bead) -> usize;
    fn profile(&self, bead: Bead) -> Option<Profile>;
}

impl CountingHost for Shared {
    fn counts(&self, tier: TierId) -> bool {
        tier < self.drain.lanes.top() && self.tiers.get(tier.lane()).is_some_and(|parts| parts.counts)
    }

    fn budget_address(&self, index: u32) -> usize {
        self.table.budgets.address(index)
    }

    fn counters(&self, bead: Bead, which: Which, count: u32) -> Option<(Run, usize)> {
        let _no_fork = self.gate.enter();
        let (table, profiles) = (&self.table, &self.table.profiles);
        let run = profiles.provide(bead, which, count, &table.grace, |bead| table.code_may_remain(bead))?;
        if table.live(bead).is_err() {
            // Removed meanwhile: nobody would forget this any more.
            profiles.forget(bead, &table.grace);
            return None;
        }
        Some((run, profiles.address(run)))
    }

    fn direct(&self, site: CallSite, callee: Bead) -> usize {
        self.table.profiles.direct(site, callee)
    }

    fn profile(&self, bead: Bead) -> Option<Profile> {
        let _no_fork = self.gate.enter();
        self.table.profiles.read(bead)
    }
}

impl Shared {
    /// Whether dispatches of code of that tier are counted: a higher tier wants to know, and the code does not count itself.
    pub(crate) fn ticks(&self, tier: TierId) -> bool {
        tier < self.drain.lanes.top() && !self.counts(tier)
    }

    /// A native loop went round. Answers after how many further iterations this is to be called again.
    pub(crate) fn native_loop_spent(&self, spent: Spent) -> u32 {
        const RECHECK: u32 = RECHECK_CALLS * ITERATIONS_PER_CALL;
        let (bead, site, told) = (spent.bead, spent.site, self.now());
        let (iterations, now) = {
            let _no_fork = self.gate.enter();
            let iterations = self.loops.add(bead, site, spent.iterations, told);
            let now = self.table.live(bead);
            if now.is_err() {
                // Removed, perhaps just now, and then nobody else forgets what was noted.
                self.loops.forget(bead);
            }
            (iterations, now)
        };
        let Ok(now) = now else { return u32::MAX };
        if !spent.ask {
            return 0;
        }
        if now.pending() != Pending::None && self.drain.wake.active() == 0 {
            self.wake();
        }
        self.give_up_overdue();
        if !self.enabled.load(Relaxed) || self.is_closed() || self.retired_too_much() {
            return RECHECK;
        }
        let calls = self.table.budgets.calls(bead.index());
        let (tier, wait) = self.consult(bead, &now, now.wanted(), calls, iterations);
        let Some(tier) = tier else {
            // Not for ever where there is no higher tier: the function may have lost the code of one by then.
            return wait.min(RECHECK_BARRED) * ITERATIONS_PER_CALL;
        };
        let asked = self.request(bead, tier, Reason::Hot, calls);
        let busy = matches!(asked, Requested::Busy);
        self.speculate(bead, tier, asked);
        if busy { 1 } else { RECHECK }
    }
}

/// The stable address of a function's budget: the number of calls until the policies are asked again.
///
/// # What native code does with it
/// At the function's entry, without atomic instructions: subtract one from the budget, 32 bits, and store that; if it is 0 or less
/// (signed), have [`Mutator::native_call`](crate::Mutator::native_call) called for the function, which grants another. On x86-64:
/// ```asm
/// mov  rax, budget
/// sub  dword ptr [rax], 1
/// jle  slow            ; out of line; comes back here
/// ```
/// or, where the code generator keeps no flags, six instructions: address, load, subtraction, store, compare, jump. Threads
/// that count at the same time can lose a count to each other. A store that comes late, when the function has been removed, is harmless: as long as code that
/// embeds the address exists, the index is not used again, and the budget is reset when it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BudgetSlot(pub(crate) usize);

impl BudgetSlot {
    /// The address, to be embedded in code. 4-byte aligned, constant for the engine's life.
    pub fn addr(self) -> usize {
        self.0
    }

    /// The budget as a pointer. Using it is safe only while the engine lives, and from Rust it has to be with atomic
    /// (Relaxed) operations.
    pub fn as_ptr(self) -> *const std::sync::atomic::AtomicU32 {
        std::ptr::with_exposed_provenance(self.0)
    }
}

/// Counting in the code of this job.
impl Job<'_> {
    /// Whether the code is to count its calls and iterations itself: its tier
    /// [counts for itself](crate::Tier::counts_itself) and there is a higher one. If so, dispatches of the code are not counted,
    /// and code that does not count is never promoted.
    pub fn counts(&self) -> bool {
        self.host().counts(self.tier())
    }

    /// The stable address of a function's budget, for code that counts its calls: this job's function, or one that is
    /// inlined into it. Pins the index as [`slot`](Job::slot) does. Code that embeds addresses of this kind has a record in the engine.
    ///
    /// # Errors
    /// [`Stale`] if the function is not live.
    pub fn budget_slot(&mut self, bead: Bead) -> Result<BudgetSlot, Stale> {
        self.pin(bead)?;
        Ok(BudgetSlot(self.host().budget_address(bead.index())))
    }

    /// Counters for `count` blocks of the job's function, at most 65,536. A function that has as many already gets the same again,
    /// with what they counted, whatever its tier; for another number they start from zero. They are read by
    /// [`profile`](Job::profile) and [`Engine::profile`](crate::Engine::profile), kept until the function is removed, and
    /// their memory is used again when the code that embeds them is gone.
    ///
    /// `None` if there is no room (the engine has one counter for each bead it has room for, at least 4,096 and at most 4,194,304),
    /// if `count` is 0 or too much, or if the function was removed. Code is worth having without.
    pub fn block_counters(&mut self, count: u32) -> Option<BlockCounters> {
        let (_, addr) = self.counters(Which::Blocks, count)?;
        Some(BlockCounters { addr, len: count })
    }

    /// Records for `count` call sites of the job's function, at most 7,281; as [`block_counters`](Job::block_counters), and of the same
    /// memory: nine counters each. Native code passes a [`CallSite`] on to
    /// [`Mutator::native_target`](crate::Mutator::native_target), or counts a [direct call](Job::direct_call) itself.
    pub fn call_sites(&mut self, count: u32) -> Option<CallSites> {
        let (run, _) = self.counters(Which::Sites, count)?;
        Some(CallSites { first: run.first(), len: count })
    }

    /// States that a site of this job's only ever calls `callee`; answers the address of a 64-bit count for native code to raise, as that
    /// of a block.
    pub fn direct_call(&self, site: CallSite, callee: Bead) -> usize {
        self.host().direct(site, callee)
    }

    fn counters(&mut self, which: Which, count: u32) -> Option<(Run, usize)> {
        let bead = self.bead();
        self.pin(bead).ok()?;
        self.host().counters(bead, which, count)
    }

    /// Pins once for each function.
    fn pin(&mut self, bead: Bead) -> Result<(), Stale> {
        if self.embeds_slot_of(bead) || mutant!("reuse-own-unpinned") {
            Ok(())
        } else {
            self.slot(bead).map(|_| ())
        }
    }

    /// What lower tiers' code has counted of the job's function: blocks for layout and branch weights, callees for inlining. `None` if
    /// it has no counters.
    pub fn profile(&self) -> Option<Profile> {
        self.host().profile(self.bead())
    }

    /// What was counted of another function, one that may be inlined.
    pub fn profile_of(&self, bead: Bead) -> Option<Profile> {
        self.host().profile(bead)
    }
}
