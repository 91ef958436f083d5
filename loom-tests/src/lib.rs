//! Models of beadwork's concurrent core, the mutants they have to catch, and the audit of its atomic accesses.
//!
//! The models run the real modules: under `--cfg beadwork_loom` the crate's own `sync` module hands out loom's types. Without
//! that flag there is only the audit.
//!
//! ```text
//! RUSTFLAGS="--cfg beadwork_loom" cargo test --release -p beadwork-loom-tests
//! RUSTFLAGS="--cfg beadwork_loom" cargo test --release -p beadwork-loom-tests -- --ignored --nocapture every_mutant
//! cargo test -p beadwork-loom-tests
//! ```
//! `LOOM_MAX_PREEMPTIONS` widens or narrows the search; the default is 3.
//!
//! # What to know of loom
//! loom 0.7.2 compares an access only with the last one to the same cell. A thread that loads a cell and then stores it hides by its
//! own load that another thread had loaded the cell before, and loom does not try the other order. So models run both their
//! threads in both roles (`both_ways`), and what they find is not taken for granted: that is what the mutants are for. A model
//! without a mutant that it catches, by the complaint of its property, proves nothing; the audit asks for one.
//!
//! A thread that is woken, and then waits for a lock before it parks, has forgotten by then that it was woken; threads of `std`
//! have not. What passes from thread to thread outside of loom (a lock of `std`) orders nothing in a model: a reader may see what was
//! there long before.

pub mod audit;
#[cfg(beadwork_loom)]
mod model;
pub mod mutants;
pub mod reasons;

#[cfg(beadwork_loom)]
pub use model::*;
