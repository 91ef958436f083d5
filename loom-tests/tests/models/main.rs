//! The models; each says which edges of `protocol` it exercises.

#![cfg(beadwork_loom)]

mod assumption;
mod claim;
mod deopt;
mod grace;
mod life;
mod mutants;
mod native;
mod osr;
mod publish;
mod reuse;
mod turns;
mod units;
