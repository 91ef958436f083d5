//! The shape of the tiered backends of Zyntax and Rayzor: a map of code and a map of counters, each behind a lock.

use super::{Contender, Setup, Who};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Every call counts, and then looks for code.
#[derive(Default)]
pub struct Maps {
    code: RwLock<HashMap<usize, usize>>,
    counts: RwLock<HashMap<usize, AtomicU64>>,
}

/// Two maps.
pub struct RwLockShape(Arc<Maps>);

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Contender for RwLockShape {
    const WHO: Who = Who::RwLock;
    type Handle = usize;
    type Mutator = Arc<Maps>;

    fn new(_: &Setup) -> RwLockShape {
        RwLockShape(Arc::default())
    }

    fn register(&self, core: usize) -> usize {
        write(&self.0.counts).insert(core, AtomicU64::new(0));
        core
    }

    fn install(&self, &key: &usize, entry: *const u8) {
        write(&self.0.code).insert(key, entry.expose_provenance());
    }

    fn remove(&self, key: usize) {
        write(&self.0.code).remove(&key);
        write(&self.0.counts).remove(&key);
    }

    fn mutator(&self) -> Arc<Maps> {
        self.0.clone()
    }

    #[inline(always)]
    fn dispatch(m: &Arc<Maps>, key: &usize) -> Option<*const u8> {
        if let Some(count) = read(&m.counts).get(key) {
            count.fetch_add(1, Relaxed);
        }
        read(&m.code).get(key).map(|&code| std::ptr::with_exposed_provenance(code))
    }
}
