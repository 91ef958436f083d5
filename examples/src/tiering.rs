//! The virtual machine meets the engine: which bead is which function, what a call asks, and how bytecode is compiled.
//!
//! This is the part a VM author writes.
#![allow(unsafe_code, reason = "vouches for the code it hands to the interpreter")]

use std::ptr::NonNull;
use std::sync::Arc;

use beadwork::{
    BailoutInfo, Bead, BeadInfo, CompileError, Core, Engine, EngineBuilder, Mutator, RegisterError,
};
use beadwork_cranelift::{CraneliftBuilder, CraneliftError, Frontend, FunctionUnit, LiveValue};
use cranelift_codegen::ir::{InstBuilder, Type as ClifType, Value as ClifValue};
use cranelift_frontend::FunctionBuilder;

use crate::calls::{Calls, Edge, Enter};
use crate::hir::FuncIndex;
use crate::jit::{self, CallEmitter, Results, Speculation};
use crate::native::{Entry, MAX_FRAME_BYTES, entry_stub};
use crate::program::Program;
use crate::runtime::Helper;
use crate::speculation::FailedGuards;

/// How compiled code calls other functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Linking {
    /// Through the callee's slot: native to native without asking anybody.
    #[default]
    Slots,
    /// Through the VM's entry stub, which asks the engine each time; what a broker without slots has to do.
    Dispatch,
}

/// The symbol of the entry stub, for [`Linking::Dispatch`].
const ENTRY_STUB: &str = "strand_enter";

/// Everything Cranelift needs to know to compile for this VM. Give it optimization options and
/// [build](CraneliftBuilder::build) it with a [`BytecodeFrontend`].
#[must_use]
pub fn cranelift(builder: CraneliftBuilder) -> CraneliftBuilder {
    let builder =
        builder.pass_callee_bits(true).max_frame_bytes(MAX_FRAME_BYTES).symbol(ENTRY_STUB, entry_stub());
    Helper::ALL.iter().fold(builder, |b, helper| b.symbol(helper.symbol(), helper.address()))
}

/// Compiles functions of one program. A function's core is its index.
#[derive(Clone, Debug)]
pub struct BytecodeFrontend {
    program: Arc<Program>,
    /// The bead of each function; known once the functions are registered, which is before anything is compiled.
    beads: Arc<std::sync::OnceLock<Arc<[Bead]>>>,
    linking: Linking,
    failed_guards: Arc<FailedGuards>,
    learn: bool,
}

impl BytecodeFrontend {
    /// Makes it forget which guards have failed, so that it bets on the same again and again: what a recompile must not do, for
    /// showing what the engine does about it.
    #[must_use]
    pub fn forgetful(self) -> Self {
        Self { learn: false, ..self }
    }
}

impl Frontend for BytecodeFrontend {
    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), CompileError> {
        let index = unit.job().core()?.get();
        let function = u16::try_from(index).ok().and_then(|index| self.program.function(FuncIndex(index)));
        let (Some(function), Some(beads)) = (function, self.beads.get()) else {
            return Err(CompileError::failed(format_args!("the program has no function {index}")));
        };
        let call_conv = unit.isa().default_call_conv();
        let linking = self.linking;
        let version = u64::from(function.index.0) << 32 | u64::from(unit.job().version());
        let speculation = self.failed_guards.speculation(function, self.learn, version);
        match unit.entry() {
            beadwork_cranelift::Entry::Function => {
                unit.job().osr_sites().into_iter().for_each(|site| unit.add_loop_entry(site));
                unit.builder().func.signature = jit::signature(function.signature.params.len(), call_conv);
                jit::build(function, &self.program, &mut Emitter { unit, beads, linking, speculation });
            }
            beadwork_cranelift::Entry::Loop(site) => {
                let Some(site) = usize::try_from(site).ok().and_then(|site| function.loops.get(site)) else {
                    return Err(CompileError::failed(format_args!("function {index} has no loop {site}")));
                };
                unit.builder().func.signature = jit::loop_signature(call_conv);
                jit::build_loop(
                    function,
                    site,
                    &self.program,
                    &mut Emitter { unit, beads, linking, speculation },
                );
            }
        }
        Ok(())
    }
}

