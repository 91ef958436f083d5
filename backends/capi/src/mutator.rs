//! The thread that runs the guest program.
//!
//! C keeps no borrows, so what the borrow checker does for a Rust VM is done by a count: while a call with a mutator is on the stack (a
//! dispatch that asks a policy, say, which calls back into the VM), safepoints below it only poll, and it is neither moved nor
//! freed. So a code pointer that a dispatch is about to answer cannot be freed under it.

use crate::engine::bw_engine;
use crate::handle::{array, bead, borrow, bw_bead, give, handle, take, text};
use crate::status::{Error, Result, bw_status, guard, guard_or};
use beadwork::{Bead, Mutator, OfflineMutator, Reentered};
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_char, c_void};
use std::sync::atomic::AtomicU64;

/// A thread that runs the guest program: one for each. It may move to another thread, but is used by one at a time.
#[derive(Debug)]
pub struct bw_mutator {
    _private: [u8; 0],
}

handle!(bw_mutator, Thread, b"muta", "a bw_mutator");

/// How a mutator begins, for bw_dispatch. Nothing here is to be written.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct bw_mutator_head {
    /// The library's.
    pub tag: u32,
    /// The library's.
    pub reserved: u32,
    /// The code words, 64 bits each.
    pub code: *const u64,
    /// A bead's word is at `code[index & mask]`.
    pub mask: u32,
}

/// What is behind the handle.
#[repr(C)]
pub(crate) struct Thread {
    code: Cell<*const AtomicU64>,
    mask: Cell<u32>,
    /// Calls with this handle on the stack.
    inside: Cell<u32>,
    state: UnsafeCell<State>,
}

const _: () = {
    use crate::handle::Tagged;
    use std::mem::offset_of;
    assert!(offset_of!(bw_mutator_head, code) == Tagged::<Thread>::INNER + offset_of!(Thread, code));
    assert!(offset_of!(bw_mutator_head, mask) == Tagged::<Thread>::INNER + offset_of!(Thread, mask));
};

enum State {
    Online(Mutator),
    Offline(OfflineMutator),
    /// It is on its way from one to the other.
    Between,
}

/// What an offline mutator's dispatches read: cold or stale for every bead, so that they come to [`bw_mutator_dispatch`], which says no.
static NO_CODE: AtomicU64 = AtomicU64::new(0);

/// A call with the handle, until this is dropped.
struct Inside<'t>(&'t Cell<u32>);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Thread {
    fn new(mutator: Mutator) -> Thread {
        let thread = Thread {
            code: Cell::new(&NO_CODE),
            mask: Cell::new(0),
            inside: Cell::new(0),
            state: UnsafeCell::new(State::Between),
        };
        thread.set(State::Online(mutator));
        thread
    }

    /// Only where no reference to the state is out.
    fn set(&self, state: State) {
        let (code, mask) = match &state {
            State::Online(mutator) => (mutator.code_words().base, mutator.code_words().mask),
            State::Offline(_) | State::Between => (&raw const NO_CODE, 0),
        };
        self.code.set(code);
        self.mask.set(mask);
        // SAFETY: the handle is of one thread at a time, and by the caller no reference is out.
        unsafe { *self.state.get() = state };
    }

    #[inline(always)]
    fn enter(&self) -> Inside<'_> {
        self.inside.set(self.inside.get() + 1);
        Inside(&self.inside)
    }

    /// Runs a call with the mutator.
    #[inline(always)]
    fn with<R>(&self, call: impl FnOnce(&Mutator) -> Result<R>) -> Result<R> {
        let _inside = self.enter();
        // SAFETY: what is inside is only changed where nobody else is inside (`change`).
        match unsafe { &*self.state.get() } {
            State::Online(mutator) => call(mutator),
            State::Offline(_) => Err(offline()),
            State::Between => Err(busy()),
        }
    }

    fn is_offline(&self) -> bool {
        let _inside = self.enter();
        // SAFETY: as in `with`.
        matches!(unsafe { &*self.state.get() }, State::Offline(_))
    }

    /// Changes the state, where nobody is inside.
    fn change(&self, change: impl FnOnce(State) -> State) -> Result {
        if self.inside.get() > 0 {
            return Err(busy());
        }
        // What is called back while it changes finds it in use.
        let _inside = self.enter();
        // SAFETY: nobody else was inside, so no reference is out.
        let before = unsafe { std::mem::replace(&mut *self.state.get(), State::Between) };
        self.set(change(before));
        Ok(())
    }

    /// Passes a safepoint that names frames; or only polls, where code pointers may be held above.
    #[inline(always)]
    fn safepoint(&self, frames: Option<&[usize]>) -> Result {
        let innermost = self.inside.get() == 0;
        self.with(|mutator| {
            // SAFETY: it is there and borrowed; all of this crate goes by shared references, on the thread that uses it. What is
            // stated of its frames is what the caller states, and only where no call of this handle is on the stack.
            let mut here = unsafe { Reentered::from_raw(mutator.as_raw()) };
            match frames {
                Some(frames) if innermost => here.safepoint_with(frames),
                None if innermost && mutator.depth() == 0 => here.safepoint_with(&[]),
                _ => here.safepoint(),
            }
            Ok(())
        })
    }
}

