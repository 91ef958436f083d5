//! Looking at an engine.

use crate::engine::bw_engine;
use crate::event::{bw_event, told};
use crate::handle::{answer, bead, borrow, bw_bead, copy_out, text_out};
use crate::status::{bw_status, guard, guard_or};
use beadwork::PendingState;
use std::ffi::{c_char, c_void};

/// What a function waits for. It runs as before meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum bw_pending {
    /// Nothing.
    None = 0,
    /// Queued for the target.
    Queued = 1,
    /// Being compiled for the target.
    Compiling = 2,
    /// Being compiled, and asked for at the target, which is higher, when that ends.
    CompilingThenQueued = 3,
}

/// What is going on with a function.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_state {
    /// The tier it runs at; 0 is the interpreter.
    pub tier: u32,
    /// What it waits for.
    pub pending: bw_pending,
    /// The tier it waits for; 0 if none.
    pub target: u32,
    /// Raised by everything that starts or ends a compile or takes code back. While nothing is pending it is that of the code.
    pub version: u32,
    /// Calls counted so far. Calls of code that no higher tier waits for are not counted.
    pub calls: u32,
}

/// What is going on with a function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_state(
    engine: *const bw_engine,
    asked: bw_bead,
    state: *mut bw_state,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let (engine, function) = (unsafe { borrow(engine) }?, bead(asked)?);
        let now = engine.state(function)?;
        let (pending, target) = match now.pending {
            Some(PendingState::Queued(tier)) => (bw_pending::Queued, tier.get()),
            Some(PendingState::Compiling(tier)) => (bw_pending::Compiling, tier.get()),
            Some(PendingState::CompilingThenQueued(tier)) => (bw_pending::CompilingThenQueued, tier.get()),
            _ => (bw_pending::None, 0),
        };
        let told = bw_state {
            tier: now.tier.get().into(),
            pending,
            target: target.into(),
            version: now.version,
            calls: engine.invocations(function)?,
        };
        // SAFETY: the header's contract.
        unsafe { answer(state, told) };
        Ok(())
    })
}

/// The tier a function runs at, 0 for the interpreter. Also 0, with the error noted, if it is not live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_tier(engine: *const bw_engine, asked: bw_bead) -> u32 {
    // SAFETY: the header's contract.
    guard_or(0, || Ok(unsafe { borrow(engine) }?.tier(bead(asked)?)?.get().into()))
}

/// Sees a function.
pub type bw_visit_fn = Option<unsafe extern "C-unwind" fn(data: *mut c_void, bead: bw_bead)>;

/// Calls `visit` for every function that is live when it is looked at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_walk(
    engine: *const bw_engine,
    visit: bw_visit_fn,
    data: *mut c_void,
) -> bw_status {
    guard(|| {
        let visit = visit.ok_or_else(|| crate::status::Error::null("the function that visits"))?;
        // SAFETY: the header's contract.
        let engine = unsafe { borrow(engine) }?;
        // SAFETY: the caller gave both together.
        engine.walk(|bead| unsafe { visit(data, bead.to_bits()) });
        Ok(())
    })
}

/// Sees an event that was remembered, and when it happened, in nanoseconds of the engine's clock. The event is good for the call only.
pub type bw_history_fn =
    Option<unsafe extern "C-unwind" fn(data: *mut c_void, at_nanos: u64, event: *const bw_event)>;

/// Calls `visit` for what happened to a function lately, oldest first, before this returns: requests, installs, failures and bailouts with
/// their reasons. Nothing unless bw_engine_options.history says so. Costs a lock and a copy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_history(
    engine: *const bw_engine,
    asked: bw_bead,
    visit: bw_history_fn,
    data: *mut c_void,
) -> bw_status {
    guard(|| {
        let visit = visit.ok_or_else(|| crate::status::Error::null("the function that visits"))?;
        // SAFETY: the header's contract.
        let (engine, function) = (unsafe { borrow(engine) }?, bead(asked)?);
        for entry in engine.history(function)? {
            let at = u64::try_from(entry.at.as_nanos()).unwrap_or(u64::MAX);
            // SAFETY: the caller gave both together.
            told(&entry.event, |event| unsafe { visit(data, at, event) });
        }
        Ok(())
    })
}

