//! Which function has which counters.

use super::cells::Cells;
use super::read::{CallProfile, Profile};
use super::{CALL_TARGETS, CallSite, Run, SITE_CELLS, target};
use crate::column::Column;
use crate::grace::Grace;
use crate::id::Bead;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, fence, lock};
use std::collections::HashMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Records are spread over so many locks, a power of two, by function.
const SHARDS: usize = if cfg!(beadwork_loom) { 1 } else { 16 };

/// In the last cell of a site, which has the count of all others: native code raises the first count by itself, so the callee it is for
/// is noted once, when the code is compiled, and has to stay.
const DIRECT: u64 = 1 << 63;

/// What a function has.
#[derive(Clone, Copy, Default)]
struct Record {
    blocks: Option<Run>,
    sites: Option<Run>,
}

/// Which of a function's two runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Blocks,
    Sites,
}

impl Record {
    fn run(&mut self, which: Which) -> &mut Option<Run> {
        match which {
            Which::Blocks => &mut self.blocks,
            Which::Sites => &mut self.sites,
        }
    }
}

/// Counters and call records of all functions that asked for some.
pub(crate) struct Profiles {
    cells: Cells,
    shards: Box<[Mutex<HashMap<u64, Record>>]>,
    /// How many records there are, so that nobody takes a lock while there is none.
    len: AtomicUsize,
}

impl Profiles {
    /// Address space for `cells` counters, a power of two.
    pub(crate) fn reserve(cells: u32) -> std::io::Result<Profiles> {
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect();
        Ok(Profiles { cells: Cells::reserve(cells)?, shards, len: AtomicUsize::new(0) })
    }

    fn shard(&self, bead: Bead) -> &Mutex<HashMap<u64, Record>> {
        &self.shards[bead.index() as usize & (SHARDS - 1)]
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        self.cells.resident_bytes()
    }

    pub(crate) fn column(&self) -> Column<AtomicU64> {
        self.cells.column()
    }

    /// The address of a cell of a run.
    pub(crate) fn address(&self, run: Run) -> usize {
        std::ptr::from_ref(self.cells.get(run.offset)).expose_provenance()
    }

    /// Provides counters for `count` blocks, or records for as many call sites: those the function has, if it has as many; cleared, if
    /// it had another number. The caller has pinned the index (N1), and looks afterwards whether the bead is live: if not, it
    /// [forgets](Profiles::forget).
    pub(crate) fn provide(
        &self,
        bead: Bead,
        which: Which,
        count: u32,
        grace: &Grace,
        pinned: impl Fn(Bead) -> bool,
    ) -> Option<Run> {
        let len = match which {
            Which::Blocks => count,
            Which::Sites => count.checked_mul(SITE_CELLS)?,
        };
        let mut shard = lock(self.shard(bead));
        let mut record = shard.get(&bead.to_bits()).copied().unwrap_or_default();
        let run = match *record.run(which) {
            Some(run) if run.len == len => return Some(run),
            // The same run for another number: code of before goes on counting in here, and spoils a few counts.
            Some(run) if len > 0 && len <= run.capacity() => {
                self.cells.clear(run);
                Run { len, ..run }
            }
            old => {
                let new = self.cells.take(len, grace, pinned)?;
                if let Some(old) = old {
                    self.cells.retire(bead, old, grace);
                }
                new
            }
        };
        *record.run(which) = Some(run);
        if shard.insert(bead.to_bits(), record).is_none() {
            // Relaxed: ordered by the fence.
            self.len.fetch_add(1, Relaxed);
        }
        drop(shard);
        // SeqCst, edge FAULT: between this and the caller's look whether the bead lives. Partner is the fence in `forget`.
        fence(mutant!("fault-counters-given", SeqCst));
        Some(run)
    }

    /// Forgets a function that is gone. Its counters are given out again when nobody stores into them any more.
    pub(crate) fn forget(&self, bead: Bead, grace: &Grace) {
        // SeqCst, edge FAULT: between the end of the bead and the look at `len`. Partner is the fence in `provide`.
        fence(SeqCst);
        if self.len.load(Relaxed) == 0 {
            return;
        }
        let record = lock(self.shard(bead)).remove(&bead.to_bits());
        if let Some(record) = record {
            self.len.fetch_sub(1, Relaxed);
            for run in [record.blocks, record.sites].into_iter().flatten() {
                self.cells.retire(bead, run, grace);
            }
        }
    }

