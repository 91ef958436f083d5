//! Building and ending an engine, and what it does as a whole.

use crate::delivery::{self, bw_hand_back_fn};
use crate::deopt::{self, bw_deopt_fn};
use crate::event::{self, bw_event_fn};
use crate::handle::{self, array, borrow, bw_bead, give, handle, options, take, text, tier};
use crate::snapshot::{self, bw_snapshot_fn};
use crate::status::{Error, Result, bw_status, guard, guard_or};
use crate::tier::{Preset, bw_tier};
use crate::user::{UserData, bw_free_fn};
use beadwork::{Engine, EngineBuilder, PauseGuard, PresetValues};
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Duration;

/// The version of this header and of the layouts in it. A program compiled with one version does not run with a library of
/// another: bw_engine_new answers BW_STATUS_ABI.
pub const BW_ABI: u32 = 3;

/// An engine. Used by any number of threads at once.
#[derive(Debug)]
pub struct bw_engine {
    _private: [u8; 0],
}

handle!(bw_engine, Engine, b"engi", "a bw_engine");

/// Takes no work as long as it exists.
#[derive(Debug)]
pub struct bw_pause {
    _private: [u8; 0],
}

handle!(bw_pause, PauseGuard, b"paus", "a bw_pause");

/// What kind of program the VM runs: thresholds, limits and sampling for bw_engine_options.preset. The tiers' own fields go first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum bw_preset {
    /// None: what the tiers say.
    None = 0,
    /// 100, 1,000 calls.
    Default = 1,
    /// 10, 100.
    Development = 2,
    /// 1,000, 10,000; one of ten calls counted.
    Production = 3,
    /// As Production, with LLVM as the second tier.
    ProductionLlvm = 4,
    /// 5, 50, 200; compiled by the thread that asks.
    Script = 5,
    /// 10, 100, 500, 2,000.
    Application = 6,
    /// 5, 50, 200, 500.
    Server = 7,
    /// 2, 3, 5, the fourth by hand; compiled by the thread that asks.
    Benchmark = 8,
    /// No tier is entered by itself.
    Embedded = 9,
    /// 2, 4, 8, 16, at moments left to the seed.
    Stress = 10,
}

/// The time since some start, in nanoseconds. Never goes back.
pub type bw_clock_fn = Option<unsafe extern "C-unwind" fn(data: *mut c_void) -> u64>;

