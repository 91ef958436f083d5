//! Safepoints: the plain one, the one that names frames, and being offline.

use super::{Mutator, RawMutator};
use crate::engine::Engine;
use crate::grace;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

impl Mutator {
    /// States that this thread holds no code pointer and is in no frame of native code that could be retired. Pass
    /// one often (at loop heads of the interpreter, between calls): freeing waits for it.
    ///
    /// Costs one load and a compare while nothing was retired since the last one. If a native scope was left open (by a
    /// longjmp that was not followed by [`unwind_to`](Mutator::unwind_to)) it only polls.
    #[inline]
    pub fn safepoint(&mut self) {
        // Acquire, edge RETIRE (rule G2): what was unlinked before this epoch is not seen afterwards.
        let now = self.epoch.load(mutant!("retire-safepoint", Acquire));
        if now != self.seen.get() {
            self.pass(now);
        }
    }

    #[cold]
    #[inline(never)]
    fn pass(&mut self, now: u64) {
        if self.depth.get() > 0 && !mutant!("retire-in-scope") {
            return self.poll();
        }
        self.pass_with(now, &[]);
    }

    /// A safepoint of a thread that has frames of native code below it: states that it holds no code pointer, and that
    /// every address to which it will return in compiled code is in `return_addresses`. Frees what was retired and
    /// contains none of them (nor any address another mutator named), at any depth of native scopes.
    ///
    /// Superfluous addresses, in the interpreter or in code that is live, do no harm. The addresses hold code back until
    /// the next safepoint. Which memory is a function's code is told by [`CompiledCode::with_bytes`] or
    /// [`occupies`](crate::CompiledCode::occupies); code of unknown size waits until no mutator names any address.
    ///
    /// Costs a lock and a copy of the addresses, and whoever reclaims sorts them; little more than a plain safepoint where
    /// nothing was retired and no addresses were held before.
    ///
    /// [`CompiledCode::with_bytes`]: crate::CompiledCode::with_bytes
    pub fn safepoint_with(&mut self, return_addresses: &[usize]) {
        self.safepoint_at_any_depth(return_addresses);
    }

    pub(super) fn safepoint_at_any_depth(&self, return_addresses: &[usize]) {
        // Acquire, edge RETIRE (G2), as in `safepoint`.
        let now = self.epoch.load(mutant!("retire-safepoint-with", Acquire));
        // Nothing was unlinked since a safepoint at which this thread was in no retired code: it is in none now.
        if now != self.cell.at(Relaxed) || self.cell.holds() {
            self.pass_with(now, return_addresses);
        }
    }

    /// The addresses first, then the epoch (G2).
    fn pass_with(&self, now: u64, addresses: &[usize]) {
        if mutant!("g2-epoch-first") {
            grace::pass(&self.cell, now);
        }
        self.hold(addresses);
        grace::pass(&self.cell, now);
        self.look_again();
        self.engine().shared().passed_by();
    }

    fn hold(&self, addresses: &[usize]) {
        if self.cell.holds() || !addresses.is_empty() {
            let _no_fork = self.engine().shared().gate.enter();
            self.cell.hold(addresses);
        }
    }

    /// Decides whether the next safepoint has to look closer: where addresses are held, it lets go of them even if the epoch
    /// has not moved. (In a native scope that was left open it finds out when the epoch has.)
    fn look_again(&self) {
        self.seen.set(if self.cell.holds() { 0 } else { self.cell.at(Relaxed) });
    }

    /// All a safepoint may do while frames of native code are below and not named: sees to it that somebody frees what the
    /// other threads have passed.
    pub(super) fn poll(&self) {
        // Relaxed: a hint; nothing is stated.
        let now = self.epoch.load(Relaxed);
        if self.polled.replace(now) != now {
            self.engine().shared().passed_by();
        }
    }

    /// Runs `blocking` (a wait, a system call) while this thread is not counted among those that could be in
    /// compiled code, so that it does not hold back freeing. Costs a store, and a store and a fence at the end.
    ///
    /// `&mut self` makes sure that no code pointer is held across it. If a native scope was left open it only polls.
    pub fn offline<R>(&mut self, blocking: impl FnOnce() -> R) -> R {
        self.offline_native(|_raw| blocking())
    }

    /// As [`offline`](Mutator::offline), for a native function that blocks and may call back: the
    /// [`Reentered`](crate::Reentered) of a callback is online until it is dropped.
    pub fn offline_native<R>(&mut self, blocking: impl FnOnce(RawMutator) -> R) -> R {
        if self.depth.get() > 0 {
            self.poll();
            return blocking(self.as_raw());
        }
        /// Comes online again even if `blocking` unwinds.
        struct Back<'m>(&'m Mutator);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.come_back();
            }
        }
        self.leave();
        self.engine().shared().passed_by();
        let _back = Back(self);
        blocking(self.as_raw())
    }

    /// Goes offline for as long as the answer is kept, as [`offline`](Mutator::offline) does for the length of a closure: for
    /// waits that begin and end in different functions, and for a mutator that is put aside with a green thread.
    pub fn go_offline(self) -> OfflineMutator {
        if self.depth.get() > 0 {
            self.poll();
        } else {
            self.leave();
            self.engine().shared().passed_by();
        }
        OfflineMutator(self)
    }

    /// Goes offline, with no frames.
    pub(super) fn leave(&self) {
        // Nor callbacks: a jump may have passed over some of them.
        self.guests.set(0);
        self.hold(&[]);
        grace::go_offline(&self.cell);
    }

    pub(super) fn is_offline(&self) -> bool {
        self.cell.at(Relaxed) == 0
    }

    pub(super) fn come_back(&self) {
        grace::come_online(&self.epoch, &self.cell);
        self.look_again();
    }
}

/// A [`Mutator`] that holds nothing back and can do nothing; see [`Mutator::go_offline`].
#[derive(Debug)]
#[must_use = "dropping it ends the mutator"]
pub struct OfflineMutator(Mutator);

impl OfflineMutator {
    /// The mutator, online again. Costs a store and a fence.
    pub fn come_online(self) -> Mutator {
        if self.0.is_offline() {
            self.0.come_back();
        }
        self.0
    }

    /// The engine it belongs to.
    pub fn engine(&self) -> &Engine {
        self.0.engine()
    }
}
