//! What the tests of the code cache share.

use super::*;
use beadwork::resident::*;
use beadwork::{EngineBuilder, FnBackend};

pub(crate) type Key = u64;

/// A source that stands for a key.
pub(crate) fn source(key: Key) -> Vec<u8> {
    format!("source of {key}").into_bytes()
}

/// What compiles of a cache saw, and what is alive of what they made.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) alive: Alive,
    compiled: Arc<Mutex<Vec<Key>>>,
}

impl Seen {
    /// The keys compiled since the last call, in order.
    pub(crate) fn keys(&self) -> Vec<Key> {
        std::mem::take(&mut self.compiled.lock().unwrap())
    }

    /// A tier entered at the `misses`-th miss, whose compiler checks that sources fit their keys.
    pub(crate) fn tier(&self, misses: u32) -> Tier {
        let seen = self.clone();
        self.tier_by(misses, move |_, _| Ok(seen.alive.code()))
    }

    /// The same, with a compiler of the test's own.
    pub(crate) fn tier_by(
        &self,
        misses: u32,
        compile: impl Fn(Key, &mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + Sync + 'static,
    ) -> Tier {
        let compiled = self.compiled.clone();
        let backend = FnBackend::new(move |job: &mut Job<'_>| {
            let unit = Unit::<Key>::of(job)?;
            assert_eq!(unit.source(), source(*unit.key()));
            let key = *unit.key();
            compiled.lock().unwrap().push(key);
            compile(key, job)
        });
        Tier::new(backend).policy(Threshold::new(misses))
    }
}

/// An engine without threads.
pub(crate) fn inline_engine() -> EngineBuilder {
    Engine::builder().inline().capacity(1 << 18)
}

/// A cache without threads, whose keys are compiled at the third miss.
pub(crate) fn inline_cache(seen: &Seen) -> CodeCache<Key> {
    CodeCache::builder(seen.tier(3)).engine(inline_engine()).build().unwrap()
}

/// Looks a key up, with its source.
pub(crate) fn look<'m>(m: &'m CacheMutator<Key>, key: Key) -> Lookup<'m> {
    m.lookup(&key, &source(key))
}

pub(crate) fn why(m: &CacheMutator<Key>, key: Key) -> Option<Interpret> {
    look(m, key).interpret()
}

/// Looks a key up until it is asked for, and has it compiled on this thread.
pub(crate) fn make_hot(cache: &CodeCache<Key>, m: &CacheMutator<Key>, key: Key) {
    for _ in 0..3 {
        assert_eq!(why(m, key), Some(Interpret::NotReady));
    }
    cache.drain(LONG).unwrap();
    assert!(m.get(&key).is_some());
}
