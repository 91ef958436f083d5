//! The per-thread handle of a thread that runs the guest program, and the hot path.

use crate::code::{Code, CodeWord, CodeWords, Reading};
use crate::column::{Column, Pair};
use crate::counter;
use crate::engine::Engine;
use crate::grace::MutatorCell;
use crate::id::Bead;
use crate::lease::Lease;
use crate::osr::{Local, Probe, Spent};
use crate::sync::{Arc, AtomicU32, AtomicU64};
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering::Acquire;

mod native;
mod noting;
mod reentry;
mod safepoint;

pub use reentry::{RawMutator, Reentered};
pub use safepoint::OfflineMutator;

/// A thread that runs the guest program: dispatches, counts, and passes safepoints.
///
/// One per thread. It may move to another thread (a green thread, say) but not be shared. It keeps its engine alive.
/// Code pointers it answers borrow it, and [`safepoint`](Mutator::safepoint) takes `&mut self`, so no code pointer
/// can be held across one:
///
/// ```compile_fail,E0502
/// # let engine = beadwork::Engine::builder().build().unwrap();
/// # let bead = engine.register(0.into()).unwrap();
/// let mut m = engine.mutator();
/// let code = m.dispatch(bead);
/// m.safepoint();
/// drop(code);
/// ```
///
/// A mutator that never passes a safepoint, and is not [offline](Mutator::offline), holds back every free.
///
/// # Native code that calls back
/// A native call is wrapped in a [`native_scope`](Mutator::native_scope), and what it calls back gets the mutator from a
/// [`RawMutator`] as a [`Reentered`]. In there a plain safepoint frees nothing that this thread could be in;
/// [`safepoint_with`](Mutator::safepoint_with) names the frames, and frees at any depth.
///
/// ```
/// use beadwork::{Bead, Engine, Mutator, RawMutator, Reentered};
///
/// /// Native code calls this; `raw` was passed through it.
/// unsafe extern "C" fn call_back(raw: RawMutator, callee: u64) {
///     // SAFETY: native code is only called inside `native_scope`, and passes on what it got there.
///     let m = unsafe { Reentered::from_raw(raw) };
///     if let Some(bead) = Bead::from_bits(callee)
///         && let Some(code) = m.dispatch(bead)
///     {
///         m.native_scope(|_raw| { /* call it */ let _ = code; });
///     }
///     m.safepoint(); // frees nothing that the frames below are in
/// }
///
/// # let engine = Engine::builder().build()?;
/// # let bead = engine.register(0.into())?;
/// let mut m: Mutator = engine.mutator();
/// if let Some(code) = m.dispatch(bead) {
///     m.native_scope(|raw| { /* call `code`, which gets `raw` along */ let _ = (code, raw); });
/// }
/// assert_eq!(m.depth(), 0);
/// # m.native_scope(|raw| unsafe { call_back(raw, bead.to_bits()) });
/// m.safepoint();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Mutator {
    // The columns and the epoch are kept here so that the hot path goes through no other pointer.
    /// Code words, and the budgets that calls of functions without code are counted in.
    hot: Pair<AtomicU64, AtomicU32>,
    osr: Probe,
    loops: Local,
    /// Native loops; apart, since what they are granted is much longer than an interpreter is to wait that goes on in their place.
    native_loops: Local,
    counters: Column<AtomicU64>,
    epoch: Arc<CachePadded<AtomicU64>>,
    cell: MutatorCell,
    /// The epoch of the last safepoint; or 0, which the epoch never is, where the next safepoint has to let go of addresses.
    seen: Cell<u64>,
    /// The epoch at the last poll in a native scope.
    polled: Cell<u64>,
    /// How many native scopes are open.
    depth: Cell<u32>,
    /// Callbacks that have this offline thread online.
    guests: Cell<u32>,
    /// Every how-manieth call is counted; 1 counts all.
    sampling: u32,
    /// Calls to pass over until the next one is counted.
    skip: Cell<u32>,
    /// Where in its run of `sampling` calls the last one was counted, and the state of the generator.
    place: Cell<u32>,
    random: Cell<u64>,
    engine: Option<Engine>,
    /// `Send` but not `Sync`.
    not_sync: PhantomData<Cell<()>>,
}

