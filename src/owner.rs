//! What keeps compiled code alive, in eight bytes per bead.
//!
//! A [`CodeOwner`] is a value; installed, it becomes an [`OwnerWord`] in a column. Owners that are a token of a shared
//! [`Reclaim`] (an arena's block, say) need no heap object at all. Everything else (a boxed value, code that embeds
//! slots of other functions) is a record in a slab, and the word names the record.

use crate::contain::contain;
use crate::id::Bead;
use crate::sync::{Arc, Mutex, RwLock, lock};
use std::any::Any;
use std::fmt;

/// Frees code by token, many at once. An arena is one.
pub trait Reclaim: Send + Sync + 'static {
    /// Frees what the tokens name. Each token given to [`CodeOwner::token`] comes here exactly once: when no
    /// thread can be in the code any more, on the thread that reclaims (a pool worker, or the caller of
    /// [`Engine::reclaim`](crate::Engine::reclaim) or [`Engine::run_pending`](crate::Engine::run_pending)), or at
    /// once where the result of the compile was dropped. A panic is contained and counted.
    fn reclaim(&self, tokens: &[u32]);
}

/// The owner of compiled code's memory; see [`CompiledCode::owner`](crate::CompiledCode::owner).
///
/// An owner is dropped once, and its token reclaimed once:
/// * of installed code that was superseded, taken back or removed: after the grace period, on the thread that reclaims (a
///   pool worker between compiles, or the caller of [`Engine::reclaim`](crate::Engine::reclaim),
///   [`run_pending`](crate::Engine::run_pending), [`drain`](crate::Engine::drain) or
///   [`shutdown`](crate::Engine::shutdown); on an engine that was never asked for a compile also the thread that installs or
///   invalidates); never inside a dispatch or a plain safepoint of an engine with workers;
/// * of code that was not installed: at once, on the thread that compiled or offered it;
/// * of all that is left: on the thread that lets go of the engine's last handle.
///
/// A VM that frees its code itself takes it out with [`into_boxed`](CodeOwner::into_boxed) or
/// [`into_token`](CodeOwner::into_token), see [`EngineBuilder::hand_back`](crate::EngineBuilder::hand_back).
pub struct CodeOwner(Owner);

enum Owner {
    None,
    Boxed(Box<dyn Any + Send>),
    Token(Arc<dyn Reclaim>, u32),
}

impl CodeOwner {
    /// Nothing to free: the code lives as long as the process.
    pub const fn none() -> CodeOwner {
        CodeOwner(Owner::None)
    }

    /// Any value whose drop frees the code. Costs one heap object per function.
    pub fn boxed(value: impl Any + Send) -> CodeOwner {
        CodeOwner(Owner::Boxed(Box::new(value)))
    }

    /// A token of `reclaimer`. Costs no heap object, and frees go to the reclaimer in batches. The engine remembers up to 254
    /// reclaimers, and keeps those for its whole life; meant for a few long-lived ones. Further ones cost a record each.
    pub fn token(reclaimer: Arc<dyn Reclaim>, token: u32) -> CodeOwner {
        CodeOwner(Owner::Token(reclaimer, token))
    }

    /// Whether there is nothing to free.
    pub fn is_none(&self) -> bool {
        matches!(self.0, Owner::None)
    }

    /// The value given to [`boxed`](CodeOwner::boxed), which is the caller's to drop from now on.
    ///
    /// # Errors
    /// The owner itself, if it is of another kind.
    pub fn into_boxed(mut self) -> Result<Box<dyn Any + Send>, CodeOwner> {
        match self.take() {
            Owner::Boxed(value) => Ok(value),
            other => Err(CodeOwner(other)),
        }
    }

    /// The reclaimer and the token given to [`token`](CodeOwner::token), which is the caller's to reclaim from now on.
    ///
    /// # Errors
    /// The owner itself, if it is of another kind.
    pub fn into_token(mut self) -> Result<(Arc<dyn Reclaim>, u32), CodeOwner> {
        match self.take() {
            Owner::Token(reclaimer, token) => Ok((reclaimer, token)),
            other => Err(CodeOwner(other)),
        }
    }

