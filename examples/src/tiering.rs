//! The virtual machine meets the engine: which bead is which function, what a call asks, and how bytecode is compiled.
//!
//! This is the part a VM author writes, with [`frontend`](crate::frontend) and [`dispatching`](crate::dispatching).

use std::sync::Arc;

use beadwork::{Bead, BeadInfo, Core, Engine, EngineBuilder, RegisterError};
use beadwork_cranelift::{CraneliftBuilder, CraneliftError};

use crate::counting;
use crate::function::Function;
use crate::hir::FuncIndex;
use crate::keys::Keys;
use crate::native::{MAX_FRAME_BYTES, entry_stub};
use crate::program::Program;
use crate::redefine::{Definitions, RedefineError};
use crate::runtime::Helper;
use crate::speculation::FailedGuards;

pub use crate::dispatching::Dispatching;
pub use crate::frontend::BytecodeFrontend;

/// How compiled code calls other functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Linking {
    /// Through the callee's slot: native to native without asking anybody.
    #[default]
    Slots,
    /// Like [`Slots`](Linking::Slots), but a copy of a small callee stands in for the call as long as that is not
    /// [redefined](Tiered::redefine). Code that counts itself counts whom it calls, too, and LLVM compiles the callees called most
    /// into their caller's code, on the same condition.
    Inlined,
    /// Through the VM's entry stub, which asks the engine each time; what a broker without slots has to do.
    Dispatch,
}

/// The symbol of the entry stub, for [`Linking::Dispatch`].
pub(crate) const ENTRY_STUB: &str = "strand_enter";

/// Everything Cranelift needs to know to compile for this VM. Give it optimization options and
/// [build](CraneliftBuilder::build) it with a [`BytecodeFrontend`].
#[must_use]
pub fn cranelift(builder: CraneliftBuilder) -> CraneliftBuilder {
    let builder =
        builder.pass_callee_bits(true).max_frame_bytes(MAX_FRAME_BYTES).symbol(ENTRY_STUB, entry_stub());
    let builder = counting::symbols().into_iter().fold(builder, |b, (name, address)| b.symbol(name, address));
    Helper::ALL.iter().fold(builder, |b, helper| b.symbol(helper.symbol(), helper.address()))
}

/// Why a program could not be connected to an engine.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Cranelift refused its options.
    #[error(transparent)]
    Cranelift(#[from] CraneliftError),
    /// LLVM refused its options.
    #[cfg(feature = "_llvm")]
    #[error(transparent)]
    Llvm(#[from] beadwork_llvm::LlvmError),
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
    program: Arc<Program>,
    engine: Engine,
    beads: Arc<[Bead]>,
    failed_guards: Arc<FailedGuards>,
    definitions: Arc<Definitions>,
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
        Tiered::with(program, linking, configure)
    }

    /// The same with tiers of any compilers.
    ///
    /// # Errors
    /// As [`new`](Tiered::new).
    pub fn with<E: Into<ConnectError>>(
        program: &Arc<Program>,
        linking: Linking,
        configure: impl FnOnce(EngineBuilder, BytecodeFrontend) -> Result<EngineBuilder, E>,
    ) -> Result<Tiered, ConnectError> {
        let failed_guards = Arc::new(FailedGuards::new(program.functions().len()));
        let definitions = Arc::new(Definitions::new(program.functions().len()));
        let frontend = BytecodeFrontend {
            program: program.clone(),
            beads: Arc::default(),
            linking,
            failed_guards: failed_guards.clone(),
            definitions: definitions.clone(),
            learn: true,
            counts_blocks: false,
            keys: Arc::new(Keys::of(program)),
        };
        let keys = frontend.keys.clone();
        let beads = frontend.beads.clone();
        let fallback = Engine::builder().fallback(entry_stub());
        let engine = configure(fallback, frontend).map_err(Into::into)?.build()?;
        definitions.connect(&engine);
        let functions = program.functions().iter().map(|function| {
            let info = BeadInfo::named(&function.signature.name).size(function.code.len() as u32);
            let info = info.key(keys.get(function.index));
            engine.register_with(Core::new(function.index.index()), &info)
        });
        let registered: Arc<[Bead]> = functions.collect::<Result<_, _>>()?;
        let beads = beads.get_or_init(|| registered).clone();
        Ok(Tiered { program: program.clone(), engine, beads, failed_guards, definitions })
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

    /// Gives a function the body of another one, for calls that begin after this has returned; calls that run finish as they
    /// began, and native code that runs may go on for as long with copies of the old body. Answers how many functions lost code
    /// that had such copies. May be called on any thread at any time.
    ///
    /// # Errors
    /// [`RedefineError`] if there is no such function, or if the two have different signatures.
    pub fn redefine(&self, function: FuncIndex, by: FuncIndex) -> Result<usize, RedefineError> {
        let signature = |index| {
            let function: Option<&Function> = self.program.function(index);
            function.map(|function| &function.signature).ok_or(RedefineError::Unknown(index))
        };
        let (old, new) = (signature(function)?, signature(by)?);
        if (&old.params, old.result) != (&new.params, new.result) {
            let (function, by) = (Box::new(old.clone()), Box::new(new.clone()));
            return Err(RedefineError::Signature { function, by });
        }
        let lost = self.definitions.redefine(&self.engine, function, by);
        // Its own code has the old body, too.
        self.engine.invalidate(self.beads[function.index()])?;
        Ok(lost)
    }

    /// Hooks for a [`Vm`](crate::Vm) on this thread.
    #[must_use]
    pub fn hooks(&self) -> Dispatching {
        Dispatching::new(self, self.failed_guards.clone(), self.definitions.clone())
    }
}
