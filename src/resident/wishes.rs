//! What somebody insists on while another request stands in the way: an artifact of a key that is being compiled to run, code of one that
//! is only looked for in the store.
//!
//! A wish is put here before its request is made. The attempt that begins next takes it, whoever asked for that; and one that was
//! under way already is followed by another, made of the wish, when it ends.

use super::entry::{Keyed, Mark};
use super::unit::Unit;
use crate::id::Bead;
use crate::shared::Shared;
use crate::sync::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

type All<K> = HashMap<Bead, Arc<Unit<K>>>;

pub(super) struct Wishes<K>(Mutex<All<K>>);

impl<K> Wishes<K> {
    pub(super) fn new() -> Wishes<K> {
        Wishes(Mutex::new(HashMap::new()))
    }

    fn look<R>(&self, shared: &Shared, look: impl FnOnce(&mut All<K>) -> R) -> R {
        let _no_fork = shared.gate.enter();
        look(&mut lock(&self.0))
    }

    /// Puts a wish, in place of an earlier one. Answers `false` if the key is about to be forgotten; then it is to be asked for anew.
    pub(super) fn put(&self, shared: &Shared, entry: &Keyed<K>, unit: &Arc<Unit<K>>) -> bool {
        let (put, before) = self.look(shared, |all| {
            let put = !entry.is(Mark::DOOMED);
            (put, if put { all.insert(entry.bead, unit.clone()) } else { None })
        });
        // Outside of the lock.
        drop(before);
        put
    }

    pub(super) fn get(&self, shared: &Shared, bead: Bead) -> Option<Arc<Unit<K>>> {
        self.look(shared, |all| all.get(&bead).cloned())
    }

    pub(super) fn take(&self, shared: &Shared, bead: Bead) -> Option<Arc<Unit<K>>> {
        self.look(shared, |all| all.remove(&bead))
    }

    /// Takes this wish back, if it is there still.
    pub(super) fn take_back(&self, shared: &Shared, bead: Bead, unit: &Arc<Unit<K>>) {
        let taken = self.look(shared, |all| match all.get(&bead) {
            Some(there) if Arc::ptr_eq(there, unit) => all.remove(&bead),
            _ => None,
        });
        drop(taken);
    }

    /// The key is to be forgotten, unless somebody insists on it: takes the wish then.
    pub(super) fn doom(&self, shared: &Shared, entry: &Keyed<K>) -> Option<Arc<Unit<K>>> {
        self.look(shared, |all| {
            let wish = all.remove(&entry.bead);
            entry.mark(Mark::DOOMED, wish.is_none());
            wish
        })
    }
}
