//! The registered tables of one region.
//!
//! Invariants:
//! * T1: tables do not interleave: from the first to the last function of one, no function of another starts.
//! * T2: a function with unwind information is in exactly one table from before its batch is returned until after
//!   it was freed, and its granules go to the free list only after the table was replaced by one without it.
//! * T3: a replacement is registered before the table it replaces is deregistered (see [`Unwinder::List`]), so
//!   live functions can be unwound at every moment.
//! * T4: replacing copies at most `2 * SHARE` records per touched place. Neighbours are merged only when at most twice
//!   as large, so a record is copied O(log SHARE) times while the region fills, and about one table per `SHARE`
//!   functions stays.
//! * T6: the memory of a replaced table is kept for `KEEP_REPLACED`, or until `MAX_REPLACED` bytes were replaced after it, since
//!   another thread may be reading it (see [`Registered::deregister`]) in a stretch of some hundred instructions
//!   that nothing tells us the end of. This is a bound on how long that thread may be held up there, not a proof.
//! * T5: an erased record keeps its length and has CIE pointer 0, which makes it a CIE without users to the unwinder.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::UnwindInfo;
use super::image::ImageBuilder;
use super::register::{Registered, Unwinder};

/// Most records that merging puts into one table; twice as many are split.
const SHARE: usize = 512;

/// How long the memory of replaced tables is kept.
const KEEP_REPLACED: Duration = Duration::from_secs(2);

/// Bytes of replaced tables that are kept at most in a region.
const MAX_REPLACED: usize = 32 << 20;

/// A function to be described: granule, bytes of code, and its description.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRecord<'a> {
    pub(crate) granule: u32,
    pub(crate) len: usize,
    pub(crate) unwind: &'a UnwindInfo,
}

/// The tables of one region, by the granule of their first function.
#[derive(Debug)]
pub(crate) struct Tables {
    unwinder: Unwinder,
    /// Address of granule 0.
    base: u64,
    tables: BTreeMap<u32, Table>,
    /// Tables that were replaced, with the time, oldest first, and their bytes together (T6).
    replaced: VecDeque<(Instant, Registered)>,
    replaced_bytes: usize,
    written: u64,
}

#[derive(Debug)]
struct Table {
    /// (granule, offset of the record in the image), ascending.
    records: Vec<(u32, u32)>,
    /// Records in the image, those of freed functions included.
    slots: usize,
    registered: Registered,
}

impl Table {
    fn last(&self) -> u32 {
        self.records.last().map_or(0, |&(granule, _)| granule)
    }
}

/// Where a granule is in relation to the tables: inside one, or in the gap after one (or before all).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    In(u32),
    After(Option<u32>),
}

/// What happens at a granule: a function appears or goes.
type Change<'a> = (u32, Option<NewRecord<'a>>);

