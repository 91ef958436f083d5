//! The virtual machine: registers, arrays and hooks of runs, and the way in from the host and from native code.
#![allow(unsafe_code, reason = "runs native code and is entered by it, as `native` says")]

use std::fmt;
use std::io::Write;
use std::ptr::from_mut;

use crate::calls::{Calls, Enter, InterpretAll};
use crate::error::{RuntimeError, Trap};
use crate::function::Function;
use crate::heap::Heap;
use crate::hir::FuncIndex;
use crate::lower::MAX_REGISTERS;
use crate::native::{
    Context, DEOPT, Deopt, Entry, NativeResult, OK, REGISTER_ARGS, STACK_BYTES, call_native,
};
use crate::program::Program;
use crate::types::Type;

/// What a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls inside each other, counting `main`; the same in every tier.
    pub frames: u64,
    /// Bytes of all arrays of a run together.
    pub array_bytes: u64,
}

impl Default for Limits {
    /// 10,000 frames and 256 MiB of arrays.
    fn default() -> Self {
        Self { frames: 10_000, array_bytes: 256 << 20 }
    }
}

/// What `main` returned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// An `int`.
    Int(i64),
    /// A `float`.
    Float(f64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(v) => write!(f, "{v}"),
            Value::Float(v) => write!(f, "{v:?}"),
        }
    }
}

/// The run has ended with the error in `Context::trap`.
#[derive(Debug)]
pub(crate) struct Trapped;

/// How native code was left.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exit {
    /// With the function's result.
    Value(u64),
    /// In the middle, to be [taken over](Vm::take_over) at once.
    Deopt,
}

/// A suspended interpreted call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'p> {
    pub(crate) function: &'p Function,
    pub(crate) pc: u32,
    pub(crate) base: u32,
}

/// A virtual machine for one program and one thread at a time; it can run the program any number of times.
///
/// `repr(C)` with the context first: native code is given the address of the context, and the entry stub gets the VM back
/// from it.
#[repr(C)]
pub struct Vm<'p, C = InterpretAll> {
    pub(crate) context: Context<'p>,
    /// The registers of all frames: each function has a window of 256, of which its callees' windows overlap the unused end.
    pub(crate) stack: Vec<u64>,
    /// Suspended interpreted calls, of all activations of the interpreter.
    pub(crate) frames: Vec<Frame<'p>>,
    /// Where an activation of the interpreter that native code causes may place its first window.
    pub(crate) top: usize,
    /// Native calls that have not returned.
    pub(crate) native_frames: u32,
    pub(crate) calls: C,
}

impl<'p, C: Calls> Vm<'p, C> {
    /// A VM with the hooks `calls`. Output of `print` is dropped until [`set_output`](Self::set_output).
    ///
    /// # Errors
    /// [`RuntimeError::Registers`] if the address space for `limits.frames` windows of 2 KiB cannot be had. Memory is touched
    /// only as far as a run recurses.
    pub fn new(program: &'p Program, limits: Limits, calls: C) -> Result<Self, RuntimeError> {
        let words = usize::try_from(limits.frames)
            .ok()
            .and_then(|frames| frames.checked_add(1)?.checked_mul(MAX_REGISTERS))
            .filter(|words| *words <= u32::MAX as usize);
        let refused = RuntimeError::Registers { bytes: words.map_or(usize::MAX, |w| w.saturating_mul(8)) };
        let Some(words) = words else { return Err(refused) };
        let mut probe: Vec<u64> = Vec::new();
        if probe.try_reserve_exact(words).is_err() {
            return Err(refused);
        }
        drop(probe);
        let context = Context {
            args: [0; 5],
            deopt: Deopt { function: 0, pc: 0, version: 0, registers: [0; MAX_REGISTERS] },
            program,
            heap: Heap::new(limits.array_bytes),
            output: Box::new(std::io::sink()),
            frames_limit: limits.frames,
            trap: None,
            enter_interpreter: enter_interpreter::<C>,
            resume: resume::<C>,
            count_call: count_call::<C>,
            count_iterations: count_iterations::<C>,
        };
        // `vec!` of zeroes asks for zeroed pages and touches none, which `resize` would.
        Ok(Self { context, stack: vec![0; words], frames: Vec::new(), top: 0, native_frames: 0, calls })
    }

    /// Where `print` writes. A writer that panics while native code is on the stack aborts the process.
    pub fn set_output(&mut self, output: impl Write + Send + 'p) {
        self.context.output = Box::new(output);
    }

    /// The hooks.
    pub fn calls(&mut self) -> &mut C {
        &mut self.calls
    }

