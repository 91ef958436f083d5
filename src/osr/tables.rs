//! The tables: runs of cells in two columns, so that a probe dereferences nothing but cells.
//!
//! # Rules
//! * **O1** a run's cells are written before the word that names it is published, and written again only when every
//!   mutator has passed a safepoint since it was unlinked (edge RETIRE); but for O2.
//! * **O2** the suppression flag of a cell is changed under the publishing bit of the bead whose word names the run, or is about
//!   to, and nothing is unlinked under another thread's bit.

use super::{OsrEntry, OsrWord};
use crate::column::{Column, Pair};
use crate::grace::Grace;
use crate::id::Bead;
use crate::sync::{AtomicBool, AtomicU64, Mutex, lock};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Says that the entry is not to be used for now.
const SUPPRESSED: u64 = 1 << 63;

/// The most entries one function's code may come with.
pub(crate) const MAX_ENTRIES: usize = u16::MAX as usize;

/// Runs are powers of two cells long, up to 2^16.
const CLASSES: usize = 17;

/// Tables up to this length are searched one by one.
const SHORT: usize = 8;

/// There was no room for a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused;

/// For probes: the columns alone.
#[derive(Clone)]
pub(crate) struct Probe {
    words: Column<AtomicU64>,
    /// Sites and their entries.
    cells: Pair<AtomicU64, AtomicU64>,
}

pub(crate) struct Tables {
    probe: Probe,
    room: Mutex<Room>,
    cells: u32,
    /// Whether there ever was a table, so that code without one touches no cell.
    any: AtomicBool,
}

#[derive(Default)]
struct Room {
    /// Cells ever used.
    used: u32,
    free: [Vec<u32>; CLASSES],
    /// Unlinked runs with their stamps, oldest first.
    limbo: VecDeque<(u64, OsrWord)>,
}

impl Probe {
    /// The native entry of a loop, if there is one that may be used.
    #[inline(always)]
    pub(crate) fn find(&self, bead: Bead, site: u64) -> Option<u64> {
        // Acquire, edge PUBLISH, partner is the Release store of an install: who gets the word sees the run (O1).
        let word = OsrWord(self.words.get(bead.index()).load(mutant!("publish-probe", Acquire)));
        if word.is_none() || !(word.is_of(bead) || mutant!("reuse-probe-untagged")) {
            return None;
        }
        let entry = self.entry(word, site)?.load(Relaxed);
        (entry & SUPPRESSED == 0).then_some(entry)
    }

    /// The entry cell of a site in a run.
    #[inline(always)]
    fn entry(&self, word: OsrWord, site: u64) -> Option<&AtomicU64> {
        let (mut sites, mut entries) = self.cells.run(word.offset(), word.len())?;
        if sites.len() > SHORT {
            (sites, entries) = narrow(sites, entries, site);
        }
        let mut cells = sites.iter().zip(entries);
        cells.find(|(cell, _)| cell.load(Relaxed) == site).map(|(_, entry)| entry)
    }
}

/// A few neighbouring cells of a long run, which the site is among if it is there at all.
#[cold]
fn narrow<'c>(
    sites: &'c [AtomicU64],
    entries: &'c [AtomicU64],
    site: u64,
) -> (&'c [AtomicU64], &'c [AtomicU64]) {
    // Sites are in order.
    let end = sites.partition_point(|cell| cell.load(Relaxed) <= site);
    let near = end.saturating_sub(1)..end;
    (sites.get(near.clone()).unwrap_or_default(), entries.get(near).unwrap_or_default())
}

impl Tables {
    /// Address space for the words of `capacity` beads and `cells` entries, both powers of two.
    pub(crate) fn reserve(capacity: u32, cells: u32) -> std::io::Result<Tables> {
        let probe = Probe {
            words: Column::reserve(capacity)?,
            cells: Pair::new(Column::reserve(cells)?, Column::reserve(cells)?),
        };
        Ok(Tables { probe, room: Mutex::default(), cells, any: AtomicBool::new(false) })
    }

    pub(crate) fn probe(&self) -> Probe {
        self.probe.clone()
    }

    pub(crate) fn find(&self, bead: Bead, site: u64) -> Option<u64> {
        self.probe.find(bead, site)
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        self.probe.words.resident_bytes() + self.probe.cells.resident_bytes()
    }

