//! Building a cache.

use super::artifacts::Artifacts;
use super::cache::{Cache, OnCompletion};
use super::code_cache::CodeCache;
use super::completion::Completion;
use super::dump::Dump;
use super::error::CacheBuildError;
use super::tier::CacheTier;
use super::unit::CacheKey;
use crate::backend::Backend;
use crate::builder::EngineBuilder;
use crate::clock;
use crate::engine::Engine;
use crate::event::Event;
use crate::saved::SavedProfile;
use crate::tier::Tier;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of source above which a key is not compiled, unless the cache is told: 24 KiB.
pub const DEFAULT_SOURCE_LIMIT: usize = 24 << 10;

/// Keys without code a cache remembers, unless it is told: 65,536.
pub const DEFAULT_COLD_LIMIT: usize = 1 << 16;

/// Requests that wait at most, unless the cache is told: 4,096.
pub const DEFAULT_PENDING_LIMIT: usize = 1 << 12;

/// Bytes of code a cache keeps, unless it is told: 1 GiB.
pub const DEFAULT_BYTE_BUDGET: u64 = 1 << 30;

/// How long code is kept that is not used, unless the cache is told: 10 minutes.
pub const DEFAULT_IDLE_AFTER: Duration = Duration::from_secs(600);

/// How often the cache looks for such code, unless it is told: once a minute.
pub const DEFAULT_SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What the builder was told and never changes.
pub(super) struct Settings<K> {
    pub(super) source_limit: usize,
    pub(super) cold_limit: usize,
    pub(super) pending_limit: usize,
    pub(super) budget: u64,
    /// In milliseconds, as the next.
    pub(super) idle: Option<u32>,
    pub(super) sweep: u32,
    /// How long a lookup waits, if lookups do.
    pub(super) blocking: Option<Duration>,
    pub(super) aot: bool,
    pub(super) on_completion: Option<OnCompletion<K>>,
    pub(super) dump: Option<Dump<K>>,
    pub(super) name: Option<Name<K>>,
    pub(super) profile: Option<Profile<K>>,
}

/// What people call a key.
pub(super) type Name<K> = Arc<dyn Fn(&K) -> String + Send + Sync>;

/// What earlier runs learned, and what they called the keys.
pub(super) struct Profile<K> {
    pub(super) before: SavedProfile,
    pub(super) number: Box<dyn Fn(&K) -> u64 + Send + Sync>,
}

/// Configures a [`CodeCache`]; made by [`CodeCache::builder`].
pub struct CodeCacheBuilder<K> {
    tier: Tier,
    engine: EngineBuilder,
    enabled: bool,
    preload: bool,
    artifacts: Option<Arc<dyn Artifacts<K>>>,
    settings: Settings<K>,
}

impl<K: CacheKey> CodeCacheBuilder<K> {
    pub(super) fn new(tier: Tier) -> CodeCacheBuilder<K> {
        let settings = Settings {
            source_limit: DEFAULT_SOURCE_LIMIT,
            cold_limit: DEFAULT_COLD_LIMIT,
            pending_limit: DEFAULT_PENDING_LIMIT,
            budget: DEFAULT_BYTE_BUDGET,
            idle: Some(clock::span(DEFAULT_IDLE_AFTER)),
            sweep: clock::span(DEFAULT_SWEEP_EVERY),
            blocking: None,
            aot: false,
            on_completion: None,
            dump: None,
            name: None,
            profile: None,
        };
        let (engine, enabled, preload, artifacts) = (Engine::builder(), true, false, None);
        CodeCacheBuilder { tier, engine, enabled, preload, artifacts, settings }
    }

    /// The engine below, for what is its business: workers or none, thread names, clock, capacity, listeners. Tiers it was given
    /// come above the cache's own; their backends find key and source by [`Unit::of`](super::Unit::of) as well, and what they make counts
    /// as the cache's, in its budget and its figures. Artifacts are of the cache's own tier only.
    #[must_use]
    pub fn engine(mut self, engine: EngineBuilder) -> Self {
        self.engine = engine;
        self
    }

