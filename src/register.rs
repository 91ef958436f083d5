//! Registration: functions and groups of functions come and go.

use crate::engine::Engine;
use crate::error::{RegisterError, Stale};
use crate::event::{Event, Invalidation};
use crate::id::{Bead, Core, Group};
use crate::info::BeadInfo;
use std::sync::Arc;

impl Engine {
    /// Registers a function. It starts in the interpreter, with nothing counted.
    ///
    /// Costs two stores for an index never used before, and a lock for a reused one.
    ///
    /// # Errors
    /// [`RegisterError::CapacityExhausted`]; everything registered goes on working.
    pub fn register(&self, core: Core) -> Result<Bead, RegisterError> {
        self.register_one(core, None)
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
        self.join(info.group, std::iter::once(bead))?;
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
            .or_else(|| table.take_fresh(1).map(|index| table.register_fresh(index, core, note)))
            .ok_or_else(|| self.exhausted())
    }

    /// Registers many functions at once, all or none.
    ///
    /// Costs two stores a function. Indices never used before come as one run, so the answer is small.
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
        mut cores: impl ExactSizeIterator<Item = Core>,
        group: Option<Group>,
    ) -> Result<BeadRuns, RegisterError> {
        let (shared, mut runs) = (self.shared(), BeadRuns::default());
        let info = BeadInfo { group, ..BeadInfo::new() };
        let note = |index| shared.info.set(index, &info);
        let mut outcome = Ok(());
        // The iterator is foreign code, so it is not run inside a section of the gate.
        while runs.len() < cores.len().saturating_add(runs.len()) {
            let Some(core) = cores.next() else { break };
            let again = {
                let _no_fork = shared.gate.enter();
                shared.table.register_again(core.get(), note)
            };
            if let Some(bead) = again {
                runs.push(bead);
                continue;
            }
            // Nothing to reuse: the rest comes off the end of the table in one piece.
            let rest = u32::try_from(cores.len()).ok().and_then(|rest| rest.checked_add(1));
            let Some(first) = rest.and_then(|rest| shared.table.take_fresh(rest)) else {
                outcome = Err(self.exhausted());
                break;
            };
            let end = first + rest.unwrap_or(0);
            let mut next = first;
            for core in std::iter::once(core).chain(&mut cores).take((end - first) as usize) {
                shared.table.register_fresh(next, core.get(), note);
                next += 1;
            }
            runs.push_run(first, next - first);
            // An iterator that gave fewer than it said.
            for index in next..end {
                let _no_fork = shared.gate.enter();
                shared.table.give_back_fresh(index);
            }
            break;
        }
        outcome = outcome.and_then(|()| self.join(group, runs.iter()));
        if outcome.is_err() {
            runs.iter().for_each(|bead| {
                let _ = self.remove_quietly(bead);
            });
        }
        outcome.map(|()| runs)
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
            shared.info.join(group, beads.clone(), |bead| shared.table.live(bead).is_ok())
        };
        if joined {
            return Ok(());
        }
        // The group ended while its new members were being registered: they end with it.
        beads.for_each(|bead| {
            let _ = self.remove(bead);
        });
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
        let (core, callback) = self.remove_quietly(bead)?;
        let shared = self.shared();
        shared.emit(&Event::Removed { bead });
        shared.call_back(callback, bead, Invalidation::Removed);
        Ok(core)
    }

    fn remove_quietly(&self, bead: Bead) -> Result<(Core, Option<crate::info::OnInvalidate>), Stale> {
        let (shared, mut callback) = (self.shared(), None);
        let _no_fork = shared.gate.enter();
        let core = shared.table.remove(bead, |index| {
            callback = shared.info.clear(index);
            shared.faults.forget_all(bead);
        })?;
        Ok((Core::new(core), callback))
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
        members.into_iter().flatten().filter(|&bead| self.remove(bead).is_ok()).count()
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
        self.known(bead, |info, index| info.name(index))
    }

    /// The key given at registration.
    pub fn key(&self, bead: Bead) -> Option<u64> {
        self.known(bead, |info, index| info.key(index))
    }

    /// The size given at registration, in the VM's units.
    pub fn size(&self, bead: Bead) -> Option<u32> {
        self.known(bead, |info, index| info.size(index))
    }

    /// The group given at registration.
    pub fn group_of(&self, bead: Bead) -> Option<Group> {
        self.known(bead, |info, index| info.group(index))
    }

    fn known<T>(&self, bead: Bead, look: impl FnOnce(&crate::info::Info, u32) -> Option<T>) -> Option<T> {
        let shared = self.shared();
        let _no_fork = shared.gate.enter();
        shared.table.live(bead).ok()?;
        let known = look(&shared.info, bead.index());
        // Removed meanwhile: what was read may be a later function's.
        shared.table.live(bead).ok().and(known)
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

    fn push(&mut self, bead: Bead) {
        self.runs.push((bead, 1));
        self.len += 1;
    }

    fn push_run(&mut self, first: u32, len: u32) {
        self.runs.push((Bead::new(first, 0), len));
        self.len += len as usize;
    }
}
