//! The frontend: how an engine's compile of a function becomes one of this language's.

use std::sync::{Arc, OnceLock};

use beadwork::{Bead, CallSite, CallSites, CompileError, ContentKey, Job};
use beadwork_cranelift::{Entry, Frontend, FunctionUnit, LiveValue};
use cranelift_codegen::ir::{InstBuilder, Type as ClifType, Value as ClifValue};
use cranelift_frontend::FunctionBuilder;

use crate::counting;
use crate::function::Function;
use crate::hir::FuncIndex;
use crate::jit::{self, CallEmitter, Results, Speculation};
use crate::keys::Keys;
use crate::program::Program;
use crate::redefine::Definitions;
use crate::runtime::Helper;
use crate::speculation::FailedGuards;
use crate::tiering::{ENTRY_STUB, Linking};

/// Compiles functions of one program. A function's core is its index.
#[derive(Clone, Debug)]
pub struct BytecodeFrontend {
    pub(crate) program: Arc<Program>,
    /// The bead of each function; known once the functions are registered, which is before anything is compiled.
    pub(crate) beads: Arc<OnceLock<Arc<[Bead]>>>,
    pub(crate) linking: Linking,
    pub(crate) failed_guards: Arc<FailedGuards>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) learn: bool,
    pub(crate) counts_blocks: bool,
    pub(crate) keys: Arc<Keys>,
}

impl BytecodeFrontend {
    /// Makes it forget which guards have failed, so that it bets on the same again and again: what a recompile must not do, for
    /// showing what the engine does about it.
    #[must_use]
    pub fn forgetful(self) -> Self {
        Self { learn: false, ..self }
    }

    /// Has Cranelift code count how often its blocks run, for the compilers of higher tiers to read: what
    /// [`block_profiling`](beadwork::PresetValues::block_profiling) of a preset is for. Off by default.
    #[must_use]
    pub fn count_blocks(self, counts_blocks: bool) -> Self {
        Self { counts_blocks, ..self }
    }
}

/// What both compilers are told for kept code.
impl BytecodeFrontend {
    /// The bytecode with its constants and lines, whose it is, and what is speculated on. Callees are known by their keys, and what
    /// is inlined relies on an assumption, with which nothing is kept.
    pub(crate) fn content_of(&self, job: &Job<'_>) -> Option<ContentKey> {
        let index = FuncIndex(u16::try_from(job.core().ok()?.get()).ok()?);
        let body = self.definitions.body(index);
        let failed = if self.learn { self.failed_guards.get(body) } else { Vec::new() };
        let failed: Vec<u8> = failed.into_iter().flat_map(u16::to_le_bytes).collect();
        let listing = self.program.function(body)?.to_string();
        let parts = [
            &index.0.to_le_bytes(),
            &body.0.to_le_bytes(),
            listing.as_bytes(),
            &failed,
            format!("{:?} {}", self.linking, self.counts_blocks).as_bytes(),
        ]
        .concat();
        Some(ContentKey::of([&parts[..], &self.keys.callees(body)]))
    }

    /// The function with that key.
    pub(crate) fn bead_of(&self, key: u64) -> Option<Bead> {
        self.beads.get()?.get(self.keys.find(key)?.index()).copied()
    }
}

impl Frontend for BytecodeFrontend {
    fn content(&self, job: &Job<'_>) -> Option<ContentKey> {
        self.content_of(job)
    }

    fn function(&self, key: u64) -> Option<Bead> {
        self.bead_of(key)
    }

    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), CompileError> {
        let index = unit.job().core()?.get();
        let index = u16::try_from(index).map(FuncIndex).map_err(CompileError::failed)?;
        // A redefinition takes this code back by itself, so no assumption is needed.
        let function = self.program.function(self.definitions.body(index));
        let (Some(function), Some(beads)) = (function, self.beads.get()) else {
            return Err(CompileError::failed(format_args!("the program has no function {}", index.0)));
        };
        let call_conv = unit.isa().default_call_conv();
        let linking = self.linking;
        let version = u64::from(index.0) << 32 | u64::from(unit.job().version());
        let speculation = self.failed_guards.speculation(function, self.learn, version);
        if self.counts_blocks {
            // Without room for counters there is no profile, and the code is as good.
            let _ = unit.count_blocks(function.blocks().into_iter().flatten().count() as u32);
        }
        let site = match unit.entry() {
            Entry::Function => {
                let sites = unit.job().osr_sites().into_iter();
                sites
                    .filter(|&site| function.loop_at(site).is_some())
                    .for_each(|site| unit.add_loop_entry(site));
                unit.builder().func.signature = jit::signature(function.signature.params.len(), call_conv);
                None
            }
            Entry::Loop(site) => {
                let site = function.loop_at(site);
                let missing = || CompileError::failed(format_args!("function {} has no such loop", index.0));
                unit.builder().func.signature = jit::loop_signature(call_conv);
                Some(site.ok_or_else(missing)?)
            }
        };
        let callees = Callees::counted(unit, function, linking);
        let (program, definitions) = (&self.program, &self.definitions);
        let mut emitter = Emitter { unit, beads, linking, speculation, program, definitions, callees };
        match site {
            None => jit::build(function, program, &mut emitter),
            Some(site) => jit::build_loop(function, site, program, &mut emitter),
        }
        Ok(())
    }
}