    /// Builds the cache disabled: lookups answer [`Disabled`](super::Interpret::Disabled), and no thread starts, until
    /// [`set_enabled`](CodeCache::set_enabled).
    #[must_use]
    pub fn disabled(mut self) -> Self {
        self.enabled = false;
        self
    }

    /// Bytes of source above which a key is not compiled; [`DEFAULT_SOURCE_LIMIT`] if not given, 0 for no limit. Empty sources are
    /// not compiled in any case.
    #[must_use]
    pub fn source_limit(mut self, bytes: usize) -> Self {
        self.settings.source_limit = bytes;
        self
    }

    /// How many keys without code are remembered; [`DEFAULT_COLD_LIMIT`] if not given, 0 means 1. For each further one the one that was not
    /// looked up for the longest is forgotten, with its count; roughly, as the clock algorithm finds it.
    #[must_use]
    pub fn cold_limit(mut self, keys: usize) -> Self {
        self.settings.cold_limit = keys;
        self
    }

    /// How many requests may wait; [`DEFAULT_PENDING_LIMIT`] if not given, 0 means 1. While as many do, hot keys are not asked for, and
    /// their counts stand still, so that sources of requests take bounded memory; each next lookup tries again, and looks for its artifact
    /// then. What is asked for by name is not refused.
    #[must_use]
    pub fn pending_limit(mut self, requests: usize) -> Self {
        self.settings.pending_limit = requests.max(1);
        self
    }

    /// Bytes of code the cache keeps; [`DEFAULT_BYTE_BUDGET`] if not given. Counted in the pages the backend holds, if it
    /// [says](crate::Backend::memory), or else as stated by it; of pages that other caches and engines use, too, it is the part that
    /// this cache's code has of all code there. After each batch of compiles the keys least recently used are
    /// dropped until the budget is kept; a sixteenth of it at a time, so that this is seldom. Their pages are given back, or used by
    /// other code, when every mutator has passed a safepoint.
    #[must_use]
    pub fn byte_budget(mut self, bytes: u64) -> Self {
        self.settings.budget = bytes;
        self
    }

    /// How long code is kept that is not used; [`DEFAULT_IDLE_AFTER`] if not given, `None` for ever. A hit does not read the clock: it
    /// notes that the key was used since the cache last did. So code goes once the cache has looked at the clock twice, at least so far
    /// apart, and the key was not used in between; never sooner, and as much later as those looks come late.
    #[must_use]
    pub fn idle_after(mut self, time: Option<Duration>) -> Self {
        self.settings.idle = time.map(clock::span);
        self
    }

    /// How often the cache looks for such code; [`DEFAULT_SWEEP_EVERY`] if not given. There is no timer: lookups and compiles do it
    /// when it is time, and [`sweep`](CodeCache::sweep) at any.
    #[must_use]
    pub fn sweep_every(mut self, time: Duration) -> Self {
        self.settings.sweep = clock::span(time);
        self
    }

    /// Has every lookup of a key without code compile it and wait for that, at most `timeout`, whatever the policy thinks. For
    /// tests and debugging. Implies that the cache is enabled.
    #[must_use]
    pub fn blocking(mut self, timeout: Duration) -> Self {
        self.settings.blocking = Some(timeout);
        self
    }

    /// Asks `artifacts` for a key's code before it is compiled, and keeps there what is compiled ahead of time.
    #[must_use]
    pub fn artifacts(mut self, artifacts: impl Artifacts<K>) -> Self {
        self.artifacts = Some(Arc::new(artifacts));
        self
    }

    /// Compiles ahead of time whatever becomes hot, so that the next process finds it. Needs
    /// [`artifacts`](CodeCacheBuilder::artifacts); without, it changes nothing.
    #[must_use]
    pub fn aot(mut self, aot: bool) -> Self {
        self.settings.aot = aot;
        self
    }

