//! The shape of revmc's runtime: a sharded map of counted entries.

use super::{Contender, Setup, Who};
use ::dashmap::DashMap;
use foldhash::fast::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// What is kept of a function.
pub struct Entry {
    code: AtomicUsize,
    count: AtomicU32,
}

/// `DashMap<key, Arc<entry>>`: a lookup clones the `Arc`, so that the code lives as long as the call.
pub struct DashMapShape(Arc<Map>);

type Map = DashMap<usize, Arc<Entry>, RandomState>;

impl Contender for DashMapShape {
    const WHO: Who = Who::DashMap;
    type Handle = usize;
    type Mutator = Arc<Map>;

    fn new(setup: &Setup) -> DashMapShape {
        DashMapShape(Arc::new(DashMap::with_capacity_and_hasher(setup.functions, RandomState::default())))
    }

    fn register(&self, core: usize) -> usize {
        self.0.insert(core, Arc::new(Entry { code: AtomicUsize::new(0), count: AtomicU32::new(0) }));
        core
    }

    fn install(&self, key: &usize, entry: *const u8) {
        if let Some(found) = self.0.get(key) {
            found.code.store(entry.expose_provenance(), Release);
        }
    }

    fn remove(&self, key: usize) {
        self.0.remove(&key);
    }

    fn mutator(&self) -> Self::Mutator {
        self.0.clone()
    }

    #[inline(always)]
    fn dispatch(m: &Self::Mutator, key: &usize) -> Option<*const u8> {
        let entry = m.get(key).map(|found| found.value().clone())?;
        match entry.code.load(Acquire) {
            0 => {
                entry.count.fetch_add(1, Relaxed);
                None
            }
            code => Some(std::ptr::with_exposed_provenance(code)),
        }
    }
}
