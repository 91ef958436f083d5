//! What all compiles of a backend share.

use crate::error::LlvmError;
use crate::passes::{self, Passes};
use beadwork_object::{Dump, Keeper, Symbols};
use inkwell::OptimizationLevel;
use inkwell::context::Context;
use inkwell::support::get_llvm_version;
use inkwell::targets::{CodeModel, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

/// Plain data: LLVM's own objects belong to one thread each and live in [`worker`](crate::worker).
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) triple: String,
    pub(crate) cpu: String,
    pub(crate) features: String,
    pub(crate) passes: Passes,
    pub(crate) level: OptimizationLevel,
    pub(crate) symbols: Symbols,
    pub(crate) pass_callee_bits: bool,
    /// Keeps code beyond the process, if that is wanted.
    pub(crate) keeper: Option<Keeper>,
    /// Writes compiles to files, if that is wanted.
    pub(crate) dump: Option<Dump>,
    /// Functions with larger frames are refused.
    pub(crate) max_frame_bytes: Option<usize>,
    /// Functions compiled in one context before it is replaced.
    pub(crate) recycle_after: usize,
    /// Contexts made so far. All else is changed by no compile.
    pub(crate) contexts: AtomicU64,
}

/// What the code runs in, whatever processor was asked for: LLVM ends the process when it is to generate 64-bit code for one without.
const MODE: &str = "+64bit,+64bit-mode,-32bit-mode,-16bit-mode";

impl Environment {
    /// Registers LLVM's code generator, once per process.
    pub(crate) fn initialize() -> Result<(), LlvmError> {
        static DONE: OnceLock<Result<(), String>> = OnceLock::new();
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            return Err(LlvmError::Host);
        }
        let done = DONE.get_or_init(|| Target::initialize_native(&InitializationConfig::default()));
        done.clone().map_err(|reason| LlvmError::Machine {
            version: version(),
            triple: default_triple(),
            cpu: "native".to_owned(),
            reason,
        })
    }

    /// A code generator of one's own.
    ///
    /// Position-independent code of the small model: constants and jump tables lie next to the code, at distances that are known
    /// before it has a place, and whatever lies far away is reached through a cell with its address, also next to the code.
    pub(crate) fn machine(&self) -> Result<TargetMachine, LlvmError> {
        let refused = |reason: String| LlvmError::Machine {
            version: version(),
            triple: self.triple.clone(),
            cpu: self.cpu.clone(),
            reason,
        };
        let triple = TargetTriple::create(&self.triple);
        let target = Target::from_triple(&triple).map_err(|error| refused(error.to_string()))?;
        let (reloc, model) = (RelocMode::PIC, CodeModel::Small);
        let comma = if self.features.is_empty() { "" } else { "," };
        let features = format!("{}{comma}{MODE}", self.features);
        target
            .create_target_machine(&triple, &self.cpu, &features, self.level, reloc, model)
            .ok_or_else(|| refused("it refused the combination of processor and features".to_owned()))
    }

    /// Runs the passes over nothing, which checks their text.
    pub(crate) fn check_passes(&self, machine: &TargetMachine) -> Result<(), LlvmError> {
        let context = Context::create();
        let module = context.create_module("check");
        let pipeline = self.passes.pipeline();
        module.run_passes(pipeline, machine, passes::options()).map_err(|error| LlvmError::Passes {
            version: version(),
            passes: pipeline.to_owned(),
            reason: error.to_string(),
        })
    }
}

pub(crate) fn default_triple() -> String {
    TargetMachine::get_default_triple().as_str().to_string_lossy().into_owned()
}

pub(crate) fn version() -> String {
    let (major, minor, patch) = get_llvm_version();
    format!("{major}.{minor}.{patch}")
}
