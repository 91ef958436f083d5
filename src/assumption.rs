//! Assumptions: what code took for granted, and what happens when that turns out to be wrong.
//!
//! An assumption lists its dependents: beads, each with the version its code has or will have. A compile registers while
//! it runs, the VM's own installs before they publish; either checks under the same lock that the assumption still
//! holds. Who breaks it takes the list out under that lock and leaves it before it touches any bead. The proof that no code
//! slips through is in [`crate::protocol`], edge ASSUME.

use crate::id::{Bead, TierId};
use crate::sync::{Arc, AtomicU64, Mutex, lock};
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering::Relaxed;

/// Something compiled code takes for granted: a class without subclasses, a constant, the shape an inline cache saw.
///
/// Made by [`Engine::assumption`](crate::Engine::assumption), named by the code that relies on it
/// ([`Job::assume`](crate::Job::assume), [`CompiledCode::assumes`](crate::CompiledCode::assumes)), ended by
/// [`Engine::invalidate_assumption`](crate::Engine::invalidate_assumption). Numbers are never used again in this process, so
/// an assumption of another engine is one that does not hold here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Assumption(NonZeroU64);

impl Assumption {
    fn next() -> Assumption {
        // Not the shim's: no protocol depends on a number. 2^64 of them take centuries.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Assumption(NonZeroU64::new(number).unwrap_or(NonZeroU64::MAX))
    }

    /// The number, never 0.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The assumption with that number, `None` for 0. One that was never made does not hold.
    pub const fn from_number(number: u64) -> Option<Assumption> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Assumption(number)),
            None => None,
        }
    }
}

impl fmt::Display for Assumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "A{}", self.0)
    }
}

impl fmt::Debug for Assumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An assumption some code names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Assumed {
    pub(crate) on: Assumption,
    /// The compile is listed there already.
    pub(crate) listed: bool,
}

/// Code that relies on an assumption, installed or about to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dependent {
    pub(crate) bead: Bead,
    /// The version the code has once it is installed: that of the word it is installed on, raised once.
    pub(crate) version: u32,
    /// The tier of the compile whose claim it is; `None` for code of the VM's own, which has no claim.
    pub(crate) claim: Option<TierId>,
}

/// Dependents a list has room for before it is looked through for those that are gone.
const KEPT: usize = if cfg!(beadwork_loom) { 1 } else { 32 };

#[derive(Default)]
struct List {
    dependents: Vec<Dependent>,
    /// The length at which it is looked through.
    full_at: usize,
}

impl List {
    /// Adds a dependent. Those that are gone are struck off whenever the list has doubled since the last time, so a list is at
    /// most twice as long as it has to be, and adding costs the same on average however long it is.
    fn push(&mut self, dependent: Dependent, gone: impl Fn(&Dependent) -> bool) {
        if self.dependents.len() >= self.full_at.max(KEPT) {
            self.dependents.retain(|dependent| !gone(dependent));
            self.dependents.shrink_to(KEPT.max(2 * self.dependents.len()));
            self.full_at = 2 * self.dependents.len();
        }
        self.dependents.push(dependent);
    }
}

enum Entry {
    Holds(List),
    /// Broken; the list is being gone through, by everybody who asked for that.
    Breaking(Arc<[Dependent]>),
}

/// The assumptions that hold, and those that are being broken. What is not here was broken.
pub(crate) struct Assumptions {
    all: Mutex<HashMap<Assumption, Entry>>,
    /// How many were ever broken.
    broken: AtomicU64,
}

impl Assumptions {
    pub(crate) fn new() -> Assumptions {
        Assumptions { all: Mutex::new(HashMap::new()), broken: AtomicU64::new(0) }
    }

    pub(crate) fn make(&self) -> Assumption {
        let assumption = Assumption::next();
        lock(&self.all).insert(assumption, Entry::Holds(List::default()));
        assumption
    }

    pub(crate) fn holds(&self, assumption: Assumption) -> bool {
        matches!(lock(&self.all).get(&assumption), Some(Entry::Holds(_)))
    }

    /// The first of `assumed` that does not hold.
    pub(crate) fn first_broken(&self, assumed: &[Assumed]) -> Option<Assumption> {
        if assumed.is_empty() {
            return None;
        }
        let all = lock(&self.all);
        let holds = |on| matches!(all.get(&on), Some(Entry::Holds(_)));
        assumed.iter().map(|assumed| assumed.on).find(|&on| !holds(on))
    }