    /// Has all artifacts linked when the cache is first enabled; see [`CodeCache::preload`].
    #[must_use]
    pub fn preload(mut self, preload: bool) -> Self {
        self.preload = preload;
        self
    }

    /// Calls `closure` after each attempt to get code for a key, on the thread that made it. A panic in it is contained.
    #[must_use]
    pub fn on_completion(mut self, closure: impl Fn(&Completion<'_, K>) + Send + Sync + 'static) -> Self {
        self.settings.on_completion = Some(Arc::new(closure));
        self
    }

    /// Names keys for people: in logs and reports, for profilers and debuggers, in what backends dump and what their artifacts say of
    /// themselves. Without, they are called as the [bead](crate::Bead) of the moment prints. Costs a call of `name`, a string and a lock for
    /// each new key. A panic in it is contained, and the key has no name then.
    #[must_use]
    pub fn names(mut self, name: impl Fn(&K) -> String + Send + Sync + 'static) -> Self {
        self.settings.name = Some(Arc::new(name));
        self
    }

    /// Starts from what earlier runs [remembered](CodeCache::remember), and has this one be remembered, too: a key that was hot is asked
    /// for at its first lookup, at the tier it had; one whose code bailed out counts for longer than usual, as
    /// [`Engine::recall`](crate::Engine::recall) has it. `number` gives the number by which a key is remembered, the same in every run; part
    /// of the key will do if that is a hash. 0 means that it is not. Two keys with one number are taken for the same.
    ///
    /// Give an [empty](SavedProfile::empty) profile in the first run.
    #[must_use]
    pub fn profile(
        mut self,
        before: SavedProfile,
        number: impl Fn(&K) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.settings.profile = Some(Profile { before, number: Box::new(number) });
        self
    }

    /// Writes the source of whatever is compiled to `source.bin` in a folder of `root` that `name` names for the key; the backend may
    /// write more beside it ([`Unit::dump_dir`](super::Unit::dump_dir)). In the names of folders, what is neither letter nor digit becomes
    /// an underscore. What cannot be written is logged. Keys are [named](CodeCacheBuilder::names) so elsewhere, too, unless they have other
    /// names there.
    #[must_use]
    pub fn dump(
        mut self,
        root: impl Into<PathBuf>,
        name: impl Fn(&K) -> String + Send + Sync + 'static,
    ) -> Self {
        let name: Name<K> = Arc::new(name);
        self.settings.name.get_or_insert_with(|| name.clone());
        self.settings.dump = Some(Dump { root: root.into(), name });
        self
    }

    /// Builds the cache. No thread starts, unless artifacts are preloaded.
    ///
    /// # Errors
    /// [`CacheBuildError`].
    pub fn build(self) -> Result<CodeCache<K>, CacheBuildError> {
        let mut tier = self.tier;
        let inside = Arc::new(Cache::new(self.settings, self.artifacts));
        let around = |backend: Arc<dyn Backend>, above| -> Arc<dyn Backend> {
            Arc::new(CacheTier { cache: inside.clone(), backend, above })
        };
        let mut backends = vec![tier.backend.clone()];
        tier.backend = around(tier.backend, false);
        let engine = self.engine.around_backends(|backend| {
            backends.push(backend.clone());
            around(backend, true)
        });
        inside.uses(backends);
        let hears = inside.clone();
        let engine = engine
            .tier_below(tier)
            .accept_snapshots()
            // Only lookups know sources.
            .eager_baseline(false)
            .on_event(move |event: &Event| hears.hear(event))
            .build()?;
        inside.belongs_to(engine.shared());
        engine.set_enabled(false);
        let enabled = self.enabled || inside.settings.blocking.is_some();
        let cache = CodeCache::start(inside, engine, self.preload);
        if enabled {
            cache.set_enabled(true).map_err(CacheBuildError::Preload)?;
        }
        Ok(cache)
    }
}

impl<K> fmt::Debug for CodeCacheBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeCacheBuilder").field("tier", &self.tier).finish_non_exhaustive()
    }
}
