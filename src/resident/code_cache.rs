//! The cache's handle.

use super::builder::CodeCacheBuilder;
use super::cache::{Cache, TIER};
use super::counts::CacheStats;
use super::entry::{Keyed, Mark};
use super::error::CacheError;
use super::mutator::CacheMutator;
use super::notes::Once;
use super::source::Source;
use super::unit::{CacheKey, Purpose};
use crate::contain::contain;
use crate::engine::{Engine, PauseGuard};
use crate::error::{CompileNowError, DrainTimeout, PromoteError};
use crate::id::{Bead, TierId};
use crate::lease::Lease;
use crate::saved::SavedProfile;
use crate::shared::Shared;
use crate::state::Pending;
use crate::tier::Tier;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Code by the content it was compiled from. See the [module](super).
///
/// A handle is a counted reference: clones share everything. When the last handle and the last [`CacheMutator`] are gone, queued
/// work is dropped, compiles in flight are waited for (for the engine's
/// [`close_timeout`](crate::EngineBuilder::close_timeout) at the most), and all code is freed.
pub struct CodeCache<K>(Arc<Life<K>>);

struct Life<K> {
    cache: Arc<Cache<K>>,
    engine: Engine,
    /// Whether artifacts are to be loaded when the cache is enabled next.
    to_preload: AtomicBool,
}

impl<K> Clone for CodeCache<K> {
    fn clone(&self) -> CodeCache<K> {
        CodeCache(self.0.clone())
    }
}

impl<K: CacheKey> CodeCache<K> {
    /// Configures a cache whose keys are compiled by `tier`: by its backend, when its policy says so of the number of misses
    /// (1,000 if it was given none; 8 is a usual choice where sources are large), and within its limits. The backend finds key and
    /// source by [`Unit::of`](super::Unit::of).
    pub fn builder(tier: Tier) -> CodeCacheBuilder<K> {
        CodeCacheBuilder::new(tier)
    }

    pub(super) fn start(cache: Arc<Cache<K>>, engine: Engine, preload: bool) -> CodeCache<K> {
        CodeCache(Arc::new(Life { cache, engine, to_preload: AtomicBool::new(preload) }))
    }

    #[inline]
    pub(super) fn inside(&self) -> &Arc<Cache<K>> {
        &self.0.cache
    }

    /// The engine below: one function for each key, at the baseline tier. What it tells and does for functions it does for keys; but
    /// keys come and go by the cache alone.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// A handle for a thread that looks keys up.
    pub fn mutator(&self) -> CacheMutator<K> {
        CacheMutator::new(self.clone())
    }

    fn shared(&self) -> &Shared {
        self.0.engine.shared()
    }

    // ---- asking for compiles

    /// Has a key compiled, whatever the policy thinks; returns at once. Nothing happens if it has code or waits for it.
    ///
    /// # Errors
    /// [`CacheError`]; among others if the cache is disabled.
    pub fn compile(&self, key: &K, source: impl Source) -> Result<(), CacheError> {
        let (inside, size, source) = (self.inside(), source.size(), Once::new(source));
        loop {
            let entry = self.entry(key, size)?;
            let unfetched = Cell::new(false);
            let note = || noting(&unfetched, || inside.unit(&entry, &source, inside.purpose()));
            let asked = self.0.engine.promote_with(entry.bead, TIER, note);
            if !entry.is(Mark::PRELOADING) || !matches!(asked, Ok(()) | Err(PromoteError::Stale(_))) {
                asked?;
                return if unfetched.get() { Err(inside.ineligible(size)) } else { Ok(()) };
            }
            // Perhaps what is asked for is only an artifact, and the key is forgotten if that cannot be used.
            let Some(unit) = contain(note).ok().flatten() else { return Err(inside.ineligible(size)) };
            let shared = self.shared();
            if inside.wishes.put(shared, &entry, &unit) {
                if !shared.table.live(entry.bead).is_ok_and(|now| now.pending() != Pending::None) {
                    // It has code, or was cleared meanwhile: nothing takes the wish.
                    inside.wishes.take_back(shared, entry.bead, &unit);
                }
                return Ok(asked?);
            }
            inside.forget(shared, &entry);
        }
    }

