//! The VM's heap as far as the engine knows of it: a core is the number of a cell, and a collector moves functions from cell
//! to cell while it holds a pause.

use crate::tally::Tally;
use beadwork::{Bead, Core, Engine, GcPauseError, Job};
use std::cell::UnsafeCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

pub(crate) struct Heap {
    /// A function's number plus one; 0 where nothing is any more. Plain memory, as objects are.
    cells: Box<[UnsafeCell<u32>]>,
    next: AtomicUsize,
    /// Cells of functions that are gone, for the next collection.
    garbage: Mutex<Vec<usize>>,
    collecting: Mutex<()>,
    /// Collectors at work.
    moving: AtomicU32,
}

// SAFETY: a cell is written by the thread that takes it, before the engine knows of it, and under a pause; it is read by jobs
// inside `with_core`. That these exclude each other is what this harness tests.
#[allow(unsafe_code)]
unsafe impl Sync for Heap {}

impl Heap {
    pub(crate) fn new(cells: usize) -> Heap {
        Heap {
            cells: (0..cells).map(|_| UnsafeCell::new(0)).collect(),
            next: AtomicUsize::new(0),
            garbage: Mutex::default(),
            collecting: Mutex::default(),
            moving: AtomicU32::new(0),
        }
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.next.load(Relaxed) >= self.cells.len()
    }

    /// A new cell for that function; `None` when they are used up.
    #[allow(unsafe_code)]
    pub(crate) fn place(&self, function: usize) -> Option<Core> {
        let cell = self.next.fetch_add(1, Relaxed);
        // SAFETY: the number was handed out once.
        unsafe { *self.cells.get(cell)?.get() = function as u32 + 1 };
        Some(Core::new(cell))
    }

    /// Leaves the cell to the next collection.
    pub(crate) fn discard(&self, core: Core) {
        self.garbage.lock().expect("not poisoned").push(core.get());
    }

    /// In a forked child: collectors of other threads do not exist, and the engine has forgotten their pauses.
    pub(crate) fn forget_collectors(&self) {
        self.moving.store(0, SeqCst);
    }

    /// What stands in the cell; the caller is inside `with_core`.
    #[allow(unsafe_code)]
    fn read(&self, core: Core) -> u32 {
        // SAFETY: no collector is at work meanwhile, and cells are written by nobody else.
        unsafe { *self.cells[core.get()].get() }
    }

    /// Looks at the job's function twice, and finds the same both times.
    pub(crate) fn look(&self, job: &Job<'_>, tally: &Tally) {
        let name = job.name().and_then(|name| name.parse::<u32>().ok());
        let _ = job.with_core(|core| {
            let first = self.read(core);
            tally.expect(first > 0, || format!("{:?} of {} was collected under a job", core, job.bead()));
            tally.expect(name.is_none_or(|name| name + 1 == first), || {
                format!("{:?} of {} is function {first}, not {name:?}", core, job.bead())
            });
            std::thread::yield_now();
            tally.expect(self.moving.load(SeqCst) == 0, || "a collector runs beside a job".to_string());
            tally.expect(self.read(core) == first, || format!("{core:?} changed under a job"));
        });
    }

    /// Moves functions and collects garbage, under a pause if it comes in time.
    #[allow(unsafe_code)]
    pub(crate) fn collect(&self, engine: &Engine, moves: &[(usize, Bead)], tally: &Tally) {
        let _one = self.collecting.lock().expect("not poisoned");
        let pause = match engine.try_gc_pause(Duration::from_millis(50)) {
            Ok(pause) => pause,
            Err(GcPauseError::Timeout { .. }) => return,
            Err(error) => return tally.violation(|| format!("no pause: {error}")),
        };
        self.moving.fetch_add(1, SeqCst);
        let mut dead = std::mem::take(&mut *self.garbage.lock().expect("not poisoned"));
        for &(function, bead) in moves {
            let (Ok(old), Some(new)) = (engine.core(bead), self.place(function)) else { continue };
            // Removed meanwhile, its old core was discarded by who removed it.
            let moved = engine.set_core(bead, new).is_ok();
            dead.push(if moved { old.get() } else { new.get() });
            tally.moved.fetch_add(u64::from(moved), Relaxed);
        }
        for cell in dead {
            // SAFETY: no job looks at a core, and no live function is there.
            unsafe { *self.cells[cell].get() = 0 };
        }
        self.moving.fetch_sub(1, SeqCst);
        drop(pause);
    }
}