impl Mutator {
    /// `cell` is online and has seen the epoch `seen`.
    pub(crate) fn new(engine: Engine, cell: MutatorCell, seen: u64) -> Mutator {
        let table = &engine.shared().table;
        let (sampling, random) = (engine.shared().settings.sampling, engine.shared().next_seed());
        // Also in its first run of calls each has the same chance, however short a mutator's life is.
        let first = crate::clock::random(random, 1, 0) % sampling;
        Mutator {
            hot: Pair::new(table.code.clone(), table.budgets.column()),
            osr: table.osr.probe(),
            loops: Local::default(),
            native_loops: Local::default(),
            counters: table.profiles.column(),
            epoch: table.grace.epoch(),
            cell,
            seen: Cell::new(seen),
            polled: Cell::new(seen),
            depth: Cell::new(0),
            guests: Cell::new(0),
            sampling,
            skip: Cell::new(first),
            place: Cell::new(first),
            random: Cell::new(random),
            engine: Some(engine),
            not_sync: PhantomData,
        }
    }

    /// The engine this mutator belongs to.
    pub fn engine(&self) -> &Engine {
        match &self.engine {
            Some(engine) => engine,
            None => unreachable!("taken only by park, which consumes the mutator"),
        }
    }

    /// The code to run, if there is any; counts the call where a policy wants to know. `None` means interpret: the
    /// function has no code, or it was removed.
    ///
    /// Costs one Acquire load, an xor and a compare when there is code; that plus a load and a store of the budget
    /// when there is none. No lock, no read-modify-write, no allocation, except when a budget runs out: then the
    /// policies are asked, and perhaps a compile requested. Always inlined, about 25 instructions; a VM with very many places to
    /// dispatch from wraps it.
    #[inline(always)]
    pub fn dispatch(&self, bead: Bead) -> Option<Code<'_>> {
        match self.read(bead) {
            Reading::Ready(entry) => Some(Code::new(entry)),
            Reading::Cold => {
                self.count(bead);
                None
            }
            Reading::Counted(entry) => {
                self.count(bead);
                Some(Code::new(entry))
            }
            Reading::Stale => None,
        }
    }

    /// The code, if there is any, without counting.
    #[inline(always)]
    pub fn code(&self, bead: Bead) -> Option<Code<'_>> {
        match self.read(bead) {
            Reading::Ready(entry) | Reading::Counted(entry) => Some(Code::new(entry)),
            Reading::Cold | Reading::Stale => None,
        }
    }

    /// Counts a call as [`dispatch`](Mutator::dispatch) does, without answering code.
    #[inline(always)]
    pub fn tick(&self, bead: Bead) {
        match self.read(bead) {
            Reading::Cold | Reading::Counted(_) => self.count(bead),
            Reading::Ready(_) | Reading::Stale => (),
        }
    }

    #[inline(always)]
    fn read(&self, bead: Bead) -> Reading {
        // Acquire, edge PUBLISH, partner is the Release store of an install: who gets the pointer sees the code.
        let word = CodeWord(self.hot.first(bead.index()).load(mutant!("publish-dispatch", Acquire)));
        word.read(if mutant!("reuse-untagged") { Bead::new(bead.index(), word.tag()) } else { bead })
    }

    #[inline(always)]
    fn count(&self, bead: Bead) {
        if self.sampling > 1 {
            return match self.skip.get() {
                0 => self.count_sampled(bead),
                skip => self.skip.set(skip - 1),
            };
        }
        if counter::count(self.hot.second(bead.index()), 1) {
            self.budget_spent(bead);
        }
    }

    /// Out of line, so that a dispatch that counts everything saves no registers for it.
    #[cold]
    #[inline(never)]
    fn count_sampled(&self, bead: Bead) {
        self.draw();
        if counter::count(self.hot.second(bead.index()), self.sampling) {
            self.budget_spent(bead);
        }
    }

    /// Draws which call is counted next: one at a random place of each run of `sampling` calls. So each call has the same
    /// chance, whatever pattern functions are called in, and the sum is right to within one run.
    fn draw(&self) {
        let random = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(random);
        let place = crate::clock::random(random, 0, 0) % self.sampling;
        self.skip.set(self.sampling - 1 - self.place.get() + place);
        self.place.set(place);
    }

    #[cold]
    #[inline(never)]
    fn budget_spent(&self, bead: Bead) {
        self.engine().shared().budget_spent(bead, self.sampling, None);
    }

    /// A loop of the interpreted function goes round: counts the iteration, and answers the native entry into the loop if
    /// there is one, to go on there. `site` is the VM's own name for the loop, any 64 bits; each is counted for itself.
    ///
    /// A loop that runs long enough (by the tiers' policies, [`ITERATIONS_PER_CALL`](crate::ITERATIONS_PER_CALL)
    /// iterations counting like a call) has the function compiled with an entry for it, urgently. Costs one Acquire load, and
    /// a decrement in a table of this mutator's own; a lock every now and then.
    #[inline(always)]
    pub fn back_edge(&self, bead: Bead, site: u64) -> Option<Code<'_>> {
        let entry = self.osr.find(bead, site);
        if entry.is_none()
            && let Some(spent) = self.loops.count(bead, site)
        {
            self.loop_spent(spent);
        }
        entry.map(Code::new)
    }

    /// The native entry into a loop, if there is one, without counting.
    #[inline(always)]
    pub fn osr_entry(&self, bead: Bead, site: u64) -> Option<Code<'_>> {
        self.osr.find(bead, site).map(Code::new)
    }

    #[cold]
    #[inline(never)]
    fn loop_spent(&self, spent: Spent) {
        let iterations = self.engine().shared().loop_spent(spent);
        if spent.ask {
            self.loops.grant(spent.bead, spent.site, iterations);
        }
    }

    /// Where the code words lie that a dispatch reads, for a caller that cannot inline [`dispatch`](Mutator::dispatch): native code
    /// of the VM's own, or a VM in C.
    pub fn code_words(&self) -> CodeWords {
        let (base, mask) = self.hot.first_cells();
        CodeWords { base: base.cast(), mask }
    }

    /// Leases the function's code: it is kept until the last clone of the answer is dropped, across safepoints, threads and
    /// awaits. `None` if it has none. Counts no call. See [`Engine::lease`].
    pub fn lease(&self, bead: Bead) -> Option<Lease> {
        self.engine().lease(bead)
    }

    pub(crate) fn cell(&self) -> &MutatorCell {
        &self.cell
    }

    /// Goes offline for good; the cell may be used by another mutator.
    pub(crate) fn park(mut self) -> (Engine, MutatorCell) {
        self.flush();
        self.leave();
        let cell = self.cell.clone();
        let engine = self.engine().clone();
        self.engine = None;
        (engine, cell)
    }
}

impl Mutator {
    /// Tells what was counted and not told yet.
    fn flush(&self) {
        self.loops.flush().chain(self.native_loops.flush()).for_each(|spent| self.loop_spent(spent));
    }
}

impl Drop for Mutator {
    fn drop(&mut self) {
        if self.engine.is_some() {
            self.flush();
            self.leave();
        }
        if let Some(engine) = self.engine.take() {
            let _no_fork = engine.shared().gate.enter();
            engine.shared().table.grace.delist(&self.cell);
            drop(_no_fork);
            engine.shared().passed_by();
        }
    }
}

impl fmt::Debug for Mutator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutator").field("engine", &self.engine).finish_non_exhaustive()
    }
}