    /// Has a key compiled, before all that is merely hot, and waits for it, at most `timeout`. Threads that ask for the same key
    /// share one compile, and its failure. Where there are no workers, or this is one of them, this thread does the work.
    ///
    /// # Errors
    /// [`CacheError::Compile`] with the compiler's reason, or another that says why there is no code.
    pub fn compile_sync(&self, key: &K, source: impl Source, timeout: Duration) -> Result<(), CacheError> {
        let (inside, size, source) = (self.inside(), source.size(), Once::new(source));
        let start = Instant::now();
        loop {
            let entry = self.entry(key, size)?;
            let unfetched = Cell::new(false);
            let note = || noting(&unfetched, || inside.unit(&entry, &source, inside.purpose()));
            let left = timeout.saturating_sub(start.elapsed());
            return match self.0.engine.compile_now_with(entry.bead, TIER, left, note) {
                Ok(_) => Ok(()),
                // There was only an artifact asked for, and it cannot be used.
                Err(_) if entry.is(Mark::DOOMED) => {
                    inside.forget(self.shared(), &entry);
                    continue;
                }
                Err(CompileNowError::Superseded(_)) if unfetched.get() || entry.is(Mark::INELIGIBLE) => {
                    Err(inside.ineligible(size))
                }
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Has an artifact of a key made, and its code installed with it; returns at once. If there is an artifact already, that is linked.
    /// Code the key has runs until then. If the key waits for a compile, that becomes this one, and one that is running is followed
    /// by it. The source is fetched in any case.
    ///
    /// # Errors
    /// [`CacheError::NoArtifacts`], [`CacheError::Optimized`], and as [`compile`](CodeCache::compile).
    pub fn prepare(&self, key: &K, source: impl Source) -> Result<(), CacheError> {
        if self.inside().artifacts.is_none() {
            return Err(CacheError::NoArtifacts);
        }
        let (inside, shared, size) = (self.inside(), self.shared(), source.size());
        let source = Once::new(source);
        loop {
            let entry = self.entry(key, size)?;
            let unit = contain(|| inside.unit(&entry, &source, Purpose::Prepare)).ok().flatten();
            let Some(unit) = unit else { return Err(inside.ineligible(size)) };
            // Before it is asked for: an attempt that is under way looks for it when it ends.
            if !inside.wishes.put(shared, &entry, &unit) {
                inside.forget(shared, &entry);
                continue;
            }
            let asked = self.0.engine.recompile_with(entry.bead, TIER, || Some(unit.clone()));
            let is_above = shared.table.live(entry.bead).is_ok_and(|now| now.tier() > TIER);
            let result = match asked {
                Ok(()) if is_above => Err(CacheError::Optimized),
                Ok(()) => return Ok(()),
                Err(error) => Err(error.into()),
            };
            inside.wishes.take_back(shared, entry.bead, &unit);
            return result;
        }
    }

    /// [Prepares](CodeCache::prepare) many keys; answers those that were refused, by their position, each with its reason.
    /// [`drain`](CodeCache::drain) waits for the rest.
    pub fn prepare_batch<S: Source>(
        &self,
        keys: impl IntoIterator<Item = (K, S)>,
    ) -> Vec<(usize, CacheError)> {
        let prepare = |(key, source)| self.prepare(&key, source).err();
        keys.into_iter().enumerate().filter_map(|(at, key)| Some((at, prepare(key)?))).collect()
    }

    /// Has every artifact there is linked; answers how many were asked for, and returns at once. Those that cannot be used are
    /// reported by whoever keeps them; how many could not be asked for (since the cache is disabled, say) is logged.
    ///
    /// # Errors
    /// The keys cannot be listed. Nothing was asked for then.
    pub fn preload(&self) -> io::Result<usize> {
        Ok(self.preload_all(self.artifact_keys()?))
    }

    fn artifact_keys(&self) -> io::Result<Vec<K>> {
        let Some(artifacts) = self.inside().artifacts.as_deref() else { return Ok(Vec::new()) };
        contain(|| artifacts.keys()).unwrap_or_else(|message| Err(io::Error::other(message)))
    }

    fn preload_all(&self, keys: Vec<K>) -> usize {
        let (mut asked, mut failed) = (0, None);
        for key in &keys {
            match self.preload_one(key) {
                Ok(()) => asked += 1,
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            tracing::warn!(target: "beadwork", keys = keys.len() - asked, %error, "artifacts were not asked for");
        }
        asked
    }

    fn preload_one(&self, key: &K) -> Result<(), CacheError> {
        let (entry, _) = self.inside().admit(&self.0.engine, key, None)?;
        // Before it is asked for, so that who asks for the key and finds this request sees it.
        entry.mark(Mark::PRELOADING, true);
        let note = || self.inside().unit_of(&entry, None, Purpose::Preload);
        Ok(self.0.engine.promote_with(entry.bead, TIER, note)?)
    }

    /// Waits until nothing is queued and nothing is being compiled.
    ///
    /// # Errors
    /// [`DrainTimeout`] after `timeout`; everything goes on as before.
    pub fn drain(&self, timeout: Duration) -> Result<(), DrainTimeout> {
        self.0.engine.drain(timeout)
    }

    fn entry(&self, key: &K, size: Option<usize>) -> Result<Keyed<K>, CacheError> {
        if !self.is_enabled() {
            return Err(CacheError::Refused(PromoteError::Disabled));
        }
        if !self.inside().is_eligible(size) {
            return Err(self.inside().ineligible(size));
        }
        self.inside().admit(&self.0.engine, key, size).map(|(entry, _)| entry)
    }

    // ---- looking

    /// Leases the code of a key, from any thread; `None` if it has none. It is a use; it counts as no lookup. See [`Lease`].
    pub fn lease(&self, key: &K) -> Option<Lease> {
        let entry = self.inside().find(self.shared(), key)?;
        let lease = self.0.engine.lease(entry.bead)?;
        entry.hit.touch(self.inside().now());
        Some(lease)
    }

    /// A snapshot of what the cache did and holds. Costs some locks.
    pub fn stats(&self) -> CacheStats {
        self.inside().stats(self.shared())
    }

    /// What this run has learned so far of the keys there are, and what is left of what earlier ones did; to be
    /// [saved](SavedProfile::save), and given to [`CodeCacheBuilder::profile`] in the next one. Costs a walk over all keys.
    ///
    /// A key that has code counts as called as often as before: hits are not counted, but code that is not used goes. `None` if the
    /// cache was given no profile, not even an empty one.
    pub fn remember(&self) -> Option<SavedProfile> {
        let before = &self.inside().settings.profile.as_ref()?.before;
        let shared = self.shared();
        let calls_of = |bead: Bead, calls: u32| {
            let has_code = shared.table.live(bead).is_ok_and(|now| now.tier() != TierId::INTERPRETER);
            let known = shared.info.key(bead.index()).filter(|_| has_code).and_then(|key| before.get(key));
            known.map_or(calls, |known| calls.max(known.calls.div_ceil(2)))
        };
        Some(self.0.engine.remember_by(before, calls_of))
    }

    // ---- control

    /// Whether lookups answer code and compiles are accepted.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.0.engine.is_enabled()
    }

    /// Enables or disables the cache. Disabling lets compiles that run finish, and keeps code for when it is enabled again; queued
    /// ones are compiled, too. No thread is started by this, but by the first request afterwards; if that cannot be, by the
    /// next one.
    ///
    /// # Errors
    /// The cache was to [preload](CodeCacheBuilder::preload) and the artifacts cannot be listed: it stays as it is. Try again.
    pub fn set_enabled(&self, enabled: bool) -> io::Result<()> {
        // Relaxed: whoever takes it does it, and it publishes nothing.
        let preloads = enabled && self.0.to_preload.swap(false, Relaxed);
        // Listed first, so that a failure changes nothing, for nobody.
        let keys = if preloads { self.artifact_keys() } else { Ok(Vec::new()) };
        let keys = keys.inspect_err(|_| self.0.to_preload.store(true, Relaxed))?;
        self.0.engine.set_enabled(enabled);
        self.preload_all(keys);
        Ok(())
    }

    /// Begins no compile until the guard is dropped. Nests, never waits, and may come before anything was asked for.
    pub fn pause(&self) -> PauseGuard {
        self.0.engine.pause()
    }

    /// Forgets every key, with its code; answers how many there were. Done when it returns: lookups that happen afterwards find
    /// nothing of before, and results of compiles in flight are discarded. Who waits for one gets [`CacheError::Cleared`]; compiles
    /// asked for since go on. Code that threads are in stays until they pass a safepoint. Works on a disabled cache, too.
    pub fn clear_resident(&self) -> usize {
        self.inside().clear(self.shared())
    }

    /// Removes every artifact, also those that are being made. Done when it returns; code that was loaded stays.
    ///
    /// # Errors
    /// The store said so. What was removed stays removed.
    pub fn clear_persisted(&self) -> io::Result<()> {
        let Some(artifacts) = self.inside().artifacts.as_deref() else { return Ok(()) };
        self.inside().turnstile.turn_over(&self.shared().gate);
        contain(|| artifacts.clear()).unwrap_or_else(|message| Err(io::Error::other(message)))
    }

    /// Both: first the artifacts, so that none is loaded again. Answers how many keys there were.
    ///
    /// # Errors
    /// As [`clear_persisted`](CodeCache::clear_persisted); the keys are forgotten in any case.
    pub fn clear_all(&self) -> io::Result<usize> {
        let cleared = self.clear_persisted();
        let forgotten = self.clear_resident();
        cleared.map(|()| forgotten)
    }

    /// Drops code that was not used for as long as [`idle_after`](CodeCacheBuilder::idle_after) says; answers how many keys. Lookups
    /// and compiles do it every now and then; this is for VMs that have gone quiet, which call it every now and then: it looks at the
    /// clock, and only between two looks is it certain what was not used.
    pub fn sweep(&self) -> usize {
        self.inside().sweep_now(self.shared())
    }
}

impl<K> fmt::Debug for CodeCache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeCache").field("engine", &self.0.engine).finish_non_exhaustive()
    }
}

/// Makes what a request notes; `unfetched` says whether that came to nothing, as it does if the source is not eligible or panics.
fn noting<U>(unfetched: &Cell<bool>, make: impl FnOnce() -> Option<U>) -> Option<U> {
    unfetched.set(true);
    let unit = make();
    unfetched.set(unit.is_none());
    unit
}