    /// Counts from zero: the function's source changed, or its program does something else. Code that is there may go on, so
    /// sites that call one function only still call that.
    pub(crate) fn start_over(&self, bead: Bead) {
        if self.len.load(Relaxed) == 0 {
            return;
        }
        let shard = lock(self.shard(bead));
        let Some(record) = shard.get(&bead.to_bits()) else { return };
        record.blocks.into_iter().for_each(|run| self.cells.clear(run));
        for first in record.sites.into_iter().flat_map(|run| run.cells().step_by(SITE_CELLS as usize)) {
            let others = first + SITE_CELLS - 1;
            // Relaxed: counts, and bits that are all there is.
            let direct = self.cells.get(others).load(Relaxed) & DIRECT;
            self.cells.zero(first + u32::from(direct != 0)..others);
            if direct == 0 {
                self.cells.zero(others..others + 1);
            } else {
                self.cells.get(others).store(direct, Relaxed);
            }
        }
    }

    /// What was counted so far; `None` if the function has no counters.
    pub(crate) fn read(&self, bead: Bead) -> Option<Profile> {
        if self.len.load(Relaxed) == 0 {
            return None;
        }
        // Locked while it is read, so that the runs stay this function's.
        let shard = lock(self.shard(bead));
        let record = shard.get(&bead.to_bits())?;
        let read = |number| self.cells.get(number).load(Relaxed);
        let blocks = record.blocks.into_iter().flat_map(Run::cells).map(read).collect();
        let sites = record.sites.into_iter().flat_map(|run| run.cells().step_by(SITE_CELLS as usize));
        let calls = sites.map(|first| {
            let targets = std::array::from_fn(|place| {
                let cell = first + 2 * place as u32;
                target(read(cell)).map(|callee| (callee, read(cell + 1)))
            });
            CallProfile { targets, others: read(first + SITE_CELLS - 1) & !DIRECT }
        });
        Some(Profile { blocks, calls: calls.collect() })
    }

    /// States that a site calls one function only; answers the address of the count, for native code to raise.
    pub(crate) fn direct(&self, site: CallSite, callee: Bead) -> usize {
        let cell = |number| self.cells.get(site.0.wrapping_add(number));
        let (first, count, others) = (cell(0), cell(1), cell(SITE_CELLS - 1));
        // Relaxed: a count; if it was another's, what it counted goes.
        if first.load(Relaxed) != callee.to_bits() {
            count.store(0, Relaxed);
            first.store(callee.to_bits(), Relaxed);
        }
        // Relaxed: a bit that is all there is. Stored after the callee, so that a reset in between takes both.
        others.store(others.load(Relaxed) | DIRECT, Relaxed);
        std::ptr::from_ref(count).expose_provenance()
    }

    /// Raises the cell with that address as native code would.
    #[cfg(beadwork_loom)]
    pub(crate) fn raise(&self, address: usize) {
        let cells = (0..self.cells.len()).map(|number| self.cells.get(number));
        for cell in cells.filter(|&cell| std::ptr::from_ref(cell).addr() == address) {
            cell.store(cell.load(Relaxed) + 1, Relaxed);
        }
    }
}

