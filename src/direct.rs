//! Requests somebody waits for, and what comes with a request: compiles to be used once.

use crate::code::CompiledCode;
use crate::error::CompileError;
use crate::id::{Bead, TierId};
use crate::job::Job;
use crate::state::Ended;
use crate::sync::{Arc, AtomicUsize, Mutex, Thread, fence, lock, this_thread};
use std::any::Any;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// One thread that waits for a function to reach a tier. It looks at the function's state itself; this wakes it, and tells
/// what a state word cannot: why a compile failed.
struct Wait {
    bead: Bead,
    tier: TierId,
    error: Mutex<Option<CompileError>>,
    thread: Thread,
}

/// Threads that wait for compiles.
#[derive(Default)]
pub(crate) struct Waits {
    all: Mutex<Vec<Arc<Wait>>>,
    /// How many there are, so that nobody takes the lock while nobody waits.
    len: AtomicUsize,
}

/// A wait that has been announced; take it back with [`Waits::leave`].
pub(crate) struct Waiting(Arc<Wait>);

impl Waiting {
    /// Why a compile that would have served failed, if one did. Whoever has seen the state say that it ended is told.
    pub(crate) fn error(&self, waits: &Waits) -> Option<CompileError> {
        // A compile ends and says why within this lock.
        let _all = lock(&waits.all);
        lock(&self.0.error).clone()
    }
}

impl Waits {
    /// Announces that the calling thread waits. Announce before looking at the state, so that no change is missed.
    pub(crate) fn join(&self, bead: Bead, tier: TierId) -> Waiting {
        let wait = Arc::new(Wait { bead, tier, error: Mutex::new(None), thread: this_thread() });
        {
            let mut all = lock(&self.all);
            all.push(wait.clone());
            self.len.store(all.len(), Relaxed);
        }
        // SeqCst, edge SETTLE: between the announcement and the look at the state. Partner is the fence in `waiting`.
        fence(mutant!("settle-announce", SeqCst));
        Waiting(wait)
    }

    pub(crate) fn leave(&self, waiting: &Waiting) {
        let mut all = lock(&self.all);
        all.retain(|wait| !Arc::ptr_eq(wait, &waiting.0));
        self.len.store(all.len(), Relaxed);
    }

    /// Ends a compile of `bead` for `tier` without code by `end`, and tells why to those whom it would have served. Both within the
    /// lock: who announces itself afterwards looks at the state afterwards (edge SETTLE).
    pub(crate) fn fail(
        &self,
        bead: Bead,
        tier: TierId,
        error: &CompileError,
        end: impl FnOnce() -> Ended,
    ) -> Ended {
        let all = if mutant!("settle-reason-unlocked") { None } else { Some(lock(&self.all)) };
        let ended = end();
        let all = all.unwrap_or_else(|| lock(&self.all));
        if ended != Ended::Superseded {
            for wait in all.iter().filter(|wait| wait.bead == bead && wait.tier <= tier) {
                *lock(&wait.error) = Some(error.clone());
            }
        }
        ended
    }

    /// The state of `bead` has changed: whom to wake.
    pub(crate) fn waiting(&self, bead: Bead) -> Vec<Thread> {
        // SeqCst, edge SETTLE: between the change of the state and the look at who waits. Partner is the fence in `join`.
        fence(mutant!("settle-change", SeqCst));
        if self.len.load(Relaxed) == 0 {
            return Vec::new();
        }
        let all = lock(&self.all);
        all.iter().filter(|wait| wait.bead == bead).map(|wait| wait.thread.clone()).collect()
    }

    /// Whether somebody waits for a function of this index.
    pub(crate) fn wants(&self, index: u32) -> bool {
        self.len.load(Relaxed) != 0 && lock(&self.all).iter().any(|wait| wait.bead.index() == index)
    }

    /// Everybody, to look at the world anew.
    pub(crate) fn everybody(&self) -> Vec<Thread> {
        lock(&self.all).iter().map(|wait| wait.thread.clone()).collect()
    }
}

