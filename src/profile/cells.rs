//! Where the counters lie: one column, given out in runs.
//!
//! # Rules
//! * **N1** a run is given out again when every mutator has passed a safepoint since its function ended or outgrew it, and its
//!   function's index is not pinned or was used again. Code that counts pins its own function, and a pinned index is not
//!   used again (edge REUSE), so nobody stores into the run by then, in native frames that are kept at any depth neither.
//! * **N2** its cells are cleared when it is given out, not when it is taken back.

use super::Run;
use crate::column::Column;
use crate::grace::Grace;
use crate::id::Bead;
use crate::sync::{AtomicU64, Mutex, lock};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

/// Runs are powers of two cells long, up to 2^16.
const CLASSES: usize = 17;

/// The most cells of one run.
pub(crate) const MAX_RUN: u32 = 1 << (CLASSES - 1);

/// Runs in limbo that one request looks at, unless there is no other room.
const LOOKED_AT: usize = 32;

pub(crate) struct Cells {
    cells: Column<AtomicU64>,
    len: u32,
    /// Boxed, since engines are built on small stacks too.
    room: Box<Mutex<Room>>,
}

#[derive(Default)]
struct Room {
    /// Cells ever used.
    used: u32,
    free: [Vec<u32>; CLASSES],
    limbo: VecDeque<Limbo>,
    /// Whether runs came free since free ones were last joined.
    unjoined: bool,
}

/// A run that native code may still be storing into.
#[derive(Clone, Copy)]
struct Limbo {
    stamp: u64,
    /// Whose it was.
    bead: Bead,
    run: Run,
}

impl Cells {
    /// Address space for `len` counters, a power of two.
    pub(crate) fn reserve(len: u32) -> std::io::Result<Cells> {
        Ok(Cells { cells: Column::reserve(len)?, len, room: Box::default() })
    }

    /// The cell of that number; a number outside is masked.
    pub(crate) fn get(&self, number: u32) -> &AtomicU64 {
        self.cells.get(number)
    }

    #[cfg(beadwork_loom)]
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Clones the column, for mutators.
    pub(crate) fn column(&self) -> Column<AtomicU64> {
        self.cells.clone()
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        self.cells.resident_bytes()
    }

    /// Gives out a run of at least `len` cells, all zero; `None` if there is no room. `pinned` says whether code of a function may be
    /// there still.
    pub(crate) fn take(&self, len: u32, grace: &Grace, pinned: impl Fn(Bead) -> bool) -> Option<Run> {
        if len == 0 || len > MAX_RUN {
            return None;
        }
        let class = len.next_power_of_two().trailing_zeros() as usize;
        let offset = {
            let mut room = lock(&self.room);
            if room.free[class].is_empty() {
                room.sweep(LOOKED_AT, grace, &pinned);
            }
            let fresh = |room: &mut Room| {
                let (offset, cells) = (room.used, 1 << class);
                (cells <= self.len - offset).then(|| {
                    room.used += cells;
                    offset
                })
            };
            room.free[class].pop().or_else(|| fresh(&mut room)).or_else(|| {
                room.sweep(usize::MAX, grace, &pinned);
                room.free[class].pop().or_else(|| room.split(class)).or_else(|| {
                    room.join();
                    room.split(class)
                })
            })?
        };
        let run = Run { offset, len, class: class as u8 };
        if !mutant!("n2-cleared-early") {
            self.clear(run);
        }
        Some(run)
    }

    /// All cells of a run zero.
    pub(crate) fn clear(&self, run: Run) {
        self.zero(run.offset..run.offset + run.capacity());
    }

    /// These cells zero.
    pub(crate) fn zero(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            // Relaxed: a count. An untouched page stays untouched.
            if self.get(number).load(Relaxed) != 0 {
                self.get(number).store(0, Relaxed);
            }
        }
    }

    /// Takes back a run of a function that ended, or has a longer one now (N1).
    pub(crate) fn retire(&self, bead: Bead, run: Run, grace: &Grace) {
        if mutant!("n2-cleared-early") {
            self.clear(run);
        }
        let mut room = lock(&self.room);
        room.limbo.push_back(Limbo { stamp: grace.stamp(), bead, run });
    }
}

impl Run {
    pub(crate) fn capacity(self) -> u32 {
        1 << self.class
    }
}

