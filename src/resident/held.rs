//! Keys with code: how many bytes, and which go when there are too many.

use super::entry::Keyed;
use crate::clock;
use crate::id::Bead;
use std::collections::HashMap;

/// The part of the budget that is kept free, so that what one batch adds still fits: a thirty-second.
const MARGIN: u64 = 32;

/// How much of the budget one eviction makes room for: a sixteenth, so that they are few.
const ROOM: u64 = 16;

pub(super) struct Held<K> {
    all: HashMap<Bead, (Keyed<K>, u64)>,
    bytes: u64,
}

impl<K> Held<K> {
    pub(super) fn new() -> Held<K> {
        Held { all: HashMap::new(), bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Bytes of all code, as the backend stated them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes that a key has code of so many bytes.
    pub(super) fn set(&mut self, entry: &Keyed<K>, bytes: u64) {
        let before = self.all.insert(entry.bead, (entry.clone(), bytes));
        self.bytes = self.bytes + bytes - before.map_or(0, |(_, bytes)| bytes);
    }

    /// Notes that a function has no code; answers its key's entry, if it had some.
    pub(super) fn clear(&mut self, bead: Bead) -> Option<Keyed<K>> {
        let (entry, bytes) = self.all.remove(&bead)?;
        self.bytes -= bytes;
        Some(entry)
    }

    /// The least recently used keys whose code comes to `bytes` together.
    pub(super) fn oldest(&self, bytes: u64, now: u32) -> Vec<Keyed<K>> {
        if bytes == 0 {
            return Vec::new();
        }
        let mut all: Vec<_> = self
            .all
            .values()
            .map(|(entry, bytes)| (clock::since(now, entry.used()), entry, *bytes))
            .collect();
        all.sort_unstable_by_key(|&(age, ..)| std::cmp::Reverse(age));
        let mut sum = 0;
        let chosen = all.into_iter().take_while(|&(_, _, size)| {
            let goes = sum < bytes;
            sum += size;
            goes
        });
        chosen.map(|(_, entry, _)| entry.clone()).collect()
    }

    /// The keys that were not used for `idle` milliseconds.
    pub(super) fn idle(&self, idle: u32, now: u32) -> Vec<Keyed<K>> {
        let entries = self.all.values().map(|(entry, _)| entry);
        entries.filter(|entry| clock::since(now, entry.used()) >= idle).cloned().collect()
    }
}

/// How many bytes of code have to go, of `live` bytes, so that the budget is kept. `pages` is what the backend really holds, if it
/// says so, and `retired` the part that is on its way out already.
///
/// Freed bytes are used again by the code that comes next, so what counts is whether that finds room in pages that are held: only
/// beyond the budget do pages have to be given back.
pub(super) fn excess(budget: u64, live: u64, pages: Option<u64>, retired: u64) -> u64 {
    let held = pages.unwrap_or(live).max(live);
    if held <= budget - budget / MARGIN {
        return 0;
    }
    let free_inside = held - live;
    let room = (budget / ROOM).saturating_sub(free_inside);
    let beyond = held.saturating_sub(budget).saturating_sub(if pages.is_some() { retired } else { 0 });
    room.max(beyond)
}

#[cfg(test)]
mod tests {
    use super::super::entry::Entry;
    use super::*;

    fn held(used: &[u32]) -> Held<u32> {
        let mut held = Held::new();
        for (n, &used) in (0..).zip(used) {
            held.set(&Keyed::new(Entry::new(n, Bead::new(n, 0), used)), 100);
        }
        held
    }

    fn keys(mut entries: Vec<Keyed<u32>>) -> Vec<u32> {
        entries.sort_by_key(|entry| entry.key);
        entries.iter().map(|entry| entry.key).collect()
    }

    #[test]
    fn c8_the_least_recently_used_go_first_also_when_the_clocks_milliseconds_start_over() {
        let held = held(&[50, u32::MAX - 5, 30, 40]);
        assert_eq!(keys(held.oldest(150, 60)), [1, 2]);
        assert_eq!(keys(held.oldest(100, 60)), [1]);
        assert!(held.oldest(0, 60).is_empty());
        assert_eq!(keys(held.idle(30, 60)), [1, 2]);
    }

    #[test]
    fn bytes_are_those_of_the_code_that_is_there() {
        let mut held = held(&[1, 2]);
        let entry = held.clear(Bead::new(0, 0)).unwrap();
        held.set(&entry, 7);
        held.set(&entry, 8);
        assert_eq!((held.len(), held.bytes()), (2, 108));
        assert!(held.clear(Bead::new(9, 0)).is_none());
    }

    #[test]
    fn c8_nothing_goes_below_the_budget_and_room_is_made_at_it() {
        assert_eq!(excess(1_600, 1_500, None, 0), 0);
        assert_eq!(excess(1_600, 1_600, None, 0), 100);
        assert_eq!(excess(1_600, 2_000, None, 500), 400);
        assert_eq!(excess(0, 10, None, 0), 10);
    }

    #[test]
    fn c8_room_inside_pages_that_are_held_counts_and_code_on_its_way_out_is_not_made_up_for_twice() {
        assert_eq!(excess(1_600, 1_000, Some(1_590), 0), 0, "there is room for what comes");
        assert_eq!(excess(1_600, 1_580, Some(1_590), 0), 90);
        assert_eq!(excess(1_600, 1_000, Some(2_000), 0), 400);
        assert_eq!(excess(1_600, 1_000, Some(2_000), 300), 100);
        assert_eq!(excess(1_600, 1_000, Some(2_000), 900), 0);
    }
}
