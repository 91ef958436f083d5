//! What all compiles of a backend share and none changes.

use crate::symbols::Symbols;
use beadwork_object::Keeper;
use cranelift_codegen::isa::OwnedTargetIsa;

pub(crate) struct Environment {
    pub(crate) isa: OwnedTargetIsa,
    pub(crate) symbols: Symbols,
    pub(crate) pass_callee_bits: bool,
    /// Keeps code beyond the process, if that is wanted.
    pub(crate) keeper: Option<Keeper>,
    /// Functions with larger frames are refused.
    pub(crate) max_frame_bytes: Option<usize>,
}
