//! Quiescent-state reclamation: when may retired code be freed, and a removed index be used again?
//!
//! Every mutator has a record with one padded cell that says at which epoch it last passed a safepoint (0 = offline).
//! Something unlinked and then stamped with a new epoch is out of every mutator's reach once all cells that are online
//! have reached the stamp; except code in which a mutator said it still has frames (its held addresses), and code with a
//! lease. Lookups pay nothing for this. Proof in [`crate::protocol`], edges RETIRE, ONLINE and LEASE.
//!
//! # Rules
//! * **G1** a stamp is taken after the unlink: `epoch.fetch_add(AcqRel)`.
//! * **G2** a safepoint is an Acquire load of the epoch, stored (Release) into the mutator's own cell, after its held
//!   addresses are noted.
//! * **G3** coming online and scanning both put a SeqCst fence between their store (or unlink) and their loads.
//! * **G4** a scan reads a mutator's cell before its held addresses, and frees nothing stamped later than what it read.

use crate::owner::{OwnerWord, Owners};
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, fence, lock};
use crossbeam_utils::CachePadded;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

mod leases;
mod limbo;
mod member;
#[cfg(all(test, not(beadwork_loom)))]
mod tests;

use leases::Leases;
pub(crate) use limbo::Unlinked;
use limbo::{Limbo, Retired};
pub(crate) use member::{Member, MutatorCell, come_online, go_offline, pass};

pub(crate) struct Grace {
    /// Starts at 1, so that a cell's 0 means offline.
    epoch: Arc<CachePadded<AtomicU64>>,
    members: Mutex<Vec<MutatorCell>>,
    limbo: Mutex<Limbo>,
    leases: Leases,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    /// Code is handed back to the VM, which knows when to free it: nobody is waited for.
    hands_back: bool,
}

/// What a scan found: what may be freed is stamped no later than `passed`, and no address of `held` lies in it.
struct Survey {
    passed: u64,
    /// In order.
    held: Vec<usize>,
}

/// A mutator that has not passed what was retired since; see [`Engine::laggards`](crate::Engine::laggards).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Laggard {
    /// The name the mutator was given, or that of the thread that made it, or that thread's number.
    pub name: Arc<str>,
    /// Epochs since its last safepoint: how many times code was retired, or removed indices were set aside. 0 for one that
    /// only holds addresses.
    pub epochs: u64,
    /// How many return addresses it named at its last [`safepoint_with`](crate::Mutator::safepoint_with).
    pub addresses: usize,
}

impl Grace {
    pub(crate) fn new() -> Grace {
        Grace {
            epoch: Arc::new(CachePadded::new(AtomicU64::new(1))),
            members: Mutex::new(Vec::new()),
            limbo: Mutex::new(Limbo::default()),
            leases: Leases::default(),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            hands_back: false,
        }
    }

    /// From now on [`expired`](Grace::expired) waits for nobody but leases. Set before the engine starts.
    pub(crate) fn hand_back(&mut self) {
        self.hands_back = true;
    }

    /// The epoch's cell, for mutators to keep.
    pub(crate) fn epoch(&self) -> Arc<CachePadded<AtomicU64>> {
        self.epoch.clone()
    }

    /// A new stamp. Everything unlinked before the call may be freed once [`passed`](Grace::passed) says so.
    pub(crate) fn stamp(&self) -> u64 {
        // AcqRel, edge RETIRE (G1): a safepoint that reads this epoch sees the unlink before it.
        let before = self.epoch.fetch_add(1, mutant!("retire-stamp", AcqRel));
        if mutant!("g1-stamp-before") { before } else { before + 1 }
    }

    // ---- mutators

    /// Registers a mutator, online. It goes by `name`, or by that of the calling thread.
    pub(crate) fn enlist(&self, name: Option<Arc<str>>) -> (MutatorCell, u64) {
        let cell = MutatorCell::new(Member::new(name));
        lock(&self.members).push(cell.clone());
        let seen = come_online(&self.epoch, &cell);
        (cell, seen)
    }

    /// Forgets a mutator that has gone offline for good.
    pub(crate) fn delist(&self, cell: &MutatorCell) {
        lock(&self.members).retain(|known| !Arc::ptr_eq(known, cell));
    }

    /// Forgets all mutators but these.
    pub(crate) fn forget_all_but(&self, survivors: &[&MutatorCell]) {
        lock(&self.members).retain(|cell| survivors.iter().any(|survivor| Arc::ptr_eq(cell, survivor)));
    }

    /// How many mutators there are, online or not.
    pub(crate) fn mutators(&self) -> usize {
        lock(&self.members).len()
    }

    /// Mutators that hold something back, the furthest behind first.
    pub(crate) fn laggards(&self) -> Vec<Laggard> {
        let now = self.epoch.load(Relaxed);
        let members = lock(&self.members);
        let mut behind: Vec<_> = members.iter().filter_map(|member| member.lags(now)).collect();
        drop(members);
        behind.sort_by_key(|laggard| std::cmp::Reverse((laggard.epochs, laggard.addresses)));
        behind
    }

