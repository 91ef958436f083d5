//! Freeing: retired code goes to its owners' drops, or back to the VM; and what happens when too much of it waits.

use crate::contain::contain;
use crate::drain::Crew;
use crate::event::Event;
use crate::grace::Unlinked;
use crate::id::Bead;
use crate::owner::{CodeOwner, OwnerWord};
use crate::shared::Shared;
use crate::stats::{add, read, subtract};
use crate::sync::Arc;
use std::fmt;
use std::sync::Weak;
use std::sync::atomic::Ordering::Relaxed;

/// The VM's closure for code it frees itself.
pub(crate) type HandBack = Arc<dyn Fn(HandedBack) + Send + Sync>;

/// Retired pieces for which a worker is called, whether or not a mutator has passed a safepoint.
const MANY_RETIRED: usize = 64;

impl Shared {
    /// Frees retired code that nobody can be in, or hands it back. Answers how many pieces.
    pub(crate) fn reclaim(&self) -> usize {
        let expired = {
            let _no_fork = self.gate.enter();
            self.table.grace.expired(&self.owners)
        };
        match &self.settings.hand_back {
            _ if expired.is_empty() => (),
            None => self.free(&expired.iter().map(|code| code.owner).collect::<Vec<_>>()),
            Some(hand_back) => self.hand_back(&expired, hand_back),
        }
        self.watch_retired();
        expired.len()
    }

    /// Frees what can be freed on an engine that has no workers to do it.
    pub(crate) fn reclaim_without_workers(&self) {
        if read(&self.counters.requested) == 0 || self.is_closed() {
            self.reclaim();
        } else if self.table.grace.waiting().0 >= MANY_RETIRED {
            // Perhaps no mutator passes a safepoint that would say so.
            self.wake();
        }
    }

    /// Frees owners that are in nobody's reach.
    pub(crate) fn free(&self, owners: &[OwnerWord]) {
        if owners.iter().all(|owner| owner.is_none()) {
            return;
        }
        let freeing = {
            let _no_fork = self.gate.enter();
            self.owners.release(owners, |callee| self.unpin_one(callee))
        };
        let panics = freeing.free();
        self.gone(owners.iter().copied());
        self.free_panicked(panics);
    }

    /// Counts owners that the engine has no more.
    fn gone(&self, owners: impl ExactSizeIterator<Item = OwnerWord>) {
        add(&self.counters.reclaimed, owners.len() as u64);
        subtract(&self.counters.code_bytes, owners.map(|owner| owner.bytes() as u64).sum());
    }

    fn free_panicked(&self, count: usize) {
        if count > 0 {
            self.emit(&Event::FreePanicked { count });
        }
    }

    pub(crate) fn unpin_one(&self, callee: Bead) {
        if self.table.pins().remove(callee.index()) {
            self.table.give_back(callee.index());
        }
    }

    /// A mutator passed a safepoint or went, or a lease ended: perhaps it was what everything waited for. Freeing is a
    /// worker's business, if there are any yet; an engine that never asked for a compile frees where the VM says so.
    pub(crate) fn passed_by(&self) {
        if self.table.grace.is_anything_to_look_at() && read(&self.counters.requested) > 0 {
            if self.is_closed() {
                // No worker comes any more.
                self.reclaim();
            } else {
                self.wake();
            }
        }
    }

    // ---- leases

    /// Ends one lease of code with this entry.
    pub(crate) fn end_lease(&self, entry: u64) {
        let loose = {
            let _no_fork = self.gate.enter();
            self.table.grace.end_lease(entry)
        };
        if loose && self.settings.hand_back.is_some() {
            self.reclaim();
        } else if loose {
            self.passed_by();
        }
    }

    // ---- handing back

    /// Code is handed back by whoever unlinked it: everything that unlinks tells of it afterwards, in no section and with
    /// no lock held.
    pub(crate) fn hand_back_before(&self, event: &Event) {
        // A dispatch only asks for compiles; it is spared.
        if self.settings.hand_back.is_some() && !matches!(event, Event::Queued { .. }) {
            self.reclaim();
        }
    }

