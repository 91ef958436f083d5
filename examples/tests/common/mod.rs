//! Native code for whole programs with a plain `JITModule`: what the tests compare the interpreter with.
#![allow(unsafe_code, dead_code, unreachable_pub, reason = "shared by several test binaries")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value as ClifValue};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};
use strand::jit::{self, CallEmitter, Results, Speculation};
use strand::runtime::Helper;
use strand::{
    Calls, Edge, Enter, Entry, FuncIndex, Function, InterpretAll, Limits, Program, RuntimeError, Value, Vm,
};

/// How native code calls functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linking {
    /// Directly.
    Direct,
    /// Through a slot in memory that holds the code, or the entry stub for functions that stay interpreted.
    Slots,
}

/// Compiled code of the functions `choose` picked.
pub struct Native {
    slots: Box<[*const u8]>,
    native: Vec<bool>,
    /// The loop entries of each function, also of those that are not native.
    loops: Vec<Vec<*const u8>>,
    /// Of all functions, in bytes.
    pub largest_frame: usize,
    module: Option<JITModule>,
}

// SAFETY: nothing is changed after `compile` has returned; threads only read the addresses and run the code.
unsafe impl Sync for Native {}

impl Drop for Native {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: a `Tier` borrows this while its VM runs, so no code of the module is running.
            unsafe { module.free_memory() };
        }
    }
}

/// What speculating code says its version is.
const VERSION: u64 = 0xfeed_0000_0001;

struct Emitter<'m, 'f> {
    b: FunctionBuilder<'f>,
    module: &'m mut JITModule,
    functions: &'m [FuncId],
    helpers: &'m [(Helper, FuncId)],
    slots: Option<*const *const u8>,
    speculate: bool,
    program: &'m Program,
}

impl<'f> CallEmitter<'f> for Emitter<'_, 'f> {
    fn builder(&mut self) -> &mut FunctionBuilder<'f> {
        &mut self.b
    }

    fn call_bead(&mut self, callee: FuncIndex, args: &[ClifValue]) -> Results {
        let b = &mut self.b;
        let bits = b.ins().iconst(I64, i64::from(callee.0));
        let mut all = vec![bits];
        all.extend_from_slice(args);
        let call = if let Some(slots) = self.slots {
            let signature = jit::signature(args.len() - 2, self.module.isa().default_call_conv());
            let signature = b.import_signature(signature);
            let slot = b.ins().iconst(I64, slots.wrapping_add(callee.index()) as i64);
            let code = b.ins().load(I64, MemFlagsData::trusted(), slot, 0);
            b.ins().call_indirect(signature, code, &all)
        } else {
            let function = self.module.declare_func_in_func(self.functions[callee.index()], b.func);
            b.ins().call(function, &all)
        };
        [b.inst_results(call)[0], b.inst_results(call)[1]]
    }

    fn inline(&mut self, callee: FuncIndex) -> Option<FuncIndex> {
        let small = self.program.function(callee).is_some_and(Function::is_small_leaf);
        (self.speculate && small).then_some(callee)
    }

    fn speculation(&self) -> Option<Speculation> {
        self.speculate.then(|| Speculation { version: VERSION, failed: Vec::new() })
    }

    fn call_runtime(&mut self, helper: Helper, args: &[ClifValue]) -> Results {
        let b = &mut self.b;
        let id = self.helpers.iter().find(|h| h.0 == helper).expect("all helpers are declared").1;
        let function = self.module.declare_func_in_func(id, b.func);
        let call = b.ins().call(function, args);
        [b.inst_results(call)[0], b.inst_results(call)[1]]
    }
}

/// Compiles the functions of a program that `choose` picks; with [`Linking::Slots`], `stub` serves the others.
pub fn compile(
    program: &Program,
    linking: Linking,
    stub: *const u8,
    choose: impl Fn(&Function) -> bool,
) -> Native {
    compile_with(program, linking, Extras::default(), stub, choose)
}

/// What else can be compiled.
#[derive(Clone, Copy, Default)]
pub struct Extras {
    /// The entries of all loops of all functions.
    pub loops: bool,
    /// Guards instead of general code, and copies of small callees instead of calls.
    pub speculate: bool,
}

