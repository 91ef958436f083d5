//! What can be chosen about a backend.

use crate::backend::LlvmBackend;
use crate::env::{Environment, default_triple, version};
use crate::error::LlvmError;
use crate::frontend::Frontend;
use crate::passes::Passes;
use beadwork::{Archive, Recipe};
use beadwork_arena::Arena;
use beadwork_object::{Dump, Keeper, Symbols};
use inkwell::OptimizationLevel;
use inkwell::targets::TargetMachine;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Options of an [`LlvmBackend`]; made by [`LlvmBackend::builder`]. Clone it to build several tiers alike.
#[derive(Clone, Debug)]
pub struct LlvmBuilder {
    passes: Passes,
    level: Option<OptimizationLevel>,
    cpu: Option<String>,
    features: Option<String>,
    /// Addresses, since pointers are not `Send`.
    symbols: Vec<(String, usize)>,
    arena: Option<Arena>,
    pass_callee_bits: bool,
    max_frame_bytes: Option<usize>,
    recycle_after: usize,
    archive: Option<Archive>,
    dump: Option<Dump>,
    name: String,
}

impl LlvmBuilder {
    pub(crate) fn new() -> LlvmBuilder {
        LlvmBuilder {
            passes: Passes::default(),
            level: None,
            cpu: None,
            features: None,
            symbols: Vec::new(),
            arena: None,
            pass_callee_bits: false,
            max_frame_bytes: None,
            recycle_after: 64,
            archive: None,
            dump: None,
            name: "llvm".to_owned(),
        }
    }

    /// The optimizations; [`Passes::O3`] by default.
    #[must_use]
    pub fn passes(mut self, passes: Passes) -> Self {
        self.passes = passes;
        self
    }

    /// How carefully instructions are selected, scheduled and given registers. By default what clang does for the
    /// [passes](LlvmBuilder::passes): `Less` for `Fast` and `O1`, `Default` for `O2`, `Aggressive` for the others.
    #[must_use]
    pub fn codegen_level(mut self, level: OptimizationLevel) -> Self {
        self.level = Some(level);
        self
    }

    /// The processor to generate code for, in LLVM's words (`x86-64-v3`, `znver3`), with the features that come with it; by default
    /// the one this runs on, with the features it really has. LLVM says on standard error if it knows no such
    /// processor, and goes on with the plainest one.
    #[must_use]
    pub fn cpu(mut self, cpu: impl Into<String>) -> Self {
        self.cpu = Some(cpu.into());
        self
    }

    /// Features to add or leave out, as `+avx2,-avx512f`. They come after those of the processor, so they win; only that the code is
    /// for 64 bits is not to be chosen.
    #[must_use]
    pub fn features(mut self, features: impl Into<String>) -> Self {
        self.features = Some(features.into());
        self
    }

    /// Gives a function or datum of the VM's runtime a name for [`FunctionUnit::symbol`](crate::FunctionUnit::symbol).
    /// The address has to stay valid as long as compiled code can run. A name given again replaces the first.
    ///
    /// LLVM knows what functions with the names of the C library do (`memcpy`, `floor`, `malloc`) and optimizes calls of them. Those it
    /// calls by itself are there already and can be replaced under their C names.
    #[must_use]
    pub fn symbol(mut self, name: impl Into<String>, address: *const u8) -> Self {
        self.symbols.push((name.into(), address.expose_provenance()));
        self
    }

    /// Where code is placed; a new arena with default options if not given. Tiers, backends and engines can share one.
    #[must_use]
    pub fn arena(mut self, arena: Arena) -> Self {
        self.arena = Some(arena);
        self
    }

    /// Whether every function takes a hidden first argument of 64 bits: the [bits](beadwork::Bead::to_bits) of the bead
    /// it was called as. Off by default.
    ///
    /// It is for engines with a [fallback](beadwork::EngineBuilder::fallback): one stub serves all functions without
    /// code, so it has to learn which of them was called. Compiled code ignores the argument.
    /// [`begin`](crate::FunctionUnit::begin) and [`call_bead`](crate::FunctionUnit::call_bead) add it; the VM passes it
    /// when it calls compiled code.
    #[must_use]
    pub fn pass_callee_bits(mut self, pass: bool) -> Self {
        self.pass_callee_bits = pass;
        self
    }

