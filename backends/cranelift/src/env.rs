//! What all compiles of a backend share and none changes.

use crate::symbols::Symbols;
use cranelift_codegen::isa::OwnedTargetIsa;

pub(crate) struct Environment {
    pub(crate) isa: OwnedTargetIsa,
    pub(crate) symbols: Symbols,
    pub(crate) pass_callee_bits: bool,
    /// Functions with larger frames are refused.
    pub(crate) max_frame_bytes: Option<usize>,
}
