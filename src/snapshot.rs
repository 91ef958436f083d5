//! What the frontend notes of a function at the moment its compile is asked for: profiles, inline caches.
//!
//! A snapshot belongs to one request: it is kept under the function, the tier and the version at which the request was queued, goes
//! to the job that claims it, and is dropped with the request however that ends. Every request raises the version and so
//! does every end of one (rule S1). The request is made within the lock that keeps its snapshot, and what else moves the version or the tier of
//! a request that waits moves the snapshot's within it too, so a claim, which looks after it has been made, finds them agreeing.
//! State words are changed within this lock, as within that of [`crate::delivery`] and for the same reason without
//! deadlock: who holds a publishing bit takes no lock. An engine without snapshots has no such lock.

use crate::builder::EngineBuilder;
use crate::contain::contain;
use crate::direct::Whose;
use crate::id::{Bead, Core, TierId};
use crate::shared::Shared;
use crate::state::{Requested, Ticket};
use crate::sync::{AtomicUsize, Mutex, lock};
use crate::table::{Barred, Restricted};
use std::any::Any;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) type Snapshot = Box<dyn Any + Send>;

/// The frontend's function that takes one.
pub(crate) type Take = Box<dyn Fn(Bead, Core) -> Option<Snapshot> + Send + Sync>;

/// What whoever asks gives along, in place of what the frontend's function would take. Asked again if the request could not be made
/// at the first try.
pub(crate) type Given<'a> = Option<&'a dyn Fn() -> Option<Snapshot>>;

/// Makes one of a value of the frontend's.
pub(crate) fn of<T: Any + Send>(value: Option<T>) -> Option<Snapshot> {
    value.map(|value| Box::new(value) as Snapshot)
}

pub(crate) struct Snapshots {
    take: Option<Take>,
    on: bool,
    all: Mutex<All>,
    /// How many there are, so that nobody takes the lock while there is none.
    len: AtomicUsize,
}

/// By the bead's bits and the tier, with the version of the request.
type All = BTreeMap<(u64, TierId), (u32, Snapshot)>;

/// Under which tier and version a snapshot is kept, and at which versions requests for lower tiers were queued that its request
/// replaces.
pub(crate) struct Kept {
    pub(crate) tier: TierId,
    pub(crate) version: u32,
    pub(crate) replaces: Option<RangeInclusive<u32>>,
}

/// Takes out those of a function's requests up to `tier` that were queued at one of `versions`.
fn remove(all: &mut All, bead: Bead, tier: TierId, versions: RangeInclusive<u32>) -> Vec<Snapshot> {
    let bits = bead.to_bits();
    let range = all.range((bits, TierId::INTERPRETER)..=(bits, tier));
    let keys: Vec<_> = range.filter(|(_, entry)| versions.contains(&entry.0)).map(|(key, _)| *key).collect();
    keys.iter().filter_map(|key| all.remove(key)).map(|(_, snapshot)| snapshot).collect()
}

