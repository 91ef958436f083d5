//! How an engine's compile of a function becomes one of this language's, by LLVM.

use beadwork::{Bead, CompileError, ContentKey, Core, Job};
use beadwork_llvm::{BuildError, Entry, Frontend, FunctionUnit, LlvmBuilder};

use super::{Setting, build, build_loop};
use crate::counting;
use crate::flow::Flow;
use crate::frontend::BytecodeFrontend;
use crate::hir::FuncIndex;
use crate::native::{MAX_FRAME_BYTES, entry_stub};
use crate::runtime::Helper;
use crate::tiering::{ENTRY_STUB, Linking};

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
    fn content(&self, job: &Job<'_>) -> Option<ContentKey> {
        self.content_of(job)
    }

    fn function(&self, key: u64) -> Option<Bead> {
        self.bead_of(key)
    }

    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), BuildError> {
        let index_of = |core: Core| u16::try_from(core.get()).map(FuncIndex).map_err(CompileError::failed);
        // In whose code, and whose body: others are included in it.
        let (compiled, index) = (index_of(unit.job().core()?)?, index_of(unit.core()?)?);
        // A redefinition takes this code back by itself, so no assumption is needed.
        let function = self.program.function(self.definitions.body(index));
        let (Some(function), Some(beads)) = (function, self.beads.get()) else {
            return Err(BuildError::failed(format_args!("the program has no function {}", index.0)));
        };
        let version = u64::from(compiled.0) << 32 | u64::from(unit.job().version());
        let profile = unit.job().profile_of(beads[index.index()]);
        let setting = Setting {
            program: &self.program,
            beads,
            linking: self.linking,
            definitions: &self.definitions,
            speculation: self.failed_guards.speculation(function, self.learn, version),
            flow: profile.and_then(|profile| Flow::new(function, profile.blocks())),
        };
        self.include_hot_callees(unit);
        match unit.entry() {
            Entry::Function => {
                let sites = unit.job().osr_sites().into_iter();
                sites
                    .filter(|&site| function.loop_at(site).is_some())
                    .for_each(|site| unit.add_loop_entry(site));
                build(function, setting, unit)
            }
            Entry::Loop(site) => {
                let Some(site) = function.loop_at(site) else {
                    return Err(BuildError::failed(format_args!("function {} has no loop {site}", index.0)));
                };
                build_loop(function, site, setting, unit)
            }
        }
    }
}

/// Callees that become part of a function's code.
const MOST_INCLUDED: usize = 4;

/// The least share of its caller's calls such a callee has, as one part of so many.
const LEAST_SHARE: u64 = 20;

/// The longest body that is included, in instructions.
const MOST_INSTRUCTIONS: usize = 200;

impl BytecodeFrontend {
    /// Has the callees that were called most, as the baseline's code has counted, compiled into this function's code.
    fn include_hot_callees(&self, unit: &mut FunctionUnit<'_, '_>) {
        if self.linking != Linking::Inlined {
            return;
        }
        let Some(profile) = unit.job().profile() else { return };
        let callees = profile.callees();
        let all = callees.iter().fold(0u64, |sum, &(_, calls)| sum.saturating_add(calls));
        let hot = callees.into_iter().filter(|&(_, calls)| calls.saturating_mul(LEAST_SHARE) >= all);
        for (callee, _) in hot.take(MOST_INCLUDED) {
            let Ok(core) = unit.job().core_of(callee) else { continue };
            let Ok(index) = u16::try_from(core.get()).map(FuncIndex) else { continue };
            // In this order, see `Definitions::assumption`. The inclusion alone would do; this has `redefine` know whose code it took.
            let assumption = self.definitions.assumption(index);
            let body = self.program.function(self.definitions.body(index));
            let short = body.is_some_and(|body| body.code.len() <= MOST_INSTRUCTIONS);
            if short && assumption.is_some_and(|assumption| unit.job().assume(assumption)) {
                unit.include(callee);
            }
        }
    }
}