struct Emitter<'a, 'u, 'e> {
    unit: &'a mut FunctionUnit<'u, 'e>,
    beads: &'a [Bead],
    linking: Linking,
    speculation: Speculation,
}

impl<'u> CallEmitter<'u> for Emitter<'_, 'u, '_> {
    fn builder(&mut self) -> &mut FunctionBuilder<'u> {
        self.unit.builder()
    }

    fn call_bead(&mut self, callee: FuncIndex, args: &[ClifValue]) -> Results {
        let bead = self.beads[callee.index()];
        let mut signature = jit::signature(args.len() - 2, self.unit.isa().default_call_conv());
        let call = match self.linking {
            Linking::Slots => {
                // The unit passes the callee's bits itself.
                signature.params.remove(0);
                self.unit.call_bead(bead, &signature, args)
            }
            Linking::Dispatch => {
                let stub = self.unit.symbol(ENTRY_STUB, &signature);
                let ins = self.unit.builder().ins();
                let bits = ins.iconst(beadwork_cranelift::types::I64, bead.to_bits().cast_signed());
                let args: Vec<_> = std::iter::once(bits).chain(args.iter().copied()).collect();
                self.unit.builder().ins().call(stub, &args)
            }
        };
        let results = self.unit.builder().inst_results(call);
        [results[0], results[1]]
    }

    fn load_live(&mut self, registers: ClifValue, places: &[(ClifType, i32)]) -> Vec<ClifValue> {
        let live: Vec<_> = places.iter().map(|&(ty, offset)| LiveValue::new(ty, offset)).collect();
        self.unit.load_live(registers, &live)
    }

    fn speculation(&self) -> Option<Speculation> {
        Some(self.speculation.clone())
    }

    fn store_live(&mut self, address: ClifValue, places: &[(ClifType, i32)], values: &[ClifValue]) {
        let live: Vec<_> = places.iter().map(|&(ty, offset)| LiveValue::new(ty, offset)).collect();
        self.unit.store_live(address, &live, values);
    }

    fn call_runtime(&mut self, helper: Helper, args: &[ClifValue]) -> Results {
        let signature = jit::helper_signature(helper, self.unit.isa().default_call_conv());
        let function = self.unit.symbol(helper.symbol(), &signature);
        let call = self.unit.builder().ins().call(function, args);
        let results = self.unit.builder().inst_results(call);
        [results[0], results[1]]
    }
}

