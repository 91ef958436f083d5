//! The engine's clock and its source of chance, both replaceable so that every decision can be repeated.

use std::time::Duration;

/// Time since some start.
pub(crate) type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// The time since the engine was built, as the system last noted it: to some milliseconds, which is what thresholds and
/// ranks are made of, and many times cheaper to read than the exact time. It is read with every request.
pub(crate) fn system() -> Clock {
    if cfg!(beadwork_loom) {
        // A model has to come to the same each time it is tried.
        return Box::new(|| Duration::ZERO);
    }
    let now = coarsetime::Instant::now_without_cache_update;
    let start = now();
    Box::new(move || now().duration_since(start).into())
}

/// Milliseconds, for columns; they last for 49 days and then start over.
pub(crate) fn millis(time: Duration) -> u32 {
    time.as_millis() as u32
}

/// A length of time in milliseconds, for comparing with [`since`]. What is longer than that can tell is as long as it can.
pub(crate) fn span(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).min(FUTURE)
}

/// Differences from here on mean that the clock was read before what it is compared with was noted.
const FUTURE: u32 = 1 << 31;

/// Milliseconds from `then` to `now`; none if `then` came later.
pub(crate) fn since(now: u32, then: u32) -> u32 {
    let passed = now.wrapping_sub(then);
    if passed < FUTURE { passed } else { 0 }
}

/// A uniformly distributed number for these inputs: SplitMix64's finalizer (Steele, Lea and Flood, OOPSLA 2014).
pub(crate) fn random(seed: u64, a: u64, b: u64) -> u32 {
    let mut z = seed ^ a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_mul(0xD1B5_4A32_D192_ED03);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ z >> 31) >> 32) as u32
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    #[test]
    fn time_that_was_noted_after_the_clock_was_read_has_not_passed() {
        assert_eq!([since(7, 5), since(5, 7), since(3, u32::MAX), since(u32::MAX, 3)], [2, 0, 4, 0]);
        assert_eq!(span(Duration::from_secs(1 << 32)), FUTURE);
        assert_eq!(span(Duration::from_millis(9)), 9);
    }

    #[test]
    fn random_numbers_repeat_and_spread_evenly() {
        assert_eq!(random(1, 2, 3), random(1, 2, 3));
        let high = (0..10_000).filter(|&n| random(7, n, 0) > u32::MAX / 2).count();
        assert!((4_800..5_200).contains(&high), "{high} of 10,000 in the upper half");
        let high = (0..10_000).filter(|&n| random(7, 0, n) > u32::MAX / 2).count();
        assert!((4_800..5_200).contains(&high), "{high} of 10,000 in the upper half");
    }
}
