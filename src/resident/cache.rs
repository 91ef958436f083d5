//! What all handles and mutators of a cache share, and the tier's backend with them. It holds no handle of the engine, which holds
//! this; who calls passes the engine's inside along.
//!
//! Locks are taken in the engine's sections, one at a time, and nothing foreign runs under them but the keys' own `Hash` and `Eq`.

use super::artifacts::{ArtifactCounts, Artifacts};
use super::builder::Settings;
use super::completion::Completion;
use super::counts::{AllCounts, CacheStats, Counters};
use super::entry::{ByKey, Entry, Keyed, Node};
use super::error::CacheError;
use super::flights::Flights;
use super::held::Held;
use super::looks::Looks;
use super::ring::{Ring, Standing};
use super::turnstile::Turnstile;
use super::unit::CacheKey;
use super::wishes::Wishes;
use crate::backend::Backend;
use crate::clock;
use crate::contain::contain;
use crate::drain::Crew;
use crate::engine::Engine;
use crate::id::{Bead, Core, TierId};
use crate::info::BeadInfo;
use crate::saved::Remembered;
use crate::shared::Shared;
use crate::state::Pending;
use crate::stats::{add, read};
use crate::sync::lock;
use crossbeam_utils::CachePadded;
use foldhash::fast::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// The tier of a cache's backend.
pub(super) const TIER: TierId = TierId::BASELINE;

