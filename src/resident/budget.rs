//! What of a cache's code has to go: what was not used for long, and what is beyond the budget.

use super::cache::Cache;
use super::entry::{ByKey, Keyed};
use super::held::{excess, excess_pages, is_shared, share};
use super::unit::CacheKey;
use crate::backend::CodeMemory;
use crate::contain::contain;
use crate::drain::Crew;
use crate::shared::Shared;
use crate::stats::{add, read};
use crate::sync::lock;
use std::sync::atomic::Ordering::Relaxed;

impl<K: CacheKey> Cache<K> {
    /// As `sweep`, now, and not again until it is time.
    pub(super) fn sweep_now(&self, shared: &Shared) -> usize {
        let now = shared.now();
        self.note_look(shared, now);
        self.swept.store(now, Relaxed);
        self.sweep(shared)
    }

    /// Drops code that was not used for long; answers how many keys.
    pub(super) fn sweep(&self, shared: &Shared) -> usize {
        let Some(looks) = &self.looks else { return 0 };
        let victims = {
            let _no_fork = shared.gate.enter();
            let beyond = lock(looks).idle_beyond(self.now());
            beyond.map(|beyond| lock(&self.held).idle(beyond, self.idle_times()))
        };
        self.evict(shared, &victims.unwrap_or_default())
    }

    /// Bytes of the pages that this cache's code has, of those the backends tell of. `None` if one of them does not: pages are no measure
    /// then. Calls foreign code.
    pub(super) fn pages(&self, shared: &Shared) -> Option<u64> {
        let mut memories: Vec<CodeMemory> = Vec::new();
        for backend in self.backends.get()? {
            let memory = contain(|| backend.memory()).ok().flatten()?;
            if memories.iter().all(|other| other.id != memory.id) {
                memories.push(memory);
            }
        }
        let sum = |of: fn(&CodeMemory) -> u64| memories.iter().map(of).sum::<u64>();
        let blocks = {
            let _no_fork = shared.gate.enter();
            let held = lock(&self.held).len();
            held + shared.table.grace.waiting().0 + shared.table.kept.holds().0
        };
        let held = sum(|memory| memory.held_bytes);
        if !is_shared(blocks as u64, sum(|memory| memory.live_blocks)) {
            return Some(held);
        }
        Some(share(held, read(&shared.counters.code_bytes), sum(|memory| memory.live_bytes)))
    }

    /// Drops the code least recently used, if there is more than the budget allows.
    pub(super) fn keep_budget(&self, shared: &Shared) {
        let pages = self.pages(shared);
        let victims = {
            let _no_fork = shared.gate.enter();
            let held = lock(&self.held);
            let budget = self.settings.budget;
            let bytes = pages.map_or_else(
                || excess(budget, held.bytes()),
                |pages| {
                    let retired = shared.table.grace.waiting().1 as u64;
                    // Relaxed: written and read under that lock.
                    excess_pages(budget, pages, self.pages_seen.swap(pages, Relaxed), retired)
                },
            );
            held.oldest(bytes, self.idle_times())
        };
        self.evict(shared, &victims);
    }

    /// For how many milliseconds no use of a key was noted, by any thread.
    fn idle_times(&self) -> impl Fn(&Keyed<K>) -> u32 {
        let (map, now) = (self.map.pin(), self.now());
        move |entry| {
            let idle = entry.hit.idle(now);
            let node = map.get_key_value(&ByKey(&entry.key)).filter(|(node, ())| node.entry.is_same(entry));
            node.map_or(idle, |(node, ())| idle.min(node.hit.idle(now)))
        }
    }

    fn evict(&self, shared: &Shared, victims: &[Keyed<K>]) -> usize {
        let evicted = victims.iter().filter(|entry| self.forget(shared, entry)).count();
        add(&self.counters.evicted, evicted as u64);
        evicted
    }
}
