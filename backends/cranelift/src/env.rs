//! What all compiles of a backend share and none changes.

use beadwork_object::{Dump, Keeper, Symbols};
use cranelift_codegen::isa::OwnedTargetIsa;

pub(crate) struct Environment {
    pub(crate) isa: OwnedTargetIsa,
    pub(crate) symbols: Symbols,
    pub(crate) pass_callee_bits: bool,
    /// Keeps code beyond the process, if that is wanted.
    pub(crate) keeper: Option<Keeper>,
    /// Writes compiles to files, if that is wanted.
    pub(crate) dump: Option<Dump>,
    /// Functions with larger frames are refused.
    pub(crate) max_frame_bytes: Option<usize>,
}
