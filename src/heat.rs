//! Heat: counts that fade, for engines whose policies want that. Three columns that nobody else touches.

use crate::column::Column;
use crate::sync::AtomicU32;
use std::f64::consts::LN_2;
use std::sync::atomic::Ordering::Relaxed;

/// A thread that read the clock may have been held up so long, in milliseconds or ticks, before it says what it read.
const HELD_UP: u32 = 1 << 20;

/// What has passed from `then` to `now`. Both start over after 2³²: after 50 days, if it is milliseconds.
fn passed(now: u32, then: u32) -> u32 {
    let passed = now.wrapping_sub(then);
    if passed > u32::MAX - HELD_UP { 0 } else { passed }
}

/// Relaxed everywhere: heat is a hint, and threads that ask at the same time may lose a little of it.
pub(crate) struct Heat {
    heat: Column<AtomicU32>,
    /// When it was that hot, in milliseconds or ticks.
    at: Column<AtomicU32>,
    /// Calls counted by then.
    calls: Column<AtomicU32>,
}

impl Heat {
    pub(crate) const BYTES: usize = 12;

    pub(crate) fn reserve(capacity: u32) -> std::io::Result<Heat> {
        Ok(Heat {
            heat: Column::reserve(capacity)?,
            at: Column::reserve(capacity)?,
            calls: Column::reserve(capacity)?,
        })
    }

    /// The heat now, after `calls` in all; remembered as the new starting point.
    pub(crate) fn update(&self, index: u32, calls: u32, now: u32, half_life: u32) -> u32 {
        let (heat, at, before) = (self.heat.get(index), self.at.get(index), self.calls.get(index));
        let new = calls.saturating_sub(before.load(Relaxed));
        let age = f64::from(passed(now, at.load(Relaxed))) / f64::from(half_life.max(1));
        let faded = f64::from(heat.load(Relaxed)) * (-age).exp2();
        // What is new came at a steady rate as far as anybody knows, so it has faded too: the mean of 2^-x for x from 0 to `age`.
        // Where nothing was counted before, nobody knows when it began.
        let share =
            if age > 0.0 && before.load(Relaxed) > 0 { -(-age * LN_2).exp_m1() / (age * LN_2) } else { 1.0 };
        let now_hot = (faded as u32).saturating_add((f64::from(new) * share).round() as u32);
        heat.store(now_hot, Relaxed);
        at.store(now, Relaxed);
        before.store(calls, Relaxed);
        now_hot
    }

    /// A function that starts over, or an index that is used again.
    pub(crate) fn reset(&self, index: u32) {
        for column in [&self.heat, &self.at, &self.calls] {
            // An untouched page stays untouched.
            if column.get(index).load(Relaxed) != 0 {
                column.get(index).store(0, Relaxed);
            }
        }
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        [&self.heat, &self.at, &self.calls].iter().map(|column| column.resident_bytes()).sum()
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    #[test]
    fn heat_halves_with_each_half_life_and_new_calls_add_to_it() {
        let heat = Heat::reserve(16).unwrap();
        assert_eq!(heat.update(3, 800, 0, 100), 800);
        assert_eq!(heat.update(3, 800, 100, 100), 400);
        assert_eq!(heat.update(3, 850, 300, 100), 100 + 27, "fifty over two half-lives: 0.54 of them");
        heat.reset(3);
        assert_eq!(heat.update(3, 10, 300, 100), 10);
    }

    #[test]
    fn heat_goes_on_fading_when_the_clock_starts_over() {
        let heat = Heat::reserve(16).unwrap();
        assert_eq!(heat.update(3, 800, u32::MAX - 49, 100), 800);
        assert_eq!(heat.update(3, 800, 50, 100), 400);
        assert_eq!(heat.update(3, 800, 49, 100), 400, "read before, said after");
    }
}
