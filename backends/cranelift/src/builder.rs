//! What can be chosen about a backend.

use crate::backend::CraneliftBackend;
use crate::env::Environment;
use crate::error::CraneliftError;
use crate::flags::host_isa;
use crate::frontend::Frontend;
use crate::libcalls;
use beadwork::{Archive, Recipe};
use beadwork_arena::Arena;
use beadwork_object::{Dump, Keeper, Symbols};
use cranelift_codegen::ir::LibCall;
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::settings::{OptLevel, RegallocAlgorithm};
use cranelift_jit::JITBuilder;

/// Options of a [`CraneliftBackend`]; made by [`CraneliftBackend::builder`]. Clone it to build several tiers alike.
#[derive(Clone, Debug)]
pub struct CraneliftBuilder {
    opt_level: OptLevel,
    flags: Vec<(String, String)>,
    /// Addresses, since pointers are not `Send`.
    symbols: Vec<(String, usize)>,
    arena: Option<Arena>,
    pass_callee_bits: bool,
    max_frame_bytes: Option<usize>,
    archive: Option<Archive>,
    dump: Option<Dump>,
    name: String,
}

impl CraneliftBuilder {
    pub(crate) fn new() -> CraneliftBuilder {
        CraneliftBuilder {
            opt_level: OptLevel::Speed,
            flags: Vec::new(),
            symbols: Vec::new(),
            arena: None,
            pass_callee_bits: false,
            max_frame_bytes: None,
            archive: None,
            dump: None,
            name: "cranelift".to_owned(),
        }
    }

    /// How much Cranelift optimizes; [`OptLevel::Speed`] by default. With [`OptLevel::None`] registers are allocated in
    /// a single pass, unless [`register_allocator`](CraneliftBuilder::register_allocator) says otherwise: code for a first tier, compiled more
    /// than twice as fast.
    #[must_use]
    pub fn opt_level(mut self, level: OptLevel) -> Self {
        self.opt_level = level;
        self
    }

    /// How registers are allocated, if not in the way that goes with the [level](CraneliftBuilder::opt_level): `Backtracking`, and with
    /// [`OptLevel::None`] `SinglePass`.
    ///
    /// A single pass keeps what lives in several blocks in memory, so code with loops and branches takes two to five times as long.
    /// What it saves is compile time: the example `throughput` prints both. Take it where much code runs once or a
    /// better tier comes soon; take `Backtracking` where the baseline has to carry a program for a while.
    #[must_use]
    pub fn register_allocator(self, algorithm: RegallocAlgorithm) -> Self {
        self.flag("regalloc_algorithm", algorithm.to_string())
    }

