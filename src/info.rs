//! What a VM may tell about its functions: names, keys, sizes, groups, callbacks. All of it is optional and sparse.

use crate::column::Column;
use crate::event::Invalidation;
use crate::id::{Bead, Group};
use crate::sync::{Arc, AtomicU32, AtomicU64, AtomicUsize, Mutex, lock};
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// A per-bead callback; see [`BeadInfo::on_invalidate`].
pub(crate) type OnInvalidate = Arc<dyn Fn(Bead, Invalidation) + Send + Sync>;

/// What is known of a function besides its core; see [`Engine::register_with`](crate::Engine::register_with).
///
/// ```
/// use beadwork::BeadInfo;
/// let info = BeadInfo::named("fib").key(0xfeed).size(57);
/// ```
#[derive(Clone, Default)]
pub struct BeadInfo<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) key: u64,
    pub(crate) size: u32,
    pub(crate) group: Option<Group>,
    pub(crate) on_invalidate: Option<OnInvalidate>,
}

impl<'a> BeadInfo<'a> {
    /// Nothing known.
    pub fn new() -> BeadInfo<'a> {
        BeadInfo::default()
    }

    /// A name, for logs, profilers and backtraces. Need not be unique.
    pub fn named(name: &'a str) -> BeadInfo<'a> {
        BeadInfo { name: Some(name), ..BeadInfo::default() }
    }

    /// A key that stays the same from run to run (a hash of the source, say). 0 means none.
    #[must_use]
    pub fn key(mut self, key: u64) -> Self {
        self.key = key;
        self
    }

    /// The size of the function in the VM's own units (bytes of bytecode, say). 0 means unknown.
    #[must_use]
    pub fn size(mut self, size: u32) -> Self {
        self.size = size;
        self
    }

    /// The group it lives and dies with.
    #[must_use]
    pub fn group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    /// Called once each time the function's code is taken back, and once when it is removed; on the thread that does it, after
    /// it took effect. So a call for code that another thread took back just before the removal can come after that of the
    /// removal; [`Mutator::deliver`](crate::Mutator::deliver) is in order. A panic in it is contained.
    #[must_use]
    pub fn on_invalidate(mut self, callback: impl Fn(Bead, Invalidation) + Send + Sync + 'static) -> Self {
        self.on_invalidate = Some(Arc::new(callback));
        self
    }
}

impl fmt::Debug for BeadInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BeadInfo")
            .field("name", &self.name)
            .field("key", &self.key)
            .field("size", &self.size)
            .field("group", &self.group)
            .field("on_invalidate", &self.on_invalidate.is_some())
            .finish()
    }
}

/// What needs a heap object.
#[derive(Clone, Default)]
struct Side {
    name: Option<Arc<str>>,
    on_invalidate: Option<OnInvalidate>,
}

/// A group's members, in order of registration. Removed ones stay listed until they are the majority.
#[derive(Default)]
struct Members {
    beads: Vec<Bead>,
    removed: usize,
}

pub(crate) struct Info {
    key: Column<AtomicU64>,
    size: Column<AtomicU32>,
    group: Column<AtomicU32>,
    sides: Mutex<HashMap<u32, Side>>,
    /// How many sides there are, so that nobody takes the lock while there is none.
    sides_len: AtomicUsize,
    groups: Mutex<HashMap<NonZeroU32, Members>>,
    next_group: AtomicU32,
}

impl Info {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn reserve(capacity: u32) -> std::io::Result<Info> {
        Ok(Info {
            key: Column::reserve(capacity)?,
            size: Column::reserve(capacity)?,
            group: Column::reserve(capacity)?,
            sides: Mutex::new(HashMap::new()),
            sides_len: AtomicUsize::new(0),
            groups: Mutex::new(HashMap::new()),
            next_group: AtomicU32::new(1),
        })
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        self.key.resident_bytes() + self.size.resident_bytes() + self.group.resident_bytes()
    }

