//! Status codes, the message of the last error, and where panics end.

use beadwork::{
    BuildError, CompileError, CompileNowError, CoreError, DrainTimeout, GcPauseError, InstallError,
    NoSuchTier, PromoteError, RegisterError, ShutdownError, Stale,
};
use std::any::Any;
use std::cell::UnsafeCell;
use std::ffi::c_char;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a call answers. Everything but BW_STATUS_OK comes with a message in bw_last_error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum bw_status {
    /// Done.
    Ok = 0,
    /// A pointer that is needed is NULL.
    Null = 1,
    /// A handle is of another kind, or was freed.
    Handle = 2,
    /// A number or a combination of options is out of range; the message names it.
    Argument = 3,
    /// The program was compiled with the header of another version of this library.
    Abi = 4,
    /// The function was removed, or is not one of this engine's: drop the bead.
    Stale = 5,
    /// The engine has no such compiled tier.
    NoSuchTier = 6,
    /// The function is blacklisted, or capped below that tier.
    Barred = 7,
    /// The tier's filter does not take the function.
    Filtered = 8,
    /// The function has been asked for already.
    Pending = 9,
    /// Promotion is switched off.
    Disabled = 10,
    /// The engine was shut down.
    Closed = 11,
    /// All beads, or all group numbers, are in use.
    Capacity = 12,
    /// The group has ended, or is not one of this engine's.
    NoSuchGroup = 13,
    /// The system refused address space for the columns.
    Reserve = 14,
    /// The compile failed, or the code cannot be installed (a null or too wide entry, say).
    CompileFailed = 15,
    /// The request was overtaken or cancelled; code that came with the call was freed.
    Superseded = 16,
    /// The time was over. For bw_engine_drain and bw_engine_shutdown everything goes on as before.
    Timeout = 17,
    /// The calling thread would wait for itself.
    Within = 18,
    /// An assumption the code relies on does not hold.
    AssumptionBroken = 19,
    /// The handle is in use by a call further up on this thread's stack.
    Busy = 20,
    /// The job was finished before.
    Finished = 21,
    /// The mutator is offline.
    Offline = 22,
    /// A defect of the library was contained. Please report it.
    Panicked = 23,
}

/// A status and its message.
pub(crate) struct Error {
    status: bw_status,
    message: String,
}

impl Error {
    pub(crate) fn new(status: bw_status, message: impl Display) -> Error {
        Error { status, message: message.to_string() }
    }

    pub(crate) fn argument(message: impl Display) -> Error {
        Error::new(bw_status::Argument, message)
    }

    pub(crate) fn null(what: &str) -> Error {
        Error::new(bw_status::Null, format_args!("{what} is NULL"))
    }
}

pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

/// Room for a message and its terminating NUL; longer ones are cut.
const MESSAGE_BYTES: usize = 1024;

thread_local! {
    // Not a string: the pointer given out stays good as long as the thread, and nothing has to be dropped with it.
    static MESSAGE: UnsafeCell<[u8; MESSAGE_BYTES]> = const { UnsafeCell::new([0; MESSAGE_BYTES]) };
}

#[cold]
fn note(error: &Error) -> bw_status {
    let bytes = error.message.as_bytes();
    let mut len = bytes.len().min(MESSAGE_BYTES - 1);
    while !error.message.is_char_boundary(len) {
        len -= 1;
    }
    // SAFETY: only this thread reaches its message, no reference to it outlives this closure or `bw_last_error`, and
    // copying runs no foreign code.
    let _ = MESSAGE.try_with(|message| unsafe {
        let message = &mut *message.get();
        for (to, &from) in message.iter_mut().zip(&bytes[..len]) {
            // A C string ends at the first NUL.
            *to = if from == 0 { b'?' } else { from };
        }
        message[len] = 0;
    });
    error.status
}

/// The message of the last call on this thread that did not answer BW_STATUS_OK; empty if there was none. Never NULL.
///
/// The pointer stays good as long as the thread; what it points at is overwritten by the next error of this thread, one inside a
/// callback included. Messages come from the Rust library and name its calls: Engine::promote is bw_engine_promote, and so on.
#[unsafe(no_mangle)]
pub extern "C" fn bw_last_error() -> *const c_char {
    MESSAGE.try_with(|message| message.get().cast_const().cast()).unwrap_or(c"".as_ptr())
}

/// Runs a call: errors are noted, panics end here.
#[inline(always)]
pub(crate) fn guard(call: impl FnOnce() -> Result) -> bw_status {
    match guard_value(call) {
        Ok(()) => bw_status::Ok,
        Err(error) => note(&error),
    }
}