    // ---- scans

    /// The largest stamp every online mutator has reached.
    pub(crate) fn passed(&self) -> u64 {
        self.scan(|_| ())
    }

    /// As [`passed`](Grace::passed); `look` sees each mutator after its cell was read.
    fn scan(&self, mut look: impl FnMut(&Member)) -> u64 {
        // Read before the cells, and never answered past: what is unlinked and stamped while the cells are read may be
        // in the hands of a mutator that came online after its cell was read as offline. Acquire, edge RETIRE.
        let now = self.epoch.load(Acquire);
        // SeqCst, edge ONLINE (G3): the unlinks before this, the cells after it.
        fence(mutant!("g3-scan-fence", SeqCst));
        let members = lock(&self.members);
        let mut passed = if mutant!("retire-unbounded") { u64::MAX } else { now };
        for member in members.iter() {
            if mutant!("g4-addresses-first") {
                look(member);
            }
            // Acquire, edge RETIRE, partner is the Release in `pass`: what a mutator did before its safepoint (its
            // last use of the code) happens before the free.
            match member.at(mutant!("retire-scan-cell", Acquire)) {
                0 => (),
                at => passed = passed.min(at),
            }
            if !mutant!("g4-addresses-first") {
                look(member);
            }
        }
        passed
    }

    fn survey(&self) -> Survey {
        let mut held = Vec::new();
        if self.hands_back {
            return Survey { passed: u64::MAX, held };
        }
        // G4: the held addresses after the cell.
        let passed = self.scan(|member| member.add_held_to(&mut held));
        held.sort_unstable();
        Survey { passed, held }
    }

    // ---- retired code

    /// Retires unlinked code.
    pub(crate) fn retire(&self, code: Unlinked) {
        // Code without an owner is never freed; a VM that frees its code itself wants to hear of it all the same.
        if code.owner.is_none() && !(self.hands_back && code.entry() != 0) {
            return;
        }
        let mut limbo = lock(&self.limbo);
        // Counted before it is visible in the list, so that the count never falls below what is there.
        self.waiting.fetch_add(1, Relaxed);
        self.waiting_bytes.fetch_add(code.owner.bytes(), Relaxed);
        limbo.push(Retired { stamp: self.stamp(), code });
    }

    /// Code retired and not yet handed out by [`expired`](Grace::expired): how much, and its bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.waiting.load(Relaxed), self.waiting_bytes.load(Relaxed))
    }

    /// Whether code waits for something else than a lease.
    pub(crate) fn is_anything_to_look_at(&self) -> bool {
        // Relaxed: a hint. Who ends a lease sees its own change, and sees to the rest.
        self.waiting.load(Relaxed) > self.leases.aside()
    }

    /// Takes out what nobody can be in. The caller frees it. `owners` knows where code lies that is not in one piece.
    pub(crate) fn expired(&self, owners: &Owners) -> Vec<Unlinked> {
        if !self.is_anything_to_look_at() {
            return Vec::new();
        }
        let survey = self.survey();
        let mut limbo = lock(&self.limbo);
        let expired = limbo.expired(&survey, owners, &self.leases);
        self.waiting.fetch_sub(expired.len(), Relaxed);
        self.waiting_bytes.fetch_sub(expired.iter().map(|code| code.owner.bytes()).sum(), Relaxed);
        expired
    }

    /// What keeps retired code: the mutator furthest behind, or else one with frames in it. `None`: leases do, or nothing
    /// waits.
    pub(crate) fn holder(&self) -> Option<Laggard> {
        let (newest, kept) = {
            let limbo = lock(&self.limbo);
            (limbo.newest(), limbo.keeps())
        };
        let mut behind = self.laggards().into_iter();
        match newest {
            Some(_) => behind.next(),
            None if kept => behind.find(|laggard| laggard.addresses > 0),
            None => None,
        }
    }

    /// Takes out everything, at the end of the engine, when there is no mutator.
    pub(crate) fn everything(&self) -> Vec<OwnerWord> {
        let mut all = lock(&self.limbo).take();
        all.extend(self.leases.take());
        all.into_iter().map(|retired| retired.code.owner).collect()
    }

    // ---- leases

    /// Keeps what is retired with this entry from now on, until [`end_lease`](Grace::end_lease). The caller looks
    /// afterwards whether the entry is still linked (edge LEASE).
    pub(crate) fn lease(&self, entry: u64) {
        self.leases.enter(entry);
    }

    /// Ends one lease; answers whether code may be freed now that waited for it.
    pub(crate) fn end_lease(&self, entry: u64) -> bool {
        let loose = self.leases.leave(entry);
        let any = !loose.is_empty();
        if any {
            // Looked at once more: meanwhile there can be other leases of the same entry, and frames.
            lock(&self.limbo).keep(loose);
        }
        any
    }
}