    fn take(&mut self) -> Owner {
        std::mem::replace(&mut self.0, Owner::None)
    }
}

impl Drop for CodeOwner {
    fn drop(&mut self) {
        if let Owner::Token(reclaimer, token) = self.take() {
            reclaimer.reclaim(&[token]);
        }
    }
}

impl fmt::Debug for CodeOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Owner::None => f.write_str("CodeOwner::none"),
            Owner::Boxed(_) => f.write_str("CodeOwner::boxed"),
            Owner::Token(_, token) => write!(f, "CodeOwner::token({token})"),
        }
    }
}

/// An installed owner: kind (8 bits), code size in 16-byte granules (24), token (32). Zero is "none".
///
/// It is a plain value; exactly one of the owner column, the retired list and a reclaiming thread's hands holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an owner word that is dropped leaks the code it owns"]
pub(crate) struct OwnerWord(pub(crate) u64);

const GRANULE: usize = 16;
const MOST_GRANULES: u64 = (1 << 24) - 1;
const RECORD: u64 = 1;
/// The kind of the first reclaimer; kinds below are ours.
const FIRST_RECLAIMER: usize = 2;
const MAX_RECLAIMERS: usize = 254;

impl OwnerWord {
    pub(crate) const NONE: OwnerWord = OwnerWord(0);

    fn new(kind: u64, bytes: usize, token: u32) -> OwnerWord {
        let granules = (bytes.div_ceil(GRANULE) as u64).min(MOST_GRANULES);
        OwnerWord(kind << 56 | granules << 32 | u64::from(token))
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The code's size, rounded up to 16 bytes, at most 256 MiB.
    pub(crate) fn bytes(self) -> usize {
        (self.0 >> 32 & MOST_GRANULES) as usize * GRANULE
    }

    /// The size, if the word knows all of it.
    fn known_bytes(self) -> Option<usize> {
        Some(self.bytes()).filter(|&bytes| bytes != 0 && bytes < MOST_GRANULES as usize * GRANULE)
    }

    fn kind(self) -> usize {
        (self.0 >> 56) as usize
    }

    fn token(self) -> u32 {
        self.0 as u32
    }
}

/// A stretch of memory that code occupies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) bytes: usize,
}

impl Piece {
    pub(crate) const ANYWHERE: Piece = Piece { start: 0, bytes: usize::MAX };

    pub(crate) fn contains(self, address: usize) -> bool {
        address.wrapping_sub(self.start) < self.bytes
    }

    /// Whether one of these addresses, in order, lies inside or just behind: a return address is that of the next
    /// instruction, and a call can be the last one.
    pub(crate) fn holds_any(self, addresses: &[usize]) -> bool {
        let first = addresses.partition_point(|&address| address < self.start);
        addresses.get(first).is_some_and(|&address| address - self.start <= self.bytes)
    }
}

/// What a word alone cannot say.
struct Record {
    owner: CodeOwner,
    embeds: Box<[Bead]>,
    pieces: Box<[Piece]>,
}

/// The engine's owners: the shared reclaimers by number, and the records.
pub(crate) struct Owners {
    reclaimers: RwLock<Vec<Arc<dyn Reclaim>>>,
    records: Mutex<slab::Slab<Record>>,
}

impl Owners {
    pub(crate) fn new() -> Owners {
        Owners { reclaimers: RwLock::new(Vec::new()), records: Mutex::new(slab::Slab::new()) }
    }

