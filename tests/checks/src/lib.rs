//! What holds beadwork to its word from outside.
//!
//! [`Rig`] runs [operations](Op) on an engine and on a model of it side by side and compares what can be seen of both after
//! each. The engine is inline, so that everything happens in an order the operations give. Property tests and fuzz targets
//! make up the operations. [`backends`] has what the tests of the compiled backends have in common.
#![allow(missing_docs, reason = "not for anybody outside of this workspace")]

pub mod arena;
#[allow(unsafe_code)]
pub mod backends;
mod faults;
mod model;
pub mod objects;
mod op;
mod rig;

pub use op::{Compile, Made, Op, Proposal, Setup, What};
pub use rig::{Done, Rig};

/// Runs the operations; panics where engine and model differ. Answers how many there were, those within compiles included.
pub fn run(setup: Setup, operations: &[Op]) -> Done {
    let rig = Rig::start(setup);
    for operation in operations {
        rig.apply(operation);
    }
    rig.end()
}

/// A number from the environment.
pub fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.replace('_', "").parse().ok()).unwrap_or(otherwise)
}
