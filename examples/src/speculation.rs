//! What compiled code bets on, and what became of earlier bets.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::function::Function;
use crate::hir::FuncIndex;
use crate::jit::Speculation;

/// Which guards have failed, for each function of a program: the profile that the next compile reads.
#[derive(Debug)]
pub struct FailedGuards {
    /// Instructions, ascending.
    by_function: Box<[Mutex<Vec<u16>>]>,
}

impl FailedGuards {
    /// None yet.
    #[must_use]
    pub fn new(functions: usize) -> Self {
        Self { by_function: (0..functions).map(|_| Mutex::default()).collect() }
    }

    fn of(&self, function: FuncIndex) -> Option<MutexGuard<'_, Vec<u16>>> {
        // What is behind the lock is right after each step, so a panic elsewhere changes nothing.
        Some(self.by_function.get(function.index())?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers that the guard of the instruction at `pc` has failed. Not reached by code that goes on natively, so the lock
    /// costs nothing that counts.
    pub fn note(&self, function: FuncIndex, pc: u16) {
        if let Some(mut failed) = self.of(function)
            && let Err(at) = failed.binary_search(&pc)
        {
            failed.insert(at, pc);
        }
    }

    /// The instructions whose guards have failed.
    #[must_use]
    pub fn get(&self, function: FuncIndex) -> Vec<u16> {
        self.of(function).map_or_else(Vec::new, |failed| failed.clone())
    }

    /// What the next compile of a function may bet on: everything that has not failed, if it is to learn.
    #[must_use]
    pub fn speculation(&self, function: &Function, learn: bool, version: u64) -> Speculation {
        Speculation { version, failed: if learn { self.get(function.index) } else { Vec::new() } }
    }
}
