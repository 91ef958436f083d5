//! What a host can do at calls, loops and safepoints: the interface between the interpreter and a tiering engine.

use crate::hir::FuncIndex;
use crate::native::Entry;

/// How a call goes on.
#[derive(Clone, Copy, Debug)]
pub enum Enter {
    /// In the interpreter.
    Interpret,
    /// In native code.
    Native(Entry),
    /// Not at all: the run ends with [`Trap::Stopped`](crate::Trap::Stopped).
    Stop,
}

/// How a loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// With its next iteration.
    Continue,
    /// In native code, from the loop's header to the end of the function: a loop entry, see [`native`](crate::native).
    Native(Entry),
    /// Not at all: the run ends with [`Trap::Stopped`](crate::Trap::Stopped).
    Stop,
}

/// The hooks of a [`Vm`](crate::Vm). The interpreter is compiled for each implementation, so hooks that do nothing cost nothing.
///
/// A hook must not panic while native code is on the stack: the panic would abort the process.
pub trait Calls {
    /// A call of `callee` begins. Called exactly once for each call the interpreter makes, for the call of `main`, and for each
    /// call that native code makes through [`entry_stub`](crate::entry_stub); never for a call that native code makes to native
    /// code. Not called if the call fails because recursion is too deep.
    fn enter(&mut self, callee: FuncIndex) -> Enter;

    /// The interpreter is about to begin the next iteration of loop `site` (an index into
    /// [`Function::loops`](crate::Function::loops)) of `function`.
    #[inline(always)]
    fn back_edge(&mut self, function: FuncIndex, site: u16) -> Edge {
        let _ = (function, site);
        Edge::Continue
    }

    /// A place where the interpreter holds no code pointer: before and after a run, after each native call the interpreter
    /// made has returned, and after each [`back_edge`](Self::back_edge) that goes on interpreting. `native_frames` counts the calls from the interpreter into
    /// native code that have not returned; at 0 no native frame of this VM is on the stack, so this thread can be in no
    /// compiled code at all.
    #[inline(always)]
    fn safepoint(&mut self, native_frames: u32) {
        let _ = native_frames;
    }

    /// A guard of `function`'s native code has failed, and it goes on in the interpreter at the instruction `pc`. `version` is what
    /// the code was compiled with. The code has been left; called before the interpreter goes on.
    #[cold]
    fn bailout(&mut self, function: FuncIndex, pc: u16, version: u64) {
        let _ = (function, pc, version);
    }

    /// Native code that counts its calls has used up its budget. `callee_bits` are those of the function.
    #[cold]
    fn native_call(&mut self, callee_bits: u64) {
        let _ = callee_bits;
    }

    /// Loops of native code that counts its iterations went round `iterations` times more; the last one was that of `site`.
    #[cold]
    fn native_iterations(&mut self, callee_bits: u64, site: u64, iterations: u32) {
        let _ = (callee_bits, site, iterations);
    }

    /// The function whose body `callee` has now; asked for each call that is interpreted. The default is for hosts that
    /// redefine nothing. It has to have the same signature.
    #[inline(always)]
    fn definition(&self, callee: FuncIndex) -> FuncIndex {
        callee
    }

    /// The function native code means by the `callee_bits` it passed to [`entry_stub`](crate::entry_stub). The default is for code
    /// that passes the [`FuncIndex`] itself.
    #[inline]
    fn resolve(&self, callee_bits: u64) -> Option<FuncIndex> {
        u16::try_from(callee_bits).ok().map(FuncIndex)
    }
}

/// Hooks that are looked at again after the run.
impl<C: Calls> Calls for &mut C {
    #[inline(always)]
    fn enter(&mut self, callee: FuncIndex) -> Enter {
        (**self).enter(callee)
    }
    #[inline(always)]
    fn back_edge(&mut self, function: FuncIndex, site: u16) -> Edge {
        (**self).back_edge(function, site)
    }
    #[inline(always)]
    fn safepoint(&mut self, native_frames: u32) {
        (**self).safepoint(native_frames);
    }
    fn bailout(&mut self, function: FuncIndex, pc: u16, version: u64) {
        (**self).bailout(function, pc, version);
    }
    fn native_call(&mut self, callee_bits: u64) {
        (**self).native_call(callee_bits);
    }
    fn native_iterations(&mut self, callee_bits: u64, site: u64, iterations: u32) {
        (**self).native_iterations(callee_bits, site, iterations);
    }
    fn definition(&self, callee: FuncIndex) -> FuncIndex {
        (**self).definition(callee)
    }
    fn resolve(&self, callee_bits: u64) -> Option<FuncIndex> {
        (**self).resolve(callee_bits)
    }
}

/// No engine: everything is interpreted.
#[derive(Clone, Copy, Debug, Default)]
pub struct InterpretAll;

impl Calls for InterpretAll {
    #[inline(always)]
    fn enter(&mut self, _callee: FuncIndex) -> Enter {
        Enter::Interpret
    }
}
