//! The cache's tier: artifacts first, then the backend; and what is heard of both.

use super::artifacts::{Artifacts, Prepared};
use super::cache::Cache;
use super::completion::{Attempt, Completion, Origin};
use super::entry::Mark;
use super::flights::Flight;
use super::unit::{CacheKey, Purpose, Unit};
use crate::backend::{Backend, Job};
use crate::code::CompiledCode;
use crate::contain::contain;
use crate::error::CompileError;
use crate::event::Event;
use crate::id::Bead;
use crate::shared::Shared;
use crate::stats::add;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The backend of a cache's tier, around that of the VM.
pub(super) struct CacheTier<K> {
    pub(super) cache: Arc<Cache<K>>,
    pub(super) backend: Arc<dyn Backend>,
}

impl<K: CacheKey> Backend for CacheTier<K> {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        // A job is there, so the engine is.
        let Some(shared) = self.cache.engine() else { return };
        let mut rest = 0;
        for position in 0..jobs.len() {
            if let Some(result) = self.begin(&shared, &mut jobs[position]) {
                jobs[position].finish(result);
                jobs.swap(rest, position);
                rest += 1;
            }
        }
        if rest < jobs.len() {
            self.backend.compile(&mut jobs[rest..]);
        }
        self.cache.look_at_clock(&shared);
        self.cache.keep_budget(&shared);
    }

    fn name(&self) -> &str {
        self.backend.name()
    }

    fn held_bytes(&self) -> Option<u64> {
        self.backend.held_bytes()
    }
}

impl<K: CacheKey> CacheTier<K> {
    /// Begins an attempt; answers its result if the backend is not needed for it.
    fn begin(&self, shared: &Shared, job: &mut Job<'_>) -> Option<Result<CompiledCode, CompileError>> {
        let cache = &*self.cache;
        let unit = match Unit::<K>::shared(job) {
            Some(unit) => unit.clone(),
            None => return Some(Err(CompileError::Withdrawn("no lookup asked for it"))),
        };
        let entry = unit.of.as_ref()?.entry.clone();
        let flight =
            Flight { unit: unit.clone(), entry: entry.clone(), loaded: false, begun: Instant::now() };
        if cache.flights.begin(shared, flight).is_none() {
            add(&cache.counters.dispatched, 1);
        }
        if !job.is_current() {
            return Some(Err(CompileError::Withdrawn("superseded before it was compiled")));
        }
        if let Some(dump) = &cache.settings.dump {
            dump.write_source(&unit);
        }
        let loaded = cache.artifacts.as_deref().and_then(|artifacts| load(artifacts, &unit, job).transpose());
        if let Some(loaded) = loaded {
            cache.note_origin(shared, &entry, loaded.is_ok());
            cache.flights.is_loaded(shared, entry.bead);
            return Some(loaded);
        }
        cache.note_origin(shared, &entry, false);
        match unit.purpose() {
            Purpose::Run => None,
            Purpose::Prepare => Some(match cache.artifacts.as_deref() {
                Some(artifacts) => self.prepare(shared, artifacts, &unit, job),
                None => Err(CompileError::failed("this cache keeps no artifacts")),
            }),
            Purpose::Preload => {
                cache.forget(shared, &entry);
                Some(Err(CompileError::Withdrawn("its artifact cannot be used")))
            }
        }
    }

    /// Compiles ahead of time, and keeps the artifact unless that was cleared meanwhile.
    fn prepare(
        &self,
        shared: &Shared,
        artifacts: &dyn Artifacts<K>,
        unit: &Unit<K>,
        job: &mut Job<'_>,
    ) -> Result<CompiledCode, CompileError> {
        let prepared = contain(|| artifacts.prepare(unit, job));
        let Prepared { code, keep } =
            prepared.unwrap_or_else(|message| Err(CompileError::Panicked(message)))?;
        let number = unit.of.as_ref().map_or(0, |asked| asked.number);
        let kept = contain(|| self.cache.turnstile.pass(&shared.gate, number, keep));
        let counters = &self.cache.counters;
        match kept {
            Ok(Some(Ok(()))) => add(&counters.kept, 1),
            other => {
                add(&counters.not_kept, 1);
                match other {
                    Ok(Some(Err(error))) => {
                        tracing::warn!(target: "beadwork", %error, "an artifact was not kept")
                    }
                    Err(message) => {
                        tracing::error!(target: "beadwork", message, "keeping an artifact panicked")
                    }
                    Ok(_) => (),
                }
            }
        }
        Ok(code)
    }
}

/// What an artifact holds, if there is one that may be used. A panic is told, and the key is compiled. It is asked for whatever is known of
/// it: another process may have left one meanwhile, and looking costs little beside a compile.
fn load<K: CacheKey>(
    artifacts: &dyn Artifacts<K>,
    unit: &Unit<K>,
    job: &mut Job<'_>,
) -> Result<Option<CompiledCode>, CompileError> {
    contain(|| artifacts.load(unit.key(), job)).unwrap_or_else(|message| {
        tracing::error!(target: "beadwork", message, "loading an artifact panicked");
        Ok(None)
    })
}

impl<K: CacheKey> Cache<K> {
    /// Hears what the engine did.
    pub(super) fn hear(&self, event: &Event) {
        let Some(shared) = self.engine() else { return };
        match event {
            &Event::Installed { bead, bytes, compile_time, .. } => {
                self.landed(&shared, bead, Attempt::Installed { bytes }, Some(compile_time));
            }
            Event::Failed { bead, error, .. } => self.landed(&shared, *bead, Attempt::Failed(error), None),
            &Event::Discarded { bead, .. } | &Event::AssumedInVain { bead, .. } => {
                self.landed(&shared, bead, Attempt::Discarded, None);
            }
            &Event::Invalidated { bead } | &Event::Removed { bead } | &Event::Deoptimized { bead, .. } => {
                self.settle(&shared, bead, None);
            }
            _ => (),
        }
    }

    fn landed(&self, shared: &Shared, bead: Bead, outcome: Attempt<'_>, took: Option<Duration>) {
        let Some(flight) = self.flights.end(shared, bead) else { return };
        let entry = &flight.entry;
        let counters = &self.counters;
        match outcome {
            Attempt::Installed { .. } => {
                add(&counters.succeeded, 1);
                add(&counters.loaded, u64::from(flight.loaded));
                entry.mark(Mark::FAILED, false);
                entry.hit.touch(self.now());
                self.settle(shared, bead, Some(entry));
            }
            Attempt::Failed(_) => {
                add(&counters.failed, 1);
                entry.mark(Mark::FAILED, true);
            }
            Attempt::Discarded => add(&counters.discarded, 1),
        }
        let Some(tell) = &self.settings.on_completion else { return };
        let completion = Completion {
            key: &entry.key,
            purpose: flight.unit.purpose(),
            origin: if flight.loaded { Origin::Loaded } else { Origin::Compiled },
            outcome,
            duration: took.unwrap_or_else(|| flight.begun.elapsed()),
            phases: &flight.unit.phases(),
        };
        if let Err(message) = contain(|| tell(&completion)) {
            tracing::error!(target: "beadwork", message, "an on_completion callback panicked");
        }
    }
}