/// The same with more.
pub fn compile_with(
    program: &Program,
    linking: Linking,
    extras: Extras,
    stub: *const u8,
    choose: impl Fn(&Function) -> bool,
) -> Native {
    let mut flags = settings::builder();
    flags.set("opt_level", "speed").unwrap();
    flags.set("use_colocated_libcalls", "false").unwrap();
    flags.set("is_pic", "false").unwrap();
    let isa = cranelift_native::builder().unwrap().finish(settings::Flags::new(flags)).unwrap();
    let mut builder = JITBuilder::with_isa(isa, default_libcall_names());
    for helper in Helper::ALL {
        builder.symbol(helper.symbol(), helper.address());
    }
    let mut module = JITModule::new(builder);
    let call_conv = module.isa().default_call_conv();
    let config = module.isa().frontend_config();
    let mut helpers = Vec::new();
    for helper in Helper::ALL {
        let signature = jit::helper_signature(helper, call_conv);
        helpers
            .push((helper, module.declare_function(helper.symbol(), Linkage::Import, &signature).unwrap()));
    }
    let mut functions = Vec::new();
    for function in program.functions() {
        let signature = jit::signature(function.signature.params.len(), call_conv);
        let name = format!("f{}", function.index.0);
        functions.push(module.declare_function(&name, Linkage::Local, &signature).unwrap());
    }
    let mut slots = vec![stub; program.functions().len()].into_boxed_slice();
    let native: Vec<bool> =
        program.functions().iter().map(|f| linking == Linking::Direct || choose(f)).collect();
    let mut largest_frame = 0;
    let mut builder_context = FunctionBuilderContext::new();
    let mut context = module.make_context();
    let (mut entries, mut loops) = (Vec::new(), Vec::new());
    for function in program.functions() {
        if native[function.index.index()] {
            entries.push((function, None, functions[function.index.index()]));
        }
        for (number, site) in function.loops.iter().enumerate().filter(|_| extras.loops) {
            let name = format!("f{}@{number}", function.index.0);
            let signature = jit::loop_signature(call_conv);
            let id = module.declare_function(&name, Linkage::Local, &signature).unwrap();
            loops.push((function.index.index(), id));
            entries.push((function, Some(site), id));
        }
    }
    for (function, site, id) in entries {
        context.func.signature = match site {
            None => jit::signature(function.signature.params.len(), call_conv),
            Some(_) => jit::loop_signature(call_conv),
        };
        let b = FunctionBuilder::new(&mut context.func, &mut builder_context);
        let slots = (linking == Linking::Slots).then_some(slots.as_ptr());
        let (module, speculate) = (&mut module, extras.speculate);
        let (functions, helpers) = (&functions, &helpers);
        let mut emitter = Emitter { b, module, functions, helpers, slots, speculate, program };
        match site {
            None => jit::build(function, program, &mut emitter),
            Some(site) => jit::build_loop(function, site, program, &mut emitter),
        }
        emitter.b.finalize(config);
        if std::env::var_os("STRAND_CLIF").is_some() {
            eprintln!("{}", context.func.display());
        }
        context.set_disasm(std::env::var_os("STRAND_ASM").is_some());
        module.define_function(id, &mut context).unwrap();
        if let Some(text) = context.compiled_code().and_then(|c| c.vcode.as_ref()) {
            eprintln!("{}:\n{text}", function.signature.name);
        }
        let frame = context.compiled_code().and_then(|c| c.buffer.frame_layout());
        let bytes = frame.expect("Cranelift tells the frame").frame_to_fp_offset as usize;
        assert!(bytes <= strand::native::MAX_FRAME_BYTES, "a frame of {bytes} bytes");
        largest_frame = largest_frame.max(bytes);
        module.clear_context(&mut context);
    }
    module.finalize_definitions().unwrap();
    for function in program.functions().iter().filter(|f| native[f.index.index()]) {
        slots[function.index.index()] = module.get_finalized_function(functions[function.index.index()]);
    }
    let mut entries = vec![Vec::new(); native.len()];
    for (function, id) in loops {
        entries[function].push(module.get_finalized_function(id));
    }
    Native { slots, native, loops: entries, largest_frame, module: Some(module) }
}

/// Hooks that answer the native code there is, count entries, and stop after a number of steps.
pub struct Tier<'n> {
    pub native: Option<&'n Native>,
    pub entered: u64,
    pub safepoints: u64,
    pub fuel: u64,
    /// Every how-manieth back edge goes native, and how many have; 0 for none.
    pub osr_every: u64,
    pub edges: u64,
    pub transfers: u64,
    /// Guards that have failed.
    pub bailouts: u64,
}

impl<'n> Tier<'n> {
    pub fn new(native: Option<&'n Native>) -> Self {
        Self {
            native,
            entered: 0,
            safepoints: 0,
            fuel: u64::MAX,
            osr_every: 0,
            edges: 0,
            transfers: 0,
            bailouts: 0,
        }
    }
}

