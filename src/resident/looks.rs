//! When the cache looked at the clock, and what that says of when a key was used.
//!
//! A hit notes the time of the last look, since a clock costs more than a hit. So a key with that time was used then or later, until
//! the next look; and all that is certain of one with an older time is that it was not used since the look that came after it.

use std::collections::VecDeque;

/// Looks that are closer together than this part of the idle time are not told apart.
const PARTS: u32 = 32;

/// Looks of the last while, the oldest first. Of those that are close together some are left out, so there are never more than about twice
/// [`PARTS`].
pub(super) struct Looks {
    /// In milliseconds; how long a key may be idle.
    idle: u32,
    times: VecDeque<u32>,
}

impl Looks {
    pub(super) fn new(idle: u32) -> Looks {
        Looks { idle, times: VecDeque::new() }
    }

    /// Somebody looks now, later than ever before.
    pub(super) fn note(&mut self, now: u32) {
        let age = |time: u32| now.wrapping_sub(time);
        // Of those that are long past the last one tells all.
        while self.times.get(1).is_some_and(|&second| age(second) >= self.idle) {
            self.times.pop_front();
        }
        let close = |&time: &u32| age(time) < self.idle / PARTS;
        if self.times.len() >= 2 && self.times.iter().nth_back(1).is_some_and(close) {
            self.times.pop_back();
        }
        self.times.push_back(now);
    }

    /// Keys whose noted use is longer ago than this were not used for the idle time, for certain. `None` if there are no such keys.
    pub(super) fn idle_beyond(&self, now: u32) -> Option<u32> {
        self.times.iter().rev().map(|&time| now.wrapping_sub(time)).find(|&age| age >= self.idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c8_a_use_counts_until_the_look_after_it() {
        let mut looks = Looks::new(600);
        [0, 100, 650].iter().for_each(|&time| looks.note(time));
        // Noted at 0, it was used before 100; noted at 100, perhaps until 650.
        assert_eq!(looks.idle_beyond(650), Some(650), "the look at 100 is 550 ago");
        looks.note(700);
        assert_eq!(looks.idle_beyond(700), Some(600), "what was noted before 100");
        looks.note(1_250);
        assert_eq!(looks.idle_beyond(1_250), Some(600), "what was noted before 650");
    }

    #[test]
    fn c8_many_looks_take_no_more_room_and_lose_no_long_gap() {
        let mut looks = Looks::new(3_200);
        for time in (u32::MAX - 50_000..=u32::MAX).chain(0..50_000) {
            looks.note(time);
            assert!(looks.times.len() <= 2 * PARTS as usize + 3, "{}", looks.times.len());
            if !(u32::MAX - 50_000..u32::MAX - 46_000).contains(&time) {
                let beyond = looks.idle_beyond(time).unwrap();
                assert!((3_200..3_310).contains(&beyond), "{beyond}");
            }
        }
        // Nobody looked for long: what was noted last may have been used until now.
        looks.note(60_000);
        assert_eq!(looks.idle_beyond(60_000), Some(60_000 - 49_999));
    }
}