    /// Refuses functions whose frame would take more stack than this; they stay at the tier they are at. For VMs that
    /// bound the depth of calls and have computed the stack they need. No limit by default.
    #[must_use]
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.max_frame_bytes = Some(bytes);
        self
    }

    /// After how many functions (and loop entries) a worker thread's LLVM context is replaced by a new one; 64 by default, at
    /// least 1. A context keeps the types and constants of all that was compiled in it, 1 to 2 kB per function; a new one costs
    /// a small part of a compile.
    #[must_use]
    pub fn contexts_recycled_after(mut self, functions: usize) -> Self {
        self.recycle_after = functions.max(1);
        self
    }

    /// The backend's name in events and logs; `llvm` by default. Useful where several tiers use LLVM.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Looks for code in an archive before it compiles, and keeps there what it compiles while the archive
    /// [saves](Archive::set_saving).
    ///
    /// All that the code contains of this process has to come through the [`FunctionUnit`](crate::FunctionUnit): runtime symbols by
    /// [name](crate::FunctionUnit::symbol), functions by [`call_bead`](crate::FunctionUnit::call_bead),
    /// [`bits`](crate::FunctionUnit::bits) and the counting methods, the [version](crate::FunctionUnit::version). An address or handle that
    /// the frontend makes a constant by itself would be one of this process in every other one. Functions are known by their keys and
    /// [content](crate::Frontend::content). Code is kept for a machine that is used with the same [`cpu`](LlvmBuilder::cpu) and
    /// [`features`](LlvmBuilder::features).
    #[must_use]
    pub fn archive(mut self, archive: Archive) -> Self {
        self.archive = Some(archive);
        self
    }

    /// Writes what is made of functions to files, for people to look at: for each entry the IR as the frontend built it (`.ll`) and
    /// as the passes left it (`.optimized.ll`), and the assembly (`.asm`), beside what [`Dump`] writes for all backends.
    #[must_use]
    pub fn dump(mut self, dump: Dump) -> Self {
        self.dump = Some(dump);
        self
    }

    /// A backend that has `frontend` build each function.
    ///
    /// # Errors
    /// [`LlvmError`] for a machine that LLVM or this crate generates no code for, for passes LLVM does not know, for a null
    /// symbol, for a text with a NUL in it, or if the arena cannot be made.
    pub fn build<F: Frontend>(self, frontend: F) -> Result<LlvmBackend<F>, LlvmError> {
        let symbols = self.symbols.iter().map(|(name, _)| ("name of a runtime symbol", Some(&name[..])));
        let texts = [
            ("name of the processor", self.cpu.as_deref()),
            ("list of features", self.features.as_deref()),
            ("pass pipeline", Some(self.passes.pipeline())),
        ];
        if let Some((what, _)) =
            texts.into_iter().chain(symbols).find(|(_, text)| text.is_some_and(|text| text.contains('\0')))
        {
            return Err(LlvmError::Nul { what });
        }
        Environment::initialize()?;
        // The name alone may promise more than this very processor (or its hypervisor) has; the list is exact.
        let (cpu, mut features) = match self.cpu {
            Some(cpu) => (cpu, String::new()),
            None => (
                TargetMachine::get_host_cpu_name().to_string_lossy().into_owned(),
                TargetMachine::get_host_cpu_features().to_string_lossy().into_owned(),
            ),
        };
        if let Some(more) = self.features.filter(|more| !more.is_empty()) {
            if !features.is_empty() {
                features.push(',');
            }
            features.push_str(&more);
        }
        let (triple, level) = (default_triple(), self.level.unwrap_or_else(|| self.passes.level()));
        let (bits, frame) = (self.pass_callee_bits, self.max_frame_bytes);
        let recipe = || Recipe {
            // Ours decides what is asked of LLVM.
            backend: format!("llvm {}; beadwork-llvm {}", version(), env!("CARGO_PKG_VERSION")),
            options: format!(
                "{}; {level:?}; callee bits {bits}; frame limit {frame:?}",
                self.passes.pipeline()
            ),
            target: triple.clone(),
            features: format!("{cpu} {features}"),
        };
        let keeper = self.archive.map(|archive| Keeper::new(archive, recipe()));
        let env = Environment {
            triple,
            cpu,
            features,
            level,
            keeper,
            passes: self.passes,
            symbols: Symbols::new(&self.symbols)?,
            pass_callee_bits: self.pass_callee_bits,
            max_frame_bytes: self.max_frame_bytes,
            dump: self.dump,
            recycle_after: self.recycle_after,
            contexts: AtomicU64::new(0),
        };
        env.check_passes(&env.machine()?)?;
        let arena = match self.arena {
            Some(arena) => arena,
            None => Arena::builder().build()?,
        };
        Ok(LlvmBackend::new(Arc::new(env), frontend, arena, self.name))
    }
}