    /// How many were ever broken. As long as that stays, what held, holds.
    pub(crate) fn broken(&self) -> u64 {
        // Relaxed: ordered by the lock, and for who holds a publishing bit, by the bit (edge ASSUME).
        self.broken.load(Relaxed)
    }

    /// Lists a dependent with everything it relies on, if all of that holds; otherwise answers what does not. Answers how many
    /// assumptions were broken by then.
    ///
    /// Checked and listed in one lock, before publishing (edge ASSUME).
    pub(crate) fn register(
        &self,
        assumed: &[Assumed],
        dependent: Dependent,
        gone: impl Fn(&Dependent) -> bool,
    ) -> Result<u64, Assumption> {
        if assumed.is_empty() {
            return Ok(0);
        }
        let mut all = lock(&self.all);
        for assumed in assumed {
            if !matches!(all.get(&assumed.on), Some(Entry::Holds(_))) && !mutant!("assume-unchecked") {
                return Err(assumed.on);
            }
        }
        for assumed in assumed.iter().filter(|assumed| !assumed.listed) {
            if let Some(Entry::Holds(list)) = all.get_mut(&assumed.on) {
                list.push(dependent, &gone);
            }
        }
        Ok(self.broken())
    }

    /// Breaks an assumption; answers its dependents, to be gone through outside this lock, and then
    /// [forgotten](Assumptions::forget). `None`: it was broken before, and all of its dependents are gone.
    ///
    /// Of several threads that break the same one, each goes through the list, since each may return only when all of it is
    /// done.
    pub(crate) fn break_it(&self, assumption: Assumption) -> Option<Arc<[Dependent]>> {
        let mut all = lock(&self.all);
        let entry = all.get_mut(&assumption)?;
        let dependents = match entry {
            Entry::Holds(list) => {
                // Relaxed, as in `broken`.
                self.broken.fetch_add(1, Relaxed);
                std::mem::take(&mut list.dependents).into()
            }
            Entry::Breaking(_) if mutant!("assume-second-breaker") => return None,
            Entry::Breaking(dependents) => dependents.clone(),
        };
        *entry = Entry::Breaking(Arc::clone(&dependents));
        Some(dependents)
    }

    /// Everything that relied on a broken assumption is gone.
    pub(crate) fn forget(&self, assumption: Assumption) {
        lock(&self.all).remove(&assumption);
    }

    /// Dependents listed under an assumption.
    #[cfg(test)]
    pub(crate) fn listed(&self, assumption: Assumption) -> usize {
        match lock(&self.all).get(&assumption) {
            Some(Entry::Holds(list)) => list.dependents.len(),
            _ => 0,
        }
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    fn on(assumption: Assumption) -> [Assumed; 1] {
        [Assumed { on: assumption, listed: false }]
    }

    fn dependent(version: u32) -> Dependent {
        Dependent { bead: Bead::new(0, 0), version, claim: Some(TierId::BASELINE) }
    }

    #[test]
    fn numbers_are_never_used_again_also_by_another_engine() {
        let (one, other) = (Assumptions::new(), Assumptions::new());
        let first = one.make();
        one.break_it(first);
        one.forget(first);
        let second = one.make();
        assert!(first < second && !one.holds(first) && one.holds(second));
        assert!(!other.holds(second), "it is another engine's");
    }

    #[test]
    fn a_broken_assumption_takes_no_dependents_and_names_itself() {
        let all = Assumptions::new();
        let (good, broken) = (all.make(), all.make());
        all.register(&on(broken), dependent(1), |_| false).unwrap();
        assert_eq!(*all.break_it(broken).unwrap(), [dependent(1)]);
        let both = [on(good)[0], on(broken)[0]];
        assert_eq!(all.register(&both, dependent(2), |_| false), Err(broken));
        assert_eq!(all.listed(good), 0, "all or none");
        assert_eq!(all.break_it(broken).unwrap().len(), 1, "who asks meanwhile goes through the list too");
        all.forget(broken);
        assert!(all.break_it(broken).is_none());
    }

    #[test]
    fn a_list_holds_at_most_twice_what_is_alive_after_a_million_recompiles() {
        let (all, alive) = (Assumptions::new(), 100);
        let assumption = all.make();
        for version in 0..1_000_000u32 {
            let gone = |dependent: &Dependent| dependent.version + alive <= version;
            all.register(&on(assumption), dependent(version), gone).unwrap();
            assert!(all.listed(assumption) <= 2 * alive as usize + 1, "{}", all.listed(assumption));
        }
        assert!(all.listed(assumption) >= alive as usize);
    }
}
