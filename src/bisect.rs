//! Finding the function whose compiled code is wrong.

use crate::id::{Bead, TierId};
use crate::sync::{Arc, Mutex, lock};
use crate::tier::Candidate;
use std::collections::HashMap;
use std::num::ParseIntError;
use std::ops::{Bound, RangeBounds};
use std::str::FromStr;

/// Lets only some functions into a tier, by number, to find the one that is compiled wrongly by halves.
///
/// Functions are numbered from 0 in the order in which they first ask for a tier. Where that order repeats from run to run (one thread that
/// runs the program; best an [inline](crate::EngineBuilder::inline) engine with a [seed](crate::EngineBuilder::seed) and a
/// [clock](crate::EngineBuilder::clock)), [`find`](Bisect::find) does the whole search. By hand, or over processes: a
/// range from the command line or the environment, parsed by [`FromStr`]; in a run that goes wrong with `..64`, look whether `..32`
/// does.
///
/// ```
/// use beadwork::{Bisect, CompiledCode, Core, Engine, FnBackend, Job, Threshold, Tier};
///
/// extern "C" fn right(x: i64) -> i64 { x + 1 }
/// extern "C" fn wrong(x: i64) -> i64 { x + 2 }
///
/// // A hundred functions that add 1. The compiler makes a mistake in one.
/// let works = |bisect: &Bisect| {
///     let compiler = FnBackend::new(|job: &mut Job<'_>| {
///         let code = if job.core()?.get() == 70 { wrong } else { right };
///         Ok(CompiledCode::new(code as *const u8))
///     });
///     let tier = Tier::new(compiler).policy(Threshold::new(2)).filter(bisect.filter());
///     let engine = Engine::builder().inline().tier(tier).build().unwrap();
///     let m = engine.mutator();
///     (0..100).all(|n| {
///         let function = engine.register(Core::new(n)).unwrap();
///         (0..5).all(|_| {
///             engine.run_pending(usize::MAX);
///             match m.dispatch(function) {
///                 // SAFETY: both functions have this type and live for ever.
///                 Some(code) => unsafe { std::mem::transmute::<_, extern "C" fn(i64) -> i64>(code.as_ptr())(1) == 2 },
///                 None => true, // interpreted
///             }
///         })
///     })
/// };
/// let culprit = Bisect::find(works).expect("one of them is wrong");
/// assert_eq!((culprit.number, culprit.bead.index()), (70, 70));
/// ```
#[derive(Clone, Debug)]
pub struct Bisect {
    range: (Bound<u64>, Bound<u64>),
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    numbers: HashMap<(Bead, TierId), u64>,
    all: Vec<Bisected>,
}

/// A function that asked for a tier; see [`Bisect`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bisected {
    /// In the order of asking, from 0.
    pub number: u64,
    /// The function.
    pub bead: Bead,
    /// The tier it asked for.
    pub tier: TierId,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
}

impl Bisect {
    /// Lets the functions with these numbers in: `..100` the first hundred, `7..=7` only that with number 7, `..` all.
    pub fn new(numbers: impl RangeBounds<u64>) -> Bisect {
        let range = (numbers.start_bound().cloned(), numbers.end_bound().cloned());
        Bisect { range, seen: Arc::new(Mutex::new(Seen::default())) }
    }

    /// For [`Tier::filter`](crate::Tier::filter), of one tier or of several, which then share the numbers. Costs a lock and a map's
    /// entry for each function that asks.
    pub fn filter(&self) -> impl Fn(&Candidate) -> bool + Send + Sync + 'static + use<> {
        let (range, seen) = (self.range, self.seen.clone());
        move |candidate| {
            let mut seen = lock(&seen);
            let number = seen.all.len() as u64;
            let key = (candidate.bead, candidate.tier);
            let number = *seen.numbers.entry(key).or_insert(number);
            if number == seen.all.len() as u64 {
                let Candidate { bead, tier, .. } = *candidate;
                seen.all.push(Bisected { number, bead, tier, name: candidate.name.clone() });
            }
            range.contains(&number)
        }
    }

    /// All functions that have asked so far, let in or not, by number.
    pub fn seen(&self) -> Vec<Bisected> {
        lock(&self.seen).all.clone()
    }

    /// Runs the program again and again with fewer and more of its functions compiled; answers the first that makes it go
    /// wrong when those before it are compiled, too. `works` builds an engine with [`filter`](Bisect::filter), runs the program and
    /// says whether the result was right. `None` if it is right with all functions compiled.
    ///
    /// If it is wrong with none compiled, the answer is the first function that asks, or `None` if none does: look there first.
    /// About as many runs as the number of functions has bits.
    pub fn find(mut works: impl FnMut(&Bisect) -> bool) -> Option<Bisected> {
        let all = Bisect::new(..);
        if works(&all) {
            return None;
        }
        let mut last = all.seen();
        // It works with the first `good` functions, and does not with the first `bad`.
        let (mut good, mut bad) = (0, last.len() as u64);
        while bad - good > 1 {
            let half = good + (bad - good) / 2;
            let first = Bisect::new(..half);
            if works(&first) {
                good = half;
            } else {
                (bad, last) = (half, first.seen());
            }
        }
        last.into_iter().nth(good as usize)
    }
}

/// `5`, `5..`, `..8`, `5..8`, `5..=8`, `..`.
impl FromStr for Bisect {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Bisect, ParseIntError> {
        let text = text.trim();
        let Some((from, to)) = text.split_once("..") else {
            let only = text.parse::<u64>()?;
            return Ok(Bisect::new(only..=only));
        };
        let from = if from.is_empty() { Bound::Unbounded } else { Bound::Included(from.parse::<u64>()?) };
        let to = match to.strip_prefix('=') {
            Some(to) => Bound::Included(to.parse::<u64>()?),
            None if to.is_empty() => Bound::Unbounded,
            None => Bound::Excluded(to.parse::<u64>()?),
        };
        Ok(Bisect::new((from, to)))
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    fn admits(text: &str) -> Vec<u32> {
        let bisect: Bisect = text.parse().unwrap();
        let filter = bisect.filter();
        let candidate = |index| Candidate {
            bead: Bead::from_bits(1 << 32 | u64::from(index)).unwrap(),
            tier: TierId::BASELINE,
            name: None,
            key: None,
            size: None,
        };
        // Those who ask again keep their number.
        (0..10).filter(|&n| filter(&candidate(100 + n)) && filter(&candidate(100 + n))).collect()
    }

    #[test]
    fn a_range_is_read_as_it_is_written() {
        assert_eq!(admits("5"), [5]);
        assert_eq!(admits("7.."), [7, 8, 9]);
        assert_eq!(admits("..2"), [0, 1]);
        assert_eq!(admits(" 3..5 "), [3, 4]);
        assert_eq!(admits("3..=5"), [3, 4, 5]);
        assert_eq!(admits("..").len(), 10);
        for wrong in ["", "x", "1..x", "-1", "..="] {
            assert!(wrong.parse::<Bisect>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_right_has_no_culprit_and_what_is_wrong_without_code_blames_nobody_in_vain() {
        assert_eq!(Bisect::find(|_| true), None);
        assert_eq!(Bisect::find(|_| false), None);
    }
}
