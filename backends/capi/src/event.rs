//! What listeners and per-function callbacks hear.

use crate::deopt::{bw_decision, decision};
use crate::handle::bw_bead;
use crate::job::bw_reason;
use crate::user::UserData;
use beadwork::{Bead, Event, Invalidation};
use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum bw_event_kind {
    /// Something this version of the header does not know.
    Other = 0,
    /// A compile was asked for: `tier`, `reason`, `value` calls so far.
    Queued = 1,
    /// Code was installed: `tier`, `version`, `bytes`, `nanos` the compile took.
    Installed = 2,
    /// A compile gave no code: `tier`, `message`, `value` failures so far.
    Failed = 3,
    /// A tier, and those above it, was given up for a function: `tier`, `message`.
    GaveUp = 4,
    /// The result of a compile came too late: `tier`.
    Discarded = 5,
    /// The result of a compile was dropped because an assumption is broken: `tier`, `assumption`.
    AssumedInVain = 6,
    /// An assumption was broken: `assumption`, `value` functions lost code or a compile.
    AssumptionBroken = 7,
    /// A request was dropped because nobody called the function any more: `tier`.
    Cooled = 8,
    /// Code that was not called was taken back to make room: `bytes`. BW_EVENT_KIND_INVALIDATED follows.
    Evicted = 9,
    /// Code was taken back; the function is interpreted.
    Invalidated = 10,
    /// A guard failed: `tier`, `version`, `guard`, `pc`, `decision`, and `value` that goes with it.
    Deoptimized = 11,
    /// The function is gone.
    Removed = 12,
    /// Too much retired code waits to be freed: `bytes`; `message` names the mutator that holds it back, if one does.
    HeldBack = 13,
    /// `free_owner` of `value` pieces of code panicked.
    FreePanicked = 14,
    /// The worker threads could not be started: `message`. The next request tries again.
    PoolFailed = 15,
}

/// Something the engine did. Fields the kind does not name are 0. Good for the call only.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_event {
    /// What happened.
    pub kind: bw_event_kind,
    /// The tier.
    pub tier: u32,
    /// The function; 0 if it is not about one.
    pub bead: bw_bead,
    /// Why a compile was asked for.
    pub reason: bw_reason,
    /// The version of the code.
    pub version: u32,
    /// Which guard.
    pub guard: u32,
    /// What a bailout did.
    pub decision: bw_decision,
    /// Where the interpreter goes on.
    pub pc: u64,
    /// See the kind.
    pub value: u64,
    /// A size in bytes.
    pub bytes: u64,
    /// A time in nanoseconds.
    pub nanos: u64,
    /// The assumption.
    pub assumption: u64,
    /// Text, or NULL.
    pub message: *const c_char,
}

/// Hears what the engine did, on the thread that did it, after it took effect, with no lock held.
pub type bw_event_fn = Option<unsafe extern "C-unwind" fn(data: *mut c_void, event: *const bw_event)>;

/// Hears that a function's code was taken back (`removed` false), or that the function was removed (true, once). On the thread that did it,
/// after it took effect.
pub type bw_invalidate_fn =
    Option<unsafe extern "C-unwind" fn(data: *mut c_void, bead: bw_bead, removed: bool)>;

/// Calls C with an event.
///
/// # Safety
/// `listener` is good for being called with `data`.
pub(crate) unsafe fn tell(
    listener: unsafe extern "C-unwind" fn(*mut c_void, *const bw_event),
    data: *mut c_void,
    event: &Event,
) {
    // SAFETY: by the contract.
    told(event, |event| unsafe { listener(data, event) });
}

/// Has `hear` called with the event as C sees it.
pub(crate) fn told(event: &Event, hear: impl FnOnce(&bw_event)) {
    let (mut told, message) = translate(event);
    // A C string ends at the first NUL.
    let message = message.and_then(|message| CString::new(message.replace('\0', "?")).ok());
    told.message = message.as_ref().map_or(std::ptr::null(), |message| message.as_ptr());
    hear(&told);
}

