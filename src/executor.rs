//! Where workers run: on a rayon pool of the engine's own, on one handed in, or nowhere (inline).

#[cfg(not(beadwork_loom))]
mod lot;

#[cfg(not(beadwork_loom))]
pub(crate) use threads::Executor;

#[cfg(beadwork_loom)]
pub(crate) use model::Executor;

#[cfg(not(beadwork_loom))]
mod threads {
    use super::lot::Lot;
    use crate::sync::{Arc, AtomicBool, Mutex, lock};
    use rayon::{ThreadPool, ThreadPoolBuilder};
    use std::sync::atomic::Ordering::Relaxed;
    use std::thread::JoinHandle;

    pub(crate) enum Executor {
        /// Threads start with the first request.
        Own {
            workers: usize,
            names: String,
            pool: Mutex<Option<OwnPool>>,
            /// Its threads, which the pool itself does not wait for.
            threads: Mutex<Vec<JoinHandle<()>>>,
        },
        Given {
            pool: Arc<ThreadPool>,
            lost: AtomicBool,
        },
        /// Work runs inside `run_pending`.
        Inline,
    }

    /// A pool whose threads wait in a lot.
    pub(crate) struct OwnPool {
        pool: Arc<ThreadPool>,
        lot: Arc<Lot>,
    }

    impl Drop for OwnPool {
        fn drop(&mut self) {
            self.lot.end();
        }
    }

    impl Executor {
        /// Threads called `names` and a number.
        pub(crate) fn own(workers: usize, names: String) -> Executor {
            if workers == 0 {
                return Executor::Inline;
            }
            Executor::Own { workers, names, pool: Mutex::new(None), threads: Mutex::new(Vec::new()) }
        }

        pub(crate) fn given(pool: Arc<ThreadPool>) -> Executor {
            Executor::Given { pool, lost: AtomicBool::new(false) }
        }

        /// How many workers may run at once, 0 if the executor is inline.
        pub(crate) fn workers(&self) -> usize {
            match self {
                Executor::Own { workers, .. } => *workers,
                Executor::Given { pool, .. } => pool.current_num_threads(),
                Executor::Inline => 0,
            }
        }

        pub(crate) fn spawn(&self, job: impl FnOnce() + Send + 'static) -> Result<(), String> {
            match self {
                Executor::Own { workers, names, pool, threads } => {
                    let mut pool = lock(pool);
                    let own = match &mut *pool {
                        Some(own) => own,
                        none => none.insert(start(*workers, names, threads)?),
                    };
                    own.lot.start(Box::new(job));
                    Ok(())
                }
                Executor::Given { lost, .. } if lost.load(Relaxed) => {
                    Err("the pool handed in has no threads in a forked child".to_string())
                }
                Executor::Given { pool, .. } => {
                    pool.spawn(job);
                    Ok(())
                }
                Executor::Inline => Err("an inline engine has no pool".to_string()),
            }
        }

        /// Whether the calling thread is one of the pool's.
        pub(crate) fn is_pool_thread(&self) -> bool {
            match self {
                Executor::Own { pool, .. } => {
                    lock(pool).as_ref().is_some_and(|own| own.pool.current_thread_index().is_some())
                }
                Executor::Given { pool, .. } => pool.current_thread_index().is_some(),
                Executor::Inline => false,
            }
        }

        /// On one of the pool's threads, does some other work of the pool, such as a worker that waits to be started.
        /// False if the calling thread is none of them, or found nothing to do.
        pub(crate) fn do_other_work(&self) -> bool {
            let pool = match self {
                Executor::Own { pool, .. } => {
                    let own = lock(pool).as_ref().map(|own| (own.pool.clone(), own.lot.clone()));
                    if let Some((pool, lot)) = &own
                        && pool.current_thread_index().is_some()
                        && let Some(job) = lot.take()
                    {
                        job();
                        return true;
                    }
                    own.map(|(pool, _)| pool)
                }
                Executor::Given { pool, .. } => Some(pool.clone()),
                Executor::Inline => None,
            };
            pool.and_then(|pool| pool.yield_now()) == Some(rayon::Yield::Executed)
        }

        /// At the end of an engine whose workers have left: ends its own threads and waits until they are gone, so that none is left
        /// of a library that is unloaded. Not on one of them.
        pub(crate) fn join_threads(&self) {
            let Executor::Own { pool, threads, .. } = self else { return };
            if self.is_pool_thread() {
                return;
            }
            drop(lock(pool).take());
            let threads = std::mem::take(&mut *lock(threads));
            for thread in threads {
                // A panic would have been the pool's own, and has been printed.
                let _ = thread.join();
            }
        }

        /// In a forked child: the threads do not exist. An own pool is forgotten, not dropped (its drop would wake
        /// threads that are not there), and a new one starts with the next request.
        #[cfg(unix)]
        pub(crate) fn forget_threads(&self) {
            match self {
                Executor::Own { pool, threads, .. } => {
                    std::mem::forget((lock(pool).take(), std::mem::take(&mut *lock(threads))));
                }
                Executor::Given { lost, .. } => lost.store(true, Relaxed),
                Executor::Inline => (),
            }
        }
    }

    /// Starts a pool's threads, which go to the lot at once.
    fn start(workers: usize, names: &str, threads: &Mutex<Vec<JoinHandle<()>>>) -> Result<OwnPool, String> {
        let names = names.to_owned();
        let pool = ThreadPoolBuilder::new()
            .num_threads(workers)
            .thread_name(move |number| format!("{names}-{number}"))
            .spawn_handler(|thread| {
                let name = thread.name().unwrap_or_default().to_string();
                let spawned = std::thread::Builder::new().name(name).spawn(|| thread.run())?;
                lock(threads).push(spawned);
                Ok(())
            })
            .build()
            .map_err(|error| error.to_string())?;
        let own = OwnPool { pool: Arc::new(pool), lot: Arc::default() };
        let lot = own.lot.clone();
        // One for each thread.
        own.pool.spawn_broadcast(move |_| lot.serve());
        Ok(own)
    }
}

#[cfg(beadwork_loom)]
mod model {
    use crate::sync::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    /// Counts the workers to start; the model's threads take them by `Executor::started`.
    pub(crate) struct Executor {
        workers: usize,
        to_start: AtomicUsize,
    }

    impl Executor {
        pub(crate) fn new(workers: usize) -> Executor {
            Executor { workers, to_start: AtomicUsize::new(0) }
        }
        pub(crate) fn workers(&self) -> usize {
            self.workers
        }
        pub(crate) fn spawn(&self, _job: impl FnOnce() + Send + 'static) -> Result<(), String> {
            // Relaxed: the wake-up word alone has to order a worker after the request that started it.
            self.to_start.fetch_add(1, Relaxed);
            Ok(())
        }
        /// Whether the caller is to be a worker now.
        pub(crate) fn started(&self) -> bool {
            self.to_start.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok()
        }
        pub(crate) fn is_pool_thread(&self) -> bool {
            false
        }
        pub(crate) fn do_other_work(&self) -> bool {
            false
        }
    }
}
