//! What happened to code, for the VM's own tables and its own memory: deliveries, and code handed back.

use crate::engine::bw_engine;
use crate::handle::{borrow, bw_bead, give, handle, take};
use crate::status::{bw_status, guard, guard_or};
use crate::user::UserData;
use beadwork::{Delivery, EngineBuilder, HandedBack};
use std::ffi::c_void;
use std::sync::Arc;

/// What took effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum bw_delivery_kind {
    /// Something this version of the header does not know.
    Other = 0,
    /// Code was installed, by a backend or by the VM: `tier`, `version`, `payload`.
    Installed = 1,
    /// Code was taken back; threads may still be in it.
    Invalidated = 2,
    /// Baseline code that was held while higher code ran, runs again after a bailout: `version`.
    Reverted = 3,
    /// The function is gone; nothing of it follows.
    Removed = 4,
    /// More waited than bw_engine_options.delivery_limit allows: `count` of the oldest were dropped.
    Lost = 5,
}

/// Something that took effect. Fields the kind does not name are 0. Good for the call only, but for the payload.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_delivery {
    /// What.
    pub kind: bw_delivery_kind,
    /// The tier.
    pub tier: u32,
    /// The function; 0 if it is not about one.
    pub bead: bw_bead,
    /// The version of the code.
    pub version: u32,
    /// How many were lost.
    pub count: u64,
    /// What came with the code, bw_code.payload. It is the VM's from here on: `free_payload` is not called for it.
    pub payload: *mut c_void,
}

/// Takes a delivery.
pub type bw_deliver_fn = Option<unsafe extern "C-unwind" fn(data: *mut c_void, delivery: *const bw_delivery)>;

/// Hands over what happened to code since the last time, oldest first, on engines built with bw_engine_options.delivery; answers how much,
/// BW_DELIVERY_KIND_LOST left out. For VMs
/// that keep tables of their own beside the code: they change them here, at a time of their own, best where the thread holds no
/// code pointer.
///
/// Everything is handed over once, to one thread, after it took effect, and what concerns one function in the order in which it
/// happened; what waited when the call began, no more. While one thread takes deliveries, others that ask get none and do not
/// wait. Costs one load while nothing waits. With `take` NULL all that waits is dropped, and `free_payload` called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_deliver(
    engine: *const bw_engine,
    take: bw_deliver_fn,
    data: *mut c_void,
) -> usize {
    guard_or(0, || {
        // SAFETY: the header's contract.
        let engine = unsafe { borrow(engine) }?;
        Ok(engine.deliver(|delivery| {
            let Some(take) = take else { return };
            let told = translate(delivery);
            // SAFETY: the VM gave both together.
            unsafe { take(data, &told) }
        }))
    })
}

/// How many deliveries wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_engine_deliveries(engine: *const bw_engine) -> usize {
    // SAFETY: the header's contract.
    guard_or(0, || Ok(unsafe { borrow(engine) }?.deliveries()))
}

fn translate(delivery: Delivery) -> bw_delivery {
    let nothing = bw_delivery {
        kind: bw_delivery_kind::Other,
        tier: 0,
        bead: 0,
        version: 0,
        count: 0,
        payload: std::ptr::null_mut(),
    };
    match delivery {
        Delivery::Installed { bead, tier, version, payload } => {
            // Only this crate's own payloads come through this crate's engines.
            let payload = payload.and_then(|payload| payload.downcast::<UserData>().ok());
            let payload = payload.map_or(std::ptr::null_mut(), |payload| payload.release());
            let (bead, tier) = (bead.to_bits(), u32::from(tier.get()));
            bw_delivery { kind: bw_delivery_kind::Installed, bead, tier, version, payload, ..nothing }
        }
        Delivery::Invalidated { bead } => {
            bw_delivery { kind: bw_delivery_kind::Invalidated, bead: bead.to_bits(), ..nothing }
        }
        Delivery::Reverted { bead, version } => {
            bw_delivery { kind: bw_delivery_kind::Reverted, bead: bead.to_bits(), version, ..nothing }
        }
        Delivery::Removed { bead } => {
            bw_delivery { kind: bw_delivery_kind::Removed, bead: bead.to_bits(), ..nothing }
        }
        Delivery::Lost { count } => bw_delivery { kind: bw_delivery_kind::Lost, count, ..nothing },
        _ => nothing,
    }
}

/// Code that was superseded, taken back or removed, and is the VM's to free.
#[derive(Debug)]
pub struct bw_handed_back {
    _private: [u8; 0],
}

handle!(bw_handed_back, HandedBack, b"back", "a bw_handed_back");

/// Takes code that was unlinked, instead of the library freeing it after a grace period; for VMs that find out by themselves when no
/// thread runs code any more. No dispatch that happens after this answers the code, but threads may be running it, and may have got it from a
/// dispatch and not entered it yet. Safepoints do not hold it back; a bw_lease does. The VM frees it by bw_handed_back_free, on any
/// thread. On the thread that unlinked the code, or on one that reclaims at the same time, with no lock held.
///
/// Results that were never installed, and what is still installed when the engine ends, do not come here.
pub type bw_hand_back_fn = Option<unsafe extern "C-unwind" fn(data: *mut c_void, code: *mut bw_handed_back)>;

/// The function whose code it was; perhaps removed since.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_handed_back_bead(code: *const bw_handed_back) -> bw_bead {
    // SAFETY: the header's contract.
    guard_or(0, || Ok(unsafe { borrow(code) }?.bead().to_bits()))
}

/// The entry; never NULL, but on an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_handed_back_entry(code: *const bw_handed_back) -> *const c_void {
    // SAFETY: the header's contract.
    guard_or(std::ptr::null(), || Ok(unsafe { borrow(code) }?.entry().cast()))
}

/// The size as it was given, rounded up to 16 bytes, at most 256 MiB; 0 for code that nothing is to be freed with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_handed_back_bytes(code: *const bw_handed_back) -> usize {
    // SAFETY: the header's contract.
    guard_or(0, || Ok(unsafe { borrow(code) }?.bytes()))
}

/// Frees code that no thread can be in any more: calls its `free_owner`. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_handed_back_free(code: *mut bw_handed_back) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| unsafe { take(code) }.map(drop))
}

/// Has an engine hand code back.
pub(crate) fn hand_back(
    builder: EngineBuilder,
    callback: unsafe extern "C-unwind" fn(*mut c_void, *mut bw_handed_back),
    data: Arc<UserData>,
) -> EngineBuilder {
    builder.hand_back(move |code| {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the place is this function's own.
        if unsafe { give(&mut handle, || Ok(code)) }.is_ok() {
            // SAFETY: the VM gave both together.
            unsafe { callback(data.get(), handle) }
        }
    })
}
