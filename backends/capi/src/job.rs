//! The compiler's side: jobs, and the callbacks that finish them.

use crate::code::{self, bw_code};
use crate::handle::{self, Tagged, answer, assumption, bead, bw_bead, handle, text};
use crate::status::{Error, Result, bw_status, guard, guard_or};
use crate::user::UserData;
use beadwork::{Backend, CompileError, Job, Outcome, Reason};
use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

/// A function to compile. Good only inside the callback that got it, for one thread at a time.
#[derive(Debug)]
pub struct bw_job {
    _private: [u8; 0],
}

/// The lifetime is that of the callback; nobody looks after it.
pub(crate) struct Lent(RefCell<NonNull<Job<'static>>>);

handle!(bw_job, Lent, b"job ", "a bw_job");

/// Compiles one function: finish the job by bw_job_finish or bw_job_fail before this returns, or it counts as failed. Called on worker
/// threads, for several functions at once.
pub type bw_compile_fn = Option<unsafe extern "C-unwind" fn(data: *mut c_void, job: *mut bw_job)>;

/// Compiles a batch of functions, all for one tier: finish each job as soon as its code can be run.
pub type bw_compile_batch_fn =
    Option<unsafe extern "C-unwind" fn(data: *mut c_void, jobs: *const *mut bw_job, count: usize)>;

/// Why a compile was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum bw_reason {
    /// A reason this version of the header does not know.
    Other = 0,
    /// A policy said so when a budget ran out.
    Hot = 1,
    /// A function that calls it was promoted.
    Speculative = 2,
    /// bw_engine_promote.
    Asked = 3,
    /// bw_engine_compile_now: somebody waits for it.
    Now = 4,
    /// A loop of it goes round and round: a native entry into the running loop is wanted.
    Osr = 5,
    /// The code it had failed.
    Deopt = 6,
    /// Its source changed.
    Reload = 7,
    /// It was asked for while a lower tier was being compiled, or its compile was interrupted by a fork.
    Resumed = 8,
}

impl From<Reason> for bw_reason {
    fn from(reason: Reason) -> bw_reason {
        match reason {
            Reason::Hot => bw_reason::Hot,
            Reason::Speculative => bw_reason::Speculative,
            Reason::Asked => bw_reason::Asked,
            Reason::Now => bw_reason::Now,
            Reason::Osr => bw_reason::Osr,
            Reason::Deopt => bw_reason::Deopt,
            Reason::Reload => bw_reason::Reload,
            Reason::Resumed => bw_reason::Resumed,
            _ => bw_reason::Other,
        }
    }
}

/// Has C compile one job.
///
/// # Safety
/// `compile` is good for being called with `data` and a job.
pub(crate) unsafe fn compile_one(
    compile: unsafe extern "C-unwind" fn(*mut c_void, *mut bw_job),
    data: *mut c_void,
    job: &mut Job<'_>,
) {
    let lent = Tagged::new::<bw_job>(Lent::new(job));
    // SAFETY: by the contract; `lent` outlives the call, and C does not use it later.
    unsafe { compile(data, (&raw const lent).cast_mut().cast()) }
}

/// A backend in C.
pub(crate) struct CBackend {
    pub(crate) name: String,
    pub(crate) compile: bw_compile_fn,
    pub(crate) compile_batch: bw_compile_batch_fn,
    pub(crate) data: Arc<UserData>,
}

