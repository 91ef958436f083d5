//! Functions come and go, alone and in groups.

use crate::model::Function;
use crate::rig::{Inner, MOST_SLOTS};
use beadwork::{Bead, BeadInfo, Core, Invalidation};
use std::sync::atomic::Ordering::Relaxed;

impl Inner {
    pub(super) fn register(&self, grouped: bool) {
        let group = self.model.borrow().groups.last().map(|(group, _)| *group).filter(|_| grouped);
        let heard = self.heard.clone();
        let info = BeadInfo::new().on_invalidate(move |_, what| {
            heard[usize::from(what == Invalidation::Removed)].fetch_add(1, Relaxed);
        });
        let info = match group {
            Some(group) => info.group(group),
            None => info,
        };
        let registered = self.with_room(1, || self.engine.register_with(Core::new(7), &info).ok());
        let Some(bead) = registered else { return };
        self.registered(bead, 7);
        let mut model = self.model.borrow_mut();
        if let Some((_, members)) = model.groups.last_mut().filter(|_| grouped) {
            members.push(bead);
        }
        assert_eq!(self.engine.group_of(bead), group);
    }

    pub(super) fn register_many(&self, count: u8) {
        let cores = (0..usize::from(count)).map(Core::new);
        let registered = self.with_room(count.into(), || self.engine.register_many(cores.clone()).ok());
        let Some(beads) = registered else { return };
        assert_eq!(beads.len(), usize::from(count));
        for (core, bead) in beads.iter().enumerate() {
            self.registered(bead, core);
            // Functions of a bulk registration have no callback: nobody is told of them.
            self.with(bead, |function| function.silent = true);
        }
    }

    fn registered(&self, bead: Bead, core: usize) {
        let mut model = self.model.borrow_mut();
        let again = model.live.iter().any(|function| function.bead.index() == bead.index());
        let before = model
            .gone
            .iter()
            .any(|gone| gone.index() == bead.index() && gone.generation() >= bead.generation());
        let slotted = self.slots.borrow().iter().any(|(slotted, _)| slotted.index() == bead.index());
        assert!(!again && !before && !slotted, "{bead} is somebody's already");
        model.used = model.used.max(bead.index() + 1);
        model.live.push(Function::new(bead, core));
    }

    /// Registers; refused, it is tried again when every thread has been at a safepoint. From then on there is room but for what
    /// is live and what has a slot, whose index is never used again.
    fn with_room<T>(&self, wanted: usize, register: impl Fn() -> Option<T>) -> Option<T> {
        register().or_else(|| {
            self.safepoint(0);
            self.safepoint(1);
            self.engine.reclaim();
            let registered = register();
            let taken = self.taken() + wanted;
            let room = self.engine.capacity() as usize;
            assert_eq!(registered.is_some(), taken <= room, "{taken} are taken with these, of {room}");
            registered
        })
    }

    /// Indices that cannot be used.
    fn taken(&self) -> usize {
        let mut model = self.model.borrow_mut();
        let mut slotted: Vec<Bead> = self.slots.borrow().iter().map(|(bead, _)| *bead).collect();
        slotted.retain(|&bead| model.get(bead).is_none());
        slotted.sort_by_key(|bead| bead.index());
        slotted.dedup();
        model.live.len() + slotted.len()
    }

    /// Registers until there is no room.
    pub(in crate::rig) fn fill(&self) {
        while self.taken() <= self.engine.capacity() as usize {
            let before = self.taken();
            self.register(false);
            if self.taken() == before {
                return;
            }
        }
    }

    pub(super) fn remove(&self, bead: Bead) {
        let removed = self.model.borrow_mut().remove(bead);
        self.model.borrow_mut().changed_meaning(bead);
        let core = removed.map(|function| Core::new(function.core));
        assert_eq!(self.engine.remove(bead).ok(), core);
    }

    pub(super) fn remove_group(&self, group: u8) {
        let (group, members) = {
            let mut model = self.model.borrow_mut();
            if model.groups.is_empty() {
                return self.nothing_done();
            }
            let at = usize::from(group) % model.groups.len();
            model.groups.swap_remove(at)
        };
        let live = self.members(&members);
        assert_eq!(self.engine.group_members(group), Some(live.clone()));
        assert_eq!(self.engine.remove_group(group), live.len());
        for &bead in &live {
            let _ = self.model.borrow_mut().remove(bead);
            self.model.borrow_mut().changed_meaning(bead);
        }
        assert_eq!(self.engine.group_members(group), None);
    }

    pub(super) fn members(&self, members: &[Bead]) -> Vec<Bead> {
        let mut model = self.model.borrow_mut();
        members.iter().copied().filter(|&bead| model.get(bead).is_some()).collect()
    }

    pub(super) fn slot(&self, bead: Bead) {
        let mut slots = self.slots.borrow_mut();
        if slots.len() >= MOST_SLOTS && slots.iter().all(|(slotted, _)| *slotted != bead) {
            return self.nothing_done();
        }
        let slot = self.engine.slot(bead);
        let known = self.with(bead, |function| function.slotted = true);
        assert_eq!(slot.is_ok(), known.is_some());
        if let Ok(slot) = slot {
            slots.push((bead, slot));
        }
    }
}
