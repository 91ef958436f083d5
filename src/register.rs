//! Registration: functions and groups of functions come and go.

use crate::delivery::{Delivery, Order};
use crate::engine::Engine;
use crate::error::{RegisterError, Stale};
use crate::event::{Event, Invalidation};
use crate::id::{Bead, Core, Group, TierId};
use crate::info::{BeadInfo, OnInvalidate};
use crate::shared::Shared;
use std::sync::Arc;

impl Engine {
    /// Registers a function. It starts in the interpreter, with nothing counted.
    ///
    /// Costs a read-modify-write and a store for an index never used before, and a lock for a reused one.
    ///
    /// # Errors
    /// [`RegisterError::CapacityExhausted`]; everything registered goes on working.
    pub fn register(&self, core: Core) -> Result<Bead, RegisterError> {
        let shared = self.shared();
        if shared.table.free_len() == 0
            && !shared.settings.eager_baseline
            && let Some(index) = shared.table.take_fresh(1)
        {
            return Ok(shared.table.register_fresh(index, core.get()));
        }
        self.register_one(core, None).inspect(|&bead| self.start_eagerly(bead))
    }

    /// Registers a function together with what is known of it.
    ///
    /// # Errors
    /// As [`register`](Engine::register), and [`RegisterError::NoSuchGroup`].
    pub fn register_with(&self, core: Core, info: &BeadInfo<'_>) -> Result<Bead, RegisterError> {
        let shared = self.shared();
        if let Some(group) = info.group {
            let _no_fork = shared.gate.enter();
            if !shared.info.has_group(group) {
                return Err(RegisterError::NoSuchGroup(group));
            }
        }
        let bead = self.register_one(core, Some(info))?;
        self.join(info.group, std::iter::once(bead)).inspect_err(|_| {
            let _ = self.remove_quietly(bead);
        })?;
        self.start_eagerly(bead);
        Ok(bead)
    }

    fn register_one(&self, core: Core, info: Option<&BeadInfo<'_>>) -> Result<Bead, RegisterError> {
        let (shared, core) = (self.shared(), core.get());
        let table = &shared.table;
        let note = |index| {
            if let Some(info) = info {
                shared.info.set(index, info);
            }
        };
        // A fresh index of which nothing is known takes no lock, and so needs no section.
        let section = (info.is_some() || table.free_len() > 0).then(|| shared.gate.enter());
        section
            .as_ref()
            .and_then(|_| table.register_again(core, note))
            .or_else(|| {
                let index = table.take_fresh(1)?;
                note(index);
                Some(table.register_fresh(index, core))
            })
            .ok_or_else(|| self.exhausted())
    }

    /// Asks for the baseline at once, on engines that start there.
    fn start_eagerly(&self, bead: Bead) {
        if self.shared().settings.eager_baseline
            && let Err(error) = self.promote(bead, TierId::BASELINE)
        {
            tracing::debug!(target: "beadwork", %bead, %error, "starts in the interpreter");
        }
    }

    /// Registers many functions at once, all or none.
    ///
    /// Costs a store a function. Indices never used before come as one run, so the answer is small.
    ///
    /// # Errors
    /// [`RegisterError::CapacityExhausted`]; nothing was registered then.
    pub fn register_many<I>(&self, cores: I) -> Result<BeadRuns, RegisterError>
    where
        I: IntoIterator<Item = Core, IntoIter: ExactSizeIterator>,
    {
        self.register_run(cores.into_iter(), None)
    }

    /// Registers many functions of one group at once, all or none; a module's, say.
    ///
    /// # Errors
    /// As [`register_many`](Engine::register_many), and [`RegisterError::NoSuchGroup`].
    pub fn register_group<I>(&self, group: Group, cores: I) -> Result<BeadRuns, RegisterError>
    where
        I: IntoIterator<Item = Core, IntoIter: ExactSizeIterator>,
    {
        self.register_run(cores.into_iter(), Some(group))
    }

    fn register_run(
        &self,
        cores: impl ExactSizeIterator<Item = Core>,
        group: Option<Group>,
    ) -> Result<BeadRuns, RegisterError> {
        let shared = self.shared();
        let wanted = u32::try_from(cores.len()).map_err(|_| self.exhausted())?;
        // All indices first: whether there are enough shows before any is used up.
        let mut taking = Taking::new(self, wanted)?;
        let note = |index| {
            if group.is_some() {
                shared.info.set(index, &BeadInfo { group, ..BeadInfo::new() });
            }
        };
        // The iterator is foreign code: it runs in no section, and if it panics `taking` gives everything back.
        let mut cores = cores.take(wanted as usize);
        taking.register_again(&mut cores, note);
        taking.register_fresh(&mut cores, note);
        self.join(group, taking.made.iter())?;
        let runs = taking.keep();
        if shared.settings.eager_baseline {
            runs.iter().for_each(|bead| self.start_eagerly(bead));
        }
        Ok(runs)
    }

