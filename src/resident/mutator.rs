//! The per-thread handle of a cache, and the hot path.

use super::cache::{Cache, TIER};
use super::code_cache::CodeCache;
use super::completion::Origin;
use super::counts::Counts;
use super::entry::{ByKey, Hit, Keyed, Mark};
use super::error::CacheError;
use super::lookup::{Interpret, Lookup};
use super::near::Near;
use super::source::Source;
use super::unit::{CacheKey, Purpose};
use crate::code::Code;
use crate::id::{Bead, TierId};
use crate::mutator::Mutator;
use crate::shared::Shared;
use crate::stats::add;
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// Hits of a mutator after which it looks at the clock, so that uses are noted with some precision also where nothing misses.
const CLOCK_EVERY: u64 = 1_024;

/// A thread that looks keys up: a [`Mutator`] of the cache's engine, with counts and a few recent keys of its own.
///
/// One per thread, made by [`CodeCache::mutator`]. It is a `&Mutator`, so scopes, leases and [`as_raw`](Mutator::as_raw) are there;
/// what states something about this thread's frames, such as [`safepoint`](CacheMutator::safepoint), is its own. It keeps the
/// cache alive.
pub struct CacheMutator<K: CacheKey> {
    mutator: Mutator,
    cache: CodeCache<K>,
    inside: Arc<Cache<K>>,
    counts: Arc<CachePadded<Counts>>,
    near: Near<K>,
    /// Whether calls of code are counted, because there are tiers above the cache's.
    counts_code: bool,
}

/// Where a key was found.
enum Found<'m, K> {
    Code(Code<'m>, Origin),
    /// Known, and without code.
    Cold(Keyed<K>),
    Unknown,
}

impl<K: CacheKey> CacheMutator<K> {
    pub(super) fn new(cache: CodeCache<K>) -> CacheMutator<K> {
        let shared = cache.engine().shared();
        let counts = {
            let _no_fork = shared.gate.enter();
            cache.inside().counts.join()
        };
        CacheMutator {
            mutator: cache.engine().mutator(),
            counts,
            near: Near::new(),
            counts_code: shared.drain.lanes.top() > TIER,
            inside: cache.inside().clone(),
            cache,
        }
    }

