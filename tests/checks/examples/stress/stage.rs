//! What all threads of a round share beside the engine: functions and what is known of them, and chance.

use crate::heap::Heap;
use crate::pieces::Pieces;
use crate::tally::{Fault, Injected, Tally};
use beadwork::{Assumption, Bead, Delivery, Engine, HandedBack, SubmitError};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// Functions; each is removed and registered anew again and again, but for the first few.
pub(crate) const FUNCTIONS: usize = 192;

/// Functions that are never removed, so that their slots' addresses stay good.
pub(crate) const IMMORTAL: usize = 16;

const GONE: usize = 1024;
const PREMISES: usize = 1 << 16;

/// The seed of the next thread.
static SEED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static CHANCE: RefCell<SmallRng> = RefCell::new(SmallRng::seed_from_u64(SEED.fetch_add(1, Relaxed)));
}

/// Seeds the chance of threads that start from now on.
pub(crate) fn seed(seed: u64) {
    SEED.store(seed << 32, Relaxed);
}

/// A number below `end`, at least 1.
pub(crate) fn below(end: usize) -> usize {
    CHANCE.with(|chance| chance.borrow_mut().random_range(0..end))
}

/// True once in so many times.
pub(crate) fn once_in(times: usize) -> bool {
    below(times) == 0
}

pub(crate) struct Stage {
    pub(crate) tally: Arc<Tally>,
    pub(crate) pieces: Arc<Pieces>,
    pub(crate) heap: Heap,
    /// The bits of each function's handle, 0 while it has none.
    functions: Vec<AtomicU64>,
    /// Handles of removed functions.
    gone: Vec<AtomicU64>,
    gone_len: AtomicUsize,
    pub(crate) premises: Premises,
    /// Payloads, snapshots and closures: made, and not dropped yet.
    pub(crate) things: Arc<Things>,
    /// In a forked child: faults and what takes locks of the harness are left out.
    pub(crate) in_child: AtomicBool,
    pub(crate) stop: AtomicBool,
    /// What an engine handed back; freed at the end of the round.
    pub(crate) handed_back: Mutex<Vec<HandedBack>>,
    /// The version last delivered of each function, [`REMOVED`] for one that is gone.
    delivered: Mutex<HashMap<Bead, u32>>,
}

/// No version is as high.
const REMOVED: u32 = u32::MAX;

impl Stage {
    pub(crate) fn new(tally: Arc<Tally>, pieces: usize) -> Stage {
        let zeroes = |len| (0..len).map(|_| AtomicU64::new(0)).collect();
        Stage {
            tally,
            pieces: Arc::new(Pieces::new(pieces)),
            heap: Heap::new(pieces),
            functions: zeroes(FUNCTIONS),
            gone: zeroes(GONE),
            gone_len: AtomicUsize::new(0),
            premises: Premises::default(),
            things: Arc::default(),
            in_child: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            handed_back: Mutex::default(),
            delivered: Mutex::default(),
        }
    }

    /// Takes a delivery, and checks that it comes in its turn.
    pub(crate) fn deliver(&self, delivery: Delivery) {
        let mut delivered = self.delivered.lock().expect("not poisoned");
        let (bead, version) = match &delivery {
            Delivery::Installed { bead, version, .. } => (*bead, *version),
            Delivery::Removed { bead } => (*bead, REMOVED),
            Delivery::Invalidated { bead } | Delivery::Reverted { bead, .. } => (*bead, 0),
            _ => return,
        };
        let last = delivered.get(&bead).copied().unwrap_or_default();
        let in_turn = last != REMOVED && (version == 0 || version > last);
        self.tally.expect(in_turn, || format!("{delivery:?} came after version {last}"));
        delivered.insert(bead, last.max(version));
        drop(delivered);
        drop_quietly(delivery);
        if self.fails(1_000) {
            self.tally.panic(Fault::TakePanic);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Relaxed) || self.pieces.is_used_up() || self.heap.is_used_up()
    }

    /// Whether to commit a fault now.
    pub(crate) fn fails(&self, once_in_times: usize) -> bool {
        !self.in_child.load(Relaxed) && once_in(once_in_times)
    }

    /// A function by its number, if it is registered.
    pub(crate) fn function(&self, number: usize) -> Option<Bead> {
        Bead::from_bits(self.functions[number].load(SeqCst))
    }

    pub(crate) fn any(&self) -> Option<(usize, Bead)> {
        // A few are much hotter than the others.
        let number = if once_in(2) { below(8) } else { below(FUNCTIONS) };
        self.function(number).map(|bead| (number, bead))
    }