/// How an engine is built. All zero but `abi` is good: an engine without tiers, which serves what bw_engine_install installs.
///
/// `data` is passed to every callback named here, on any thread and by several at once; `free_data` is called for it once, when the
/// engine has ended or could not be built.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_engine_options {
    /// BW_ABI.
    pub abi: u32,
    /// A bw_preset.
    pub preset: u32,
    /// The compiled tiers, lowest first; at most 15. Copied.
    pub tiers: *const bw_tier,
    /// How many.
    pub tier_count: usize,

    /// How many beads there can be at once, rounded up to a power of two; 0 is 2^24. Reserves address space, touches no memory.
    pub capacity: usize,
    /// How many threads compile; they start with the first request. 0 is one less than the machine has cores, at least 1; more than 256
    /// count as 256.
    pub workers: usize,
    /// Starts no threads ever: compiles run inside bw_engine_run_pending.
    pub is_inline: bool,
    /// Starts no threads, and compiles on the thread that asks, before the request returns.
    pub foreground: bool,
    /// Asks for a baseline compile of every function as it is registered.
    pub eager_baseline: bool,
    /// Switches off what bounds the cost of code that keeps failing.
    pub without_governor: bool,
    /// What the threads are called; NULL is "beadwork". Copied.
    pub thread_names: *const c_char,
    /// What slots hold while there is no code: the VM's interpreter-entry stub; NULL leaves them NULL.
    pub fallback: *const c_void,
    /// Seeds what is left to chance.
    pub seed: u64,
    /// Bytes of code at which policies that mind memory see it as full; 0 is no limit.
    pub code_limit: u64,
    /// While code memory is short, takes back code that was not called for so many milliseconds; 0 is never.
    pub evict_after_ms: u64,
    /// A policy's request that waits so many milliseconds without a call is dropped; 0 is 10,000.
    pub cold_after_ms: u64,
    /// Failed compiles after which a tier is given up for a function; 0 is 5.
    pub fault_limit: u32,
    /// Counts one of so many calls; 0 is what the preset says, and without one 1.
    pub sampling: u32,
    /// Bytes of code that may wait to be freed before policies hold back; 0 is 64 MiB.
    pub retired_limit: usize,

    /// A bw_deopt.
    pub deopt: u32,
    /// See bw_deopt.
    pub deopt_limit: u32,
    /// See bw_deopt.
    pub deopt_base: u32,
    /// Decides instead of these; may be NULL.
    pub on_deopt: bw_deopt_fn,

    /// Hears what the engine does; may be NULL.
    pub on_event: bw_event_fn,
    /// Takes code that was unlinked, to free it itself; may be NULL.
    pub on_hand_back: bw_hand_back_fn,
    /// The clock that fading counts, ranking and pauses go by; NULL is the time since the engine was built. With a clock of the VM's own, a
    /// seed and an inline engine every decision can be repeated.
    pub clock: bw_clock_fn,
    /// Keeps what happens to code until bw_engine_deliver asks for it.
    pub delivery: bool,
    /// The most that is kept; 0 is no limit.
    pub delivery_limit: usize,
    /// Remembers so many of the newest events of each function, for bw_engine_history; 0 is none.
    pub history: usize,
    /// Notes something of a function whenever a compile of it is asked for, for bw_job_snapshot; may be NULL.
    pub snapshot: bw_snapshot_fn,
    /// Lets go of what `snapshot` answered, once: with its job, or when the request is cancelled, replaced or overtaken. May be NULL.
    pub free_snapshot: bw_free_fn,
    /// Passed to all of these but `free_snapshot`.
    pub data: *mut c_void,
    /// Lets go of `data`; may be NULL.
    pub free_data: bw_free_fn,
}

/// The version of the library: BW_ABI of the header it was built with.
#[unsafe(no_mangle)]
pub extern "C" fn bw_abi() -> u32 {
    BW_ABI
}

/// Builds an engine. No thread starts before the first request. Whatever this answers, the `data` of the engine and of all tiers
/// was taken over, unless `options` is NULL, of another ABI, or has a NULL array.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_new(
    options: *const bw_engine_options,
    engine: *mut *mut bw_engine,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let given = unsafe { self::options(options, "the engine's options") }?;
        if given.abi != BW_ABI {
            let (program, library) = (given.abi, BW_ABI);
            let message = format_args!(
                "the program was compiled for BW_ABI {program}, this library has {library}; set \
                 bw_engine_options.abi to BW_ABI and compile with the library's own beadwork.h"
            );
            return Err(Error::new(bw_status::Abi, message));
        }
        // SAFETY: the header's contract.
        let tiers = unsafe { array(given.tiers, given.tier_count, "bw_engine_options.tiers") }?;
        // All of it is taken over before anything can fail.
        let data = Arc::new(UserData::new(given.data, given.free_data));
        let tiers: Vec<_> =
            tiers.iter().map(|tier| (tier, UserData::new(tier.data, tier.free_data))).collect();
        // SAFETY: the header's contract.
        unsafe { give(engine, || Ok(build(given, tiers, data)?.build()?)) }
    })
}

