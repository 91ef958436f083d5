//! The one place where `std` and loom differ.
//!
//! Everything shared between threads is built from the names exported here. Under `--cfg beadwork_loom` (a name of
//! our own, so that dependencies do not change with it) they are loom's, and the real modules run inside its
//! models. Two things loom does not model are stood in for: columns are boxed slices instead of a mapping, and the
//! lock-free deques are locked ones.

#[cfg(not(beadwork_loom))]
mod imp {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence};
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard, RwLock};
    pub(crate) use std::thread::{Thread, ThreadId, current as this_thread, park, park_timeout};
    pub(crate) use std::thread_local;

    /// What a column can hold: a cell whose all-zero bytes are its initial value.
    pub(crate) trait Cell: bytemuck::Zeroable + Send + Sync + 'static {}
    impl<T: bytemuck::Zeroable + Send + Sync + 'static> Cell for T {}

    /// One step of waiting for another thread that holds a publishing bit: spin first, then give the core away.
    pub(crate) fn wait_a_little(rounds: &mut u32) {
        *rounds = rounds.saturating_add(1);
        if *rounds < 64 { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

#[cfg(beadwork_loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
    pub(crate) use loom::sync::{Mutex, MutexGuard, RwLock};
    // The model's threads are all one of the system's.
    pub(crate) use loom::thread::{Thread, ThreadId, current as this_thread, park};
    pub(crate) use loom::thread_local;
    // Reference counts are not what the models are about, and loom's `Arc` cannot hold trait objects.
    pub(crate) use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    /// A model has no clock: who is not woken is found out.
    pub(crate) fn park_timeout(_: Duration) {
        park();
    }

    pub(crate) trait Cell: Default + Send + Sync + 'static {}
    impl<T: Default + Send + Sync + 'static> Cell for T {}

    /// A mutant's Relaxed fence is none.
    pub(crate) fn fence(ordering: Ordering) {
        if ordering != Ordering::Relaxed {
            loom::sync::atomic::fence(ordering);
        }
    }

    pub(crate) fn wait_a_little(_rounds: &mut u32) {
        loom::thread::yield_now();
    }
}

pub(crate) use imp::*;

/// Which thread this is.
pub(crate) fn current_thread() -> ThreadId {
    this_thread().id()
}

/// Locks, and goes on if a panic poisoned the mutex: no code that can panic runs under any of our locks, except
/// allocation failure, and what the locks guard is valid after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Work-stealing deques: crossbeam's, or under loom a locked queue of the same shape.
pub(crate) mod deque {
    #[cfg(not(beadwork_loom))]
    pub(crate) use crossbeam_deque::{Injector, Steal, Stealer, Worker};

    #[cfg(beadwork_loom)]
    pub(crate) use stand_in::{Injector, Steal, Stealer, Worker};

    #[cfg(beadwork_loom)]
    mod stand_in {
        use crate::sync::{Arc, AtomicUsize, Mutex, MutexGuard, lock};
        use std::collections::VecDeque;
        use std::sync::atomic::Ordering::Relaxed;

        pub(crate) enum Steal<T> {
            Empty,
            Success(T),
            #[allow(dead_code)] // the locked queue never asks to be tried again
            Retry,
        }

        /// Empty to whoever no other ordering has told of a push, as with the real ones; only who takes something is ordered after
        /// its push.
        pub(crate) struct Injector<T> {
            queue: Mutex<VecDeque<T>>,
            len: AtomicUsize,
        }
        pub(crate) struct Worker<T>(Arc<Injector<T>>);
        pub(crate) struct Stealer<T>(Arc<Injector<T>>);

        impl<T> Injector<T> {
            pub(crate) fn new() -> Injector<T> {
                Injector { queue: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0) }
            }
            fn change<R>(&self, change: impl FnOnce(&mut VecDeque<T>) -> R) -> R {
                let mut queue: MutexGuard<'_, _> = lock(&self.queue);
                let answer = change(&mut queue);
                self.len.store(queue.len(), Relaxed);
                answer
            }
            fn pop(&self) -> Option<T> {
                if self.is_empty() { None } else { self.change(VecDeque::pop_front) }
            }
            pub(crate) fn push(&self, value: T) {
                self.change(|queue| queue.push_back(value));
            }
            pub(crate) fn steal(&self) -> Steal<T> {
                self.pop().map_or(Steal::Empty, Steal::Success)
            }
            pub(crate) fn is_empty(&self) -> bool {
                self.len() == 0
            }
            pub(crate) fn len(&self) -> usize {
                self.len.load(Relaxed)
            }
            pub(crate) fn steal_batch_with_limit_and_pop(&self, to: &Worker<T>, limit: usize) -> Steal<T> {
                if self.is_empty() {
                    return Steal::Empty;
                }
                let taken: Vec<T> = self.change(|queue| {
                    let half = queue.len().div_ceil(2).min(limit);
                    queue.drain(..half).collect()
                });
                let mut taken = taken.into_iter();
                let first = taken.next();
                taken.for_each(|value| to.0.push(value));
                first.map_or(Steal::Empty, Steal::Success)
            }
        }

        impl<T> Worker<T> {
            pub(crate) fn new_fifo() -> Worker<T> {
                Worker(Arc::new(Injector::new()))
            }
            pub(crate) fn push(&self, value: T) {
                self.0.push(value);
            }
            pub(crate) fn pop(&self) -> Option<T> {
                self.0.pop()
            }
            pub(crate) fn len(&self) -> usize {
                self.0.len()
            }
            pub(crate) fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
            pub(crate) fn stealer(&self) -> Stealer<T> {
                Stealer(self.0.clone())
            }
        }

        impl<T> Stealer<T> {
            pub(crate) fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
            pub(crate) fn steal_batch_with_limit_and_pop(&self, to: &Worker<T>, limit: usize) -> Steal<T> {
                self.0.steal_batch_with_limit_and_pop(to, limit)
            }
        }
    }
}