/// Why a program could not be connected to an engine.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Cranelift refused its options.
    #[error(transparent)]
    Cranelift(#[from] CraneliftError),
    /// The engine could not be built.
    #[error(transparent)]
    Build(#[from] beadwork::BuildError),
    /// The functions could not be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// A program whose functions an engine promotes.
#[derive(Debug)]
pub struct Tiered {
    engine: Engine,
    beads: Arc<[Bead]>,
    failed_guards: Arc<FailedGuards>,
}

impl Tiered {
    /// Builds the engine that `configure` describes (it is given the frontend, to make its tiers with), and registers
    /// the functions of `program`.
    ///
    /// # Errors
    /// [`ConnectError`] if the engine or a tier cannot be built, or the functions not registered.
    pub fn new(
        program: &Arc<Program>,
        linking: Linking,
        configure: impl FnOnce(EngineBuilder, BytecodeFrontend) -> Result<EngineBuilder, CraneliftError>,
    ) -> Result<Tiered, ConnectError> {
        let failed_guards = Arc::new(FailedGuards::new(program.functions().len()));
        let frontend = BytecodeFrontend {
            program: program.clone(),
            beads: Arc::default(),
            linking,
            failed_guards: failed_guards.clone(),
            learn: true,
        };
        let beads = frontend.beads.clone();
        let fallback = Engine::builder().fallback(entry_stub());
        let engine = configure(fallback, frontend)?.build()?;
        let functions = program.functions().iter().map(|function| {
            let info = BeadInfo::named(&function.signature.name).size(function.code.len() as u32);
            engine.register_with(Core::new(function.index.index()), &info)
        });
        let registered: Arc<[Bead]> = functions.collect::<Result<_, _>>()?;
        let beads = beads.get_or_init(|| registered).clone();
        Ok(Tiered { engine, beads, failed_guards })
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The bead of each function, by its index.
    #[must_use]
    pub fn beads(&self) -> &[Bead] {
        &self.beads
    }

    /// Hooks for a [`Vm`](crate::Vm) on this thread.
    #[must_use]
    pub fn hooks(&self) -> Dispatching {
        Dispatching {
            mutator: self.engine.mutator(),
            beads: self.beads.clone(),
            failed_guards: self.failed_guards.clone(),
            dispatched: 0,
            first_native: None,
            loops_entered: 0,
            first_loop: None,
        }
    }
}

/// The hooks of a VM that asks an engine at every call.
#[derive(Debug)]
pub struct Dispatching {
    mutator: Mutator,
    beads: Arc<[Bead]>,
    failed_guards: Arc<FailedGuards>,
    dispatched: u64,
    first_native: Option<std::time::Instant>,
    loops_entered: u64,
    first_loop: Option<std::time::Instant>,
}

impl Dispatching {
    /// Calls that asked the engine.
    #[must_use]
    pub fn dispatched(&self) -> u64 {
        self.dispatched
    }

    /// When a call was first answered with native code.
    #[must_use]
    pub fn first_native(&self) -> Option<std::time::Instant> {
        self.first_native
    }

    /// How often a running loop went on in native code.
    #[must_use]
    pub fn loops_entered(&self) -> u64 {
        self.loops_entered
    }

    /// When a running loop first went on in native code.
    #[must_use]
    pub fn first_loop(&self) -> Option<std::time::Instant> {
        self.first_loop
    }

    #[cold]
    fn note_first_native(&mut self) {
        self.first_native = Some(std::time::Instant::now());
    }
}

impl Calls for Dispatching {
    #[inline]
    fn enter(&mut self, callee: FuncIndex) -> Enter {
        self.dispatched += 1;
        let Some(code) = self.mutator.dispatch(self.beads[callee.index()]) else { return Enter::Interpret };
        let (code, bits) = (code.as_ptr(), self.beads[callee.index()].to_bits());
        if self.first_native.is_none() {
            self.note_first_native();
        }
        match NonNull::new(code.cast_mut().cast()) {
            // SAFETY: the code was made by `BytecodeFrontend` from this function, with no frame larger than
            // `MAX_FRAME_BYTES` (`cranelift` sees to that). It stays until the mutator's next safepoint, which is passed
            // only when no native frame is left. Native code passes the bits of the same beads that `resolve` knows.
            // The stack is the duty of who runs the VM (`on_vm_stack`).
            Some(code) => Enter::Native(unsafe { Entry::new(code, bits) }),
            None => Enter::Interpret,
        }
    }

    #[inline]
    fn back_edge(&mut self, function: FuncIndex, site: u16) -> Edge {
        let bead = self.beads[function.index()];
        let Some(code) = self.mutator.back_edge(bead, site.into()) else { return Edge::Continue };
        match NonNull::new(code.as_ptr().cast_mut().cast()) {
            Some(code) => {
                self.loops_entered += 1;
                self.first_loop.get_or_insert_with(std::time::Instant::now);
                // SAFETY: a loop entry made by `BytecodeFrontend` for this loop; all else as in `enter`.
                Edge::Native(unsafe { Entry::new(code, bead.to_bits()) })
            }
            None => Edge::Continue,
        }
    }

    #[inline]
    fn safepoint(&mut self, native_frames: u32) {
        if native_frames == 0 {
            self.mutator.safepoint();
        }
    }

    fn bailout(&mut self, function: FuncIndex, pc: u16, version: u64) {
        // First, so that the compile which the engine may ask for knows.
        self.failed_guards.note(function, pc);
        // `BytecodeFrontend` put both into one word.
        let (compiled_as, version) = ((version >> 32) as usize, version as u32);
        let Some(&bead) = self.beads.get(compiled_as) else { return };
        let info = BailoutInfo::new(version).guard(pc.into()).pc(pc.into());
        // Whatever is decided, this call goes on in the interpreter; a function that was removed needs nothing.
        let _ = self.mutator.engine().bailout(bead, info);
    }

    fn resolve(&self, callee_bits: u64) -> Option<FuncIndex> {
        let core = self.mutator.engine().core(Bead::from_bits(callee_bits)?).ok()?;
        u16::try_from(core.get()).ok().map(FuncIndex)
    }
}