/// # Safety
/// The fields are good for what they say.
unsafe fn build(
    given: &bw_engine_options,
    tiers: Vec<(&bw_tier, UserData)>,
    data: Arc<UserData>,
) -> Result<EngineBuilder> {
    let preset = preset(given.preset)?;
    let mut builder = Engine::builder()
        .seed(given.seed)
        .eager_baseline(given.eager_baseline)
        .deopt_governor(!given.without_governor);
    for (number, (tier, data)) in tiers.into_iter().enumerate() {
        let preset = Preset::of(preset.as_ref(), number);
        // SAFETY: by the contract.
        builder = builder.tier(unsafe { tier.build(data, &preset) }?);
    }
    // SAFETY: by the contract.
    if let Some(names) = unsafe { text(given.thread_names) } {
        builder = builder.thread_names(names);
    }
    // 0 is the library's own default, for each of these.
    if given.capacity > 0 {
        builder = builder.capacity(given.capacity);
    }
    if given.workers > 0 {
        builder = builder.workers(given.workers);
    }
    if given.is_inline {
        builder = builder.inline();
    }
    if given.foreground || preset.is_some_and(|values| values.foreground) {
        builder = builder.foreground();
    }
    if !given.fallback.is_null() {
        builder = builder.fallback(given.fallback.cast());
    }
    if given.code_limit > 0 {
        builder = builder.code_limit(given.code_limit);
    }
    if given.evict_after_ms > 0 {
        builder = builder.evict_after(Duration::from_millis(given.evict_after_ms));
    }
    if given.cold_after_ms > 0 {
        builder = builder.cold_after(Duration::from_millis(given.cold_after_ms));
    }
    if given.fault_limit > 0 {
        builder = builder.fault_limit(given.fault_limit);
    }
    if let Some(calls) = Some(given.sampling).filter(|&n| n > 0).or(preset.map(|values| values.sampling)) {
        builder = builder.sampling(calls);
    }
    if given.retired_limit > 0 {
        builder = builder.retired_limit(given.retired_limit);
    }
    let limits = (given.deopt_limit, given.deopt_base);
    builder = deopt::give(builder, given.deopt, limits, given.on_deopt, &data)?;
    if given.delivery {
        builder = builder.delivery(true);
        if given.delivery_limit > 0 {
            builder = builder.delivery_limit(given.delivery_limit);
        }
    }
    if let Some(clock) = given.clock {
        let data = data.clone();
        builder = builder.clock(move || {
            // SAFETY: the VM gave both together.
            Duration::from_nanos(unsafe { clock(data.get()) })
        });
    }
    if given.history > 0 {
        builder = builder.history(given.history);
    }
    if let Some(take) = given.snapshot {
        builder = snapshot::take(builder, take, given.free_snapshot, data.clone());
    }
    if let Some(callback) = given.on_hand_back {
        builder = delivery::hand_back(builder, callback, data.clone());
    }
    if let Some(listener) = given.on_event {
        builder = builder.on_event(move |event| {
            // SAFETY: the VM gave both together.
            unsafe { event::tell(listener, data.get(), event) }
        });
    }
    Ok(builder)
}

fn preset(number: u32) -> Result<Option<PresetValues>> {
    if number == bw_preset::None as u32 {
        return Ok(None);
    }
    let preset = beadwork::Preset::ALL.get(number as usize - 1);
    let preset = preset
        .ok_or_else(|| Error::argument(format_args!("there is no preset {number}; use a BW_PRESET value")));
    Ok(Some(preset?.values()))
}

impl Preset {
    fn of(values: Option<&PresetValues>, number: usize) -> Preset {
        let threshold =
            |values: &PresetValues| values.thresholds.get(number).copied().unwrap_or(crate::tier::BW_MANUAL);
        Preset {
            threshold: values.map(threshold),
            max_parallel: values.map(|values| values.max_parallel),
            jitter: values.map_or(0.0, |values| values.jitter),
        }
    }
}

/// Another handle of the same engine, to be freed like the first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_clone(engine: *const bw_engine, clone: *mut *mut bw_engine) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| unsafe { give(clone, || Ok(borrow(engine)?.clone())) })
}

/// Frees a handle; NULL is fine. The engine ends with its last handle and last mutator: queued work is dropped, compiles in flight are
/// waited for (5 seconds at the most), all code is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_free(engine: *mut bw_engine) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| unsafe { take(engine) }.map(drop))
}

/// Runs queued compiles on the calling thread, at most `max`, and frees what can be freed; answers how many requests were taken. This is where an
/// inline engine works; others may use it to help.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_run_pending(engine: *const bw_engine, max: usize) -> usize {
    // SAFETY: the header's contract.
    guard_or(0, || Ok(unsafe { borrow(engine) }?.run_pending(max)))
}