/// A closure that hears of attempts.
pub(super) type OnCompletion<K> = Arc<dyn Fn(&Completion<'_, K>) + Send + Sync>;

pub(super) struct Cache<K> {
    pub(super) settings: Settings<K>,
    pub(super) artifacts: Option<Arc<dyn Artifacts<K>>>,
    /// Of all tiers; set when the engine is built.
    pub(super) backends: OnceLock<Vec<Arc<dyn Backend>>>,
    /// Set when the engine is built.
    engine: OnceLock<Weak<Shared>>,
    hasher: RandomState,
    pub(super) map: papaya::HashMap<Node<K>, (), RandomState>,
    /// Also taken by whoever adds a key, so that the map and the ring agree.
    ring: Mutex<Ring<K>>,
    pub(super) held: Mutex<Held<K>>,
    pub(super) flights: Flights<K>,
    pub(super) wishes: Wishes<K>,
    pub(super) counts: AllCounts,
    pub(super) counters: Counters,
    pub(super) turnstile: Turnstile,
    /// Milliseconds of the engine's clock when somebody last looked. Read by every hit, written now and then.
    now: CachePadded<AtomicU32>,
    /// All that moves `now` does so under this lock. None where code may be idle for ever.
    pub(super) looks: Option<Mutex<Looks>>,
    pub(super) swept: AtomicU32,
    /// Bytes of pages when the budget was looked at last.
    pub(super) pages_seen: AtomicU64,
}

impl<K: CacheKey> Cache<K> {
    pub(super) fn new(settings: Settings<K>, artifacts: Option<Arc<dyn Artifacts<K>>>) -> Cache<K> {
        let hasher = RandomState::default();
        Cache {
            looks: settings.idle.map(|idle| Mutex::new(Looks::new(idle))),
            settings,
            artifacts,
            backends: OnceLock::new(),
            engine: OnceLock::new(),
            map: papaya::HashMap::with_hasher(hasher.clone()),
            hasher,
            ring: Mutex::new(Ring::new()),
            held: Mutex::new(Held::new()),
            flights: Flights::new(),
            wishes: Wishes::new(),
            counts: AllCounts::default(),
            counters: Counters::default(),
            turnstile: Turnstile::default(),
            now: CachePadded::new(AtomicU32::new(0)),
            swept: AtomicU32::new(0),
            pages_seen: AtomicU64::new(0),
        }
    }

    /// Said once: what compiles for it.
    pub(super) fn uses(&self, backends: Vec<Arc<dyn Backend>>) {
        let _ = self.backends.set(backends);
    }

    /// Said once, when the engine is built.
    pub(super) fn belongs_to(&self, engine: &Shared) {
        let _ = self.engine.set(engine.me.clone());
        let now = engine.now();
        if let Some(looks) = &self.looks {
            let _no_fork = engine.gate.enter();
            lock(looks).note(now);
        }
        self.now.store(now, Relaxed);
        self.swept.store(now, Relaxed);
    }

    /// The engine's inside; none at its end.
    pub(super) fn engine(&self) -> Option<Arc<Shared>> {
        self.engine.get().and_then(Weak::upgrade)
    }

    #[inline]
    pub(super) fn hash(&self, key: &K) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The coarse time by which uses are noted.
    #[inline]
    pub(super) fn now(&self) -> u32 {
        self.now.load(Relaxed)
    }

    /// Looks at the clock, and for keys that were not used for long if it is time to.
    pub(super) fn look_at_clock(&self, shared: &Shared) {
        let now = shared.now();
        self.note_look(shared, now);
        let swept = self.swept.load(Relaxed);
        if self.settings.idle.is_some()
            && clock::since(now, swept) >= self.settings.sweep
            && self.swept.compare_exchange(swept, now, Relaxed, Relaxed).is_ok()
        {
            self.sweep(shared);
        }
    }

    /// Has uses be noted by this time from now on.
    pub(super) fn note_look(&self, shared: &Shared, now: u32) {
        let Some(looks) = &self.looks else {
            self.now.store(now, Relaxed);
            return;
        };
        // Most who look within a millisecond find that another has.
        if self.now() == now {
            return;
        }
        let _no_fork = shared.gate.enter();
        let mut looks = lock(looks);
        // Not if another thread was here with a later time.
        if now.wrapping_sub(self.now()).cast_signed() > 0 {
            looks.note(now);
            self.now.store(now, Relaxed);
        }
    }

    // ---- keys come

    /// Whether a source of that size is compiled, as far as is known.
    pub(super) fn is_eligible(&self, size: Option<usize>) -> bool {
        let limit = self.settings.source_limit;
        size.is_none_or(|bytes| bytes > 0 && (limit == 0 || bytes <= limit))
    }

    pub(super) fn ineligible(&self, bytes: Option<usize>) -> CacheError {
        CacheError::Ineligible { bytes, limit: self.settings.source_limit }
    }

    /// The entry of a key, if it is known and its function lives.
    pub(super) fn find(&self, shared: &Shared, key: &K) -> Option<Keyed<K>> {
        let found = self.map.pin().get_key_value(&ByKey(key)).map(|(node, ())| node.entry.clone())?;
        if shared.table.live(found.bead).is_ok() {
            return Some(found);
        }
        // The VM removed it by itself. (A key that is forgotten leaves the map first.)
        self.unmap(shared, &found);
        None
    }

    /// The entry of a key, made if there is none; the oldest cold key goes if there are too many. `true` if it was made.
    pub(super) fn admit(
        &self,
        engine: &Engine,
        key: &K,
        size: Option<usize>,
    ) -> Result<(Keyed<K>, bool), CacheError> {
        let shared = engine.shared();
        if let Some(entry) = self.find(shared, key) {
            return Ok((entry, false));
        }
        let (key, now) = (key.clone(), self.now());
        let size = size.and_then(|size| u32::try_from(size).ok()).unwrap_or(0);
        // Foreign code, and so before any lock.
        let name = self.settings.name.as_ref().and_then(|name| contain(|| name(&key)).ok());
        let number = self.settings.profile.as_ref().and_then(|of| contain(|| (of.number)(&key)).ok());
        let info = BeadInfo { name: name.as_deref(), ..BeadInfo::new() };
        let bead = engine.register_with(Core::ZERO, &info.key(number.unwrap_or(0)).size(size))?;
        let entry = Keyed::new(Entry::new(key, bead, now));
        let (there, old) = {
            let _no_fork = shared.gate.enter();
            let (map, mut ring) = (self.map.pin(), lock(&self.ring));
            match map.get_key_value(&ByKey(&entry.key)) {
                Some((there, ())) => (Some(there.entry.clone()), [None, None]),
                None => {
                    map.insert(Node::new(&entry, now), ());
                    // Before the new key is among them: it has had no chance to be called.
                    let old = self.age_out(shared, &mut ring, self.settings.cold_limit.saturating_sub(1));
                    ring.add(&entry);
                    (None, old)
                }
            }
        };
        self.forget_old(shared, &old);
        match there {
            None => Ok((entry, true)),
            Some(there) => {
                let _ = shared.remove(bead);
                Ok((there, false))
            }
        }
    }

    /// What earlier runs knew of a key.
    pub(super) fn remembered(&self, shared: &Shared, entry: &Keyed<K>) -> Option<Remembered> {
        let profile = self.settings.profile.as_ref()?;
        shared.info.key(entry.bead.index()).and_then(|number| profile.before.get(number))
    }

    // ---- keys go

    fn unmap(&self, shared: &Shared, entry: &Keyed<K>) {
        let _no_fork = shared.gate.enter();
        let _ = self.map.pin().remove_if(&ByKey(&entry.key), |found, ()| found.entry.is_same(entry));
    }

    /// Forgets a key: it leaves the map, and then its function ends. Answers whether it was there.
    pub(super) fn forget(&self, shared: &Shared, entry: &Keyed<K>) -> bool {
        self.unmap(shared, entry);
        shared.remove(entry.bead).is_ok()
    }

    /// Forgets every key there is; answers how many.
    pub(super) fn clear(&self, shared: &Shared) -> usize {
        let all: Vec<_> = self.map.pin().keys().map(|node| node.entry.clone()).collect();
        let forgotten = all.iter().filter(|entry| self.forget(shared, entry)).count();
        let _no_fork = shared.gate.enter();
        let gone = lock(&self.ring).take_gone(|entry| standing(shared, entry.bead) == Standing::Gone);
        shared.table.close_removals();
        drop(_no_fork);
        drop((all, gone));
        forgotten
    }

    /// Notes where a key's code is from. Comes before the code is published, so that who finds that finds this.
    pub(super) fn note_origin(&self, shared: &Shared, entry: &Keyed<K>, loaded: bool) {
        entry.hit.set_loaded(loaded);
        let _no_fork = shared.gate.enter();
        let map = self.map.pin();
        if let Some((node, ())) = map.get_key_value(&ByKey(&entry.key))
            && node.entry.is_same(entry)
        {
            node.hit.set_loaded(loaded);
        }
    }

    // ---- code comes and goes

    /// Notes what code a function has by now; its key's entry if it may have got some.
    pub(super) fn settle(&self, shared: &Shared, bead: Bead, entry: Option<&Keyed<K>>) {
        let _no_fork = shared.gate.enter();
        let mut held = lock(&self.held);
        // Looked at within the lock: whoever comes last sees the last change.
        let state = shared.table.live(bead).ok();
        let bytes = || shared.table.code_bytes(bead) as u64;
        let lost = match (state, entry) {
            (Some(state), _) if state.tier() != TierId::INTERPRETER => {
                match entry {
                    Some(entry) => held.set(entry, bytes()),
                    // Other code than it had, perhaps: that of a lower tier, or what the VM installed.
                    None => held.resize(bead, bytes()),
                }
                None
            }
            _ => held.clear(bead),
        };
        drop(held);
        let mut old = [None, None];
        if let (Some(lost), Some(_)) = (&lost, state) {
            // It lives on without code.
            let mut ring = lock(&self.ring);
            ring.add(lost);
            old = self.age_out(shared, &mut ring, self.settings.cold_limit.max(1));
        }
        drop(_no_fork);
        drop(lost);
        self.forget_old(shared, &old);
    }

    /// Takes what has to go out of the ring, if there are more than so many.
    fn age_out(&self, shared: &Shared, ring: &mut Ring<K>, limit: usize) -> [Option<Keyed<K>>; 2] {
        // Two, so that a ring that has outgrown its limit comes back to it.
        let mut old = || ring.age_out(limit, |entry| standing(shared, entry.bead));
        [old(), old()]
    }

    fn forget_old(&self, shared: &Shared, old: &[Option<Keyed<K>>]) {
        let aged_out = old.iter().flatten().filter(|old| self.forget(shared, old)).count();
        add(&self.counters.aged_out, aged_out as u64);
    }

    pub(super) fn stats(&self, shared: &Shared) -> CacheStats {
        // Foreign code, and so before the section.
        let held_bytes = self.pages(shared);
        let artifacts = self.artifacts.as_deref().map(|artifacts| contain(|| artifacts.counts()));
        let ArtifactCounts { persisted, refused } = artifacts.and_then(Result::ok).unwrap_or_default();
        let in_flight = self.flights.len(shared) as u64;
        let counters = &self.counters;
        let _no_fork = shared.gate.enter();
        let (hits, misses) = self.counts.sum();
        let held = lock(&self.held);
        CacheStats {
            hits,
            misses,
            evicted: read(&counters.evicted),
            aged_out: read(&counters.aged_out),
            turned_away: read(&counters.turned_away),
            dispatched: read(&counters.dispatched),
            succeeded: read(&counters.succeeded),
            failed: read(&counters.failed),
            discarded: read(&counters.discarded),
            loaded: read(&counters.loaded),
            kept: read(&counters.kept),
            not_kept: read(&counters.not_kept),
            persisted,
            refused,
            in_flight,
            queued: shared.drain.queued() as u64,
            keys: self.map.len() as u64,
            resident: held.len() as u64,
            code_bytes: held.bytes(),
            retired_bytes: shared.table.grace.waiting().1 as u64,
            held_bytes,
        }
    }
}

fn standing(shared: &Shared, bead: Bead) -> Standing {
    match shared.table.live(bead) {
        Err(_) => Standing::Gone,
        Ok(state) if state.tier() != TierId::INTERPRETER => Standing::Resident,
        Ok(state) if state.pending() != Pending::None => Standing::Pending,
        Ok(_) => Standing::Cold,
    }
}
