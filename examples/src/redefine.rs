//! Functions that the host redefines while the program runs, and the assumption of compiled code that they are not.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use beadwork::{Assumption, Engine, Stale};

use crate::hir::{FuncIndex, Signature};

/// Why a function was not redefined.
#[derive(Debug, thiserror::Error)]
pub enum RedefineError {
    /// There is no such function.
    #[error("the program has no function {}", .0.0)]
    Unknown(FuncIndex),
    /// Callers pass and expect something else.
    #[error("`{}` takes or returns other types than `{}`", .by.name, .function.name)]
    Signature {
        /// The function to be redefined.
        function: Box<Signature>,
        /// What was to replace it.
        by: Box<Signature>,
    },
    /// The function was removed from the engine.
    #[error(transparent)]
    Stale(#[from] Stale),
}

/// Which body each function of a program has now.
#[derive(Debug)]
pub(crate) struct Definitions {
    bodies: Box<[AtomicU16]>,
    /// By function: that its body is the one it has now.
    fixed: Mutex<Vec<Assumption>>,
}

impl Definitions {
    /// Every function has its own.
    pub(crate) fn new(functions: usize) -> Self {
        let bodies = (0..=u16::MAX).take(functions).map(AtomicU16::new);
        Self { bodies: bodies.collect(), fixed: Mutex::default() }
    }

    /// Makes the assumptions; before that nothing can rely on any.
    pub(crate) fn connect(&self, engine: &Engine) {
        let mut fixed = self.fixed();
        fixed.clear();
        fixed.extend(self.bodies.iter().map(|_| engine.assumption()));
    }

    fn fixed(&self) -> MutexGuard<'_, Vec<Assumption>> {
        // What is behind the lock is right after each step, so a panic elsewhere changes nothing.
        self.fixed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The function whose body `function` has now.
    #[inline]
    pub(crate) fn body(&self, function: FuncIndex) -> FuncIndex {
        // Acquire, partner is the Release in `redefine`: who has seen a new assumption sees the body it is about.
        self.bodies.get(function.index()).map_or(function, |body| FuncIndex(body.load(Ordering::Acquire)))
    }

    /// The assumption that `function` has the body which [`body`](Self::body) answers afterwards. Ask in this order: a body that
    /// changes in between breaks the assumption that was asked for before.
    pub(crate) fn assumption(&self, function: FuncIndex) -> Option<Assumption> {
        self.fixed().get(function.index()).copied()
    }

    /// Gives a function another body. Answers how many functions lost code or a compile because they relied on the old one.
    pub(crate) fn redefine(&self, engine: &Engine, function: FuncIndex, by: FuncIndex) -> usize {
        if let Some(body) = self.bodies.get(function.index()) {
            body.store(by.0, Ordering::Release);
        }
        // From here on compiles see the new body. Those that may have seen the old one relied on the assumption that is
        // taken out here, and broken afterwards, without the lock.
        let new = engine.assumption();
        let old = self.fixed().get_mut(function.index()).map(|fixed| std::mem::replace(fixed, new));
        old.map_or(0, |old| engine.invalidate_assumption(old))
    }
}
