//! What is timed, and with which clock.
#![allow(unsafe_code, reason = "calls native code, and asks the kernel for times and sizes")]

use crate::contender::Contender;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::SmallRng};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Acquire};
use std::time::{Duration, Instant};

/// The native function behind all code here that is called. One for all functions: how well the processor guesses among a
/// million targets is no property of a broker, and would hide what is.
extern "C" fn trivial(x: u64) -> u64 {
    x.wrapping_add(1)
}

/// Its entry.
pub fn trivial_entry() -> *const u8 {
    trivial as *const u8
}

/// Calls code that is installed here.
#[inline(always)]
pub(crate) fn call(entry: *const u8, x: u64) -> u64 {
    // SAFETY: the only entry that is ever installed where this is used is that of `trivial`.
    let function: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(entry) };
    function(x)
}

/// Copies of each measured loop, each at another place in a cache line of instructions.
pub const PLACES: usize = 4;

/// Bytes from one place to the next. LLVM aligns loops to 16.
const STEP: usize = 64 / PLACES;

/// Has the code of its caller begin at a place in a cache line of instructions: a loop of a few instructions takes a cycle more or less
/// by where its branches lie, which is a matter of the build and no property of a broker. So each loop is there at several places.
#[inline(always)]
pub(crate) fn at<const PLACE: usize>() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: instructions that do nothing.
    unsafe {
        std::arch::asm!(".p2align 6, 0x90", ".fill {bytes}, 1, 0x90", bytes = const PLACE * STEP,
            options(nomem, nostack, preserves_flags));
    }
}

/// A loop over handles.
pub type Run<C> = fn(&<C as Contender>::Mutator, &[<C as Contender>::Handle]);

/// The same function for each place.
macro_rules! every_place {
    ($function:ident, $type:ty) => {
        [$function::<$type, 0>, $function::<$type, 1>, $function::<$type, 2>, $function::<$type, 3>]
    };
}
pub(crate) use every_place;

/// Copies of a loop, by speed.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    pub(crate) best: usize,
    pub(crate) third: usize,
}

impl Places {
    /// Tries `run` at all of them.
    pub(crate) fn try_out(mut run: impl FnMut(usize)) -> Places {
        /// In turn, since the clock of a shared processor changes from one millisecond to another.
        const TRIALS: usize = 16;
        let mut took: Vec<_> = (0..PLACES).map(|place| (f64::INFINITY, place)).collect();
        for _ in 0..TRIALS {
            for (least, place) in &mut took {
                *least = least.min(busy_nanos(1, || run(*place)));
            }
        }
        took.sort_by(|one, other| one.0.total_cmp(&other.0));
        Places { best: took[0].1, third: took[PLACES / 2].1 }
    }
}

/// Dispatches each function and calls its code. Handles come in sequence, as from a VM's own function objects.
#[inline(never)]
pub fn run_compiled_at<C: Contender, const PLACE: usize>(m: &C::Mutator, order: &[C::Handle]) {
    at::<PLACE>();
    let mut x = 0;
    for handle in order {
        match C::dispatch(m, handle) {
            Some(code) => x = call(code, x),
            None => unreachable_code(),
        }
    }
    black_box(x);
}

/// The same, at the first place.
pub fn run_compiled<C: Contender>(m: &C::Mutator, order: &[C::Handle]) {
    run_compiled_at::<C, 0>(m, order);
}

/// Dispatches each function, none of which has code, and calls what stands for the interpreter.
#[inline(never)]
pub fn run_cold_at<C: Contender, const PLACE: usize>(m: &C::Mutator, order: &[C::Handle]) {
    at::<PLACE>();
    let (interpreter, mut x) = (black_box(trivial_entry()), 0);
    for handle in order {
        if C::count(m, handle) {
            x = call(interpreter, x);
        } else {
            unreachable_code();
        }
    }
    black_box(x);
}

/// The same, at the first place.
pub fn run_cold<C: Contender>(m: &C::Mutator, order: &[C::Handle]) {
    run_cold_at::<C, 0>(m, order);
}

#[cold]
#[inline(never)]
fn unreachable_code() {
    panic!("a contender answered wrongly");
}