/// The closure of a per-function callback.
pub(crate) fn on_invalidate(
    callback: unsafe extern "C-unwind" fn(*mut c_void, bw_bead, bool),
    data: Arc<UserData>,
) -> impl Fn(Bead, Invalidation) + Send + Sync + 'static {
    move |bead, what| {
        // SAFETY: the VM gave both together.
        unsafe { callback(data.get(), bead.to_bits(), what == Invalidation::Removed) }
    }
}

const NOTHING: bw_event = bw_event {
    kind: bw_event_kind::Other,
    tier: 0,
    bead: 0,
    reason: bw_reason::Other,
    version: 0,
    guard: 0,
    decision: bw_decision::Keep,
    pc: 0,
    value: 0,
    bytes: 0,
    nanos: 0,
    assumption: 0,
    message: std::ptr::null(),
};

/// An event of a function at a tier (0 if it has none to tell).
fn of(kind: bw_event_kind, bead: &Bead, tier: u8) -> bw_event {
    bw_event { kind, bead: bead.to_bits(), tier: tier.into(), ..NOTHING }
}

fn translate(event: &Event) -> (bw_event, Option<String>) {
    use bw_event_kind as Kind;
    let told = match event {
        Event::Queued { bead, tier, reason, calls } => bw_event {
            reason: (*reason).into(),
            value: (*calls).into(),
            ..of(Kind::Queued, bead, tier.get())
        },
        Event::Installed { bead, tier, version, bytes, compile_time } => bw_event {
            version: *version,
            bytes: *bytes as u64,
            nanos: u64::try_from(compile_time.as_nanos()).unwrap_or(u64::MAX),
            ..of(Kind::Installed, bead, tier.get())
        },
        Event::Failed { bead, tier, version, error, failures, .. } => {
            let told = bw_event {
                value: (*failures).into(),
                version: *version,
                ..of(Kind::Failed, bead, tier.get())
            };
            return (told, Some(error.to_string()));
        }
        Event::GaveUp { bead, tier, error } => {
            return (of(Kind::GaveUp, bead, tier.get()), Some(error.to_string()));
        }
        Event::Discarded { bead, tier, version } => {
            bw_event { version: *version, ..of(Kind::Discarded, bead, tier.get()) }
        }
        Event::AssumedInVain { bead, tier, version, assumption } => bw_event {
            version: *version,
            assumption: assumption.get(),
            ..of(Kind::AssumedInVain, bead, tier.get())
        },
        Event::AssumptionBroken { assumption, functions } => bw_event {
            kind: Kind::AssumptionBroken,
            assumption: assumption.get(),
            value: *functions as u64,
            ..NOTHING
        },
        Event::Cooled { bead, tier } => of(Kind::Cooled, bead, tier.get()),
        Event::Evicted { bead, bytes } => bw_event { bytes: *bytes, ..of(Kind::Evicted, bead, 0) },
        Event::Invalidated { bead } => of(Kind::Invalidated, bead, 0),
        Event::Deoptimized { bead, tier, guard, pc, version, decision: made, .. } => {
            let (decision, value) = decision(*made);
            bw_event {
                version: *version,
                guard: *guard,
                pc: *pc,
                decision,
                value: value.into(),
                ..of(Kind::Deoptimized, bead, tier.get())
            }
        }
        Event::Removed { bead } => of(Kind::Removed, bead, 0),
        Event::HeldBack { mutator, retired_bytes, .. } => {
            let told = bw_event { kind: Kind::HeldBack, bytes: *retired_bytes as u64, ..NOTHING };
            return (told, mutator.as_deref().map(str::to_string));
        }
        Event::FreePanicked { count } => {
            bw_event { kind: Kind::FreePanicked, value: *count as u64, ..NOTHING }
        }
        Event::PoolFailed { error } => {
            return (bw_event { kind: Kind::PoolFailed, ..NOTHING }, Some(error.clone()));
        }
        _ => NOTHING,
    };
    (told, None)
}