    /// Writes a table for a bead, not published yet. Sorted by site; of equal sites the first counts. `suppressed` says
    /// which entries are not to be used for now.
    pub(crate) fn make(
        &self,
        bead: Bead,
        mut table: Vec<OsrEntry>,
        grace: &Grace,
        suppressed: impl Fn(u64) -> bool,
    ) -> Result<OsrWord, Refused> {
        table.sort_by_key(|entry| entry.site);
        table.dedup_by_key(|entry| entry.site);
        let Ok(len) = u16::try_from(table.len()) else { return Err(Refused) };
        if len == 0 {
            return Ok(OsrWord::NONE);
        }
        let offset = self.take(class_of(len.into()), grace).ok_or(Refused)?;
        for (place, entry) in (offset..).zip(&table) {
            let flag = if suppressed(entry.site) { SUPPRESSED } else { 0 };
            // Relaxed: nobody reads them before the word is published (O1).
            self.probe.cells.first(place).store(entry.site, Relaxed);
            self.probe.cells.second(place).store(entry.entry | flag, Relaxed);
        }
        // Relaxed: whoever unlinks this table comes after its publisher (edge CLAIM).
        self.any.store(true, Relaxed);
        Ok(OsrWord::new(bead, offset, len))
    }

    fn take(&self, class: usize, grace: &Grace) -> Option<u32> {
        let mut room = lock(&self.room);
        if room.free[class].is_empty() && !room.limbo.is_empty() {
            let passed = grace.passed();
            while let Some(&(stamp, word)) =
                room.limbo.front().filter(|(stamp, _)| *stamp <= passed || mutant!("retire-run"))
            {
                debug_assert!(stamp <= passed);
                room.limbo.pop_front();
                room.free[class_of(word.len())].push(word.offset());
            }
        }
        if let Some(offset) = room.free[class].pop() {
            return Some(offset);
        }
        let (offset, len) = (room.used, 1 << class);
        if len <= self.cells - offset {
            room.used += len;
            return Some(offset);
        }
        // A longer run, halved until it fits. Halves are not joined again: tables are small, and there are many.
        let longer = (class + 1..CLASSES).find(|&longer| !room.free[longer].is_empty())?;
        let offset = room.free[longer].pop()?;
        (class..longer).for_each(|half| room.free[half].push(offset + (1 << half)));
        Some(offset)
    }

    /// Publishes `word` for a bead; the caller holds its publishing bit. Answers the word before.
    pub(crate) fn publish(&self, index: u32, word: OsrWord) -> OsrWord {
        // Relaxed: see `make`.
        if word.is_none() && !self.any.load(Relaxed) {
            return OsrWord::NONE;
        }
        let cell = self.probe.words.get(index);
        // Relaxed: words change only under the bit.
        let old = OsrWord(cell.load(Relaxed));
        if old != word {
            // Release, edge PUBLISH, partner is the Acquire load of a probe.
            cell.store(word.0, mutant!("publish-loops", Release));
        }
        old
    }

    /// Gives an unlinked run back, to be used again when every mutator has passed a safepoint. Not under a publishing bit.
    pub(crate) fn retire(&self, word: OsrWord, grace: &Grace) {
        if !word.is_none() {
            let mut room = lock(&self.room);
            // Stamped under the lock, so that the list is in order.
            room.limbo.push_back((grace.stamp(), word));
        }
    }

    /// Gives back a run that was never published.
    pub(crate) fn discard(&self, word: OsrWord) {
        if !word.is_none() {
            lock(&self.room).free[class_of(word.len())].push(word.offset());
        }
    }

    /// How many loops of the bead have an entry.
    pub(crate) fn len(&self, bead: Bead) -> u32 {
        // Acquire, edge PUBLISH, as in `find`, though the word itself says it.
        let word = OsrWord(self.probe.words.get(bead.index()).load(Acquire));
        if word.is_of(bead) { word.len() } else { 0 }
    }

    /// Has the entry of a site not used for now, or used again. The caller holds the bead's publishing bit (O2).
    pub(crate) fn suppress(&self, bead: Bead, site: u64, suppressed: bool) {
        // Relaxed: words change only under the bit.
        let word = OsrWord(self.probe.words.get(bead.index()).load(Relaxed));
        if !word.is_none()
            && word.is_of(bead)
            && let Some(cell) = self.probe.entry(word, site)
        {
            let entry = cell.load(Relaxed) & !SUPPRESSED;
            cell.store(entry | if suppressed { SUPPRESSED } else { 0 }, Relaxed);
        }
    }