impl Backend for CBackend {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        if let Some(compile) = self.compile {
            for job in jobs {
                // SAFETY: the VM gave both together.
                unsafe { compile_one(compile, self.data.get(), job) }
            }
        } else if let Some(compile) = self.compile_batch {
            let lent: Vec<_> = jobs.iter_mut().map(|job| Tagged::new::<bw_job>(Lent::new(job))).collect();
            let handles: Vec<*mut bw_job> =
                lent.iter().map(|job| std::ptr::from_ref(job).cast_mut().cast()).collect();
            // SAFETY: the VM gave both together; the jobs outlive the call, and C does not use them later.
            unsafe { compile(self.data.get(), handles.as_ptr(), handles.len()) }
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Lent {
    fn new(job: &mut Job<'_>) -> Lent {
        Lent(RefCell::new(NonNull::from(job).cast()))
    }

    /// Runs a call with the job, unless a call further up has it.
    fn with<R>(&self, call: impl FnOnce(&mut Job<'static>) -> Result<R>) -> Result<R> {
        let mut job = self.0.try_borrow_mut().map_err(|_| {
            Error::new(bw_status::Busy, "the job is in use by a call further up on this thread's stack")
        })?;
        // SAFETY: the job lives as long as the callback that `self` is for, and the cell lets in one at a time.
        call(unsafe { job.as_mut() })
    }
}

/// # Safety
/// The header's contract for `job`.
pub(crate) unsafe fn with<R>(
    job: *const bw_job,
    call: impl FnOnce(&mut Job<'static>) -> Result<R>,
) -> Result<R> {
    // SAFETY: by the contract.
    unsafe { handle::borrow(job) }?.with(call)
}

/// The function; 0 if `job` is not a job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_bead(job: *const bw_job) -> bw_bead {
    // SAFETY: the header's contract.
    guard_or(0, || unsafe { with(job, |job| Ok(job.bead().to_bits())) })
}

/// The tier to compile for, 1 to 15; 0 if `job` is not a job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_tier(job: *const bw_job) -> u32 {
    // SAFETY: the header's contract.
    guard_or(0, || unsafe { with(job, |job| Ok(job.tier().get().into())) })
}

/// Why it is compiled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_reason(job: *const bw_job) -> bw_reason {
    // SAFETY: the header's contract.
    guard_or(bw_reason::Other, || unsafe { with(job, |job| Ok(job.reason().into())) })
}

/// Calls counted when it was asked for; 0 where nobody counted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_calls(job: *const bw_job) -> u32 {
    // SAFETY: the header's contract.
    guard_or(0, || unsafe { with(job, |job| Ok(job.calls())) })
}

/// The version the code will have when it is installed: what bw_engine_bailout is told, so that guards can hold it as a constant.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_version(job: *const bw_job) -> u32 {
    // SAFETY: the header's contract.
    guard_or(0, || unsafe { with(job, |job| Ok(job.version())) })
}

/// Whether the result would still be installed; a long compile can look now and then and give up early.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_is_current(job: *const bw_job) -> bool {
    // SAFETY: the header's contract.
    guard_or(false, || unsafe { with(job, |job| Ok(job.is_current())) })
}

/// The VM's handle for the function, as it is now. BW_STATUS_STALE if the function was removed meanwhile. Where a collector moves what cores
/// point at, use bw_job_with_core.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_core(job: *const bw_job, core: *mut usize) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let now = unsafe { with(job, |job| Ok(job.core()?.get())) }?;
        // SAFETY: the header's contract.
        unsafe { answer(core, now) };
        Ok(())
    })
}

/// Looks at a core.
pub type bw_look_fn = Option<unsafe extern "C-unwind" fn(data: *mut c_void, core: usize)>;

/// Calls `look` with the VM's handle for the function, while no bw_gc_pause is held: what the core points at does not move
/// meanwhile. Copy out what the compile needs, and never wait for the collector in there. Other calls with this job answer
/// BW_STATUS_BUSY in there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_with_core(
    job: *const bw_job,
    look: bw_look_fn,
    data: *mut c_void,
) -> bw_status {
    guard(|| {
        let look = look.ok_or_else(|| Error::null("the function that looks"))?;
        // SAFETY: the header's contract, and the caller gave both together.
        unsafe { with(job, |job| Ok(job.with_core(|core| look(data, core.get()))?)) }
    })
}

/// The loops for which native entries were asked for, most iterations first: writes up to `room` of them to `sites`, and answers how many
/// there are. At least one where the reason is BW_REASON_OSR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_osr_sites(job: *const bw_job, sites: *mut u64, room: usize) -> usize {
    guard_or(0, || {
        // SAFETY: the header's contract.
        let wanted = unsafe { with(job, |job| Ok(job.osr_sites())) }?;
        // SAFETY: the header's contract.
        unsafe { handle::copy_out(&wanted, sites, room) };
        Ok(wanted.len())
    })
}

/// Has the result rely on an assumption, and tells whether it holds; only then may the code rely on it. It is taken back when the
/// assumption is broken, and the compile is discarded if that happens before it ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_assume(job: *const bw_job, assumed: u64, holds: *mut bool) -> bw_status {
    guard(|| {
        let assumed = assumption(assumed)?;
        // SAFETY: the header's contract.
        let now = unsafe { with(job, |job| Ok(job.assume(assumed))) }?;
        // SAFETY: the header's contract.
        unsafe { answer(holds, now) };
        Ok(())
    })
}

