//! What was done, what was made to fail, and what should not have happened.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the harness makes go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Fault {
    BackendPanic,
    BackendError,
    NullEntry,
    WideEntry,
    Unfinished,
    FinishedTwice,
    Delay,
    PolicyPanic,
    FilterPanic,
    DeoptPolicyPanic,
    ListenerPanic,
    CallbackPanic,
    OwnerPanic,
    PayloadPanic,
    SnapshotPanic,
    ClosurePanic,
    TakePanic,
}

impl Fault {
    const COUNT: usize = Fault::TakePanic as usize + 1;
}

/// The payload of a panic that the harness has raised.
pub(crate) struct Injected(pub(crate) Fault);

/// Violations that are shown; the others are counted.
const SHOWN: usize = 20;

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) operations: AtomicU64,
    pub(crate) dispatched: AtomicU64,
    pub(crate) compiled: AtomicU64,
    pub(crate) freed: AtomicU64,
    pub(crate) removed: AtomicU64,
    /// Pieces of code taken back and looked for afterwards.
    pub(crate) checked: AtomicU64,
    pub(crate) moved: AtomicU64,
    pub(crate) forks: AtomicU64,
    faults: [AtomicU64; Fault::COUNT],
    violations: AtomicU64,
    shown: Mutex<Vec<String>>,
}

impl Tally {
    /// Counts a fault, which the caller now commits.
    pub(crate) fn inject(&self, fault: Fault) {
        self.faults[fault as usize].fetch_add(1, Relaxed);
    }

    /// Panics with a payload that can be told from a panic of the library's.
    pub(crate) fn panic(&self, fault: Fault) -> ! {
        self.inject(fault);
        std::panic::panic_any(Injected(fault))
    }

    pub(crate) fn faults(&self) -> u64 {
        self.faults.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Those among them that are panics.
    pub(crate) fn panics(&self) -> u64 {
        let others = [
            Fault::BackendError,
            Fault::NullEntry,
            Fault::WideEntry,
            Fault::Unfinished,
            Fault::FinishedTwice,
            Fault::Delay,
        ];
        let others: u64 = others.iter().map(|&fault| self.faults[fault as usize].load(Relaxed)).sum();
        self.faults() - others
    }

    pub(crate) fn violation(&self, what: impl FnOnce() -> String) {
        if self.violations.fetch_add(1, Relaxed) < SHOWN as u64 {
            let what = what();
            eprintln!("VIOLATION: {what}");
            self.shown.lock().unwrap_or_else(|broken| broken.into_inner()).push(what);
        }
    }

    /// A violation unless it holds.
    pub(crate) fn expect(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violation(what);
        }
    }

    pub(crate) fn violations(&self) -> u64 {
        self.violations.load(Relaxed)
    }
}