    /// Turns an owner into a word, outside the publishing bit.
    pub(crate) fn intern(
        &self,
        mut owner: CodeOwner,
        bytes: usize,
        embeds: Vec<Bead>,
        pieces: Vec<Piece>,
    ) -> OwnerWord {
        if embeds.is_empty() && (pieces.is_empty() || owner.is_none()) {
            match owner.take() {
                Owner::None => return OwnerWord::NONE,
                Owner::Token(reclaimer, token) => match self.number_of(&reclaimer) {
                    Some(kind) => return OwnerWord::new(kind as u64, bytes, token),
                    None => owner = CodeOwner(Owner::Token(reclaimer, token)),
                },
                boxed => owner = CodeOwner(boxed),
            }
        }
        let record = Record { owner, embeds: embeds.into(), pieces: pieces.into() };
        let key = lock(&self.records).insert(record);
        // A slab of 2^32 records would need more memory than a 48-bit address space has.
        OwnerWord::new(RECORD, bytes, key as u32)
    }

    /// Whether one of these addresses, in order, lies in the code that is entered at `entry`. Code of unknown size could be
    /// anywhere.
    pub(crate) fn any_inside(&self, entry: u64, word: OwnerWord, addresses: &[usize]) -> bool {
        if addresses.is_empty() {
            return false;
        }
        if word.kind() as u64 == RECORD {
            let records = lock(&self.records);
            let pieces = records.get(word.token() as usize).map_or(&[][..], |record| &record.pieces);
            if !pieces.is_empty() {
                return pieces.iter().any(|piece| piece.holds_any(addresses));
            }
        }
        let whole = |bytes| Piece { start: entry as usize, bytes };
        word.known_bytes().is_none_or(|bytes| whole(bytes).holds_any(addresses))
    }

    /// Takes one installed owner out for the VM: the owner, and the beads whose slots the code embeds.
    pub(crate) fn hand_out(&self, word: OwnerWord) -> (CodeOwner, Box<[Bead]>) {
        if word.kind() >= FIRST_RECLAIMER {
            let reclaimers = self.reclaimers.read().unwrap_or_else(|e| e.into_inner());
            let known = reclaimers.get(word.kind() - FIRST_RECLAIMER);
            let owner = known.map(|known| CodeOwner::token(known.clone(), word.token()));
            return (owner.unwrap_or(CodeOwner::none()), Box::default());
        }
        let record = match word.is_none() {
            true => None,
            false => lock(&self.records).try_remove(word.token() as usize),
        };
        record.map_or((CodeOwner::none(), Box::default()), |record| (record.owner, record.embeds))
    }

    fn number_of(&self, reclaimer: &Arc<dyn Reclaim>) -> Option<usize> {
        let find = |all: &[Arc<dyn Reclaim>]| all.iter().position(|known| Arc::ptr_eq(known, reclaimer));
        let known = find(&self.reclaimers.read().unwrap_or_else(|e| e.into_inner()));
        let position = known.or_else(|| {
            let mut all = self.reclaimers.write().unwrap_or_else(|e| e.into_inner());
            find(&all).or_else(|| {
                (all.len() < MAX_RECLAIMERS).then(|| {
                    all.push(reclaimer.clone());
                    all.len() - 1
                })
            })
        })?;
        Some(position + FIRST_RECLAIMER)
    }

    /// Takes installed owners apart for freeing. `embedded` hears of every bead whose slot the code embedded.
    pub(crate) fn release(&self, words: &[OwnerWord], mut embedded: impl FnMut(Bead)) -> Freeing {
        let reclaimers = self.reclaimers.read().unwrap_or_else(|e| e.into_inner());
        let mut batches: Vec<_> = reclaimers.iter().map(|known| (known.clone(), Vec::new())).collect();
        let mut singles = Vec::new();
        let mut records = lock(&self.records);
        for &word in words {
            if word.kind() >= FIRST_RECLAIMER {
                batches[word.kind() - FIRST_RECLAIMER].1.push(word.token());
            } else if !word.is_none()
                && let Some(record) = records.try_remove(word.token() as usize)
            {
                record.embeds.iter().copied().for_each(&mut embedded);
                singles.push(record.owner);
            }
        }
        batches.retain(|(_, tokens)| !tokens.is_empty());
        Freeing { batches, singles }
    }
}