/// Repeats handles until a loop over them is long enough not to count, and puts them into random order.
pub fn shuffled<H: Clone>(handles: Vec<H>) -> Vec<H> {
    const LEAST: usize = 4096;
    let functions = handles.len();
    let mut order = handles;
    while order.len() < LEAST {
        order.push(order[order.len() - functions].clone());
    }
    order.shuffle(&mut SmallRng::seed_from_u64(0x5eed));
    order
}

/// The calling thread's time on the processor: other processes do not count.
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the place it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds of processor time of this thread for each of `operations`.
pub fn busy_nanos(operations: usize, work: impl FnOnce()) -> f64 {
    let start = thread_time();
    work();
    (thread_time() - start).as_nanos() as f64 / operations as f64
}

/// Nanoseconds by the clock on the wall for each of `operations`.
pub fn wall_nanos(operations: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / operations as f64
}

/// What threads at once took, each on average.
pub(crate) struct Together {
    /// Nanoseconds of processor time.
    pub(crate) busy: f64,
    /// Nanoseconds by the clock on the wall.
    pub(crate) wall: f64,
}

/// The part of the time in which all threads have to be at work.
const AT_ONCE: f64 = 0.9;

/// Tries until the best of them counts, however little its threads were at work at once: other processes want the cores too.
const TRIES: usize = 5;

/// Runs `work` on a thread for each of `parts`, all at once. Each makes what it needs first; then they wait for each other, awake, since
/// a thread that is woken starts when the others are half through.
pub(crate) fn together<P: Sync, S>(
    parts: &[P],
    prepare: impl Fn(&P) -> S + Sync,
    work: impl Fn(&mut S) + Sync,
) -> Together {
    /// Also when `prepare` panics, or the others would wait for ever.
    struct Arrives<'m>(&'m AtomicUsize);
    impl Drop for Arrives<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, AcqRel);
        }
    }
    let mut best: Option<(f64, Together)> = None;
    for _ in 0..TRIES {
        let missing = AtomicUsize::new(parts.len());
        let run = |part| {
            let arrives = Arrives(&missing);
            let mut state = prepare(part);
            drop(arrives);
            while missing.load(Acquire) > 0 {
                std::hint::spin_loop();
            }
            let (start, busy) = (Instant::now(), thread_time());
            work(&mut state);
            (thread_time() - busy, start, Instant::now())
        };
        let spans: Vec<_> = std::thread::scope(|scope| {
            let run = &run;
            let threads: Vec<_> = parts.iter().map(|part| scope.spawn(move || run(part))).collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        });
        let average = |of: fn(&(Duration, Instant, Instant)) -> Duration| {
            spans.iter().map(|span| of(span).as_nanos() as f64).sum::<f64>() / spans.len() as f64
        };
        let first = |of: fn(&(Duration, Instant, Instant)) -> Instant| spans.iter().map(of);
        let (began, all_began) = (first(|span| span.1).min(), first(|span| span.1).max());
        let (one_ended, ended) = (first(|span| span.2).min(), first(|span| span.2).max());
        let (Some(began), Some(all_began), Some(one_ended), Some(ended)) =
            (began, all_began, one_ended, ended)
        else {
            return Together { busy: 0.0, wall: 0.0 };
        };
        let shared = one_ended.saturating_duration_since(all_began).as_secs_f64();
        let share = shared / (ended - began).as_secs_f64();
        let took = Together { busy: average(|span| span.0), wall: average(|span| span.2 - span.1) };
        if best.as_ref().is_none_or(|(before, _)| *before < share) {
            best = Some((share, took));
        }
        if share >= AT_ONCE {
            break;
        }
    }
    best.map_or(Together { busy: 0.0, wall: 0.0 }, |(_, took)| took)
}

/// Works until the thread has used that much time.
pub fn spin(time: Duration) {
    let start = thread_time();
    while thread_time() - start < time {
        std::hint::spin_loop();
    }
}

/// Resident memory of this process, in bytes, after giving back what the allocator keeps.
pub fn resident() -> usize {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

/// The value below which that share of all values lies.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// The middle value, or what is between the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    (middle(values.len().saturating_sub(1) / 2) + middle(values.len() / 2)) / 2.0
}