#[cold]
fn offline() -> Error {
    Error::new(bw_status::Offline, "the mutator is offline; call bw_mutator_come_online first")
}

#[cold]
fn busy() -> Error {
    Error::new(bw_status::Busy, "the mutator is in use by a call further up on this thread's stack")
}

/// # Safety
/// The header's contract for `mutator`.
#[inline(always)]
unsafe fn with<R>(mutator: *const bw_mutator, call: impl FnOnce(&Mutator) -> Result<R>) -> Result<R> {
    // SAFETY: by the contract.
    unsafe { borrow(mutator) }?.with(call)
}

fn entry(code: Option<beadwork::Code<'_>>) -> *const c_void {
    code.map_or(std::ptr::null(), |code| code.as_ptr().cast())
}

/// Makes a mutator for a thread. `name` is what events call it where it holds back freeing; NULL is the thread's name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_new(
    engine: *const bw_engine,
    name: *const c_char,
    mutator: *mut *mut bw_mutator,
) -> bw_status {
    let make = || {
        // SAFETY: the header's contract.
        let engine = unsafe { borrow(engine) }?;
        // SAFETY: the header's contract.
        let made = match unsafe { text(name) } {
            Some(name) => engine.mutator_named(&name),
            None => engine.mutator(),
        };
        Ok(Thread::new(made))
    };
    // SAFETY: the header's contract.
    guard(|| unsafe { give(mutator, make) })
}

/// Ends a mutator; NULL is fine. BW_STATUS_BUSY, and nothing freed, inside of a callback that came from a call with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_free(mutator: *mut bw_mutator) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        if !mutator.is_null() && unsafe { borrow(mutator) }?.inside.get() > 0 {
            return Err(busy());
        }
        // SAFETY: the header's contract.
        unsafe { take(mutator) }.map(drop)
    })
}

/// The code to run, if there is any; counts the call where a policy wants to know. NULL means interpret: the function has no code, or was
/// removed, or `mutator` is not good. The pointer is good until this mutator's next safepoint.
///
/// C and C++ use bw_dispatch, which is this one and leaves out the call where there is code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_dispatch(mutator: *const bw_mutator, function: bw_bead) -> *const c_void {
    // A VM may well keep 0 for what it has not registered.
    let Some(bead) = Bead::from_bits(function) else { return std::ptr::null() };
    // SAFETY: the header's contract.
    guard_or(std::ptr::null(), || unsafe { with(mutator, |m| Ok(entry(m.dispatch(bead)))) })
}

/// The code, if there is any, without counting.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_code(mutator: *const bw_mutator, function: bw_bead) -> *const c_void {
    let Some(bead) = Bead::from_bits(function) else { return std::ptr::null() };
    // SAFETY: the header's contract.
    guard_or(std::ptr::null(), || unsafe { with(mutator, |m| Ok(entry(m.code(bead)))) })
}

/// Counts a call as a dispatch does, without answering code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_tick(mutator: *const bw_mutator, function: bw_bead) {
    let Some(bead) = Bead::from_bits(function) else { return };
    // SAFETY: the header's contract.
    guard_or((), || unsafe {
        with(mutator, |m| {
            m.tick(bead);
            Ok(())
        })
    });
}

/// A loop of the interpreted function goes round: counts the iteration, and answers the native entry into the loop if there is one, to
/// go on there; else NULL. `site` is the VM's own name for the loop; each is counted for itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_back_edge(
    mutator: *const bw_mutator,
    function: bw_bead,
    site: u64,
) -> *const c_void {
    let Some(bead) = Bead::from_bits(function) else { return std::ptr::null() };
    // SAFETY: the header's contract.
    guard_or(std::ptr::null(), || unsafe { with(mutator, |m| Ok(entry(m.back_edge(bead, site)))) })
}