/// Owners taken apart, ready to be freed.
#[must_use = "what is not freed leaks"]
pub(crate) struct Freeing {
    batches: Vec<(Arc<dyn Reclaim>, Vec<u32>)>,
    singles: Vec<CodeOwner>,
}

impl Freeing {
    /// Frees, with no lock held, since this is foreign code. Answers how many of the frees panicked.
    pub(crate) fn free(self) -> usize {
        let batches = self.batches.iter().filter(|(reclaimer, tokens)| panics(|| reclaimer.reclaim(tokens)));
        batches.count()
            + self.singles.into_iter().filter_map(|owner| panics(|| drop(owner)).then_some(())).count()
    }
}

fn panics(free: impl FnOnce()) -> bool {
    contain(free).is_err()
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(std::sync::Mutex<Vec<u32>>);
    impl Reclaim for Log {
        fn reclaim(&self, tokens: &[u32]) {
            self.0.lock().unwrap().extend(tokens);
        }
    }

    #[test]
    fn tokens_of_one_reclaimer_need_no_record_and_are_freed_in_one_batch() {
        let (log, owners) = (Arc::new(Log::default()), Owners::new());
        let words: Vec<_> =
            (0..3).map(|t| owners.intern(CodeOwner::token(log.clone(), t), 100, vec![], vec![])).collect();
        assert_eq!(words[1].bytes(), 112);
        assert_eq!(owners.records.lock().unwrap().len(), 0);
        let freeing = owners.release(&words, |_| panic!("embeds nothing"));
        assert_eq!(freeing.free(), 0);
        assert_eq!(*log.0.lock().unwrap(), [0, 1, 2]);
    }

    #[test]
    fn a_boxed_owner_is_dropped_once_when_freed_and_embeds_are_reported() {
        let (alive, owners) = (Arc::new(()), Owners::new());
        let callee = Bead::new(4, 0);
        let word = owners.intern(CodeOwner::boxed(alive.clone()), 8, vec![callee], vec![]);
        let mut embedded = vec![];
        let freeing = owners.release(&[word], |bead| embedded.push(bead));
        assert_eq!((Arc::strong_count(&alive), embedded), (2, vec![callee]));
        assert_eq!(freeing.free(), 0);
        assert_eq!(Arc::strong_count(&alive), 1);
        let again = owners.release(&[word], |_| ());
        assert!(again.singles.is_empty(), "a record is released once");
    }

    #[test]
    fn code_too_large_for_its_size_to_be_known_is_taken_to_hold_any_frame() {
        let (log, owners) = (Arc::new(Log::default()), Owners::new());
        let most = MOST_GRANULES as usize * GRANULE;
        let inside = |bytes, address| {
            let word = owners.intern(CodeOwner::token(log.clone(), 1), bytes, vec![], vec![]);
            owners.any_inside(0x1000, word, &[address])
        };
        assert!(inside(most - GRANULE, 0x1000 + 5) && !inside(most - GRANULE, 0x1000 + most));
        assert!(inside(2 * most, 0x1000 + most + 1));
    }

    #[test]
    fn an_owner_that_was_never_installed_frees_its_token_when_dropped() {
        let log = Arc::new(Log::default());
        drop(CodeOwner::token(log.clone(), 9));
        assert_eq!(*log.0.lock().unwrap(), [9]);
    }

    #[test]
    fn a_panic_while_freeing_is_contained_and_the_rest_is_freed() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("owner");
            }
        }
        let (alive, owners) = (Arc::new(()), Owners::new());
        let words = [
            owners.intern(CodeOwner::boxed(Bomb), 0, vec![], vec![]),
            owners.intern(CodeOwner::boxed(alive.clone()), 0, vec![], vec![]),
        ];
        let freeing = owners.release(&words, |_| ());
        assert_eq!(freeing.free(), 1);
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