    /// Sets a Cranelift flag by name: a shared one (`enable_nan_canonicalization`), one of the processor
    /// (`has_avx2`), or a processor's preset (`"skylake"`, `"true"`). Later flags override earlier ones. Names and
    /// values are checked by [`build`](CraneliftBuilder::build).
    ///
    /// Set beforehand: what the processor running this has; `is_pic` and `use_colocated_libcalls` off, so that every
    /// reference is an absolute address (leave them); `unwind_info` on; `enable_verifier` on in debug builds only;
    /// `enable_probestack` on with `probestack_strategy` `inline`, so that a runaway recursion meets the guard page.
    #[must_use]
    pub fn flag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((name.into(), value.into()));
        self
    }

    /// Gives a function or datum of the VM's runtime a name for [`FunctionUnit::symbol`](crate::FunctionUnit::symbol).
    /// The address has to stay valid as long as compiled code can run. A name given again replaces the first.
    ///
    /// Functions Cranelift calls by itself (`floor`, `fma`, `memcpy` and so on, where the processor has no instruction) are
    /// there already and can be replaced under their C names.
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

    /// The backend's name in events and logs; `cranelift` by default. Useful where several tiers use Cranelift.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Refuses functions whose frame would take more stack than this; they stay at the tier they are at. For VMs that
    /// bound the depth of calls and have computed the stack they need. No limit by default.
    #[must_use]
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.max_frame_bytes = Some(bytes);
        self
    }

    /// Looks for code in an archive before it compiles, and keeps there what it compiles while the archive
    /// [saves](Archive::set_saving).
    ///
    /// All that the code contains of this process has to come through the [`FunctionUnit`](crate::FunctionUnit): runtime symbols by
    /// [name](crate::FunctionUnit::symbol), functions by [`call_bead`](crate::FunctionUnit::call_bead),
    /// [`bits`](crate::FunctionUnit::bits) and the counting methods, the [version](crate::FunctionUnit::version). An address or handle that the frontend
    /// makes a constant by itself would be one of this process in every other one. Functions are known by their keys and
    /// [content](crate::Frontend::content).
    #[must_use]
    pub fn archive(mut self, archive: Archive) -> Self {
        self.archive = Some(archive);
        self
    }

    /// Writes what is made of functions to files, for people to look at: for each entry the IR as the frontend built it (`.clif`) and
    /// as Cranelift optimized it (`.optimized.clif`), and the assembly (`.asm`), beside what [`Dump`] writes for all backends.
    #[must_use]
    pub fn dump(mut self, dump: Dump) -> Self {
        self.dump = Some(dump);
        self
    }

    /// How functions are compiled, as far as the code depends on it.
    fn recipe(&self, isa: &dyn TargetIsa) -> Recipe {
        let features: Vec<_> = isa.isa_flags().iter().map(ToString::to_string).collect();
        let (bits, frame) = (self.pass_callee_bits, self.max_frame_bytes);
        let flags = isa.flags().to_string().replace('\n', " ");
        Recipe {
            // Ours decides what is asked of Cranelift.
            backend: format!(
                "cranelift {}; beadwork-cranelift {}",
                cranelift_codegen::VERSION,
                env!("CARGO_PKG_VERSION")
            ),
            options: format!("{flags}; callee bits {bits}; frame limit {frame:?}"),
            target: isa.triple().to_string(),
            features: features.join(" "),
        }
    }

    /// A backend that has `frontend` build each function.
    ///
    /// # Errors
    /// [`CraneliftError`] for a flag that is unknown, cannot have the value given, or contradicts others, for a null
    /// symbol, for a machine Cranelift generates no code for, or if the arena cannot be made.
    pub fn build<F: Frontend>(self, frontend: F) -> Result<CraneliftBackend<F>, CraneliftError> {
        let isa = host_isa(self.opt_level, &self.flags)?;
        let recipe = |archive| Keeper::new(archive, self.recipe(&*isa));
        let keeper = self.archive.clone().map(recipe);
        let env = Environment {
            isa,
            keeper,
            symbols: Symbols::new(&self.symbols)?,
            pass_callee_bits: self.pass_callee_bits,
            max_frame_bytes: self.max_frame_bytes,
            dump: self.dump,
        };
        let arena = match self.arena {
            Some(arena) => arena,
            None => Arena::builder().build()?,
        };
        Ok(CraneliftBackend::new(env, frontend, arena, self.name))
    }

    /// The same flags and symbols for a [`JITModule`](cranelift_jit::JITModule), to be used with
    /// [`JitModuleBackend`](crate::JitModuleBackend). An arena, if given, is not used.
    ///
    /// # Errors
    /// As [`build`](CraneliftBuilder::build).
    pub fn jit_builder(&self) -> Result<JITBuilder, CraneliftError> {
        let isa = host_isa(self.opt_level, &self.flags)?;
        if isa.flags().is_pic() {
            return Err(CraneliftError::Flags { reason: "a JITModule needs is_pic=false".to_owned() });
        }
        Symbols::new(&self.symbols)?;
        let mut builder = JITBuilder::with_isa(isa, cranelift_module::default_libcall_names());
        let pointer = |address: usize| std::ptr::with_exposed_provenance(address);
        for &call in LibCall::all_libcalls() {
            if let Some(address) = libcalls::address(call) {
                builder.symbol(libcalls::name(call), pointer(address as usize));
            }
        }
        for (name, address) in &self.symbols {
            builder.symbol(name.as_str(), pointer(*address));
        }
        Ok(builder)
    }
}