/// What an engine did and holds. Each figure is exact once the engine is quiet; together they are not one instant.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_stats {
    /// Functions registered and not removed.
    pub beads: u64,
    /// Functions there is room for.
    pub capacity: u64,
    /// Compiles asked for.
    pub requested: u64,
    /// Requests that wait.
    pub queued: u64,
    /// Functions being compiled.
    pub compiling: u64,
    /// Code installed, by backends and by the VM.
    pub installed: u64,
    /// Results that came too late.
    pub discarded: u64,
    /// Compiles that gave no code.
    pub failed: u64,
    /// Functions whose code was taken back to make room.
    pub evicted: u64,
    /// Pieces of code freed after their grace period.
    pub reclaimed: u64,
    /// Pieces of code that wait to be freed.
    pub retired: u64,
    /// Bytes of code installed or waiting to be freed.
    pub code_bytes: u64,
    /// Bytes of that which wait.
    pub retired_bytes: u64,
    /// Memory the columns hold.
    pub column_bytes: u64,
    /// Nanoseconds spent compiling, summed over workers.
    pub compile_nanos: u64,
    /// Mutators, online or not.
    pub mutators: u64,
    /// Bailouts that counted.
    pub bailouts: u64,
    /// Bailouts of versions that were gone already.
    pub outdated_bailouts: u64,
}

/// A snapshot. Costs some locks and a look at every page of the columns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_stats(engine: *const bw_engine, stats: *mut bw_stats) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let now = unsafe { borrow(engine) }?.stats();
        let told = bw_stats {
            beads: now.beads,
            capacity: now.capacity,
            requested: now.requested,
            queued: now.queued,
            compiling: now.compiling,
            installed: now.installed,
            discarded: now.discarded,
            failed: now.failed,
            evicted: now.evicted,
            reclaimed: now.reclaimed,
            retired: now.retired,
            code_bytes: now.code_bytes,
            retired_bytes: now.retired_bytes,
            column_bytes: now.column_bytes,
            compile_nanos: u64::try_from(now.compile_time.as_nanos()).unwrap_or(u64::MAX),
            mutators: now.mutators,
            bailouts: now.deopts.bailouts,
            outdated_bailouts: now.deopts.outdated,
        };
        // SAFETY: the header's contract.
        unsafe { answer(stats, told) };
        Ok(())
    })
}

/// A report for people: functions by tier and by heat, and the statistics, some lines of text. Writes up to `room` bytes of it to
/// `report`, the terminating NUL included, and answers how long it is without that. Costs as bw_engine_hot_functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_report(
    engine: *const bw_engine,
    report: *mut c_char,
    room: usize,
) -> usize {
    guard_or(0, || {
        // SAFETY: the header's contract.
        let now = unsafe { borrow(engine) }?.report().to_string();
        // SAFETY: the header's contract.
        Ok(unsafe { text_out(&now, report, room) })
    })
}

/// A function and how often it was called.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_hot_function {
    /// The function.
    pub bead: bw_bead,
    /// Calls counted.
    pub calls: u64,
    /// The tier it runs at.
    pub tier: u32,
}

/// The functions with the most calls counted, the hottest first, at most `room`; answers how many were written. Costs a look at every function that was ever
/// called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_hot_functions(
    engine: *const bw_engine,
    functions: *mut bw_hot_function,
    room: usize,
) -> usize {
    guard_or(0, || {
        // SAFETY: the header's contract.
        let hot = unsafe { borrow(engine) }?.hot_functions(room);
        let told = hot.iter().map(|function| bw_hot_function {
            bead: function.bead.to_bits(),
            calls: function.calls.into(),
            tier: function.tier.get().into(),
        });
        let told: Vec<_> = told.collect();
        // SAFETY: the header's contract.
        unsafe { copy_out(&told, functions, room) };
        Ok(told.len())
    })
}