    /// Notes what is known of an index that is not live yet. Its columns are zero.
    pub(crate) fn set(&self, index: u32, info: &BeadInfo<'_>) {
        // Release, edge CORE, partner is the Acquire of whoever looks: if this is a later function's, its second look at
        // the state shows the generation that `remove` moved on.
        if info.key != 0 {
            self.key.get(index).store(info.key, Release);
        }
        if info.size != 0 {
            self.size.get(index).store(info.size, Release);
        }
        if let Some(Group(group)) = info.group {
            self.group.get(index).store(group.get(), Release);
        }
        if info.name.is_some() || info.on_invalidate.is_some() {
            let side = Side { name: info.name.map(Arc::from), on_invalidate: info.on_invalidate.clone() };
            lock(&self.sides).insert(index, side);
            self.sides_len.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn name(&self, index: u32) -> Option<Arc<str>> {
        self.side(index)?.name
    }

    pub(crate) fn key(&self, index: u32) -> Option<u64> {
        // Acquire, edge CORE, partner is `set`.
        Some(self.key.get(index).load(mutant!("core-key-load", Acquire))).filter(|&key| key != 0)
    }

    pub(crate) fn size(&self, index: u32) -> Option<u32> {
        // Acquire, edge CORE, partner is `set`.
        Some(self.size.get(index).load(Acquire)).filter(|&size| size != 0)
    }

    pub(crate) fn group(&self, index: u32) -> Option<Group> {
        // Acquire, edge CORE, partner is `set`.
        NonZeroU32::new(self.group.get(index).load(Acquire)).map(Group)
    }

    pub(crate) fn on_invalidate(&self, index: u32) -> Option<OnInvalidate> {
        self.side(index)?.on_invalidate
    }

    fn side(&self, index: u32) -> Option<Side> {
        if self.sides_len.load(Relaxed) == 0 {
            return None;
        }
        lock(&self.sides).get(&index).cloned()
    }

    /// Forgets what was known of an index that is about to be removed, before anyone can register it again. Answers
    /// the callback.
    pub(crate) fn clear(&self, index: u32) -> Option<OnInvalidate> {
        if let Some(group) = self.group(index) {
            if let Some(members) = lock(&self.groups).get_mut(&group.0) {
                members.removed += 1;
            }
            self.group.get(index).store(0, Relaxed);
        }
        if self.key(index).is_some() {
            self.key.get(index).store(0, Relaxed);
        }
        if self.size(index).is_some() {
            self.size.get(index).store(0, Relaxed);
        }
        if self.sides_len.load(Relaxed) == 0 {
            return None;
        }
        let side = lock(&self.sides).remove(&index)?;
        self.sides_len.fetch_sub(1, Relaxed);
        side.on_invalidate
    }

    // ---- groups

    pub(crate) fn new_group(&self) -> Option<Group> {
        let number = self.next_group.fetch_update(Relaxed, Relaxed, |next| next.checked_add(1)).ok()?;
        let group = Group(NonZeroU32::new(number)?);
        lock(&self.groups).insert(group.0, Members::default());
        Some(group)
    }

    pub(crate) fn has_group(&self, group: Group) -> bool {
        lock(&self.groups).contains_key(&group.0)
    }

    /// Lists a new member; false if the group ended meanwhile.
    pub(crate) fn join(
        &self,
        group: Group,
        beads: impl Iterator<Item = Bead>,
        live: impl Fn(Bead) -> bool,
    ) -> bool {
        let mut groups = lock(&self.groups);
        let Some(members) = groups.get_mut(&group.0) else { return false };
        if members.removed > members.beads.len() / 2 {
            members.beads.retain(|&bead| live(bead));
            members.removed = 0;
        }
        members.beads.extend(beads);
        true
    }

    /// The members, removed ones among them.
    pub(crate) fn members(&self, group: Group) -> Option<Vec<Bead>> {
        lock(&self.groups).get(&group.0).map(|members| members.beads.clone())
    }

    /// Ends a group; answers its members, removed ones among them.
    pub(crate) fn end_group(&self, group: Group) -> Option<Vec<Bead>> {
        lock(&self.groups).remove(&group.0).map(|members| members.beads)
    }
}
