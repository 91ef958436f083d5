//! The tables: runs of cells in one column, so that a probe dereferences nothing but cells.
//!
//! # Rules
//! * **O1** a run's cells are written before the word that names it is published, and written again only when every
//!   mutator has passed a safepoint since it was unlinked (edge RETIRE); but for O2.
//! * **O2** the suppression flag of a cell is changed under the publishing bit of the bead whose word names the run, or is about
//!   to, and nothing is unlinked under another thread's bit.

use super::{OsrEntry, OsrWord, Shape, hash};
use crate::column::Column;
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

/// A table of this many sites is sorted: too seldom are that many apart in a few bits.
const MANY: usize = 32;

/// By so many doublings a hashed table may be longer than it has to be.
const SPARE_CLASSES: u32 = 3;

/// There was no room for a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused;

/// For probes: the columns alone.
#[derive(Clone)]
pub(crate) struct Probe {
    words: Column<AtomicU64>,
    cells: Column<Cell>,
}

/// A site and its entry, side by side since a probe that finds something reads both. An entry of 0 means that the cell is empty.
type Cell = [AtomicU64; 2];

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
    #[inline(always)]
    fn site(&self, place: u32) -> &AtomicU64 {
        &self.cells.get(place)[0]
    }

    #[inline(always)]
    fn entry(&self, place: u32) -> &AtomicU64 {
        &self.cells.get(place)[1]
    }

    /// The native entry of a loop, if there is one that may be used.
    #[inline(always)]
    pub(crate) fn find(&self, bead: Bead, site: u64) -> Option<u64> {
        // Acquire, edge PUBLISH, partner is the Release store of an install: who gets the word sees the run (O1).
        let word = OsrWord(self.words.get(bead.index()).load(mutant!("publish-probe", Acquire)));
        if !(word.is_of(bead) || mutant!("reuse-probe-untagged") && !word.is_none()) {
            return None;
        }
        let place = word.first_look(site);
        let entry = if self.site(place).load(Relaxed) == site {
            self.entry(place).load(Relaxed)
        } else if word.is_sorted() {
            self.search_entry(word, site)
        } else {
            return None;
        };
        // Neither empty nor suppressed, whose bit is that of the sign.
        (entry.cast_signed() > 0).then_some(entry)
    }

    /// As [`find`](Probe::find), in a sorted table; out of line, so that others need no registers for it.
    #[cold]
    #[inline(never)]
    fn search_entry(&self, word: OsrWord, site: u64) -> u64 {
        self.find_in(word, site).map_or(0, |cell| cell.load(Relaxed))
    }

    /// The entry of a site, if the table has one, or an empty one.
    fn find_in(&self, word: OsrWord, site: u64) -> Option<&AtomicU64> {
        let place = word.first_look(site);
        if self.site(place).load(Relaxed) == site {
            Some(self.entry(place))
        } else if word.is_sorted() {
            self.search(word, site).map(|place| self.entry(place))
        } else {
            None
        }
    }

    /// The cell of a sorted table with that site.
    fn search(&self, word: OsrWord, site: u64) -> Option<u32> {
        let (mut low, mut high) = (0u32, (1 << word.shape().class()) - 1);
        while low < high {
            let middle = low.midpoint(high);
            let less = self.site(word.offset().wrapping_add(middle)).load(Relaxed) < site;
            (low, high) = if less { (middle + 1, high) } else { (low, middle) };
        }
        let place = word.offset().wrapping_add(low);
        (self.site(place).load(Relaxed) == site).then_some(place)
    }
}

/// The shortest table in which no two of these sites share a cell.
fn fitting(table: &[OsrEntry]) -> Shape {
    let least = table.len().next_power_of_two().trailing_zeros();
    let hashed = (least..=least + SPARE_CLASSES).filter(|_| table.len() < MANY).find_map(|class| {
        let mask = (1u32 << class) - 1;
        // From the highest bits on, which depend on all of the site.
        (0..=(64 - class).min(63)).rev().find_map(|shift| {
            let mut used = [0u64; (MANY << SPARE_CLASSES) / 64];
            let alone = table.iter().all(|entry| {
                let slot = (hash(entry.site) >> shift) as usize & mask as usize;
                let (word, bit) = (slot / 64, 1 << (slot % 64));
                let free = used[word] & bit == 0;
                used[word] |= bit;
                free
            });
            alone.then_some(Shape::Hashed { mask, shift })
        })
    });
    hashed.unwrap_or(Shape::Sorted { class: least })
}

