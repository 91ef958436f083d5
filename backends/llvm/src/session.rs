//! A context with what it has to say.

use inkwell::context::Context;
use inkwell::llvm_sys::LLVMDiagnosticSeverity;
use inkwell::llvm_sys::core::{
    LLVMContextSetDiagnosticHandler, LLVMDisposeMessage, LLVMGetDiagInfoDescription, LLVMGetDiagInfoSeverity,
};
use inkwell::llvm_sys::prelude::LLVMDiagnosticInfoRef;
use std::cell::RefCell;
use std::ffi::{CStr, c_void};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One LLVM context, for a bounded number of functions.
///
/// Ownership order, which the types hold: modules, builders and values borrow the context, so they go before it; the
/// fields are dropped in the order they stand in, so the context goes before the log it writes to. Compiled code is bytes in the arena
/// by then and refers to none of them.
pub(crate) struct Session {
    context: Context,
    log: Rc<Log>,
    /// Functions compiled in this context.
    pub(crate) compiled: usize,
}

/// What the code generator said: without a handler it would print, and end the process at the first error.
#[derive(Default)]
struct Log(RefCell<Vec<Remark>>);

pub(crate) struct Remark {
    pub(crate) is_error: bool,
    pub(crate) text: String,
}

impl Session {
    /// Counts itself in `made`.
    pub(crate) fn new(made: &AtomicU64) -> Session {
        // A sum for reports.
        made.fetch_add(1, Relaxed);
        Session { context: Context::create(), log: Rc::default(), compiled: 0 }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Has what LLVM says go to the log from now on. Reading bitcode takes the handler away, so this is called again after
    /// a frontend has run.
    pub(crate) fn listen(&self) {
        // SAFETY: the context is live. The log outlives it, as the type says, and is moved nowhere: it is in an `Rc`. `record` takes
        // exactly this pointer, and runs on this thread only, since a context is used by one thread.
        unsafe {
            let log = Rc::as_ptr(&self.log).cast_mut().cast();
            LLVMContextSetDiagnosticHandler(self.context.raw(), Some(record), log);
        }
    }

    /// Takes out what was said.
    pub(crate) fn take_remarks(&self) -> Vec<Remark> {
        self.log.0.take()
    }
}

/// Must not unwind, since LLVM calls it: everything here allocates at most.
extern "C" fn record(info: LLVMDiagnosticInfoRef, log: *mut c_void) {
    // SAFETY: LLVM passes a diagnostic that is live during the call, and the pointer given by `listen`. The description is a C
    // string of LLVM's allocator, freed by it after it was copied.
    let (severity, text, log) = unsafe {
        let description = LLVMGetDiagInfoDescription(info);
        let text = CStr::from_ptr(description).to_string_lossy().into_owned();
        LLVMDisposeMessage(description);
        (LLVMGetDiagInfoSeverity(info), text, &*log.cast::<Log>())
    };
    let is_error = matches!(severity, LLVMDiagnosticSeverity::LLVMDSError);
    if let Ok(mut remarks) = log.0.try_borrow_mut() {
        remarks.push(Remark { is_error, text });
    }
}
