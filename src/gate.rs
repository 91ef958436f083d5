//! Keeps a fork from cutting a short critical section in two.
//!
//! A forked child has one thread. Whatever another thread was in the middle of (a lock held, a bead publishing, a
//! queue's push) would stay half done there for ever. So such sections are entered through the engine's gate, none
//! of them runs foreign code, and the fork handler closes the gate and waits for them to end. Sections don't nest.

#[cfg(any(beadwork_loom, not(unix)))]
mod open {
    /// No fork to keep away: not on this system, nor in models, which try the closing gate by itself.
    pub(crate) struct Gate;
    pub(crate) struct Inside<'g>(std::marker::PhantomData<&'g Gate>);

    impl Gate {
        pub(crate) fn new() -> Gate {
            Gate
        }
        pub(crate) fn enter(&self) -> Inside<'_> {
            Inside(std::marker::PhantomData)
        }
    }

    impl Drop for Inside<'_> {
        fn drop(&mut self) {}
    }
}

#[cfg(any(beadwork_loom, unix))]
mod closing {
    use crate::sync::{AtomicU64, wait_a_little};
    use crossbeam_utils::CachePadded;
    use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

    const FORKING: u64 = 1 << 63;

    /// Doors of a gate: threads that pass through different ones share no cache line. A requesting thread and a worker pass several
    /// times for each request.
    const DOORS: usize = if cfg!(beadwork_loom) { 2 } else { 8 };

    /// Sections that are open, by the door they were entered through.
    pub(crate) struct Gate([CachePadded<AtomicU64>; DOORS]);

    /// Inside a section. No fork happens until this is dropped.
    #[must_use = "the section ends when this is dropped"]
    pub(crate) struct Inside<'g>(&'g AtomicU64);

    /// The calling thread's door.
    fn door() -> usize {
        // Not the shim's: no protocol depends on a number.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        thread_local! {
            // Relaxed: only a number.
            static DOOR: usize = NEXT.fetch_add(1, Relaxed) as usize % DOORS;
        }
        // A thread that is ending has no such values any more; any door will do.
        DOOR.try_with(|door| *door).unwrap_or(0)
    }

    impl Gate {
        pub(crate) fn new() -> Gate {
            Gate(std::array::from_fn(|_| CachePadded::new(AtomicU64::new(0))))
        }

        pub(crate) fn enter(&self) -> Inside<'_> {
            let (door, mut rounds) = (&self.0[door()], 0);
            loop {
                // Acquire, edge FORK: the section does not begin before this.
                if door.fetch_add(1, mutant!("fork-enter", Acquire)) & FORKING == 0 {
                    return Inside(door);
                }
                // Release, edge FORK, as at the end of a section; nothing was done in this one.
                door.fetch_sub(1, Release);
                // Acquire, edge FORK: the next try to enter is what counts.
                while door.load(Acquire) & FORKING != 0 {
                    wait_a_little(&mut rounds);
                }
            }
        }

        /// Lets no section begin, and waits until none is open.
        pub(crate) fn close(&self) {
            for door in &self.0 {
                let mut rounds = 0;
                // AcqRel/Acquire, edge FORK, partner is the Release of a section's end.
                let mut now = door.fetch_or(FORKING, mutant!("fork-close", AcqRel));
                while now & !FORKING != 0 && !mutant!("fork-unwaited") {
                    wait_a_little(&mut rounds);
                    now = door.load(mutant!("fork-wait", Acquire));
                }
            }
        }

        /// Lets sections begin again.
        pub(crate) fn open(&self) {
            // Release, edge FORK: what the fork handler mended is seen by the next section.
            for door in &self.0 {
                door.fetch_and(!FORKING, mutant!("fork-open", Release));
            }
        }

        /// In a forked child: threads that were waiting to enter do not exist.
        #[cfg(not(beadwork_loom))]
        pub(crate) fn open_in_child(&self) {
            // Release, edge FORK, as in `open`.
            self.0.iter().for_each(|door| door.store(0, Release));
        }
    }

    impl Drop for Inside<'_> {
        fn drop(&mut self) {
            // Release, edge FORK, partner is the load in `close`.
            self.0.fetch_sub(1, mutant!("fork-leave", Release));
        }
    }
}

#[cfg(all(unix, not(beadwork_loom)))]
pub(crate) use closing::{Gate, Inside};
#[cfg(any(beadwork_loom, not(unix)))]
pub(crate) use open::{Gate, Inside};

/// The closing gate by itself.
#[cfg(beadwork_loom)]
#[allow(missing_debug_implementations)]
pub struct ForkGate(closing::Gate);

#[cfg(beadwork_loom)]
impl ForkGate {
    /// An open gate.
    #[allow(clippy::new_without_default)]
    pub fn new() -> ForkGate {
        ForkGate(closing::Gate::new())
    }

    /// A section.
    pub fn section(&self, inside: impl FnOnce()) {
        let _no_fork = self.0.enter();
        inside();
    }

    /// A fork, with what its handler does.
    pub fn fork(&self, handler: impl FnOnce()) {
        self.0.close();
        handler();
        self.0.open();
    }
}