/// The stable address of `callee`'s code pointer, for code that loads it and calls: see bw_engine_slot. The callee's index is not reused
/// while the code of this job exists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_slot(
    job: *const bw_job,
    callee: bw_bead,
    slot: *mut *const *const c_void,
) -> bw_status {
    guard(|| {
        let callee = bead(callee)?;
        // SAFETY: the header's contract.
        let address = unsafe { with(job, |job| Ok(job.slot(callee)?)) }?.addr();
        // SAFETY: the header's contract.
        unsafe { answer(slot, std::ptr::with_exposed_provenance(address)) };
        Ok(())
    })
}

/// Whether the code is to count its calls itself: bw_tier.counts_itself, and not the highest tier.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_counts(job: *const bw_job) -> bool {
    // SAFETY: the header's contract.
    guard_or(false, || unsafe { with(job, |job| Ok(job.counts())) })
}

/// The stable address of a function's budget. At the function's entry native code subtracts 1 from these 32 bits and stores that, without
/// atomic instructions; if it is 0 or less (signed), it has bw_mutator_native_call called. The function's index is not
/// reused while the code of this job exists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_budget_slot(
    job: *const bw_job,
    function: bw_bead,
    slot: *mut *mut i32,
) -> bw_status {
    guard(|| {
        let function = bead(function)?;
        // SAFETY: the header's contract.
        let address = unsafe { with(job, |job| Ok(job.budget_slot(function)?)) }?.addr();
        // SAFETY: the header's contract.
        unsafe { answer(slot, std::ptr::with_exposed_provenance_mut(address)) };
        Ok(())
    })
}

/// Hands over the result: dispatches find the code when this returns. BW_STATUS_OK: installed, with the version that is written.
/// BW_STATUS_SUPERSEDED: it came too late, and was freed. BW_STATUS_COMPILE_FAILED: it cannot be installed, and was freed; the function
/// is asked for again after a pause that doubles. BW_STATUS_FINISHED: there was a result before, and this one was freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_finish(
    job: *const bw_job,
    code: *const bw_code,
    version: *mut u32,
) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract. First, so that the owner is taken over in any case.
        let code = unsafe { code::read(code) };
        // SAFETY: the header's contract.
        let outcome = unsafe {
            with(job, |job| {
                let code = code?;
                Ok(job.finish(Ok(code)))
            })
        }?;
        match outcome {
            Outcome::Installed { version: now } => {
                // SAFETY: the header's contract.
                unsafe { answer(version, now) };
                Ok(())
            }
            Outcome::Discarded => {
                Err(Error::new(bw_status::Superseded, "the code came too late and was freed"))
            }
            Outcome::AlreadyFinished => Err(finished()),
            _ => Err(Error::new(
                bw_status::CompileFailed,
                "the code cannot be installed and was freed; the event BW_EVENT_KIND_FAILED says why",
            )),
        }
    })
}

/// States that there is no code, and why; the function stays where it is and is asked for again after a pause that doubles.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_fail(job: *const bw_job, message: *const c_char) -> bw_status {
    guard(|| {
        // SAFETY: the header's contract.
        let message = unsafe { text(message) }.unwrap_or_else(|| "no reason given".into());
        let error = CompileError::failed(message);
        // SAFETY: the header's contract.
        match unsafe { with(job, |job| Ok(job.finish(Err(error)))) }? {
            Outcome::AlreadyFinished => Err(finished()),
            _ => Ok(()),
        }
    })
}

/// Gives up because bw_job_assume said that this does not hold. That is no failure: the function counts from zero again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bw_job_give_up(job: *const bw_job, broken: u64) -> bw_status {
    guard(|| {
        let error = CompileError::AssumptionBroken(assumption(broken)?);
        // SAFETY: the header's contract.
        match unsafe { with(job, |job| Ok(job.finish(Err(error)))) }? {
            Outcome::AlreadyFinished => Err(finished()),
            _ => Ok(()),
        }
    })
}

fn finished() -> Error {
    Error::new(bw_status::Finished, "the job was finished before")
}