/// Runs a call that answers a value, or `otherwise` with the error noted.
#[inline(always)]
pub(crate) fn guard_or<T>(otherwise: T, call: impl FnOnce() -> Result<T>) -> T {
    guard_value(call).unwrap_or_else(|error| {
        note(&error);
        otherwise
    })
}

// Inlined, since it is on the hot path of the calls that C does not inline; what follows an error is not.
#[inline(always)]
fn guard_value<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    // Nothing of ours is looked at after a panic but cells of plain values.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => answer,
        Err(panic) => Err(panicked(panic)),
    }
}

#[cold]
fn panicked(panic: Box<dyn Any + Send>) -> Error {
    let message = match panic.downcast_ref::<&str>() {
        Some(message) => (*message).to_string(),
        None => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
    };
    // Its drop may panic, too.
    std::mem::forget(panic);
    Error::new(bw_status::Panicked, format_args!("a defect of beadwork: {message}"))
}

impl From<Stale> for Error {
    fn from(error: Stale) -> Error {
        Error::new(bw_status::Stale, error)
    }
}

impl From<NoSuchTier> for Error {
    fn from(error: NoSuchTier) -> Error {
        Error::new(bw_status::NoSuchTier, error)
    }
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Error {
        let status = match error {
            BuildError::Reserve { .. } => bw_status::Reserve,
            _ => bw_status::Argument,
        };
        Error::new(status, error)
    }
}

impl From<RegisterError> for Error {
    fn from(error: RegisterError) -> Error {
        let status = match error {
            RegisterError::NoSuchGroup(_) => bw_status::NoSuchGroup,
            _ => bw_status::Capacity,
        };
        Error::new(status, error)
    }
}

impl From<PromoteError> for Error {
    fn from(error: PromoteError) -> Error {
        let status = match error {
            PromoteError::Stale(_) => bw_status::Stale,
            PromoteError::NoSuchTier { .. } => bw_status::NoSuchTier,
            PromoteError::Barred { .. } => bw_status::Barred,
            PromoteError::Filtered { .. } => bw_status::Filtered,
            PromoteError::Pending { .. } => bw_status::Pending,
            PromoteError::Disabled => bw_status::Disabled,
            PromoteError::Closed => bw_status::Closed,
            _ => bw_status::Argument,
        };
        Error::new(status, error)
    }
}

impl From<CompileError> for Error {
    fn from(error: CompileError) -> Error {
        let status = match error {
            CompileError::Stale(_) => bw_status::Stale,
            CompileError::AssumptionBroken(_) => bw_status::AssumptionBroken,
            _ => bw_status::CompileFailed,
        };
        Error::new(status, error)
    }
}

impl From<CompileNowError> for Error {
    fn from(error: CompileNowError) -> Error {
        match error {
            CompileNowError::Refused(reason) => reason.into(),
            CompileNowError::Compile(reason) => reason.into(),
            CompileNowError::Within(_) => Error::new(bw_status::Within, error),
            CompileNowError::Superseded(_) => Error::new(bw_status::Superseded, error),
            CompileNowError::Timeout { .. } => Error::new(bw_status::Timeout, error),
            _ => Error::argument(error),
        }
    }
}

impl From<InstallError> for Error {
    fn from(error: InstallError) -> Error {
        match error {
            InstallError::Stale(stale) => stale.into(),
            InstallError::NoSuchTier { .. } => Error::new(bw_status::NoSuchTier, error),
            InstallError::Code(reason) => reason.into(),
            InstallError::AssumptionBroken(_) => Error::new(bw_status::AssumptionBroken, error),
            InstallError::VersionsUsedUp(_) => Error::new(bw_status::Capacity, error),
            _ => Error::argument(error),
        }
    }
}

impl From<CoreError> for Error {
    fn from(error: CoreError) -> Error {
        match error {
            CoreError::Stale(stale) => stale.into(),
            _ => Error::new(bw_status::Within, error),
        }
    }
}

impl From<GcPauseError> for Error {
    fn from(error: GcPauseError) -> Error {
        let status = match error {
            GcPauseError::Timeout { .. } => bw_status::Timeout,
            _ => bw_status::Within,
        };
        Error::new(status, error)
    }
}

impl From<DrainTimeout> for Error {
    fn from(error: DrainTimeout) -> Error {
        Error::new(bw_status::Timeout, error)
    }
}

impl From<ShutdownError> for Error {
    fn from(error: ShutdownError) -> Error {
        Error::new(bw_status::Timeout, error)
    }
}