/// How often which callee is called, counted for a tier that includes callees.
struct Callees {
    counted: Vec<FuncIndex>,
    /// One for each callee, whatever the place it is called from.
    sites: Option<CallSites>,
}

impl Callees {
    fn counted(unit: &mut FunctionUnit<'_, '_>, function: &Function, linking: Linking) -> Callees {
        if linking != Linking::Inlined || !unit.job().counts() {
            return Callees { counted: Vec::new(), sites: None };
        }
        let counted = function.callees();
        let sites = unit.call_sites(counted.len() as u32);
        Callees { counted, sites }
    }

    fn site(&self, callee: FuncIndex) -> Option<CallSite> {
        let number = self.counted.iter().position(|&counted| counted == callee)?;
        self.sites?.site(number as u32)
    }
}

struct Emitter<'a, 'u, 'e> {
    unit: &'a mut FunctionUnit<'u, 'e>,
    beads: &'a [Bead],
    linking: Linking,
    speculation: Speculation,
    program: &'a Program,
    definitions: &'a Definitions,
    callees: Callees,
}

impl<'u> CallEmitter<'u> for Emitter<'_, 'u, '_> {
    fn builder(&mut self) -> &mut FunctionBuilder<'u> {
        self.unit.builder()
    }

    fn call_bead(&mut self, callee: FuncIndex, args: &[ClifValue]) -> Results {
        let bead = self.beads[callee.index()];
        if let Some(site) = self.callees.site(callee) {
            self.unit.count_direct_call(site, bead);
        }
        let mut signature = jit::signature(args.len() - 2, self.unit.isa().default_call_conv());
        let call = match self.linking {
            Linking::Slots | Linking::Inlined => {
                // The unit passes the callee's bits itself.
                signature.params.remove(0);
                self.unit.call_bead(bead, &signature, args)
            }
            Linking::Dispatch => {
                let stub = self.unit.symbol(ENTRY_STUB, &signature);
                let bits = self.unit.bits(bead);
                let args: Vec<_> = std::iter::once(bits).chain(args.iter().copied()).collect();
                self.unit.builder().ins().call(stub, &args)
            }
        };
        let results = self.unit.builder().inst_results(call);
        [results[0], results[1]]
    }

    fn version(&mut self, known: u64) -> ClifValue {
        // The function in the upper half, as `known` has it.
        let version = self.unit.version();
        self.unit.builder().ins().bor_imm_s(version, (known & !u64::from(u32::MAX)).cast_signed())
    }

    fn count_call(&mut self, context: ClifValue) {
        self.unit.count_call(counting::CALL, &[context]);
    }

    fn count_iteration(&mut self, site: u64, context: ClifValue) {
        self.unit.count_iteration(site, counting::ITERATIONS, &[context]);
    }

    fn count_block(&mut self, block: usize) {
        self.unit.count_block(block as u32);
    }

    fn load_live(&mut self, registers: ClifValue, places: &[(ClifType, i32)]) -> Vec<ClifValue> {
        let live: Vec<_> = places.iter().map(|&(ty, offset)| LiveValue::new(ty, offset)).collect();
        self.unit.load_live(registers, &live)
    }

    fn inline(&mut self, callee: FuncIndex) -> Option<FuncIndex> {
        if self.linking != Linking::Inlined {
            return None;
        }
        // In this order, see `Definitions::assumption`.
        let assumption = self.definitions.assumption(callee)?;
        let body = self.definitions.body(callee);
        let small = self.program.function(body).is_some_and(Function::is_small_leaf);
        (small && self.unit.job().assume(assumption)).then_some(body)
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