impl Snapshots {
    /// There are none, unless the frontend takes them or `given` says that they come with requests.
    pub(crate) fn new(take: Option<Take>, given: bool) -> Snapshots {
        Snapshots {
            on: given || take.is_some(),
            take,
            all: Mutex::new(BTreeMap::new()),
            len: AtomicUsize::new(0),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: who put one there changed the state word afterwards or in the same hold of the lock, and who looks for it
        // has seen that (edge CLAIM).
        self.len.load(Relaxed) == 0
    }

    /// Makes a request by `make`, of which `queued` says at which tier and version it was queued, if it was, and keeps the snapshot with
    /// it. Answers what is to be dropped, outside any section.
    pub(crate) fn attach<R>(
        &self,
        bead: Bead,
        snapshot: Option<Snapshot>,
        make: impl FnOnce() -> R,
        queued: impl FnOnce(&R) -> Option<(TierId, u32)>,
    ) -> (R, Option<Snapshot>) {
        let queued = |made: &R| queued(made).map(|(tier, version)| Kept { tier, version, replaces: None });
        let (made, mut dropped) = self.replace(bead, snapshot, make, queued);
        (made, dropped.pop())
    }

    /// As [`attach`](Snapshots::attach), for a request that may replace others.
    pub(crate) fn replace<R>(
        &self,
        bead: Bead,
        snapshot: Option<Snapshot>,
        make: impl FnOnce() -> R,
        queued: impl FnOnce(&R) -> Option<Kept>,
    ) -> (R, Vec<Snapshot>) {
        if !self.is_on() {
            return (make(), Vec::new());
        }
        let (made, mut all) = if mutant!("snapshot-late") {
            (make(), lock(&self.all))
        } else {
            let all = lock(&self.all);
            (make(), all)
        };
        let Some(Kept { tier, version, replaces }) = queued(&made) else {
            return (made, snapshot.into_iter().collect());
        };
        let key = (bead.to_bits(), tier);
        let before = match snapshot {
            Some(snapshot) => all.insert(key, (version, snapshot)),
            // One that is there is of a request that has ended.
            None => all.remove(&key),
        };
        let mut dropped: Vec<_> = before.map(|(_, snapshot)| snapshot).into_iter().collect();
        if let Some(versions) = replaces {
            // Not later: this request may be lowered then, and have its snapshot there.
            dropped.extend(remove(&mut all, bead, tier.below(), versions));
        }
        self.len.store(all.len(), Relaxed);
        (made, dropped)
    }

    /// Runs a change that leaves a request for `tier` queued at another version, which it answers.
    pub(crate) fn rebind(&self, bead: Bead, tier: TierId, change: impl FnOnce() -> Option<u32>) {
        if !self.is_on() {
            change();
            return;
        }
        let mut all = lock(&self.all);
        if let Some(version) = change().filter(|_| !mutant!("snapshot-unbound"))
            && let Some(entry) = all.get_mut(&(bead.to_bits(), tier))
        {
            entry.0 = version;
        }
    }

    /// Queued requests for that tier and higher ones outlived a change that raised the version to `version`.
    pub(crate) fn bind_again(&self, bead: Bead, tier: TierId, version: u32) {
        if !self.is_empty() {
            let bits = bead.to_bits();
            for (_, entry) in lock(&self.all).range_mut((bits, tier)..=(bits, TierId::MAX)) {
                entry.0 = entry.0.max(version);
            }
        }
    }

    /// Runs a restriction. If it lowers a request that follows a compile, its snapshot goes along, unless there is one for the lower tier:
    /// of the compile in flight, which serves the request then. Answers what is to be dropped, outside any section.
    pub(crate) fn lower<E>(
        &self,
        bead: Bead,
        restrict: impl FnOnce() -> Result<Restricted, E>,
    ) -> (Result<Restricted, E>, Option<Snapshot>) {
        if !self.is_on() {
            return (restrict(), None);
        }
        let (made, mut all) = if mutant!("snapshot-lowered-late") {
            (restrict(), lock(&self.all))
        } else {
            let all = lock(&self.all);
            (restrict(), all)
        };
        let Ok(Restricted { barred: Some(Barred::Lowered { from, to, .. }), .. }) = made else {
            return (made, None);
        };
        let bits = bead.to_bits();
        let moved = all.remove(&(bits, from));
        let left = match (moved, all.entry((bits, to))) {
            (Some(moved), Entry::Vacant(place)) => {
                place.insert(moved);
                None
            }
            (moved, _) => moved,
        };
        self.len.store(all.len(), Relaxed);
        (made, left.map(|(_, snapshot)| snapshot))
    }

    /// Takes the snapshot of a claimed request, or one of an ended one, which is to be dropped.
    fn take(
        &self,
        bead: Bead,
        tier: TierId,
        whose: impl FnOnce(u32) -> Whose,
    ) -> (Option<Snapshot>, Option<Snapshot>) {
        if !self.is_on() {
            return (None, None);
        }
        // Locked in any case: the request that was claimed may be about to leave its snapshot here.
        let (mut all, key) = (lock(&self.all), (bead.to_bits(), tier));
        let whose = all.get(&key).map_or(Whose::Later, |entry| whose(entry.0));
        if whose == Whose::Later {
            return (None, None);
        }
        let taken = all.remove(&key).map(|(_, snapshot)| snapshot);
        self.len.store(all.len(), Relaxed);
        if whose == Whose::Mine { (taken, None) } else { (None, taken) }
    }

    /// Takes out those of a function's requests up to `tier` that were queued at one of `versions` and have ended.
    #[must_use = "dropped outside of locks and sections"]
    pub(crate) fn purge(&self, bead: Bead, tier: TierId, versions: RangeInclusive<u32>) -> Vec<Snapshot> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut all = lock(&self.all);
        let purged = remove(&mut all, bead, tier, versions);
        self.len.store(all.len(), Relaxed);
        purged
    }

