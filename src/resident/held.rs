//! Keys with code: how many bytes, and which go when there are too many.

use super::entry::Keyed;
use crate::id::Bead;
use std::collections::HashMap;

/// The part of the budget from which on growth is answered with evictions, so that what one batch adds still fits: the last eighth.
const MARGIN: u64 = 8;

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

    /// Notes that code a key has is of another size now.
    pub(super) fn resize(&mut self, bead: Bead, bytes: u64) {
        if let Some((_, size)) = self.all.get_mut(&bead) {
            self.bytes = self.bytes + bytes - *size;
            *size = bytes;
        }
    }

    /// Notes that a function has no code; answers its key's entry, if it had some.
    pub(super) fn clear(&mut self, bead: Bead) -> Option<Keyed<K>> {
        let (entry, bytes) = self.all.remove(&bead)?;
        self.bytes -= bytes;
        Some(entry)
    }

    /// The least recently used keys whose code comes to `bytes` together; `idle` says for how long a key was not used.
    pub(super) fn oldest(&self, bytes: u64, idle: impl Fn(&Keyed<K>) -> u32) -> Vec<Keyed<K>> {
        if bytes == 0 {
            return Vec::new();
        }
        let all = self.all.values().map(|(entry, bytes)| (idle(entry), entry, *bytes));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by_key(|&(age, ..)| std::cmp::Reverse(age));
        let mut sum = 0;
        let chosen = all.into_iter().take_while(|&(_, _, size)| {
            let goes = sum < bytes;
            sum += size;
            goes
        });
        chosen.map(|(_, entry, _)| entry.clone()).collect()
    }

    /// The keys whose last use was noted more than so many milliseconds ago.
    pub(super) fn idle(&self, beyond: u32, idle: impl Fn(&Keyed<K>) -> u32) -> Vec<Keyed<K>> {
        let entries = self.all.values().map(|(entry, _)| entry);
        entries.filter(|entry| idle(entry) > beyond).cloned().collect()
    }
}

/// How many bytes of code have to go so that the budget is kept, of `live` bytes by the backend's statement.
pub(super) fn excess(budget: u64, live: u64) -> u64 {
    if live <= budget { 0 } else { (live - budget).max(budget / ROOM) }
}

/// The same, where the backend says what it really holds: `held` bytes of pages, `seen` the last time. `retired` bytes are on their way
/// out already.
///
/// Freed bytes are used again by the code that comes next, in the pages that are held. So what tells that there is no room left inside
/// is that more pages are held than before. Beyond the budget that is not waited for: more goes than what comes, until pages are
/// given back.
pub(super) fn excess_pages(budget: u64, held: u64, seen: u64, retired: u64) -> u64 {
    let full = held > budget || (held > budget - budget / MARGIN && held > seen);
    if full { (budget / ROOM).max(held.saturating_sub(budget)).saturating_sub(retired) } else { 0 }
}

/// Whether code that is not of this cache lies in its memory, of whose `live` pieces of code so many are `ours`. Some are on their way in or
/// out, and nobody's for a moment.
pub(super) fn is_shared(ours: u64, live: u64) -> bool {
    live > ours + ours / 128 + 128
}

/// The part of `held` bytes of pages that is due to `ours` of `live` bytes of code in them.
pub(super) fn share(held: u64, ours: u64, live: u64) -> u64 {
    (u128::from(held) * u128::from(ours.min(live)) / u128::from(live.max(1))) as u64
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

    fn at(now: u32) -> impl Fn(&Keyed<u32>) -> u32 {
        move |entry| entry.hit.idle(now)
    }

    fn keys(mut entries: Vec<Keyed<u32>>) -> Vec<u32> {
        entries.sort_by_key(|entry| entry.key);
        entries.iter().map(|entry| entry.key).collect()
    }

    #[test]
    fn c8_the_least_recently_used_go_first_also_when_the_clocks_milliseconds_start_over() {
        let held = held(&[50, u32::MAX - 5, 30, 40]);
        assert_eq!(keys(held.oldest(150, at(60))), [1, 2]);
        assert_eq!(keys(held.oldest(100, at(60))), [1]);
        assert!(held.oldest(0, at(60)).is_empty());
        assert_eq!(keys(held.idle(29, at(60))), [1, 2]);
        assert_eq!(keys(held.idle(30, at(60))), [1]);
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
    fn c8_nothing_goes_within_the_budget_and_room_is_made_beyond_it() {
        assert_eq!(
            [excess(1_600, 1_600), excess(1_600, 1_601), excess(1_600, 2_000), excess(0, 10)],
            [0, 100, 400, 10]
        );
    }

    #[test]
    fn c8_pages_that_others_use_too_count_by_the_part_of_the_code_in_them() {
        assert_eq!(
            [share(4_096, 500, 1_000), share(4_096, 0, 1_000), share(4_096, 1_001, 1_000)],
            [2_048, 0, 4_096]
        );
        assert_eq!([share(u64::MAX, u64::MAX, u64::MAX), share(1, 0, 0)], [u64::MAX, 0]);
        assert!(!is_shared(0, 32) && !is_shared(100_000, 100_500) && is_shared(100_000, 101_000));
    }

    #[test]
    fn c8_room_is_made_where_pages_grow_near_the_budget_and_whenever_they_are_beyond_it() {
        assert_eq!(excess_pages(1_600, 1_400, 1_300, 0), 0);
        assert_eq!(excess_pages(1_600, 1_500, 1_500, 0), 0, "what came found room");
        assert_eq!(excess_pages(1_600, 1_500, 1_490, 0), 100, "what came needed another page");
        assert_eq!(excess_pages(1_600, 1_500, 1_490, 60), 40, "some is on its way out");
        assert_eq!(excess_pages(1_600, 1_601, 1_601, 0), 100);
        assert_eq!(excess_pages(1_600, 2_000, 2_000, 300), 100);
        assert_eq!(excess_pages(1_600, 2_000, 2_000, 900), 0);
    }
}