impl Room {
    /// Frees runs that nobody can be storing into any more (N1), of the `most` that were looked at longest ago.
    fn sweep(&mut self, most: usize, grace: &Grace, pinned: impl Fn(Bead) -> bool) {
        if self.limbo.is_empty() {
            return;
        }
        let passed = grace.passed();
        for _ in 0..self.limbo.len().min(most) {
            let Some(limbo) = self.limbo.pop_front() else { return };
            let pinned = pinned(limbo.bead) && !mutant!("n1-pinned");
            if (limbo.stamp <= passed || mutant!("n1-at-once")) && !pinned {
                self.free[usize::from(limbo.run.class)].push(limbo.run.offset);
                self.unjoined = true;
            } else {
                self.limbo.push_back(limbo);
            }
        }
    }

    /// Takes a free run of at least that class, and puts back what is over.
    fn split(&mut self, class: usize) -> Option<u32> {
        let (from, offset) =
            (class..CLASSES).find_map(|from| self.free[from].pop().map(|offset| (from, offset)))?;
        (class..from).for_each(|half| self.free[half].push(offset + (1 << half)));
        Some(offset)
    }

    /// Makes of free runs that lie side by side the longest there can be: what functions of one size leave is for all others, too.
    /// Costs a sort of them, and nothing if none came free since.
    fn join(&mut self) {
        if !std::mem::take(&mut self.unjoined) {
            return;
        }
        let mut all = Vec::new();
        for (class, free) in self.free.iter_mut().enumerate() {
            all.extend(free.drain(..).map(|offset| (offset, 1u32 << class)));
        }
        all.sort_unstable();
        let mut all = all.into_iter().peekable();
        while let Some((mut offset, mut len)) = all.next() {
            while let Some((_, more)) = all.next_if(|&(next, _)| next == offset + len) {
                len += more;
            }
            while len > 0 {
                let class = (len.ilog2() as usize).min(CLASSES - 1);
                self.free[class].push(offset);
                (offset, len) = (offset + (1 << class), len - (1 << class));
            }
        }
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use std::cell::Cell;

    const B: Bead = Bead::new(7, 0);

    #[test]
    fn a_run_is_given_out_again_cleared_when_no_mutator_and_no_code_can_store_into_it() {
        let (cells, grace, pinned) = (Cells::reserve(4).unwrap(), Grace::new(), Cell::new(true));
        let take = |len| cells.take(len, &grace, |bead| bead == B && pinned.get());
        let (cell, _) = grace.enlist(None);
        let run = take(3).unwrap();
        cells.retire(B, run, &grace);
        assert_eq!(take(3), None, "a mutator may be in its code");
        crate::grace::go_offline(&cell);
        assert_eq!(take(3), None, "code embeds the addresses");
        pinned.set(false);
        cells.get(run.offset + 1).store(5, Relaxed);
        let again = take(4).unwrap();
        assert_eq!((again.offset, cells.get(run.offset + 1).load(Relaxed)), (run.offset, 0));
    }

    #[test]
    fn runs_that_stay_pinned_do_not_hide_a_free_one_behind_them() {
        let (cells, grace) = (Cells::reserve(64).unwrap(), Grace::new());
        let take = || cells.take(1, &grace, |bead| bead.index() != 63);
        for index in 0..64 {
            let run = take().unwrap();
            cells.retire(Bead::new(index, 0), run, &grace);
        }
        assert_eq!(take().map(|run| run.offset), Some(63));
        assert_eq!(take(), None);
    }

    #[test]
    fn room_that_functions_of_one_size_left_is_for_functions_of_any_other() {
        let (cells, grace) = (Cells::reserve(64).unwrap(), Grace::new());
        let mut taken = Vec::new();
        let mut stored = 0;
        for len in [1, 64, 3, 16, 1, 5, 33, 2, 64] {
            while let Some(run) = cells.take(len, &grace, |_| false) {
                assert!(taken.len() < 64, "more than there is");
                taken.push(run);
            }
            assert_eq!(taken.len(), 64 / len.next_power_of_two() as usize, "{len}");
            // No two of them share a cell.
            for run in taken.iter().flat_map(|run: &Run| run.offset..run.offset + run.capacity()) {
                assert_eq!(cells.get(run).load(Relaxed), 0, "{len}");
                stored += 1;
                cells.get(run).store(stored, Relaxed);
            }
            taken.drain(..).for_each(|run| cells.retire(B, run, &grace));
        }
    }

    #[test]
    fn lengths_of_nothing_and_of_too_much_are_refused() {
        let (cells, grace) = (Cells::reserve(4).unwrap(), Grace::new());
        for len in [0, 5, MAX_RUN, MAX_RUN + 1, u32::MAX] {
            assert_eq!(cells.take(len, &grace, |_| false), None, "{len}");
        }
    }
}