    /// Takes out everything, at the end of the engine.
    pub(crate) fn take_all(&self) -> Vec<Snapshot> {
        let all = std::mem::take(&mut *lock(&self.all));
        self.len.store(0, Relaxed);
        all.into_values().map(|(_, snapshot)| snapshot).collect()
    }
}

impl EngineBuilder {
    /// Has the frontend note something of a function whenever a compile of it is asked for, for the backend to read: its profile,
    /// its inline caches, as they are at that moment. `take` runs on the thread that asks (mostly a mutator whose function became
    /// hot), outside of locks, so it may look at what belongs to that thread; [`Job::snapshot`](crate::Job::snapshot) gives the
    /// value to the compile. It is dropped with the request: with its job, or when it is cancelled, replaced or overtaken.
    ///
    /// A panic in it is contained, and the request goes on without. Requests then take a lock of the engine's.
    #[must_use]
    pub fn snapshot<T: Any + Send>(
        mut self,
        take: impl Fn(Bead, Core) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        self.snapshot = Some(Box::new(move |bead, core| of(take(bead, core))));
        self
    }

    /// Lets callers give a compile what it needs to know together with the call that asks for it:
    /// [`Mutator::dispatch_with`](crate::Mutator::dispatch_with), [`Engine::promote_with`](crate::Engine::promote_with) and its
    /// like. For VMs that know a function's source where they call it, and keep it nowhere. Without this, what is given is
    /// dropped. Requests then take a lock of the engine's.
    #[must_use]
    pub fn accept_snapshots(mut self) -> Self {
        self.snapshots_given = true;
        self
    }
}

impl Shared {
    /// Has the frontend take a snapshot for a request, if it would be accepted now; outside any section. If that is not to be
    /// known now, the request is refused as busy: the caller asks again.
    pub(crate) fn snapshot_for(
        &self,
        bead: Bead,
        tier: TierId,
        anew: Option<u32>,
        given: Given<'_>,
    ) -> Result<Option<Snapshot>, Requested> {
        if !self.snapshots.is_on() {
            return Ok(None);
        }
        match self.table.state(bead.index()).load().refuses(bead, tier, anew) {
            Some(Requested::Busy) => Err(Requested::Busy),
            Some(_) => Ok(None),
            None => Ok(match given {
                None => self.take_snapshot(bead),
                Some(given) => self.contained(bead, given),
            }),
        }
    }

    /// Has the frontend take a snapshot, outside any section; its panic ends here.
    pub(crate) fn take_snapshot(&self, bead: Bead) -> Option<Snapshot> {
        let take = self.snapshots.take.as_ref()?;
        let core = Core::new(self.table.core(bead).ok()?);
        self.contained(bead, || take(bead, core))
    }

    fn contained(&self, bead: Bead, take: impl FnOnce() -> Option<Snapshot>) -> Option<Snapshot> {
        contain(take).unwrap_or_else(|message| {
            tracing::error!(target: "beadwork", %bead, message, "taking a snapshot panicked");
            None
        })
    }

    /// The snapshot of the request of that claim.
    pub(crate) fn snapshot_of(&self, ticket: Ticket) -> Option<Snapshot> {
        let (snapshot, outlived) = {
            let _no_fork = self.gate.enter();
            let whose = |version| self.whose(ticket, Some(version));
            self.snapshots.take(ticket.bead, ticket.tier, whose)
        };
        self.dispose(outlived);
        snapshot
    }
}