    /// Makes the function known; false if somebody else has registered it meanwhile.
    pub(crate) fn put(&self, number: usize, bead: Bead) -> bool {
        self.functions[number].compare_exchange(0, bead.to_bits(), SeqCst, SeqCst).is_ok()
    }

    /// Takes a function out, so that one thread removes it.
    pub(crate) fn take(&self, number: usize) -> Option<Bead> {
        Bead::from_bits(self.functions[number].swap(0, SeqCst))
    }

    /// Notes that a function is gone, after its removal returned.
    pub(crate) fn note_gone(&self, bead: Bead) {
        let at = self.gone_len.fetch_add(1, Relaxed) % GONE;
        self.gone[at].store(bead.to_bits(), SeqCst);
    }

    pub(crate) fn any_gone(&self) -> Option<Bead> {
        Bead::from_bits(self.gone[below(GONE)].load(SeqCst))
    }
}

/// Assumptions, of which a few hold at a time.
pub(crate) struct Premises {
    /// Moved on after each break.
    time: AtomicU64,
    current: Mutex<Vec<(Assumption, u32)>>,
    made: AtomicUsize,
    /// When each was broken; 0 while it holds.
    broken: Box<[AtomicU64]>,
}

impl Default for Premises {
    fn default() -> Premises {
        let broken = (0..PREMISES).map(|_| AtomicU64::new(0)).collect();
        Premises { time: AtomicU64::new(1), current: Mutex::default(), made: AtomicUsize::new(0), broken }
    }
}

impl Premises {
    pub(crate) fn start(&self, engine: &Engine) {
        (0..4).for_each(|_| self.add(engine));
    }

    fn add(&self, engine: &Engine) {
        let number = self.made.fetch_add(1, Relaxed) + 1;
        if number < PREMISES {
            self.current.lock().expect("not poisoned").push((engine.assumption(), number as u32));
        }
    }

    pub(crate) fn any(&self) -> Option<(Assumption, u32)> {
        let current = self.current.lock().expect("not poisoned");
        (!current.is_empty()).then(|| current[below(current.len())])
    }

    /// Breaks one, and makes another.
    pub(crate) fn break_one(&self, engine: &Engine) {
        let taken = {
            let mut current = self.current.lock().expect("not poisoned");
            if current.is_empty() { None } else { Some(below(current.len())) }
                .map(|at| current.swap_remove(at))
        };
        if let Some((assumption, number)) = taken {
            engine.invalidate_assumption(assumption);
            let time = self.time.fetch_add(1, SeqCst) + 1;
            self.broken[number as usize].store(time, SeqCst);
            self.add(engine);
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.time.load(SeqCst)
    }

    /// Whether it was broken at that time.
    pub(crate) fn was_broken(&self, number: u32, at: u64) -> bool {
        let broken = self.broken[number as usize].load(SeqCst);
        broken != 0 && broken <= at
    }
}

/// How many things with a drop of their own there are.
#[derive(Default)]
pub(crate) struct Things(pub(crate) AtomicU64);

/// Counted while it lives, and perhaps panics when it is dropped.
pub(crate) struct Thing {
    things: Arc<Things>,
    tally: Arc<Tally>,
    panics: Option<Fault>,
}

impl Thing {
    pub(crate) fn new(stage: &Stage, panics: Option<Fault>) -> Thing {
        stage.things.0.fetch_add(1, SeqCst);
        Thing { things: stage.things.clone(), tally: stage.tally.clone(), panics }
    }

    /// It will be dropped in peace.
    pub(crate) fn defuse(&mut self) {
        self.panics = None;
    }
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.things.0.fetch_sub(1, SeqCst);
        if let Some(fault) = self.panics.filter(|_| !std::thread::panicking()) {
            self.tally.panic(fault);
        }
    }
}

/// Runs a step; a panic in it is a violation, unless it is one of the VM's own.
pub(crate) fn step(stage: &Stage, what: &str, run: impl FnOnce()) {
    stage.tally.operations.fetch_add(1, Relaxed);
    let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) else { return };
    match payload.downcast_ref::<Injected>() {
        // What the VM's own code raised on the VM's own thread.
        Some(Injected(Fault::PolicyPanic | Fault::FilterPanic | Fault::TakePanic)) => (),
        Some(Injected(fault)) => stage.tally.violation(|| format!("{fault:?} came out of {what}")),
        None => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string()));
            stage.tally.violation(|| format!("{what} panicked: {}", text.unwrap_or_default()));
        }
    }
}

/// Drops what may panic then.
pub(crate) fn drop_quietly<T>(thing: T) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(thing)));
}

/// Drops a refused closure.
pub(crate) fn refused<F>(result: Result<(), SubmitError<F>>) {
    if let Err(SubmitError { compile, .. }) = result {
        drop_quietly(compile);
    }
}