impl Tables {
    /// Address space for the words of `capacity` beads and `cells` entries, both powers of two.
    pub(crate) fn reserve(capacity: u32, cells: u32) -> std::io::Result<Tables> {
        let probe = Probe { words: Column::reserve(capacity)?, cells: Column::reserve(cells)? };
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
        if table.is_empty() {
            return Ok(OsrWord::NONE);
        }
        if table.len() > MAX_ENTRIES {
            return Err(Refused);
        }
        let shape = fitting(&table);
        let offset = self.take(shape.class() as usize, grace).ok_or(Refused)?;
        let word = OsrWord::new(bead, offset, shape);
        // Relaxed: nobody reads cells before the word is published (O1).
        for place in word.run() {
            // Empty cells come last in a sorted table.
            self.probe.site(place).store(u64::MAX, Relaxed);
            self.probe.entry(place).store(0, Relaxed);
        }
        for (number, entry) in (0..).zip(&table) {
            let flag = if suppressed(entry.site) { SUPPRESSED } else { 0 };
            let place = if word.is_sorted() { offset + number } else { word.first_look(entry.site) };
            self.probe.site(place).store(entry.site, Relaxed);
            self.probe.entry(place).store(entry.entry | flag, Relaxed);
        }
        // Relaxed: whoever unlinks this table comes after its publisher (edge CLAIM).
        self.any.store(true, Relaxed);
        Ok(word)
    }

    fn take(&self, class: usize, grace: &Grace) -> Option<u32> {
        let mut room = lock(&self.room);
        if room.free[class].is_empty() && !room.limbo.is_empty() {
            let passed = grace.passed();
            while let Some(&(stamp, word)) =
                room.limbo.front().filter(|(stamp, _)| *stamp <= passed || mutant!("o1-run-at-once"))
            {
                debug_assert!(stamp <= passed);
                room.limbo.pop_front();
                room.free[word.shape().class() as usize].push(word.offset());
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
            lock(&self.room).free[word.shape().class() as usize].push(word.offset());
        }
    }

    /// How many loops of the bead have an entry.
    pub(crate) fn len(&self, bead: Bead) -> u32 {
        // Acquire, edge PUBLISH, as in `find`, though the word itself says it.
        let word = OsrWord(self.probe.words.get(bead.index()).load(Acquire));
        let used = |place: &u32| self.probe.entry(*place).load(Relaxed) != 0;
        if word.is_of(bead) { word.run().filter(used).count() as u32 } else { 0 }
    }

    /// Has the entry of a site not used for now, or used again. The caller holds the bead's publishing bit (O2).
    pub(crate) fn suppress(&self, bead: Bead, site: u64, suppressed: bool) {
        // Relaxed: words change only under the bit.
        let word = OsrWord(self.probe.words.get(bead.index()).load(Relaxed));
        if word.is_of(bead)
            && let Some(cell) = self.probe.find_in(word, site)
            && let entry @ 1.. = cell.load(Relaxed) & !SUPPRESSED
        {
            cell.store(entry | if suppressed { SUPPRESSED } else { 0 }, Relaxed);
        }
    }

    /// Has all entries of an unlinked run used again. The caller is about to publish it, and holds the bead's publishing bit
    /// (O2).
    pub(crate) fn allow_all(&self, word: OsrWord) {
        if !word.is_none() {
            for place in word.run() {
                // Relaxed: a hint, as in `suppress`.
                let cell = self.probe.entry(place);
                cell.store(cell.load(Relaxed) & !SUPPRESSED, Relaxed);
            }
        }
    }

    /// Whether a table has an entry of that site, suppressed or not.
    pub(crate) fn names(&self, word: OsrWord, site: u64) -> bool {
        !word.is_none() && self.probe.find_in(word, site).is_some_and(|cell| cell.load(Relaxed) != 0)
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests;
