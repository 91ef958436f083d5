//! What a backend has done.

use beadwork_arena::ArenaStats;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A snapshot of a backend. Each figure is exact once no compile runs; together they are not one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendStats {
    /// Calls of the backend by an engine, each with one batch.
    pub batches: u64,
    /// Functions that were compiled, or loaded, and placed.
    pub compiled: u64,
    /// Functions that failed in the frontend, in the compiler, or when they were placed.
    pub failed: u64,
    /// Loop entries that were compiled, or loaded, and placed with their functions.
    pub loop_entries: u64,
    /// Loop entries that were left out because they failed in the frontend, in the compiler, or when they were placed.
    pub loop_entries_failed: u64,
    /// Bodies of other functions that were compiled into functions and loop entries.
    pub included: u64,
    /// Functions and loop entries that failed with bodies of other functions in them, and were built again without.
    pub units_failed: u64,
    /// Functions whose request was superseded before their turn in the batch came; nothing was compiled.
    pub superseded: u64,
    /// Batches that could not be placed as a whole and were placed function by function.
    pub split: u64,
    /// Bytes of machine code and constants placed, freed ones included.
    pub code_bytes: u64,
    /// What the arena holds; its figures include the code of others that share it.
    pub arena: ArenaStats,
}

/// Relaxed everywhere: each is a sum, and none publishes anything.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    batches: AtomicU64,
    compiled: AtomicU64,
    failed: AtomicU64,
    superseded: AtomicU64,
    loop_entries: AtomicU64,
    loop_entries_failed: AtomicU64,
    included: AtomicU64,
    units_failed: AtomicU64,
    split: AtomicU64,
    code_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn batch(&self) {
        self.batches.fetch_add(1, Relaxed);
    }

    pub(crate) fn split(&self) {
        self.split.fetch_add(1, Relaxed);
    }

    pub(crate) fn placed(&self, bytes: usize, loops: usize) {
        self.compiled.fetch_add(1, Relaxed);
        self.code_bytes.fetch_add(bytes as u64, Relaxed);
        self.loop_entries.fetch_add(loops as u64, Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn loop_entry_failed(&self) {
        self.loop_entries_failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn included(&self, bodies: usize) {
        self.included.fetch_add(bodies as u64, Relaxed);
    }

    pub(crate) fn unit_failed(&self) {
        self.units_failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn superseded(&self) {
        self.superseded.fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self, arena: ArenaStats) -> BackendStats {
        BackendStats {
            batches: self.batches.load(Relaxed),
            compiled: self.compiled.load(Relaxed),
            failed: self.failed.load(Relaxed),
            superseded: self.superseded.load(Relaxed),
            loop_entries: self.loop_entries.load(Relaxed),
            loop_entries_failed: self.loop_entries_failed.load(Relaxed),
            included: self.included.load(Relaxed),
            units_failed: self.units_failed.load(Relaxed),
            split: self.split.load(Relaxed),
            code_bytes: self.code_bytes.load(Relaxed),
            arena,
        }
    }
}