impl Tables {
    pub(crate) fn new(unwinder: Unwinder, base: u64) -> Self {
        Self {
            unwinder,
            base,
            tables: BTreeMap::new(),
            replaced: VecDeque::new(),
            replaced_bytes: 0,
            written: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.tables.len()
    }

    /// Records written since the last call.
    pub(crate) fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// Describes the functions of a batch.
    pub(crate) fn add(&mut self, records: &[NewRecord<'_>]) {
        self.change(records.iter().map(|&record| (record.granule, Some(record))).collect());
    }

    /// Forgets functions; granules without a record are skipped.
    pub(crate) fn remove(&mut self, granules: &[u32]) {
        self.change(granules.iter().map(|&granule| (granule, None)).collect());
    }

    fn change(&mut self, mut changes: Vec<Change<'_>>) {
        if self.unwinder == Unwinder::None {
            return;
        }
        changes.sort_unstable_by_key(|&(granule, _)| granule);
        let mut rest = changes.as_slice();
        while let Some(&(granule, _)) = rest.first() {
            let position = self.position(granule);
            let together = |&(granule, _): &Change<'_>| self.position(granule) == position;
            let count = match self.unwinder {
                Unwinder::List => rest.iter().take_while(|change| together(change)).count(),
                _ => 1,
            };
            let (now, later) = rest.split_at(count);
            self.replace(position, now);
            rest = later;
        }
    }

    fn position(&self, granule: u32) -> Position {
        match self.tables.range(..=granule).next_back() {
            Some((&start, table)) if granule <= table.last() => Position::In(start),
            before => Position::After(before.map(|(&start, _)| start)),
        }
    }

    /// Applies changes that all lie at `position`.
    fn replace(&mut self, position: Position, changes: &[Change<'_>]) {
        let added = changes.iter().filter(|(_, record)| record.is_some()).count();
        let mut old = Vec::new();
        let mut size = added;
        if let Position::In(start) = position
            && let Some(table) = self.tables.get(&start)
        {
            // A function without unwind information may lie between others: it goes without a trace.
            let known =
                |granule: &u32| table.records.binary_search_by_key(granule, |&(granule, _)| granule).is_ok();
            let gone = changes.iter().filter(|(granule, record)| record.is_none() && known(granule)).count();
            size += table.records.len() - gone;
            if added == 0 && (gone == 0 || self.erase(start, size, changes)) {
                return;
            }
            old.push(start);
        } else if added == 0 {
            return;
        }
        if self.unwinder == Unwinder::List && size > 0 {
            self.absorb_neighbours(changes[0].0, &mut old, &mut size);
        }
        let mut entries: Vec<(u32, Source<'_>)> = Vec::with_capacity(size);
        for table in old.iter().filter_map(|start| self.tables.get(start)) {
            let kept = table.records.iter().filter(|(granule, _)| {
                changes.binary_search_by_key(granule, |&(granule, _)| granule).is_err()
            });
            entries.extend(kept.map(|&(granule, at)| (granule, Source::Old(table, at))));
        }
        entries.extend(changes.iter().filter_map(|&(granule, record)| Some((granule, Source::New(record?)))));
        entries.sort_unstable_by_key(|&(granule, _)| granule);
        let parts = if entries.len() > 2 * SHARE { entries.len().div_ceil(SHARE) } else { 1 };
        let new: Vec<Table> = match entries.len().div_ceil(parts) {
            0 => Vec::new(),
            part => entries.chunks(part).map(|entries| self.build(entries)).collect(),
        };
        self.written += entries.len() as u64;
        // T3: the new tables are registered by now.
        for start in old {
            if let Some(table) = self.tables.remove(&start) {
                self.put_aside(table);
            }
        }
        for table in new {
            if let Some(&(first, _)) = table.records.first() {
                self.tables.insert(first, table);
            }
        }
    }

    /// Replaces a table by a copy in which some records are erased, which is much cheaper than building it anew.
    /// Declines when fewer than half of the image would be left in use.
    fn erase(&mut self, start: u32, left: usize, changes: &[Change<'_>]) -> bool {
        let Some(table) = self.tables.get(&start).filter(|table| left > 0 && 2 * left >= table.slots) else {
            return false;
        };
        let goes = |granule: &u32| changes.binary_search_by_key(granule, |&(granule, _)| granule).is_ok();
        let (gone, kept): (Vec<_>, Vec<_>) = table.records.iter().partition(|(granule, _)| goes(granule));
        let image = table.registered.image().without(gone.iter().map(|&(_, at)| at));
        let first = kept.first().map_or((start, 0), |&first| first);
        let slots = table.slots;
        // T3: registered here, before the old one goes.
        let table = Table { records: kept, slots, registered: Registered::new(image, first.1) };
        let old = self.tables.remove(&start);
        self.tables.insert(first.0, table);
        self.written += left as u64;
        if let Some(old) = old {
            self.put_aside(old);
        }
        true
    }

    /// Deregisters a table that described live functions, and frees its memory later (T6).
    fn put_aside(&mut self, mut table: Table) {
        table.registered.deregister();
        let now = Instant::now();
        self.replaced_bytes += table.registered.image().len();
        self.replaced.push_back((now, table.registered));
        while let Some((since, oldest)) = self.replaced.front()
            && (now.duration_since(*since) > KEEP_REPLACED || self.replaced_bytes > MAX_REPLACED)
        {
            self.replaced_bytes -= oldest.image().len();
            self.replaced.pop_front();
        }
    }

    /// Adds neighbouring tables to `old` while they are not much larger than what is being written anyway (T4).
    fn absorb_neighbours(&self, granule: u32, old: &mut Vec<u32>, size: &mut usize) {
        let own = old.first().copied();
        let left = self.tables.range(..granule).rev();
        let right = self.tables.range(granule..);
        let mut take = |start: u32, table: &Table| {
            let fits = table.records.len() <= 2 * *size && table.records.len() + *size <= SHARE;
            if fits {
                *size += table.records.len();
                old.push(start);
            }
            fits
        };
        for (&start, table) in left.filter(|&(&start, _)| Some(start) != own) {
            if !take(start, table) {
                break;
            }
        }
        for (&start, table) in right.filter(|&(&start, _)| Some(start) != own) {
            if !take(start, table) {
                break;
            }
        }
    }

    fn build(&self, entries: &[(u32, Source<'_>)]) -> Table {
        let mut builder = ImageBuilder::with_capacity(64 + 48 * entries.len());
        let mut records = Vec::with_capacity(entries.len());
        for (granule, source) in entries {
            let at = match source {
                Source::Old(table, at) => {
                    let (cie, fde, pc_begin, pc_range) = table.registered.image().record(*at);
                    builder.push(cie, fde, pc_begin, pc_range)
                }
                Source::New(record) => {
                    let pc_begin = self.base + u64::from(*granule) * u64::from(crate::region::GRANULE);
                    builder.push(&record.unwind.cie, &record.unwind.fde, pc_begin, record.len as u64)
                }
            };
            records.push((*granule, at));
        }
        let first = records.first().map_or(0, |&(_, at)| at);
        Table { slots: records.len(), records, registered: Registered::new(builder.finish(), first) }
    }
}

/// Where a record of a new table comes from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Old(&'a Table, u32),
    New(NewRecord<'a>),
}

#[cfg(test)]
impl Tables {
    /// T1, and that exactly the functions of `live` are described, where they are.
    pub(super) fn check(&self, live: &[u32]) {
        let mut described = Vec::new();
        for (&first, table) in &self.tables {
            assert_eq!(table.records.first().map(|&(granule, _)| granule), Some(first));
            assert!(table.records.len() <= 2 * SHARE);
            for &(granule, at) in &table.records {
                let (_, _, pc_begin, _) = table.registered.image().record(at);
                assert_eq!(pc_begin, self.base + u64::from(granule) * u64::from(crate::region::GRANULE));
                described.push(granule);
            }
        }
        // Ascending over all tables in order: none interleaves with the next.
        assert!(described.is_sorted());
        let mut live = live.to_vec();
        live.sort_unstable();
        assert_eq!(described, live);
    }
}
