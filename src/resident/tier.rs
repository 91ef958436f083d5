//! The tiers of a cache: artifacts first, then the backend; and what is heard of both.

use super::artifacts::{Artifacts, Prepared};
use super::cache::{Cache, TIER};
use super::completion::{Attempt, Completion, Origin};
use super::entry::Mark;
use super::flights::Flight;
use super::unit::{CacheKey, Purpose, Unit};
use crate::artifact::Put;
use crate::backend::{Backend, CodeMemory};
use crate::code::CompiledCode;
use crate::contain::contain;
use crate::error::CompileError;
use crate::event::Event;
use crate::id::{Bead, Reason, TierId};
use crate::job::Job;
use crate::shared::Shared;
use crate::snapshot;
use crate::state::{Pending, Requested};
use crate::stats::add;
use crate::sync::wait_a_little;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The backend of one of a cache's tiers, around that of the VM.
pub(super) struct CacheTier<K> {
    pub(super) cache: Arc<Cache<K>>,
    pub(super) backend: Arc<dyn Backend>,
    /// It is one above the cache's own: it has no artifacts, but what it makes is counted and bounded alike.
    pub(super) above: bool,
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

    fn memory(&self) -> Option<CodeMemory> {
        self.backend.memory()
    }
}

impl<K: CacheKey> CacheTier<K> {
    /// Begins an attempt; answers its result if the backend is not needed for it.
    fn begin(&self, shared: &Shared, job: &mut Job<'_>) -> Option<Result<CompiledCode, CompileError>> {
        let cache = &*self.cache;
        let (bead, tier, version) = (job.bead(), job.tier(), job.version());
        if !self.above
            && let Some(wish) = cache.wishes.take(shared, bead)
        {
            let asked = Unit::<K>::shared(job);
            // What is prepared runs, too.
            if !asked.is_some_and(|unit| (unit.purpose(), wish.purpose()) == (Purpose::Prepare, Purpose::Run))
            {
                job.give_snapshot(Some(Box::new(wish)));
            }
        }
        let mut unit = match Unit::<K>::shared(job) {
            Some(unit) => unit.clone(),
            // The VM asked for it by itself. If the key has code already, its size is looked at all the same.
            None if self.above => return None,
            None => return Some(Err(CompileError::Withdrawn("no lookup asked for it"))),
        };
        let entry = unit.of.as_ref()?.entry.clone();
        let flight = Flight {
            unit: unit.clone(),
            entry: entry.clone(),
            tier,
            version,
            loaded: false,
            begun: Instant::now(),
        };
        if cache.flights.begin(shared, flight).is_none() {
            add(&cache.counters.dispatched, 1);
        }
        if !job.is_current() {
            return Some(Err(CompileError::Withdrawn("superseded before it was compiled")));
        }
        if let Some(dump) = &cache.settings.dump {
            dump.write_source(&unit);
        }
        let is_first = shared.table.live(bead).is_ok_and(|now| now.tier() == TierId::INTERPRETER);
        let note_origin = |loaded| {
            // Code that runs keeps its own until the new is there.
            if is_first {
                cache.note_origin(shared, &entry, loaded);
            }
        };
        if self.above {
            note_origin(false);
            return None;
        }
        let loaded = cache.artifacts.as_deref().and_then(|artifacts| load(artifacts, &unit, job).transpose());
        if let Some(loaded) = loaded {
            note_origin(loaded.is_ok());
            cache.flights.amend(shared, bead, version, |flight| flight.loaded = true);
            return Some(loaded);
        }
        if unit.purpose() == Purpose::Preload {
            let Some(wish) = cache.wishes.doom(shared, &entry) else {
                cache.forget(shared, &entry);
                return Some(Err(CompileError::Withdrawn("its artifact cannot be used")));
            };
            // Somebody has asked for it since, with its source.
            unit = wish.clone();
            job.give_snapshot(Some(Box::new(wish)));
            cache.flights.amend(shared, bead, version, |flight| flight.unit = unit.clone());
        }
        note_origin(false);
        match (unit.purpose(), cache.artifacts.as_deref()) {
            (Purpose::Prepare, Some(artifacts)) => Some(self.prepare(shared, artifacts, &unit, job)),
            (Purpose::Prepare, None) => Some(Err(CompileError::failed("this cache keeps no artifacts"))),
            (Purpose::Run | Purpose::Preload, _) => None,
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
            Ok(Some(Ok(Put::Stored))) => add(&counters.kept, 1),
            // Another process was first.
            Ok(Some(Ok(Put::Kept))) => (),
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
            &Event::Installed { bead, version, bytes, compile_time, .. } => {
                self.landed(&shared, (bead, version), Attempt::Installed { bytes }, Some(compile_time));
            }
            Event::Failed { bead, version, error, .. } => {
                self.landed(&shared, (*bead, *version), Attempt::Failed(error), None);
            }
            &Event::Discarded { bead, version, .. } | &Event::AssumedInVain { bead, version, .. } => {
                self.landed(&shared, (bead, version), Attempt::Discarded, None);
            }
            &Event::Removed { bead } => {
                drop(self.wishes.take(&shared, bead));
                self.settle(&shared, bead, None);
            }
            &Event::Invalidated { bead } | &Event::Deoptimized { bead, .. } => {
                self.settle(&shared, bead, None);
            }
            _ => (),
        }
    }