    /// Has all entries of an unlinked run used again. The caller is about to publish it, and holds the bead's publishing bit
    /// (O2).
    pub(crate) fn allow_all(&self, word: OsrWord) {
        if !word.is_none() {
            for place in word.offset()..word.offset() + word.len() {
                // Relaxed: a hint, as in `suppress`.
                let cell = self.probe.cells.second(place);
                cell.store(cell.load(Relaxed) & !SUPPRESSED, Relaxed);
            }
        }
    }

    /// Whether a table has an entry of that site, suppressed or not.
    pub(crate) fn names(&self, word: OsrWord, site: u64) -> bool {
        !word.is_none() && self.probe.entry(word, site).is_some()
    }
}

fn class_of(len: u32) -> usize {
    len.next_power_of_two().trailing_zeros() as usize
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    fn entries(sites: impl IntoIterator<Item = u64>) -> Vec<OsrEntry> {
        sites.into_iter().map(|site| OsrEntry { site, entry: site + 0x1000 }).collect()
    }

    #[test]
    fn every_site_of_a_table_of_any_length_is_found_and_no_other() {
        let (tables, grace) = (Tables::reserve(16, 1 << 12).unwrap(), Grace::new());
        for len in [1u64, 2, 7, 8, 9, 17, 100, 1000] {
            let bead = Bead::new(len as u32, 3);
            let word = tables.make(bead, entries((0..len).rev().map(|n| n * 3)), &grace, |_| false).unwrap();
            tables.publish(bead.index(), word);
            for site in 0..len * 3 {
                let expected = (site % 3 == 0).then_some(site + 0x1000);
                assert_eq!(tables.find(bead, site), expected, "{site} of {len}");
            }
            assert_eq!(tables.find(bead, u64::MAX), None);
            assert_eq!(tables.find(Bead::new(bead.index(), 2), 0), None, "another generation");
        }
    }

    #[test]
    fn of_equal_sites_the_first_counts_and_an_empty_table_is_none() {
        let (tables, grace) = (Tables::reserve(16, 16).unwrap(), Grace::new());
        let bead = Bead::new(1, 0);
        assert_eq!(tables.make(bead, vec![], &grace, |_| false), Ok(OsrWord::NONE));
        let twice = vec![OsrEntry { site: 5, entry: 1 }, OsrEntry { site: 5, entry: 2 }];
        let word = tables.make(bead, twice, &grace, |_| false).unwrap();
        tables.publish(1, word);
        assert_eq!((tables.find(bead, 5), tables.len(bead)), (Some(1), 1));
    }

    #[test]
    fn runs_are_used_again_only_after_the_grace_period_and_exhaustion_is_answered() {
        let (tables, grace) = (Tables::reserve(16, 4).unwrap(), Grace::new());
        let (bead, (cell, _)) = (Bead::new(1, 0), grace.enlist(None));
        let make = || tables.make(bead, entries(0..3), &grace, |_| false);
        let word = make().unwrap();
        assert_eq!(make(), Err(Refused));
        tables.retire(word, &grace);
        assert_eq!(make(), Err(Refused), "a mutator may be reading it");
        crate::grace::go_offline(&cell);
        let again = make().unwrap();
        tables.discard(again);
        assert!(make().is_ok(), "never published, so free at once");
    }

    #[test]
    fn a_long_run_that_is_free_makes_room_for_short_ones() {
        let (tables, grace) = (Tables::reserve(16, 16).unwrap(), Grace::new());
        let bead = Bead::new(1, 0);
        let make = |len| tables.make(bead, entries(0..len), &grace, |_| false);
        tables.discard(make(16).unwrap());
        let mut runs: Vec<_> =
            [1, 2, 3, 1, 5].map(|len| make(len).unwrap()).iter().map(|word| word.offset()).collect();
        runs.sort();
        runs.dedup();
        assert_eq!(runs.len(), 5, "each has its own");
        assert_eq!(make(1), Err(Refused));
    }

    #[test]
    fn a_suppressed_entry_is_not_found_until_it_is_allowed_again() {
        let (tables, grace) = (Tables::reserve(16, 16).unwrap(), Grace::new());
        let bead = Bead::new(1, 0);
        let word = tables.make(bead, entries([1, 2, 3]), &grace, |site| site == 3).unwrap();
        tables.publish(1, word);
        tables.suppress(bead, 2, true);
        assert_eq!([1, 2, 3].map(|site| tables.find(bead, site).is_some()), [true, false, false]);
        tables.suppress(bead, 2, false);
        tables.suppress(bead, 3, false);
        assert_eq!([1, 2, 3].map(|site| tables.find(bead, site).is_some()), [true, true, true]);
    }
}