/// Counts a call of `callee` at a site.
pub(crate) fn count_target(cells: &Column<AtomicU64>, site: CallSite, callee: Bead) {
    let bits = callee.to_bits();
    let raise = |number: u32| {
        let cell = cells.get(number);
        // Relaxed, and a store: a count that a thread loses to another is not missed.
        cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
    };
    for place in 0..CALL_TARGETS as u32 {
        let number = site.0.wrapping_add(2 * place);
        let cell = cells.get(number);
        let mut seen = cell.load(Relaxed);
        if seen == 0 {
            // A swap, so that of two threads that fill the place one finds the other's. Relaxed: bits are all there is.
            seen = cell.compare_exchange(0, bits, Relaxed, Relaxed).map_or_else(|other| other, |_| bits);
        }
        if seen == bits {
            return raise(number.wrapping_add(1));
        }
    }
    raise(site.0.wrapping_add(SITE_CELLS - 1));
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    fn setup() -> (Profiles, Grace) {
        (Profiles::reserve(1 << 10).unwrap(), Grace::new())
    }

    const B: Bead = Bead::new(5, 0);

    #[test]
    fn counters_stay_from_compile_to_compile_and_start_over_when_their_number_changes() {
        let (profiles, grace) = setup();
        let provide = |count| profiles.provide(B, Which::Blocks, count, &grace, |_| false).unwrap();
        let run = provide(5);
        profiles.cells.get(run.offset + 4).store(9, Relaxed);
        assert_eq!(provide(5), run);
        assert_eq!(profiles.read(B).unwrap().blocks(), [0, 0, 0, 0, 9]);
        profiles.cells.get(run.offset + 1).store(7, Relaxed);
        let fewer = provide(3);
        assert_eq!(profiles.read(B).unwrap().blocks(), [0; 3]);
        let more = provide(9);
        assert_eq!(fewer.offset, run.offset);
        assert_ne!(more.offset, run.offset);
        assert_eq!(profiles.read(B).unwrap().blocks(), [0; 9]);
    }

    #[test]
    fn a_site_tells_four_callees_apart_and_counts_the_rest_together() {
        let (profiles, grace) = setup();
        let run = profiles.provide(B, Which::Sites, 2, &grace, |_| false).unwrap();
        let (column, site) = (profiles.column(), CallSite(run.offset + SITE_CELLS));
        for (index, calls) in [(10, 3), (11, 9), (12, 1), (13, 1), (14, 7), (15, 2)] {
            (0..calls).for_each(|_| count_target(&column, site, Bead::new(index, 0)));
        }
        let profile = profiles.read(B).unwrap();
        let seen: Vec<_> = profile.call_sites()[1].targets().collect();
        let bead = |index| Bead::new(index, 0);
        assert_eq!(seen, [(bead(11), 9), (bead(10), 3), (bead(12), 1), (bead(13), 1)]);
        assert_eq!(profile.call_sites()[1].calls(), 23);
        assert!(profile.call_sites()[1].is_megamorphic());
        assert_eq!(profile.call_sites()[0].calls(), 0);
        assert_eq!(profile.callees()[..2], [(bead(11), 9), (bead(10), 3)]);
    }

    #[test]
    fn a_direct_call_counts_for_its_callee_and_for_another_from_zero() {
        let (profiles, grace) = setup();
        let run = profiles.provide(B, Which::Sites, 1, &grace, |_| false).unwrap();
        let (site, callees) = (CallSite(run.offset), [Bead::new(1, 0), Bead::new(2, 0)]);
        profiles.direct(site, callees[0]);
        profiles.cells.get(run.offset + 1).store(8, Relaxed);
        profiles.direct(site, callees[0]);
        assert_eq!(profiles.read(B).unwrap().call_sites()[0].only(), Some((callees[0], 8)));
        profiles.direct(site, callees[1]);
        assert_eq!(profiles.read(B).unwrap().call_sites()[0].only(), None, "not called yet");
    }

    #[test]
    fn a_function_that_is_forgotten_has_no_profile_and_its_room_is_used_again() {
        let (profiles, grace) = setup();
        for round in 0..10_000 {
            let bead = Bead::new(round, 0);
            assert!(profiles.provide(bead, Which::Blocks, 100, &grace, |_| false).is_some(), "{round}");
            profiles.forget(bead, &grace);
            assert!(profiles.read(bead).is_none());
        }
        assert_eq!(profiles.len.load(Relaxed), 0);
    }

    #[test]
    fn any_number_is_taken_for_a_site_without_reaching_outside() {
        let (profiles, _) = setup();
        for bits in [0, 1 << 10, u32::MAX - 3, u32::MAX] {
            count_target(&profiles.column(), CallSite::from_bits(bits), B);
        }
    }
}
