//! The handle everyone holds.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::block::{BlockToken, CodeBlock, CodeGroup};
use crate::builder::{ArenaBuilder, Config};
use crate::error::ArenaError;
use crate::layout::Placed;
use crate::names::Wanted;
use crate::place::{self, Function};
use crate::state::State;
use crate::stats::ArenaStats;

/// Executable memory that several code generators can share.
///
/// A clone is another handle to the same arena. One lock guards it; placing costs about a microsecond per
/// function under the lock, so compile in parallel and place in batches.
#[derive(Clone)]
pub struct Arena {
    shared: Arc<Shared>,
}

/// What handles and blocks share.
pub(crate) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    /// The lock. A panic cannot leave the state half-changed (nothing in it calls foreign code), so poison is ignored.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block's owner went away.
    pub(crate) fn free_owned(&self, token: BlockToken) {
        self.lock().free(&[token]);
    }

    /// The block's owner leaves it to its token.
    pub(crate) fn release(&self, token: BlockToken) {
        if let Some((region, granule)) = self.lock().find(token) {
            region.release(granule);
        }
    }
}

impl Arena {
    /// A number that tells this arena from the others that exist; its handles have the same.
    pub fn id(&self) -> u64 {
        Arc::as_ptr(&self.shared).addr() as u64
    }

    /// An arena with default options: dual-mapped 64 MiB regions without limit, unwinding on, no names for profilers and debuggers.
    pub fn builder() -> ArenaBuilder {
        ArenaBuilder::default()
    }

    pub(crate) fn with_config(config: Config, names: Wanted) -> Result<Self, ArenaError> {
        let shared = Arc::new(Shared { state: Mutex::new(State::new(config, names)) });
        #[cfg(unix)]
        crate::fork::watch(&shared)?;
        Ok(Self { shared })
    }

    /// Places a batch of functions and answers their owners in the same order.
    ///
    /// Writes the code, applies relocations, cleans the instruction cache, makes it executable and registers its
    /// unwind information, in that order. The entries are ready for every thread that learns of them through a
    /// Release store (or a lock, or a channel) of the caller. The cost does not depend on the code already
    /// placed. An empty batch is fine and touches nothing.
    ///
    /// # Errors
    /// [`ArenaError`]; nothing of the batch stays placed.
    pub fn place(&self, batch: &[Function<'_>]) -> Result<Vec<CodeBlock>, ArenaError> {
        let placed = self.place_all(batch, &vec![1; batch.len()])?;
        let owners = placed.iter().zip(batch);
        Ok(owners.map(|(place, function)| self.owner(place, function.code.len())).collect())
    }

    /// Places functions of which some belong together: each group gets one block (and so one token), and all its
    /// functions are freed with it. They lie one after the other, in order, with a name and unwind information each. A
    /// [`Target::Local`](crate::Target::Local) counts through all functions of all groups.
    ///
    /// Otherwise like [`place`](Arena::place). Costs no more than placing the functions one by one.
    ///
    /// # Errors
    /// [`ArenaError`]; nothing of the batch stays placed. A group without functions is
    /// [`ArenaError::EmptyGroup`].
    pub fn place_groups(&self, groups: &[&[Function<'_>]]) -> Result<Vec<CodeGroup>, ArenaError> {
        if let Some(position) = groups.iter().position(|group| group.is_empty()) {
            return Err(ArenaError::EmptyGroup { position });
        }
        let sizes: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        let placed = self.place_all(&groups.concat(), &sizes)?;
        let mut rest = placed.as_slice();
        let own = groups.iter().map(|group| {
            let (places, later) = rest.split_at(group.len());
            rest = later;
            let len = group.iter().map(|function| function.code.len()).sum();
            CodeGroup {
                block: self.owner(&places[0], len),
                entries: places.iter().map(|place| place.entry).collect(),
            }
        });
        Ok(own.collect())
    }

    fn owner(&self, place: &Placed, len: usize) -> CodeBlock {
        CodeBlock { arena: Arc::clone(&self.shared), entry: place.entry, len, token: place.token() }
    }

    /// The places of all functions of a batch, given the sizes of its groups.
    fn place_all(&self, batch: &[Function<'_>], groups: &[usize]) -> Result<Vec<Placed>, ArenaError> {
        place::check(batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.shared.lock();
        let placed = place::place(&mut state, batch, groups)?;
        state.names.announce(&placed, batch);
        Ok(placed)
    }

    /// Frees the blocks of all tokens and answers how many bytes (of granules) that were.
    ///
    /// Takes the lock once and replaces each unwind table concerned once, so it is much cheaper than dropping blocks
    /// one by one. The caller knows that no thread executes the code or will call its entry.
    ///
    /// # Errors
    /// [`ArenaError::NotLive`] for the first token that names no block given up by
    /// [`CodeBlock::into_token`], was freed, or occurs twice; nothing is freed then.
    pub fn free_many(&self, tokens: &[BlockToken]) -> Result<usize, ArenaError> {
        let mut state = self.shared.lock();
        for (position, &token) in tokens.iter().enumerate() {
            if !state.find(token).is_some_and(|(region, granule)| region.reclaim(granule)) {
                for &earlier in &tokens[..position] {
                    if let Some((region, granule)) = state.find(earlier) {
                        region.release(granule);
                    }
                }
                return Err(ArenaError::NotLive { token, position });
            }
        }
        Ok(state.free(tokens))
    }

    /// What the arena holds and has done.
    pub fn stats(&self) -> ArenaStats {
        self.shared.lock().stats()
    }

    /// Gives all wholly free pages back to the system, and unmaps empty regions except one. Costs a system call
    /// per run of free, once used pages; call it when a burst of frees is over.
    pub fn trim(&self) {
        self.shared.lock().trim();
    }

    /// The name a live block was placed with, if the arena keeps names ([`ArenaBuilder::perf_map`]).
    pub fn name_for(&self, token: BlockToken) -> Option<String> {
        let mut state = self.shared.lock();
        state.find(token)?;
        state.names.get(token).map(str::to_owned)
    }

    /// Address of the first instruction of a live block; `None` for a token that names none.
    pub fn entry_for(&self, token: BlockToken) -> Option<*const u8> {
        self.shared.lock().find(token).map(|(region, granule)| region.address(granule))
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
