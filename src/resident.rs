//! A content-keyed code cache on top of the engine.

mod artifacts;
mod unit;

pub use artifacts::{Artifacts, Prepared};
pub use unit::{Purpose, Unit};