/// The native entry into a loop, if there is one, without counting.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_osr_entry(
    mutator: *const bw_mutator,
    function: bw_bead,
    site: u64,
) -> *const c_void {
    let Some(bead) = Bead::from_bits(function) else { return std::ptr::null() };
    // SAFETY: the header's contract.
    guard_or(std::ptr::null(), || unsafe { with(mutator, |m| Ok(entry(m.osr_entry(bead, site)))) })
}

/// States that this thread holds no code pointer and is in no frame of native code that could be retired. Pass one often: freeing waits for it.
/// Costs a few loads while nothing was retired. It only polls inside of a native scope, and inside of a callback that came from a call with this
/// mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_safepoint(mutator: *const bw_mutator) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| unsafe { borrow(mutator) }?.safepoint(None))
}

/// A safepoint of a thread that has frames of native code below it: states that it holds no code pointer, and that every address to which it will
/// return in compiled code is among these. Works at any depth of native scopes. Superfluous addresses do no harm; code whose size was not
/// stated waits. It only polls inside of a callback that came from a call with this mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_safepoint_with(
    mutator: *const bw_mutator,
    return_addresses: *const usize,
    count: usize,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let frames = unsafe { array(return_addresses, count, "the array of return addresses") }?;
        // SAFETY: the header's contract.
        unsafe { borrow(mutator) }?.safepoint(Some(frames))
    })
}

/// Opens a native scope, around a call of native code that may call back: safepoints inside of it only poll. Answers the depth to
/// give to bw_mutator_unwind_to. Scopes nest.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_enter_native(mutator: *const bw_mutator) -> u32 {
    // SAFETY: the header's contract.
    guard_or(0, || unsafe { with(mutator, |m| Ok(m.enter_native())) })
}

/// How many native scopes are open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_depth(mutator: *const bw_mutator) -> u32 {
    // SAFETY: the header's contract.
    guard_or(0, || unsafe { with(mutator, |m| Ok(m.depth())) })
}

/// Closes the native scopes deeper than `depth`: the last one, with what bw_mutator_enter_native answered, or those of frames that a longjmp
/// or an exception has skipped, where it landed. If the mutator is offline it comes online.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_unwind_to(mutator: *const bw_mutator, depth: u32) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let thread = unsafe { borrow(mutator) }?;
        if thread.is_offline() {
            thread.change(online)?;
        }
        thread.with(|m| {
            m.unwind_to(depth);
            Ok(())
        })
    })
}

/// Goes offline: until bw_mutator_come_online this thread holds back no freeing, and can do nothing with the mutator. For waits and system
/// calls. The thread holds no code pointer; inside of a native scope this only polls. BW_STATUS_BUSY inside of a callback that came from a
/// call with this mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_go_offline(mutator: *const bw_mutator) -> bw_status {
    let leave = |state| match state {
        State::Online(mutator) => State::Offline(mutator.go_offline()),
        other => other,
    };
    // SAFETY: the header's contract.
    guard(|| unsafe { borrow(mutator) }?.change(leave))
}

/// Comes online. A callback from a wait does this first, and goes offline again when it is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_come_online(mutator: *const bw_mutator) -> bw_status {
    // SAFETY: the header's contract.
    guard(|| unsafe { borrow(mutator) }?.change(online))
}

fn online(state: State) -> State {
    match state {
        State::Offline(mutator) => State::Online(mutator.come_online()),
        other => other,
    }
}

/// A call of native code found the function's budget spent (see bw_job_budget_slot): asks the policies, and grants the next one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_native_call(mutator: *const bw_mutator, function: bw_bead) -> bw_status {
    guard(|| {
        let function = bead(function)?;
        // SAFETY: the header's contract.
        unsafe {
            with(mutator, |m| {
                m.native_call(function);
                Ok(())
            })
        }
    })
}

/// A loop of native code went round so many times more; to be called every now and then, after 1,024 iterations, say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_mutator_native_iterations(
    mutator: *const bw_mutator,
    function: bw_bead,
    site: u64,
    iterations: u32,
) -> bw_status {
    guard(|| {
        let function = bead(function)?;
        // SAFETY: the header's contract.
        unsafe {
            with(mutator, |m| {
                m.native_iterations(function, site, iterations);
                Ok(())
            })
        }
    })
}
