//! What requests note for their compiles.

use super::cache::Cache;
use super::entry::{Keyed, Mark};
use super::source::Source;
use super::unit::{Asked, CacheKey, Purpose, Unit};
use crate::contain::contain;
use std::cell::{Cell, OnceCell};
use std::sync::Arc;

impl<K: CacheKey> Cache<K> {
    /// The purpose of what lookups ask for.
    pub(super) fn purpose(&self) -> Purpose {
        if self.settings.aot && self.artifacts.is_some() { Purpose::Prepare } else { Purpose::Run }
    }

    /// Whether there is an artifact for a key; a panic means no.
    pub(super) fn has_artifact(&self, key: &K) -> bool {
        self.artifacts
            .as_deref()
            .is_some_and(|artifacts| contain(|| artifacts.contains(key)).unwrap_or(false))
    }

    /// What a request notes, made at most once however often it is asked for.
    pub(super) fn note<'n>(
        &'n self,
        entry: &'n Keyed<K>,
        source: impl Source + 'n,
        purpose: Purpose,
    ) -> impl Fn() -> Option<Arc<Unit<K>>> + 'n {
        let (source, unit) = (Once::new(source), OnceCell::new());
        move || unit.get_or_init(|| self.unit(entry, &source, purpose)).clone()
    }

    /// Fetches a source; nothing if it is not eligible after all.
    pub(super) fn unit(
        &self,
        entry: &Keyed<K>,
        source: &Once<impl Source>,
        purpose: Purpose,
    ) -> Option<Arc<Unit<K>>> {
        let bytes = source.bytes()?;
        if !self.is_eligible(Some(bytes.len())) {
            entry.mark(Mark::INELIGIBLE, true);
            return None;
        }
        self.unit_of(entry, Some(bytes), purpose)
    }

    pub(super) fn unit_of(
        &self,
        entry: &Keyed<K>,
        source: Option<Arc<[u8]>>,
        purpose: Purpose,
    ) -> Option<Arc<Unit<K>>> {
        // Only at the engine's end there is none.
        let number = self.turnstile.number(&self.engine()?.gate);
        let asked = Asked { entry: entry.clone(), number };
        let dump = self.settings.dump.as_ref().and_then(|dump| dump.folder(&entry.key));
        Some(Arc::new(Unit::asked(entry.key.clone(), source, purpose, dump, asked)))
    }
}

/// A source that is fetched at most once, when it is needed.
pub(super) struct Once<S> {
    source: Cell<Option<S>>,
    bytes: OnceCell<Arc<[u8]>>,
}

impl<S: Source> Once<S> {
    pub(super) fn new(source: S) -> Once<S> {
        Once { source: Cell::new(Some(source)), bytes: OnceCell::new() }
    }

    /// `None` if it panicked before.
    fn bytes(&self) -> Option<Arc<[u8]>> {
        if let Some(source) = self.source.take() {
            let _ = self.bytes.set(source.fetch());
        }
        self.bytes.get().cloned()
    }
}