    fn landed(
        &self,
        shared: &Shared,
        (bead, version): (Bead, u32),
        outcome: Attempt<'_>,
        took: Option<Duration>,
    ) {
        let installed = matches!(outcome, Attempt::Installed { .. });
        let Some(flight) = self.flights.end(shared, bead, version) else {
            if installed {
                self.settle(shared, bead, None);
            }
            return;
        };
        let entry = &flight.entry;
        let counters = &self.counters;
        match outcome {
            Attempt::Installed { .. } => {
                add(&counters.succeeded, 1);
                add(&counters.loaded, u64::from(flight.loaded));
                entry.mark(Mark::FAILED, false);
                entry.mark(Mark::PRELOADING, false);
                if entry.hit.is_loaded() != flight.loaded && shared.table.code_version(bead) == version {
                    self.note_origin(shared, entry, flight.loaded);
                }
                entry.hit.touch(self.now());
                self.settle(shared, bead, Some(entry));
            }
            Attempt::Failed(_) => {
                add(&counters.failed, 1);
                entry.mark(Mark::FAILED, true);
            }
            Attempt::Discarded => add(&counters.discarded, 1),
        }
        self.follow(shared, &flight, installed);
        let Some(tell) = &self.settings.on_completion else { return };
        let completion = Completion {
            key: &entry.key,
            tier: flight.tier,
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

    /// Has an attempt that has ended followed by one of what somebody wished for meanwhile.
    fn follow(&self, shared: &Shared, ended: &Flight<K>, installed: bool) {
        let bead = ended.entry.bead;
        let Some(wish) = self.wishes.get(shared, bead) else { return };
        let number = |unit: &Unit<K>| unit.of.as_ref().map(|asked| asked.number);
        let prepared = ended.tier == TIER
            && ended.unit.purpose() == Purpose::Prepare
            && number(&ended.unit) == number(&wish);
        if installed && (wish.purpose() == Purpose::Run || prepared) {
            self.wishes.take_back(shared, bead, &wish);
            return;
        }
        let given = || snapshot::of(Some(wish.clone()));
        let mut rounds = 0;
        let asked = loop {
            let Ok(now) = shared.table.live(bead) else { break Requested::Stale };
            let calls = shared.table.budgets.calls(bead.index());
            match shared.request_anew(bead, TIER, Reason::Asked, calls, Some(now.version()), Some(&given)) {
                Requested::Busy => wait_a_little(&mut rounds),
                // There is a request, which takes the wish; or else code of a higher tier.
                Requested::Already if now.pending() == Pending::None => break Requested::Already,
                Requested::Queued(_) | Requested::Follows(_) | Requested::Already => return,
                refused => break refused,
            }
        };
        tracing::warn!(target: "beadwork", %bead, ?asked, "a key was not compiled again as it was asked for meanwhile");
        self.wishes.take_back(shared, bead, &wish);
    }
}