    /// Runs `main` and frees all arrays it made. If the hooks answer native code, this must be called on a thread with enough
    /// stack, see [`on_vm_stack`].
    ///
    /// # Errors
    /// [`RuntimeError::Arguments`] if `args` are not as many as `main` takes; [`RuntimeError::Trap`] if the program fails.
    pub fn run(&mut self, args: &[i64]) -> Result<Value, RuntimeError> {
        let main = self.context.program.main();
        let expected = main.signature.params.len();
        if args.len() != expected {
            return Err(RuntimeError::Arguments { expected, given: args.len() });
        }
        for (register, arg) in self.stack.iter_mut().zip(args) {
            *register = arg.cast_unsigned();
        }
        self.context.trap = None;
        self.calls.safepoint(0);
        let result = self.call(main.index, 0, self.context.frames_limit);
        self.context.heap.clear();
        self.calls.safepoint(0);
        match result {
            Ok(word) if main.signature.result == Type::FLOAT => Ok(Value::Float(f64::from_bits(word))),
            Ok(word) => Ok(Value::Int(word.cast_signed())),
            Err(Trapped) => {
                let (line, trap) = self.context.trap.take().unwrap_or((0, Trap::Stopped));
                Err(RuntimeError::Trap { file: self.context.program.file().clone(), line, trap })
            }
        }
    }

    /// Calls a function whose arguments are in the stack from `base` on.
    fn call(&mut self, callee: FuncIndex, base: usize, depth: u64) -> Result<u64, Trapped> {
        let Some(function) = self.context.program.function(callee) else {
            return self.fail(0, Trap::InvalidNative { what: "function", value: callee.0.into() });
        };
        if depth == 0 || base + MAX_REGISTERS > self.stack.len() {
            self.context.fail_too_deep(callee);
            return Err(Trapped);
        }
        match self.calls.enter(callee) {
            Enter::Interpret => {
                let function = self.definition(callee, function);
                let suspended = self.frames.len();
                let result = self.interpret(function, 0, base, depth - 1);
                self.frames.truncate(suspended);
                result
            }
            Enter::Native(entry) => match self.call_native(entry, function, base, depth)? {
                Exit::Value(word) => Ok(word),
                Exit::Deopt => self.resume(base, depth),
            },
            Enter::Stop => self.fail(function.signature.line, Trap::Stopped),
        }
    }

    /// The function that has the body of `callee` now, which is `function` by itself.
    #[inline(always)]
    pub(crate) fn definition(&self, callee: FuncIndex, function: &'p Function) -> &'p Function {
        match self.calls.definition(callee) {
            own if own == callee => function,
            body => self.context.program.function(body).unwrap_or(function),
        }
    }

    /// Calls native code of `function`, whose arguments are in the stack from `base` on.
    pub(crate) fn call_native(
        &mut self,
        entry: Entry,
        function: &Function,
        base: usize,
        depth: u64,
    ) -> Result<Exit, Trapped> {
        let mut args = [0; REGISTER_ARGS];
        let given = self.stack.get(base..base + function.signature.params.len()).unwrap_or(&[]);
        for (i, word) in given.iter().enumerate() {
            match args.get_mut(i) {
                Some(arg) => *arg = *word,
                None => self.context.args[i - REGISTER_ARGS] = *word,
            }
        }
        self.run_native(entry, base, depth, args)
    }

    /// Goes on natively with a function in the middle of a loop, whose registers are in the stack from `base` on and which has
    /// `depth` frames left for what it calls. Answers the function's result.
    pub(crate) fn enter_loop(&mut self, entry: Entry, base: usize, depth: u64) -> Result<Exit, Trapped> {
        let registers = self.stack[base..].as_mut_ptr().expose_provenance() as u64;
        self.run_native(entry, base, depth, [registers, 0, 0])
    }

    /// The registers from `base` on are the native code's until it has read its arguments, then its callees'.
    fn run_native(
        &mut self,
        entry: Entry,
        base: usize,
        depth: u64,
        args: [u64; REGISTER_ARGS],
    ) -> Result<Exit, Trapped> {
        let outer_top = std::mem::replace(&mut self.top, base);
        self.native_frames += 1;
        // SAFETY: `Entry::new` vouches for the code; the arguments have the types of the function's parameters because the checker
        // typed the call, or are the function's registers, whole and typed alike; the pointer is derived from the whole VM, which
        // this function does not touch during the call.
        let result = unsafe { call_native(entry, from_mut(self).cast(), depth, args) };
        self.native_frames -= 1;
        self.top = outer_top;
        self.calls.safepoint(self.native_frames);
        match result.status {
            OK => Ok(Exit::Value(result.value)),
            DEOPT => Ok(Exit::Deopt),
            _ => Err(Trapped),
        }
    }

    /// Takes over from native code that has just returned [`DEOPT`]: brings the registers into the window at `base`, tells the
    /// host, and answers where the interpreter goes on.
    #[cold]
    pub(crate) fn take_over(&mut self, base: usize) -> Result<(&'p Function, usize), Trapped> {
        let deopt = &self.context.deopt;
        let index = u16::try_from(deopt.function).map(FuncIndex);
        let Some(function) = index.ok().and_then(|index| self.context.program.function(index)) else {
            let value = deopt.function;
            return self.fail(0, Trap::InvalidNative { what: "deopt", value });
        };
        let used = usize::from(function.registers);
        let window = self.stack.get_mut(base..base + used);
        let (Some(window), Ok(pc)) = (window, u16::try_from(deopt.pc)) else {
            let value = deopt.pc;
            return self.fail(function.signature.line, Trap::InvalidNative { what: "deopt pc", value });
        };
        window.copy_from_slice(&deopt.registers[..used]);
        let version = deopt.version;
        self.calls.bailout(function.index, pc, version);
        Ok((function, pc.into()))
    }

    /// Runs the rest of a function that was called with `depth` and has returned [`DEOPT`], in the window at `base`.
    fn resume(&mut self, base: usize, depth: u64) -> Result<u64, Trapped> {
        if base + MAX_REGISTERS > self.stack.len() {
            return self.fail(0, Trap::InvalidNative { what: "deopt depth", value: depth });
        }
        let (function, pc) = self.take_over(base)?;
        let suspended = self.frames.len();
        let result = self.interpret(function, pc, base, depth.saturating_sub(1));
        self.frames.truncate(suspended);
        result
    }

    #[cold]
    pub(crate) fn fail<T>(&mut self, line: u32, trap: Trap) -> Result<T, Trapped> {
        self.context.fail(line, trap);
        Err(Trapped)
    }
}

impl<C: fmt::Debug> fmt::Debug for Vm<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm")
            .field("calls", &self.calls)
            .field("frames", &self.frames.len())
            .finish_non_exhaustive()
    }
}