    /// The code of a key, if there is some; otherwise the key is counted, and compiled in the background when its tier's policy says
    /// so. Never waits, unless the cache is [blocking](super::CodeCacheBuilder::blocking).
    ///
    /// `source` is asked for its bytes only if this call has the compile requested. A hit among the keys this thread used lately
    /// costs the key's hash and comparison, and about what a dispatch costs; it allocates nothing and writes nothing shared, but for
    /// the time of the key's use when that has changed (in milliseconds, at most). Another hit costs a look into a map, without a
    /// lock. A key's first miss costs a lock and an allocation.
    #[inline]
    pub fn lookup(&self, key: &K, source: impl Source) -> Lookup<'_> {
        // All that is inlined into the caller; what this does not answer, the other does from the start.
        match self.hit_near(key) {
            Some((code, origin)) => self.hit(code, origin),
            None => self.lookup_far(key, source),
        }
    }

    #[inline(never)]
    fn lookup_far(&self, key: &K, source: impl Source) -> Lookup<'_> {
        if !self.cache.is_enabled() {
            return Lookup::Interpret(Interpret::Disabled);
        }
        if self.counts_code {
            return self.lookup_counted(key, source);
        }
        // It is not among the keys that are near, or has no code; that was looked at before.
        match self.find_far(self.inside().hash(key), key, &uncounted) {
            Found::Code(code, origin) => self.hit(code, origin),
            Found::Cold(entry) => self.missed(Some(entry), key, source),
            Found::Unknown => self.missed(None, key, source),
        }
    }

    /// Where calls of code are counted.
    fn lookup_counted(&self, key: &K, source: impl Source) -> Lookup<'_> {
        // Taken by whichever of the two needs it.
        let source = Cell::new(Some(source));
        let found = self.find(key, |entry| {
            if let Some(source) = source.take() {
                self.count_code(entry, source);
            }
        });
        match (found, source.into_inner()) {
            (Found::Code(code, origin), _) => self.hit(code, origin),
            (Found::Cold(entry), Some(source)) => self.missed(Some(entry), key, source),
            (Found::Unknown, Some(source)) => self.missed(None, key, source),
            // It is taken only where there is code.
            (_, None) => Lookup::Interpret(Interpret::NotReady),
        }
    }

    /// As [`lookup`](CacheMutator::lookup), and compiles a key that has no code, and waits for that, at most `timeout`. Several
    /// threads that wait for one key share its compile.
    pub fn lookup_blocking(&self, key: &K, source: impl Source, timeout: Duration) -> Lookup<'_> {
        if !self.cache.is_enabled() {
            return Lookup::Interpret(Interpret::Disabled);
        }
        match self.find(key, uncounted) {
            Found::Code(code, origin) => self.hit(code, origin),
            Found::Cold(_) | Found::Unknown => self.wait_for(key, source, timeout),
        }
    }

    /// The code of a key, if there is some. Counts neither the key nor a hit or miss; it is a use, all the same. Works also while
    /// the cache is disabled.
    #[inline]
    pub fn get(&self, key: &K) -> Option<Code<'_>> {
        match self.find(key, uncounted) {
            Found::Code(code, _) => Some(code),
            Found::Cold(_) | Found::Unknown => None,
        }
    }

    /// As [`get`](CacheMutator::get), and counts a hit or a miss. Finds and counts nothing while the cache is disabled.
    #[inline]
    pub fn get_tracked(&self, key: &K) -> Option<Code<'_>> {
        if !self.cache.is_enabled() {
            return None;
        }
        match self.find(key, uncounted) {
            Found::Code(code, origin) => self.hit(code, origin).code(),
            Found::Cold(_) | Found::Unknown => {
                self.counts.miss();
                None
            }
        }
    }

    /// The cache.
    pub fn cache(&self) -> &CodeCache<K> {
        &self.cache
    }

    #[inline]
    fn inside(&self) -> &Cache<K> {
        &self.inside
    }

    fn shared(&self) -> &Shared {
        self.mutator.engine().shared()
    }

    // ---- hits

    /// A hit of a key that this thread used lately, where calls of code are not counted.
    #[inline(always)]
    fn hit_near(&self, key: &K) -> Option<(Code<'_>, Origin)> {
        if self.counts_code || !self.cache.is_enabled() {
            return None;
        }
        self.near.find(self.inside.hash(key), key, |entry| self.use_code(entry.bead, &entry.hit))
    }

    #[inline(always)]
    fn hit<'m>(&'m self, code: Code<'m>, origin: Origin) -> Lookup<'m> {
        if self.counts.hit().is_multiple_of(CLOCK_EVERY) {
            self.look_at_clock();
        }
        Lookup::Compiled { code, origin }
    }

    #[cold]
    fn look_at_clock(&self) {
        self.inside().look_at_clock(self.shared());
    }

    /// Finds a key's code, and uses it. `count` is called where calls of code are counted.
    #[inline]
    fn find(&self, key: &K, count: impl Fn(&Keyed<K>)) -> Found<'_, K> {
        let hash = self.inside().hash(key);
        let near = self.near.find(hash, key, |entry| {
            let found = self.use_code(entry.bead, &entry.hit)?;
            self.count_use(entry, &count);
            Some(found)
        });
        match near {
            Some((code, origin)) => Found::Code(code, origin),
            None => self.find_far(hash, key, &count),
        }
    }

    #[inline(never)]
    fn find_far(&self, hash: u64, key: &K, count: &impl Fn(&Keyed<K>)) -> Found<'_, K> {
        let map = self.inside().map.pin();
        let Some((node, ())) = map.get_key_value(&ByKey(key)) else { return Found::Unknown };
        match self.use_code(node.bead, &node.hit) {
            Some((code, origin)) => {
                self.count_use(&node.entry, count);
                self.near.note(hash, &node.entry);
                Found::Code(code, origin)
            }
            None => Found::Cold(node.entry.clone()),
        }
    }

    /// A key's code, if there is some; that is a use of it.
    #[inline(always)]
    fn use_code(&self, bead: Bead, hit: &Hit) -> Option<(Code<'_>, Origin)> {
        let code = self.mutator.code(bead)?;
        hit.touch(self.inside().now());
        Some((code, if hit.is_loaded() { Origin::Loaded } else { Origin::Compiled }))
    }

    #[inline(always)]
    fn count_use(&self, entry: &Keyed<K>, count: impl Fn(&Keyed<K>)) {
        if self.counts_code {
            count(entry);
        }
    }

    /// Counts a call of code, for the tiers above.
    #[cold]
    fn count_code(&self, entry: &Keyed<K>, source: impl Source) {
        if self.is_full() {
            add(&self.inside().counters.turned_away, 1);
            return;
        }
        let note = self.inside().note(entry, source, Purpose::Run);
        let _ = self.mutator.dispatch_with(entry.bead, note);
    }

    // ---- misses

    #[cold]
    #[inline(never)]
    fn missed(&self, found: Option<Keyed<K>>, key: &K, source: impl Source) -> Lookup<'_> {
        if let Some(timeout) = self.inside().settings.blocking {
            return self.wait_for(key, source, timeout);
        }
        let (shared, cache) = (self.shared(), self.inside());
        let live = found.filter(|entry| shared.table.live(entry.bead).is_ok());
        let (entry, fresh) = match live.map_or_else(|| self.admit(key, &source), |entry| Ok((entry, false))) {
            Ok(admitted) => admitted,
            Err(why) => return Lookup::Interpret(why),
        };
        if entry.is(Mark::INELIGIBLE) {
            return Lookup::Interpret(Interpret::Ineligible);
        }
        self.counts.miss();
        entry.mark(Mark::CALLED, !fresh);
        cache.look_at_clock(shared);
        let failed = entry.is(Mark::FAILED);
        self.count(&entry, source);
        Lookup::Interpret(if failed { Interpret::Failed } else { Interpret::NotReady })
    }

    fn admit(&self, key: &K, source: &impl Source) -> Result<(Keyed<K>, bool), Interpret> {
        if !self.inside().is_eligible(source.size()) {
            return Err(Interpret::Ineligible);
        }
        self.inside().admit(self.cache.engine(), key, source.size()).map_err(|_| {
            // No room for it now. It is a lookup without code all the same.
            self.counts.miss();
            Interpret::NotReady
        })
    }

    /// Counts a key without code, and has it compiled if it is hot or has an artifact.
    fn count(&self, entry: &Keyed<K>, source: impl Source) {
        let cache = self.inside();
        if self.is_full() {
            // Neither counted nor looked for, so that the next lookup finds out again.
            add(&cache.counters.turned_away, 1);
            return;
        }
        let note = cache.note(entry, source, cache.purpose());
        let tier = if entry.mark(Mark::LOOKED_FOR, true) { None } else { self.tier_at_first(entry) };
        if let Some(tier) = tier {
            // If an artifact is refused, or a compile fails, its policy asks.
            let _ = self.cache.engine().promote_with(entry.bead, tier, note);
        } else {
            let _ = self.mutator.dispatch_with(entry.bead, note);
        }
    }

    /// The tier a key is asked for at its first lookup, if it is.
    fn tier_at_first(&self, entry: &Keyed<K>) -> Option<TierId> {
        let (cache, shared) = (self.inside(), self.shared());
        let known = cache.remembered(shared, entry);
        if let Some(known) = known.filter(|known| known.bailouts > 0) {
            shared.ask_after(entry.bead, known.delay());
            return None;
        }
        let remembered = known.map_or(TierId::INTERPRETER, |known| known.tier.min(shared.drain.lanes.top()));
        // What an artifact holds is the first tier's code, and is there sooner.
        let tier = if cache.has_artifact(&entry.key) { TIER } else { remembered };
        (tier != TierId::INTERPRETER).then_some(tier)
    }

    /// Whether so many requests wait that nothing more is asked for by lookups.
    fn is_full(&self) -> bool {
        self.shared().drain.queued() >= self.inside().settings.pending_limit
    }

    #[cold]
    fn wait_for(&self, key: &K, source: impl Source, timeout: Duration) -> Lookup<'_> {
        let waited = self.cache.compile_sync(key, source, timeout);
        if matches!(waited, Err(CacheError::Ineligible { .. })) {
            return Lookup::Interpret(Interpret::Ineligible);
        }
        self.counts.miss();
        match (self.find(key, uncounted), waited) {
            (Found::Code(code, origin), _) => Lookup::Compiled { code, origin },
            (_, Err(CacheError::Compile(_))) => Lookup::Interpret(Interpret::Failed),
            _ => Lookup::Interpret(Interpret::NotReady),
        }
    }

    // ---- safepoints

    /// As [`Mutator::safepoint`].
    #[inline]
    pub fn safepoint(&mut self) {
        self.near.settle();
        self.mutator.safepoint();
    }

    /// As [`Mutator::safepoint_with`].
    pub fn safepoint_with(&mut self, return_addresses: &[usize]) {
        self.near.settle();
        self.mutator.safepoint_with(return_addresses);
    }

    /// As [`Mutator::offline`].
    pub fn offline<R>(&mut self, blocking: impl FnOnce() -> R) -> R {
        self.mutator.offline(blocking)
    }
}

/// For uses that count as no call.
fn uncounted<K>(_: &Keyed<K>) {}

impl<K: CacheKey> Deref for CacheMutator<K> {
    type Target = Mutator;
    fn deref(&self) -> &Mutator {
        &self.mutator
    }
}

impl<K: CacheKey> Drop for CacheMutator<K> {
    fn drop(&mut self) {
        let _no_fork = self.shared().gate.enter();
        self.inside().counts.leave(&self.counts);
    }
}

impl<K: CacheKey> fmt::Debug for CacheMutator<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMutator").field("mutator", &self.mutator).finish_non_exhaustive()
    }
}