impl Calls for Tier<'_> {
    fn enter(&mut self, callee: FuncIndex) -> Enter {
        self.entered += 1;
        if self.entered > self.fuel {
            return Enter::Stop;
        }
        match self.native {
            Some(native) if native.native[callee.index()] => {
                let code = NonNull::new(native.slots[callee.index()].cast_mut().cast()).unwrap();
                // SAFETY: made by the frontend under test from this function; tests run it with `on_vm_stack`.
                Enter::Native(unsafe { Entry::new(code, callee.0.into()) })
            }
            _ => Enter::Interpret,
        }
    }

    fn back_edge(&mut self, function: FuncIndex, site: u16) -> Edge {
        self.entered += 1;
        self.edges += 1;
        if self.entered > self.fuel {
            return Edge::Stop;
        }
        match self.native {
            Some(native) if self.osr_every > 0 && self.edges.is_multiple_of(self.osr_every) => {
                self.transfers += 1;
                let code = native.loops[function.index()][usize::from(site)];
                let code = NonNull::new(code.cast_mut().cast()).unwrap();
                // SAFETY: a loop entry of this loop, made by the frontend under test; all else as in `enter`.
                Edge::Native(unsafe { Entry::new(code, function.0.into()) })
            }
            _ => Edge::Continue,
        }
    }

    fn safepoint(&mut self, _native_frames: u32) {
        self.safepoints += 1;
    }

    fn bailout(&mut self, _function: FuncIndex, _pc: u16, version: u64) {
        assert_eq!(version, VERSION);
        self.bailouts += 1;
    }
}

/// What a run answered and printed.
pub type Outcome = (Result<Value, RuntimeError>, String);

/// Output that can be read afterwards.
#[derive(Clone, Debug, Default)]
pub struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn run<C: Calls + Send>(program: &Program, args: &[i64], calls: &mut C) -> Outcome {
    let output = Output::default();
    let result = strand::on_vm_stack(|| {
        let mut vm = Vm::new(program, Limits::default(), calls).unwrap();
        vm.set_output(output.clone());
        vm.run(args)
    });
    (result.unwrap(), output.text())
}

/// What the interpreter alone answers and prints.
pub fn interpret(program: &Program, args: &[i64]) -> Outcome {
    run(program, args, &mut InterpretAll)
}

/// A program in every tier: interpreted, native with direct calls, native through slots, mixtures in which interpreted
/// and native functions call each other, and transfers into native code in the middle of loops.
pub struct Tiers<'p> {
    program: &'p Program,
    native: Vec<(&'static str, Native)>,
    /// Every how-manieth back edge goes native, and in which code.
    loops: [(&'static str, &'static [u64], Native); 2],
    /// Loops that went native in all runs.
    pub transfers: AtomicU64,
    /// Guards that failed in all runs.
    pub bailouts: AtomicU64,
}

impl<'p> Tiers<'p> {
    pub fn new(program: &'p Program) -> Self {
        type Choice = (&'static str, bool, Linking, fn(&Function) -> bool);
        let choices: [Choice; 5] = [
            ("native", false, Linking::Direct, |_| true),
            ("native through slots, speculating", true, Linking::Slots, |_| true),
            ("even functions native, speculating", true, Linking::Slots, |f| f.index.0 % 2 == 0),
            ("odd functions native", false, Linking::Slots, |f| f.index.0 % 2 == 1),
            ("main interpreted, others speculating", true, Linking::Slots, |f| f.signature.name != "main"),
        ];
        let stub = strand::entry_stub();
        let native = choices.map(|(name, speculate, linking, choose)| {
            let extras = Extras { speculate, loops: false };
            (name, compile_with(program, linking, extras, stub, choose))
        });
        let extras = Extras { loops: true, speculate: true };
        let none = compile_with(program, Linking::Slots, extras, stub, |_| false);
        let others = compile_with(program, Linking::Slots, extras, stub, |f| f.signature.name != "main");
        let loops: [(_, &[u64], _); 2] = [
            ("loops go native, all calls interpreted", &[1, 2, 5], none),
            ("loops go native, all but main native", &[1], others),
        ];
        Self {
            program,
            native: native.into(),
            loops,
            transfers: AtomicU64::new(0),
            bailouts: AtomicU64::new(0),
        }
    }

    /// All outcomes, each with the name of its tier, the interpreter first.
    pub fn run(&self, args: &[i64]) -> Vec<(&'static str, Outcome)> {
        let mut outcomes = vec![("interpreted", run(self.program, args, &mut InterpretAll))];
        for (name, code) in &self.native {
            let mut tier = Tier::new(Some(code));
            outcomes.push((name, run(self.program, args, &mut tier)));
            self.bailouts.fetch_add(tier.bailouts, Relaxed);
        }
        for (name, every, code) in &self.loops {
            for &osr_every in *every {
                let mut tier = Tier { osr_every, ..Tier::new(Some(code)) };
                outcomes.push((name, run(self.program, args, &mut tier)));
                self.transfers.fetch_add(tier.transfers, Relaxed);
                self.bailouts.fetch_add(tier.bailouts, Relaxed);
            }
        }
        outcomes
    }
}
