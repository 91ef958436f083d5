//! From Cranelift's relocations to the arena's.

use crate::env::Environment;
use crate::unit::{Built, Embedded};
use crate::{libcalls, name};
use beadwork_arena::{Relocation, RelocationKind, Target};
use beadwork_object::ITSELF;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::{ExternalName, Function, UserExternalName};
use cranelift_codegen::{FinalizedMachReloc, FinalizedRelocTarget};

/// Why a reference cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelocError {
    #[error(
        "relocation {0:?} cannot be placed; leave the flags is_pic, use_colocated_libcalls and tls_model alone"
    )]
    Kind(Reloc),
    #[error("Cranelift calls `{0}`, which has no address here; give one with CraneliftBuilder::symbol")]
    LibCall(String),
    #[error("the code refers to {0}, which nobody resolves; use FunctionUnit::symbol, data or call_bead")]
    Name(String),
}

/// Converts a relocation, and answers the name of what it refers to, if that has one. `constants` are the offsets of the function's own data
/// in its code. Positions of targets are those within the unit, or [`ITSELF`].
pub(crate) fn convert(
    env: &Environment,
    function: &Function,
    built: &Built,
    constants: &[u32],
    reloc: &FinalizedMachReloc,
) -> Result<(Relocation, Option<String>), RelocError> {
    let (target, import) = match &reloc.target {
        FinalizedRelocTarget::Func(offset) => (Target::Local(ITSELF, *offset), None),
        FinalizedRelocTarget::ExternalName(ExternalName::LibCall(call)) => {
            let name = libcalls::name(*call);
            let address = env.symbols.address_of(&name).or_else(|| libcalls::address(*call));
            match address {
                Some(address) => (Target::Address(address), Some(name)),
                None => return Err(RelocError::LibCall(name)),
            }
        }
        FinalizedRelocTarget::ExternalName(external) => named(env, function, built, constants, external)
            .ok_or_else(|| RelocError::Name(external.display(Some(&function.params)).to_string()))?,
    };
    let relocation =
        Relocation { offset: reloc.offset, kind: kind(reloc.kind)?, target, addend: reloc.addend };
    Ok((relocation, import))
}

fn named(
    env: &Environment,
    function: &Function,
    built: &Built,
    constants: &[u32],
    name: &ExternalName,
) -> Option<(Target, Option<String>)> {
    let ExternalName::User(reference) = name else { return None };
    match function.params.user_named_funcs().get(*reference)? {
        UserExternalName { namespace: name::SYMBOLS, index } => {
            let name = env.symbols.name(*index)?.to_owned();
            Some((Target::Address(env.symbols.address(*index)?), Some(name)))
        }
        UserExternalName { namespace: name::DATA, index } => {
            constants.get(*index as usize).map(|&offset| (Target::Local(ITSELF, offset), None))
        }
        UserExternalName { namespace: name::EMBEDS, index } => {
            let Embedded { name, now } = built.embeds.get(*index as usize)?;
            Some((Target::Address(*now), Some(name.clone())))
        }
        UserExternalName { namespace: name::BODIES, index } => Some((Target::Local(*index, 0), None)),
        _ => None,
    }
}

fn kind(reloc: Reloc) -> Result<RelocationKind, RelocError> {
    Ok(match reloc {
        Reloc::Abs8 => RelocationKind::Abs8,
        Reloc::Abs4 => RelocationKind::Abs4,
        Reloc::X86PCRel4 | Reloc::X86CallPCRel4 | Reloc::X86CallPLTRel4 => RelocationKind::X86PcRel4,
        Reloc::Arm64Call => RelocationKind::Aarch64Call26,
        Reloc::Aarch64AdrPrelPgHi21 => RelocationKind::Aarch64AdrPrelPgHi21,
        Reloc::Aarch64AddAbsLo12Nc => RelocationKind::Aarch64AddAbsLo12Nc,
        Reloc::RiscvCallPlt => RelocationKind::RiscvCallPlt,
        Reloc::RiscvPCRelHi20 => RelocationKind::RiscvPcRelHi20,
        Reloc::RiscvPCRelLo12I => RelocationKind::RiscvPcRelLo12I,
        other => return Err(RelocError::Kind(other)),
    })
}