/// What [`entry_stub`](crate::native::entry_stub) does: native code calls a function that has none.
///
/// # Safety
/// Called by native code as `native` says, with the context of a `Vm<C>`.
unsafe extern "C" fn enter_interpreter<C: Calls>(
    callee_bits: u64,
    ctx: *mut Context<'_>,
    depth: u64,
    a0: u64,
    a1: u64,
    a2: u64,
) -> NativeResult {
    // SAFETY: `ctx` is the first field of a `Vm<C>` and was derived from a pointer to all of it in `call_native`, which leaves the
    // VM alone until the native code returns.
    let vm = unsafe { &mut *ctx.cast::<Vm<'_, C>>() };
    let Some(callee) = vm.calls.resolve(callee_bits) else {
        return vm.context.fail(0, Trap::InvalidNative { what: "callee", value: callee_bits });
    };
    let base = vm.top;
    let args = [a0, a1, a2].into_iter().chain(vm.context.args);
    for (register, arg) in vm.stack.iter_mut().skip(base).zip(args) {
        *register = arg;
    }
    match vm.call(callee, base, depth) {
        Ok(value) => NativeResult::ok(value),
        Err(Trapped) => NativeResult::FAILED,
    }
}

/// What [`Helper::Resume`](crate::runtime::Helper::Resume) does.
///
/// # Safety
/// As for [`enter_interpreter`], right after a call has returned [`DEOPT`].
unsafe extern "C" fn resume<C: Calls>(ctx: *mut Context<'_>, depth: u64) -> NativeResult {
    // SAFETY: as in `enter_interpreter`.
    let vm = unsafe { &mut *ctx.cast::<Vm<'_, C>>() };
    match vm.resume(vm.top, depth) {
        Ok(value) => NativeResult::ok(value),
        Err(Trapped) => NativeResult::FAILED,
    }
}

/// The way to [`Calls::native_call`].
///
/// # Safety
/// As for [`enter_interpreter`].
unsafe extern "C" fn count_call<C: Calls>(ctx: *mut Context<'_>, callee_bits: u64) {
    // SAFETY: as in `enter_interpreter`.
    let vm = unsafe { &mut *ctx.cast::<Vm<'_, C>>() };
    vm.calls.native_call(callee_bits);
}

/// The way to [`Calls::native_iterations`].
///
/// # Safety
/// As for [`enter_interpreter`].
unsafe extern "C" fn count_iterations<C: Calls>(
    ctx: *mut Context<'_>,
    callee_bits: u64,
    site: u64,
    iterations: u32,
) {
    // SAFETY: as in `enter_interpreter`.
    let vm = unsafe { &mut *ctx.cast::<Vm<'_, C>>() };
    vm.calls.native_iterations(callee_bits, site, iterations);
}

/// Runs `f` on a thread whose stack is large enough for a VM that runs native code, and waits for it. Costs a thread start and
/// [`STACK_BYTES`] of address space; memory is used only as far as the program recurses.
///
/// # Errors
/// The system's error if the thread cannot be started, or an error that carries the message if `f` panicked.
pub fn on_vm_stack<R: Send>(f: impl FnOnce() -> R + Send) -> std::io::Result<R> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("strand".to_owned()).stack_size(STACK_BYTES);
        let handle = thread.spawn_scoped(scope, f)?;
        handle.join().map_err(|_| std::io::Error::other("the thread of the VM panicked"))
    })
}