/// Frees retired code that no mutator can be in any more; answers how many pieces. Workers do it by themselves.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_reclaim(engine: *const bw_engine) -> usize {
    // SAFETY: the header's contract.
    guard_or(0, || Ok(unsafe { borrow(engine) }?.reclaim()))
}

/// Waits until nothing is queued and nothing is being compiled. On an inline engine the calling thread works meanwhile.
/// BW_STATUS_TIMEOUT after so many milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_drain(engine: *const bw_engine, timeout_ms: u64) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| Ok(unsafe { borrow(engine) }?.drain(Duration::from_millis(timeout_ms))?))
}

/// Ends the engine's work: drops what is queued, waits for compiles in flight, frees what can be freed. Handles and code that is there stay
/// usable. BW_STATUS_TIMEOUT names what is stuck; it may be called again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_shutdown(engine: *const bw_engine, timeout_ms: u64) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| Ok(unsafe { borrow(engine) }?.shutdown(Duration::from_millis(timeout_ms))?))
}

/// Takes no more work until the pause is freed. Nests, never blocks; compiles in flight finish, requests are queued.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_pause(engine: *const bw_engine, pause: *mut *mut bw_pause) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| unsafe { give(pause, || Ok(borrow(engine)?.pause())) })
}

/// Ends a pause; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_pause_free(pause: *mut bw_pause) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| unsafe { take(pause) }.map(drop))
}

/// Whether anything may be promoted; true at first. What is queued is still compiled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_set_enabled(engine: *const bw_engine, enabled: bool) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        unsafe { borrow(engine) }?.set_enabled(enabled);
        Ok(())
    })
}

/// Whether functions are compiled for a tier. Switched off, its requests wait; code that is there goes on running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_set_tier_enabled(
    engine: *const bw_engine,
    number: u32,
    enabled: bool,
) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| Ok(unsafe { borrow(engine) }?.set_tier_enabled(tier(number)?, enabled)?))
}

/// The most workers that compile for a tier at once; 0 means 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_set_max_parallel(
    engine: *const bw_engine,
    number: u32,
    workers: usize,
) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| Ok(unsafe { borrow(engine) }?.set_max_parallel(tier(number)?, workers)?))
}

/// Multiplies the thresholds of all policies; 1 at first. What is not finite or not above 0 means 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_set_threshold_scale(engine: *const bw_engine, factor: f64) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        unsafe { borrow(engine) }?.set_threshold_scale(factor);
        Ok(())
    })
}

/// Waits until no job is inside bw_job_with_core, and keeps new ones out until the pause is freed; a moving collector holds it while it moves
/// what cores point at. Waits `timeout_ms` milliseconds at the most; UINT64_MAX is for ever. The thread that asked for it does not compile
/// meanwhile, and frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_gc_pause(
    engine: *const bw_engine,
    timeout_ms: u64,
    pause: *mut *mut bw_gc_pause,
) -> bw_status {
    guard(|| {
        let wait = || {
            // SAFETY: the header's contract.
            let engine = unsafe { borrow(engine) }?;
            Ok(match timeout_ms {
                u64::MAX => engine.gc_pause(),
                _ => engine.try_gc_pause(Duration::from_millis(timeout_ms)),
            }?)
        };
        // SAFETY: the header's contract.
        unsafe { give(pause, wait) }
    })
}

/// Keeps jobs from looking at cores as long as it exists.
#[derive(Debug)]
pub struct bw_gc_pause {
    _private: [u8; 0],
}

handle!(bw_gc_pause, beadwork::GcPause, b"gcpa", "a bw_gc_pause");

/// Ends a pause; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_gc_pause_free(pause: *mut bw_gc_pause) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| unsafe { take(pause) }.map(drop))
}

/// Whether the engine has handed this bead out, live or not. False proves a stray.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_owns(engine: *const bw_engine, bead: bw_bead) -> bool {
    // SAFETY: the header's contract.
    guard_or(false, || Ok(unsafe { borrow(engine) }?.owns(handle::bead(bead)?)))
}