/// A compile that came with its request. Every closure that fits [`Engine::submit`](crate::Engine::submit) is one.
pub(crate) trait OneShot: Send {
    fn compile(self: Box<Self>, job: &mut Job<'_>) -> Result<CompiledCode, CompileError>;
    /// To hand it back as what it was.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<F> OneShot for F
where
    F: FnOnce(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + 'static,
{
    fn compile(self: Box<Self>, job: &mut Job<'_>) -> Result<CompiledCode, CompileError> {
        self(job)
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Values that come with requests and end with them: at most one for a function and tier.
///
/// A value is put here before its request is made, so that the worker who claims the request finds it, and is
/// [bound](Attached::bind) afterwards to the version at which the bead was queued. Every request raises the version, and so
/// does every end of one (rule S1), so a value and a claim belong together if the claim's version is the next one. Whatever
/// ends requests takes out what is bound to its version or an earlier one; what is not bound yet is its putter's business,
/// who looks at the state after binding.
pub(crate) struct Attached<T> {
    all: Mutex<BTreeMap<Key, Entry<T>>>,
    /// How many there are, so that nobody takes the lock while there is none.
    len: AtomicUsize,
}

type Key = (u64, TierId);

struct Entry<T> {
    /// Tells it from an earlier one of the same key.
    number: u64,
    /// The version at which its request was queued; `None` until that is made.
    version: Option<u32>,
    value: T,
}

/// The request a value came with, as a claim sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Mine,
    /// Of a request that has ended.
    Earlier,
    /// The claim has been superseded; the value is for a later one.
    Later,
}

/// What a worker finds for its claim.
pub(crate) enum Taken<T> {
    Nothing,
    /// It came with the claimed request.
    Fitting(T),
    /// It came with an earlier one that has ended; to be dropped, outside any section.
    Outlived(T),
}

/// Names a value that was put.
#[derive(Clone, Copy)]
pub(crate) struct Put {
    key: Key,
    number: u64,
}

impl<T> Default for Attached<T> {
    fn default() -> Self {
        Attached { all: Mutex::new(BTreeMap::new()), len: AtomicUsize::new(0) }
    }
}

impl<T> Attached<T> {
    /// Keeps a value under a number of the caller's; answers it if there is one for this function and tier already.
    pub(crate) fn put(&self, bead: Bead, tier: TierId, number: u64, value: T) -> Result<Put, T> {
        let (mut all, key) = (lock(&self.all), (bead.to_bits(), tier));
        if all.contains_key(&key) {
            return Err(value);
        }
        all.insert(key, Entry { number, version: None, value });
        self.len.store(all.len(), Relaxed);
        Ok(Put { key, number })
    }

    /// The request is made, queued at that version.
    pub(crate) fn bind(&self, put: Put, version: u32) {
        if let Some(entry) = lock(&self.all).get_mut(&put.key).filter(|entry| entry.number == put.number) {
            entry.version = Some(version);
        }
    }

    /// Whether nothing came with any request.
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: who put it there queued the bead afterwards, and who looks for it for a claim has seen that (edge CLAIM).
        self.len.load(Relaxed) == 0
    }

    /// Whether something came with a request of the function for that tier.
    pub(crate) fn has(&self, bead: Bead, tier: TierId) -> bool {
        !self.is_empty() && lock(&self.all).contains_key(&(bead.to_bits(), tier))
    }

    /// A queued request for that tier or a higher one outlived a change that raised the version to `version`.
    pub(crate) fn bind_again(&self, bead: Bead, tier: TierId, version: u32) {
        if self.is_empty() {
            return;
        }
        let bits = bead.to_bits();
        for (_, entry) in lock(&self.all).range_mut((bits, tier)..=(bits, TierId::MAX)) {
            // Several such changes can be noted out of their order.
            entry.version = entry.version.map(|made| made.max(version));
        }
    }

    /// Takes a value back, if nobody else took it.
    pub(crate) fn take_back(&self, put: Put) -> Option<T> {
        let mut all = lock(&self.all);
        all.get(&put.key).filter(|entry| entry.number == put.number)?;
        let entry = all.remove(&put.key);
        self.len.store(all.len(), Relaxed);
        entry.map(|entry| entry.value)
    }

    /// Takes what came with the request that was claimed. `whose` tells, of a value bound to a version or not bound yet,
    /// whether it is the claimed request's.
    pub(crate) fn take(&self, bead: Bead, tier: TierId, whose: impl Fn(Option<u32>) -> Whose) -> Taken<T> {
        if self.is_empty() {
            return Taken::Nothing;
        }
        let (mut all, key) = (lock(&self.all), (bead.to_bits(), tier));
        let whose = all.get(&key).map(|entry| whose(entry.version));
        if matches!(whose, None | Some(Whose::Later)) {
            return Taken::Nothing;
        }
        let entry = all.remove(&key);
        self.len.store(all.len(), Relaxed);
        match (entry, whose) {
            (Some(entry), Some(Whose::Mine)) => Taken::Fitting(entry.value),
            (Some(entry), _) => Taken::Outlived(entry.value),
            (None, _) => Taken::Nothing,
        }
    }

    /// Takes out everything of a function's requests up to `tier` that were queued at one of `versions`. The caller drops it,
    /// outside any section.
    #[must_use = "dropped outside of locks and sections"]
    pub(crate) fn purge(&self, bead: Bead, tier: TierId, versions: RangeInclusive<u32>) -> Vec<T> {
        // Relaxed: what this misses was put by somebody who has not made the request yet, or who made it before the change
        // that ended it, which then acquired this too.
        if self.len.load(Relaxed) == 0 {
            return Vec::new();
        }
        let (mut all, bits) = (lock(&self.all), bead.to_bits());
        let range = all.range((bits, TierId::INTERPRETER)..=(bits, tier));
        let over = |entry: &Entry<T>| entry.version.is_some_and(|made| versions.contains(&made));
        let keys: Vec<_> = range.filter(|(_, entry)| over(entry)).map(|(key, _)| *key).collect();
        let purged = keys.iter().filter_map(|key| all.remove(key)).map(|entry| entry.value).collect();
        self.len.store(all.len(), Relaxed);
        purged
    }

    /// Takes out everything, at the end of the engine.
    pub(crate) fn take_all(&self) -> Vec<T> {
        let all = std::mem::take(&mut *lock(&self.all));
        self.len.store(0, Relaxed);
        all.into_values().map(|entry| entry.value).collect()
    }
}
