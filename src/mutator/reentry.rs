//! Native code that calls back: scopes, and the mutator inside them.

use super::Mutator;
use std::ffi::c_void;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

impl Mutator {
    /// Runs `native`, which calls native code that may call back, and passes it the mutator's raw handle. Inside, plain
    /// safepoints free nothing, so the code that is being called stays. Costs two stores.
    ///
    /// Scopes nest. A panic that unwinds through closes them; after a longjmp that skipped frames, call
    /// [`unwind_to`](Mutator::unwind_to). Rust forbids to longjmp over a frame that has something to drop, as that of this
    /// function has; where native code does so, open the scope with [`enter_native`](Mutator::enter_native).
    ///
    /// If the native code may get to a [`safepoint_with`](Reentered::safepoint_with), code pointers answered before the
    /// scope must not be called after it: dispatch anew.
    pub fn native_scope<R>(&self, native: impl FnOnce(RawMutator) -> R) -> R {
        /// Closes the scope, and what was left open in it, even if `native` unwinds.
        struct Close<'m>(&'m Mutator, u32);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.unwind_to(self.1);
            }
        }
        let _close = Close(self, self.enter_native());
        native(self.as_raw())
    }

    /// Opens a native scope that [`unwind_to`](Mutator::unwind_to) closes; answers the depth to give it. For callers that a
    /// longjmp may skip or land in, since nothing has to be dropped.
    #[must_use = "the scope is closed by `unwind_to` with this"]
    pub fn enter_native(&self) -> u32 {
        let depth = self.depth.get();
        self.depth.set(depth.saturating_add(1));
        depth
    }

    /// How many native scopes are open.
    pub fn depth(&self) -> u32 {
        self.depth.get()
    }

    /// Closes the scopes deeper than `depth`, those of frames that a longjmp or a foreign exception has skipped; never
    /// opens any. Call it where the jump landed, with the [`depth`](Mutator::depth) from before. If the jump left
    /// [`offline`](Mutator::offline) too, this comes online.
    pub fn unwind_to(&self, depth: u32) {
        self.depth.set(depth.min(self.depth.get()));
        if self.is_offline() {
            self.come_back();
        }
    }

    /// A handle that can be passed through native code, for [`Reentered::from_raw`].
    pub fn as_raw(&self) -> RawMutator {
        RawMutator(NonNull::from(self))
    }
}

/// A [`Mutator`] on its way through native code: a pointer, and passed as one.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct RawMutator(NonNull<Mutator>);

impl RawMutator {
    /// The handle as a C pointer, never null.
    pub fn as_ptr(self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    /// The inverse of [`as_ptr`](RawMutator::as_ptr); `None` for null.
    pub fn from_ptr(pointer: *mut c_void) -> Option<RawMutator> {
        NonNull::new(pointer.cast()).map(RawMutator)
    }
}

impl fmt::Debug for RawMutator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawMutator({:p})", self.0)
    }
}

/// The mutator inside a call from native code, where frames of compiled code lie below on the stack.
///
/// It is a `&Mutator`: dispatches, counts and opens scopes. What states something about this thread's frames is its own:
/// [`safepoint`](Reentered::safepoint) and [`offline`](Reentered::offline) only poll.
pub struct Reentered<'n> {
    mutator: &'n Mutator,
    was_offline: bool,
}

impl<'n> Reentered<'n> {
    /// The mutator again. If its thread is [offline](Mutator::offline), it is online until the answer is dropped.
    ///
    /// # Safety
    /// * `raw` is from [`native_scope`](Mutator::native_scope), [`offline_native`](Mutator::offline_native) or
    ///   [`as_raw`](Mutator::as_raw), and since it was made, and during `'n`, the mutator was not moved, dropped or borrowed
    ///   mutably (inside those two functions the borrow checker sees to that); and this is the thread that uses it.
    /// * Every native frame of this thread through which a callback can come was entered inside a native scope, or the
    ///   mutator is used in callbacks only.
    /// * A list given to [`safepoint_with`](Reentered::safepoint_with) is complete, and no code pointer from before it is
    ///   called after it; the frames it names may be returned to.
    #[allow(unsafe_code)]
    pub unsafe fn from_raw(raw: RawMutator) -> Reentered<'n> {
        // SAFETY: by the first promise the mutator is there and only shared references to it are in use; what changes
        // through them is in cells, and the mutator is not `Sync`, so they are of this thread.
        let mutator: &'n Mutator = unsafe { raw.0.as_ref() };
        let was_offline = mutator.is_offline() || mutator.guests.get() > 0;
        if was_offline {
            if mutator.guests.get() == 0 {
                mutator.come_back();
            }
            mutator.guests.set(mutator.guests.get() + 1);
        }
        Reentered { mutator, was_offline }
    }

    /// Polls: sees to it that somebody frees what other threads have passed, and states nothing of this one, whose
    /// frames below may be in any code. Costs a load and a compare while nothing was retired.
    pub fn safepoint(&self) {
        self.mutator.poll();
    }

    /// As [`Mutator::safepoint_with`]: `return_addresses` are those of the whole stack of this thread.
    pub fn safepoint_with(&mut self, return_addresses: &[usize]) {
        self.mutator.safepoint_at_any_depth(return_addresses);
    }

    /// Polls, and runs `blocking`. The frames below hold back freeing meanwhile: name them with
    /// [`safepoint_with`](Reentered::safepoint_with) before a long wait, and at least what was retired before is freed.
    pub fn offline<R>(&mut self, blocking: impl FnOnce() -> R) -> R {
        self.mutator.poll();
        blocking()
    }
}

impl Deref for Reentered<'_> {
    type Target = Mutator;
    fn deref(&self) -> &Mutator {
        self.mutator
    }
}

impl Drop for Reentered<'_> {
    fn drop(&mut self) {
        let left = self.mutator.guests.get().saturating_sub(1);
        if self.was_offline {
            self.mutator.guests.set(left);
            // The last of them, whichever that is.
            if left == 0 {
                self.mutator.leave();
                self.mutator.engine().shared().passed_by();
            }
        }
    }
}

impl fmt::Debug for Reentered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reentered").field("depth", &self.depth.get()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::Engine;

    fn mutator() -> Mutator {
        Engine::builder().capacity(4).inline().build().unwrap().mutator()
    }

    #[test]
    fn a_jump_out_of_a_wait_is_online_where_it_landed() {
        let m = mutator();
        let depth = m.depth();
        // A wait whose end a jump passes over.
        m.leave();
        assert!(m.is_offline());
        m.unwind_to(depth);
        assert!(!m.is_offline());
    }

    #[test]
    #[allow(unsafe_code)]
    fn a_callback_is_online_also_after_a_jump_out_of_an_earlier_one_and_of_its_wait() {
        let mut m = mutator();
        m.leave();
        // SAFETY: the mutator is there and is not moved, and there are no native frames.
        std::mem::forget(unsafe { Reentered::from_raw(m.as_raw()) });
        m.unwind_to(0);
        m.offline_native(|raw| {
            // SAFETY: as above.
            let here = unsafe { Reentered::from_raw(raw) };
            assert!(!here.is_offline(), "it dispatches, and nobody knows");
        });
    }
}