    fn join(
        &self,
        group: Option<Group>,
        beads: impl Iterator<Item = Bead> + Clone,
    ) -> Result<(), RegisterError> {
        let Some(group) = group else { return Ok(()) };
        let shared = self.shared();
        let joined = {
            let _no_fork = shared.gate.enter();
            shared.info.join(group, beads, |bead| shared.table.live(bead).is_ok())
        };
        if joined {
            return Ok(());
        }
        // The group ended while its new members were being registered.
        Err(RegisterError::NoSuchGroup(group))
    }

    fn exhausted(&self) -> RegisterError {
        let table = &self.shared().table;
        RegisterError::CapacityExhausted { capacity: table.capacity(), waiting: table.free_len() }
    }

    /// Ends a function. Its handle is stale from now on; its code is freed, and its index reused, when every mutator
    /// has passed a safepoint. Answers its core.
    ///
    /// # Errors
    /// [`Stale`] if it is not live, so of several threads that remove it one succeeds.
    pub fn remove(&self, bead: Bead) -> Result<Core, Stale> {
        self.shared().remove(bead)
    }

    fn remove_quietly(&self, bead: Bead) -> Result<(), Stale> {
        self.shared().remove_and(bead, |_| None).map(|_| ())
    }

    // ---- groups

    /// A new, empty group.
    ///
    /// # Errors
    /// [`RegisterError::GroupsExhausted`] after 4,294,967,294 groups.
    pub fn group(&self) -> Result<Group, RegisterError> {
        let _no_fork = self.shared().gate.enter();
        self.shared().info.new_group().ok_or(RegisterError::GroupsExhausted)
    }

    /// The functions of a group that are live, in order of registration; `None` if the group has ended.
    pub fn group_members(&self, group: Group) -> Option<Vec<Bead>> {
        let shared = self.shared();
        let _no_fork = shared.gate.enter();
        let mut members = shared.info.members(group)?;
        members.retain(|&bead| shared.table.live(bead).is_ok());
        Some(members)
    }

    /// Ends a group and every function in it; answers how many were live. Costs time proportional to the group.
    /// A group that has ended already has none.
    pub fn remove_group(&self, group: Group) -> usize {
        let members = {
            let _no_fork = self.shared().gate.enter();
            self.shared().info.end_group(group)
        };
        let removed = members.into_iter().flatten().filter(|&bead| self.remove(bead).is_ok()).count();
        let _no_fork = self.shared().gate.enter();
        self.shared().table.close_removals();
        removed
    }

    // ---- what is known of a function

    /// The VM's handle for the function.
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn core(&self, bead: Bead) -> Result<Core, Stale> {
        self.shared().table.core(bead).map(Core::new)
    }

    /// Changes the VM's handle: a moving collector moved the function. May be called at any time, also while the
    /// function is being compiled; [`Job::core`](crate::Job::core) reads the new one.
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn set_core(&self, bead: Bead, core: Core) -> Result<(), Stale> {
        let _no_fork = self.shared().gate.enter();
        self.shared().table.set_core(bead, core.get())
    }

    /// The name given at registration.
    pub fn name(&self, bead: Bead) -> Option<Arc<str>> {
        self.shared().known(bead, |info, index| info.name(index))
    }

    /// The key given at registration.
    pub fn key(&self, bead: Bead) -> Option<u64> {
        self.shared().known(bead, |info, index| info.key(index))
    }

    /// The size given at registration, in the VM's units.
    pub fn size(&self, bead: Bead) -> Option<u32> {
        self.shared().known(bead, |info, index| info.size(index))
    }

    /// The group given at registration.
    pub fn group_of(&self, bead: Bead) -> Option<Group> {
        self.shared().known(bead, |info, index| info.group(index))
    }
}

impl Shared {
    /// See [`Engine::remove`].
    pub(crate) fn remove(&self, bead: Bead) -> Result<Core, Stale> {
        let (core, callback) = self.remove_and(bead, |order| order.note(Delivery::Removed { bead }))?;
        self.over(bead, TierId::MAX, u32::MAX);
        self.emit(&Event::Removed { bead });
        self.call_back(callback, bead, Invalidation::Removed);
        Ok(core)
    }

