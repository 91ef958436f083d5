//! Keeps a fork from cutting a short critical section in two.
//!
//! A forked child has one thread. Whatever another thread was in the middle of (a lock held, a bead publishing, a
//! queue's push) would stay half done there for ever. So such sections are entered through the engine's gate, none
//! of them runs foreign code, and the fork handler closes the gate and waits for them to end. Sections don't nest.

#[cfg(any(beadwork_loom, not(unix)))]
mod imp {
    /// No fork to keep away.
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

#[cfg(all(unix, not(beadwork_loom)))]
mod imp {
    use crate::sync::{AtomicU64, wait_a_little};
    use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

    const FORKING: u64 = 1 << 63;

    pub(crate) struct Gate(AtomicU64);

    /// Inside a section. No fork happens until this is dropped.
    #[must_use = "the section ends when this is dropped"]
    pub(crate) struct Inside<'g>(&'g Gate);

    impl Gate {
        pub(crate) fn new() -> Gate {
            Gate(AtomicU64::new(0))
        }

        pub(crate) fn enter(&self) -> Inside<'_> {
            let mut rounds = 0;
            loop {
                // Acquire, edge FORK: the section does not begin before this.
                if self.0.fetch_add(1, Acquire) & FORKING == 0 {
                    return Inside(self);
                }
                self.0.fetch_sub(1, Release);
                while self.0.load(Acquire) & FORKING != 0 {
                    wait_a_little(&mut rounds);
                }
            }
        }

        /// Lets no section begin, and waits until none is open.
        pub(crate) fn close(&self) {
            let mut rounds = 0;
            // AcqRel/Acquire, edge FORK, partner is the Release of a section's end.
            let mut now = self.0.fetch_or(FORKING, AcqRel);
            while now & !FORKING != 0 {
                wait_a_little(&mut rounds);
                now = self.0.load(Acquire);
            }
        }

        /// Lets sections begin again.
        pub(crate) fn open(&self) {
            // Release, edge FORK: what the fork handler mended is seen by the next section.
            self.0.fetch_and(!FORKING, Release);
        }

        /// In a forked child: threads that were waiting to enter do not exist.
        pub(crate) fn open_in_child(&self) {
            self.0.store(0, Release);
        }
    }

    impl Drop for Inside<'_> {
        fn drop(&mut self) {
            // Release, edge FORK, partner is the load in `close`.
            self.0.0.fetch_sub(1, Release);
        }
    }
}

pub(crate) use imp::{Gate, Inside};
