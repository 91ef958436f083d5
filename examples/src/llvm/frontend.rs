//! How an engine's compile of a function becomes one of this language's, by LLVM.

use beadwork::CompileError;
use beadwork_llvm::{BuildError, Entry, Frontend, FunctionUnit, LlvmBuilder};

use super::{Setting, build, build_loop};
use crate::counting;
use crate::frontend::BytecodeFrontend;
use crate::hir::FuncIndex;
use crate::native::{MAX_FRAME_BYTES, entry_stub};
use crate::runtime::Helper;
use crate::tiering::ENTRY_STUB;

/// Everything LLVM needs to know to compile for this VM. Give it passes and
/// [build](LlvmBuilder::build) it with a [`BytecodeFrontend`].
#[must_use]
pub fn llvm(builder: LlvmBuilder) -> LlvmBuilder {
    let builder =
        builder.pass_callee_bits(true).max_frame_bytes(MAX_FRAME_BYTES).symbol(ENTRY_STUB, entry_stub());
    let builder = counting::symbols().into_iter().fold(builder, |b, (name, address)| b.symbol(name, address));
    Helper::ALL.iter().fold(builder, |b, helper| b.symbol(helper.symbol(), helper.address()))
}

impl Frontend for BytecodeFrontend {
    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), BuildError> {
        let index = unit.job().core()?.get();
        let index = u16::try_from(index).map(FuncIndex).map_err(CompileError::failed)?;
        // A redefinition takes this code back by itself, so no assumption is needed.
        let function = self.program.function(self.definitions.body(index));
        let (Some(function), Some(beads)) = (function, self.beads.get()) else {
            return Err(BuildError::failed(format_args!("the program has no function {}", index.0)));
        };
        let version = u64::from(index.0) << 32 | u64::from(unit.job().version());
        let setting = Setting {
            program: &self.program,
            beads,
            linking: self.linking,
            definitions: &self.definitions,
            speculation: self.failed_guards.speculation(function, self.learn, version),
        };
        match unit.entry() {
            Entry::Function => {
                unit.job().osr_sites().into_iter().for_each(|site| unit.add_loop_entry(site));
                build(function, setting, unit)
            }
            Entry::Loop(site) => {
                let Some(site) = usize::try_from(site).ok().and_then(|site| function.loops.get(site)) else {
                    return Err(BuildError::failed(format_args!("function {} has no loop {site}", index.0)));
                };
                build_loop(function, site, setting, unit)
            }
        }
    }
}