    fn remove_and(
        &self,
        bead: Bead,
        note: impl FnOnce(&mut Order<'_>) -> Option<Delivery>,
    ) -> Result<(Core, Option<OnInvalidate>), Stale> {
        let (mut callback, mut faults) = (None, Vec::new());
        let no_fork = self.gate.enter();
        let mut order = self.deliveries.order();
        let core = self.table.remove(bead, |index| {
            callback = self.info.clear(index);
            faults = self.faults.forget_all(bead);
            self.loops.forget(bead);
            self.deopts.forget(bead);
            self.table.profiles.forget(bead, &self.table.grace);
        })?;
        let dropped = note(&mut order);
        drop(order);
        drop(no_fork);
        self.dispose((faults, dropped));
        self.changed_meaning(bead);
        Ok((Core::new(core), callback))
    }
}

/// Indices of a bulk registration, taken and partly registered. Dropped, it gives everything back.
struct Taking<'e> {
    engine: &'e Engine,
    /// Removed indices to be used again, last first.
    again: Vec<u32>,
    /// Indices never used, from the first to the one behind the last.
    fresh: std::ops::Range<u32>,
    made: BeadRuns,
}

impl<'e> Taking<'e> {
    fn new(engine: &'e Engine, wanted: u32) -> Result<Taking<'e>, RegisterError> {
        let table = &engine.shared().table;
        let mut taking = Taking { engine, again: Vec::new(), fresh: 0..0, made: BeadRuns::default() };
        while (taking.again.len() as u32) < wanted && table.free_len() > 0 {
            let _no_fork = engine.shared().gate.enter();
            let Some(index) = table.take_again() else { break };
            taking.again.push(index);
        }
        taking.again.reverse();
        let rest = wanted - taking.again.len() as u32;
        let first = table.take_fresh(rest).ok_or_else(|| engine.exhausted())?;
        taking.fresh = first..first + rest;
        Ok(taking)
    }

    fn register_again(&mut self, cores: &mut impl Iterator<Item = Core>, note: impl Fn(u32)) {
        while !self.again.is_empty()
            && let Some(core) = cores.next()
            && let Some(index) = self.again.pop()
        {
            self.made.push(self.engine.shared().table.register_taken(index, core.get(), &note), 1);
        }
    }

    /// One run, so that nothing but a store is done for each.
    fn register_fresh(&mut self, cores: &mut impl Iterator<Item = Core>, note: impl Fn(u32)) {
        /// So many are asked of the iterator at a time.
        const CHUNK: usize = 64;
        let table = &self.engine.shared().table;
        let mut chunk = [0; CHUNK];
        loop {
            let room = CHUNK.min(self.fresh.len());
            let mut len = 0;
            // If this panics, the functions of this chunk are not registered yet.
            for (place, core) in chunk[..room].iter_mut().zip(cores.by_ref()) {
                *place = core.get();
                len += 1;
            }
            let from = self.fresh.start;
            (from..from + len as u32).for_each(&note);
            table.register_run(from, &chunk[..len]);
            self.fresh.start += len as u32;
            if len > 0 {
                self.made.push(Bead::new(from, 0), len as u32);
            }
            // An iterator that has ended, earlier than it said, is not asked again.
            if len < CHUNK {
                break;
            }
        }
    }

    fn keep(mut self) -> BeadRuns {
        std::mem::take(&mut self.made)
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        for bead in self.made.iter() {
            let _ = self.engine.remove_quietly(bead);
        }
        let shared = self.engine.shared();
        for index in std::mem::take(&mut self.again) {
            let _no_fork = shared.gate.enter();
            shared.table.give_back(index);
        }
        for index in self.fresh.clone() {
            let _no_fork = shared.gate.enter();
            shared.table.give_back_fresh(index);
        }
    }
}

/// The functions a bulk registration made, in order, as runs of neighbouring indices.
#[derive(Clone, Debug, Default)]
pub struct BeadRuns {
    /// First bead and length of each run; all of a run have the same generation.
    runs: Vec<(Bead, u32)>,
    len: usize,
}

impl BeadRuns {
    /// How many functions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The functions, in the order in which their cores were given.
    pub fn iter(&self) -> impl Iterator<Item = Bead> + Clone + '_ {
        self.runs.iter().flat_map(|&(first, len)| {
            (0..len).map(move |offset| Bead::new(first.index() + offset, first.tag() as u16))
        })
    }

    /// Adds `count` functions with neighbouring indices, from `bead` on.
    fn push(&mut self, bead: Bead, count: u32) {
        self.len += count as usize;
        if let Some((first, len)) = self.runs.last_mut()
            && first.tag() == bead.tag()
            && first.index().checked_add(*len) == Some(bead.index())
        {
            *len += count;
            return;
        }
        self.runs.push((bead, count));
    }
}
