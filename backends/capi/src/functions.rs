//! Functions and groups of functions come and go.

use crate::engine::bw_engine;
use crate::event::{bw_invalidate_fn, on_invalidate};
use crate::handle::{
    answer, array, bead, borrow, bw_bead, copy_out, group, no_group, options, text, text_out,
};
use crate::status::{Error, bw_status, guard, guard_or};
use crate::user::{UserData, bw_free_fn};
use beadwork::{BeadInfo, Core};
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// A set of functions that live and die together, as a number; 0 is none.
pub type bw_group = u32;

/// What is known of a function besides its core. All zero is nothing.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_bead_info {
    /// A name for logs and filters; NULL if there is none. Copied.
    pub name: *const c_char,
    /// A key that is the same from run to run; 0 if there is none.
    pub key: u64,
    /// The size in the VM's own units; 0 if unknown.
    pub size: u32,
    /// The group it belongs to; 0 if there is none.
    pub group: bw_group,
    /// Hears that its code was taken back or that it was removed; may be NULL.
    pub on_invalidate: bw_invalidate_fn,
    /// Passed to it.
    pub data: *mut c_void,
    /// Lets go of `data`, once, after the function was removed or if it could not be registered; may be NULL.
    pub free_data: bw_free_fn,
}

/// Registers a function, by the VM's own handle for it, a pointer or a number. It starts in the interpreter. `info` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_register(
    engine: *const bw_engine,
    core: usize,
    info: *const bw_bead_info,
    made: *mut bw_bead,
) -> bw_status {
    guard(|| {
        // Null first, so that an error leaves no garbage there.
        // SAFETY: the header's contract.
        unsafe { answer(made, 0) };
        let core = Core::new(core);
        let bead = if info.is_null() {
            // SAFETY: the header's contract.
            unsafe { borrow(engine) }?.register(core)?
        } else {
            // SAFETY: the header's contract.
            let info = unsafe { options(info, "the info") }?;
            let data = Arc::new(UserData::new(info.data, info.free_data));
            // SAFETY: the header's contract.
            let name = unsafe { text(info.name) };
            let mut told = name.as_deref().map_or_else(BeadInfo::new, BeadInfo::named);
            told = told.key(info.key).size(info.size);
            if info.group != 0 {
                told = told.group(group(info.group)?);
            }
            // Kept with the function even where nothing is heard, so that it is let go of with it.
            told = match info.on_invalidate {
                Some(callback) => told.on_invalidate(on_invalidate(callback, data)),
                None if info.free_data.is_some() => told.on_invalidate(move |_, _| {
                    let _ = &data;
                }),
                None => told,
            };
            // SAFETY: the header's contract.
            unsafe { borrow(engine) }?.register_with(core, &told)?
        };
        // SAFETY: the header's contract.
        unsafe { answer(made, bead.to_bits()) };
        Ok(())
    })
}

/// Registers `count` functions, all or none, and writes their beads to `beads`, in order. `group` may be 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_register_many(
    engine: *const bw_engine,
    cores: *const usize,
    count: usize,
    group: bw_group,
    beads: *mut bw_bead,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let engine = unsafe { borrow(engine) }?;
        // SAFETY: the header's contract.
        let cores = unsafe { array(cores, count, "the array of cores") }?.iter().copied().map(Core::new);
        if count > 0 && beads.is_null() {
            return Err(Error::null("the array for beads"));
        }
        let runs = match group {
            0 => engine.register_many(cores)?,
            _ => engine.register_group(self::group(group)?, cores)?,
        };
        for (place, bead) in runs.iter().enumerate() {
            // SAFETY: the header's contract: there is room for `count`, and so many were registered.
            unsafe { beads.add(place).write(bead.to_bits()) };
        }
        Ok(())
    })
}

/// Ends a function: its bead is stale from now on, its code is freed when every mutator has passed a safepoint. Of several threads
/// that remove it one succeeds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_remove(
    engine: *const bw_engine,
    removed: bw_bead,
    core: *mut usize,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let was = unsafe { borrow(engine) }?.remove(bead(removed)?)?;
        // SAFETY: the header's contract.
        unsafe { answer(core, was.get()) };
        Ok(())
    })
}

/// Whether the bead names a function that is registered now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_is_live(engine: *const bw_engine, asked: bw_bead) -> bool {
    // SAFETY: the header's contract.
    guard_or(false, || Ok(unsafe { borrow(engine) }?.is_live(bead(asked)?)))
}

/// The VM's handle for the function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_core(
    engine: *const bw_engine,
    asked: bw_bead,
    core: *mut usize,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let now = unsafe { borrow(engine) }?.core(bead(asked)?)?;
        // SAFETY: the header's contract.
        unsafe { answer(core, now.get()) };
        Ok(())
    })
}

/// Changes the VM's handle: a collector moved the function. May be called at any time; where jobs follow cores, under a bw_gc_pause.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_set_core(
    engine: *const bw_engine,
    moved: bw_bead,
    core: usize,
) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| Ok(unsafe { borrow(engine) }?.set_core(bead(moved)?, Core::new(core))?))
}

/// The name given at registration: writes up to `room` bytes of it to `name`, the terminating NUL included, and answers how long it is without
/// that. 0 if it has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_name(
    engine: *const bw_engine,
    asked: bw_bead,
    name: *mut c_char,
    room: usize,
) -> usize {
    guard_or(0, || {
        // SAFETY: the header's contract.
        let given = unsafe { borrow(engine) }?.name(bead(asked)?);
        // SAFETY: the header's contract.
        Ok(unsafe { text_out(given.as_deref().unwrap_or(""), name, room) })
    })
}

/// Makes a group, empty at first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_group(engine: *const bw_engine, made: *mut bw_group) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let group = unsafe { borrow(engine) }?.group()?;
        // SAFETY: the header's contract.
        unsafe { answer(made, group.to_bits()) };
        Ok(())
    })
}

/// The live functions of a group, in order of registration: writes up to `room` of them to `beads`, and how many there are to `count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_group_members(
    engine: *const bw_engine,
    asked: bw_group,
    beads: *mut bw_bead,
    room: usize,
    count: *mut usize,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let members =
            unsafe { borrow(engine) }?.group_members(group(asked)?).ok_or_else(|| no_group(asked))?;
        let members: Vec<bw_bead> = members.into_iter().map(|bead| bead.to_bits()).collect();
        // SAFETY: the header's contract.
        unsafe {
            copy_out(&members, beads, room);
            answer(count, members.len());
        }
        Ok(())
    })
}

/// Ends a group and every function in it; answers how many were live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_remove_group(engine: *const bw_engine, ended: bw_group) -> usize {
    // SAFETY: the header's contract.
    guard_or(0, || Ok(unsafe { borrow(engine) }?.remove_group(group(ended)?)))
}