    fn hand_back(&self, expired: &[Unlinked], hand_back: &HandBack) {
        let mut panics = 0;
        for code in expired {
            let (owner, embeds) = {
                let _no_fork = self.gate.enter();
                self.owners.hand_out(code.owner)
            };
            let embeds = Embeds { shared: self.me.clone(), embeds };
            let (bead, entry, bytes) = (code.bead(), code.entry(), code.owner.bytes());
            panics += usize::from(
                contain(|| hand_back(HandedBack { bead, entry, bytes, owner, _embeds: embeds })).is_err(),
            );
        }
        self.gone(expired.iter().map(|code| code.owner));
        self.free_panicked(panics);
    }

    // ---- too much of it

    /// Whether so much retired code waits that policies have to wait too.
    pub(crate) fn retired_too_much(&self) -> bool {
        let over = self.table.grace.waiting().1 > self.settings.retired_limit;
        if over && !self.over_limit.load(Relaxed) {
            // Nobody has tried to free it yet. This is inside a dispatch, so a worker shall.
            self.wake();
        }
        over
    }

    /// Tells when more retired code waits than may; after a try to free it.
    fn watch_retired(&self) {
        let (_, retired_bytes) = self.table.grace.waiting();
        let over = retired_bytes > self.settings.retired_limit;
        // Relaxed: whoever changes it tells, once; it publishes nothing.
        if self.over_limit.load(Relaxed) != over && self.over_limit.swap(over, Relaxed) != over && over {
            let holder = {
                let _no_fork = self.gate.enter();
                self.table.grace.holder()
            };
            let (mutator, epochs, addresses) =
                holder.map_or((None, 0, 0), |by| (Some(by.name), by.epochs, by.addresses));
            self.emit(&Event::HeldBack { mutator, epochs, addresses, retired_bytes });
        }
    }
}

/// Code that was superseded, taken back or removed, handed back to a VM that frees code itself; see
/// [`EngineBuilder::hand_back`](crate::EngineBuilder::hand_back).
///
/// Dropping it drops the owner, and so frees the code. Whoever does so, or takes the owner out, must know that no thread
/// runs the code, as with any code the VM frees itself.
pub struct HandedBack {
    bead: Bead,
    entry: u64,
    bytes: usize,
    owner: CodeOwner,
    /// Behind the owner: the slots the code embeds are let go of after the code is.
    _embeds: Embeds,
}

impl HandedBack {
    /// The function whose code it was; perhaps removed since.
    pub fn bead(&self) -> Bead {
        self.bead
    }

    /// The entry, never null.
    pub fn entry(&self) -> *const u8 {
        std::ptr::with_exposed_provenance(self.entry as usize)
    }

    /// The size as the backend stated it, rounded up to 16 bytes, at most 256 MiB; 0 for code without an owner.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What owns the code's memory.
    pub fn owner(&self) -> &CodeOwner {
        &self.owner
    }

    /// Takes the owner out and leaves none. If the code embeds [slots](crate::Engine::slot) of other functions, keep `self`
    /// until no thread runs the code: it keeps those slots from being used for other functions.
    pub fn take_owner(&mut self) -> CodeOwner {
        std::mem::replace(&mut self.owner, CodeOwner::none())
    }
}

impl fmt::Debug for HandedBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedBack")
            .field("bead", &self.bead)
            .field("entry", &self.entry())
            .field("bytes", &self.bytes)
            .field("owner", &self.owner)
            .finish()
    }
}

/// Pins of the slots that code handed back embeds.
struct Embeds {
    shared: Weak<Shared>,
    embeds: Box<[Bead]>,
}

impl Drop for Embeds {
    fn drop(&mut self) {
        if self.embeds.is_empty() {
            return;
        }
        if let Some(shared) = self.shared.upgrade() {
            let _no_fork = shared.gate.enter();
            self.embeds.iter().for_each(|&callee| shared.unpin_one(callee));
        }
    }
}
