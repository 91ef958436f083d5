//! Tests of the backend against a real engine.
#![cfg(feature = "_llvm")]
#![allow(unsafe_code)]

mod artifacts;
mod calls;
mod code;
mod common;
mod counting;
mod dump;
mod failures;
mod lifetime;
mod loops;
mod parallel;
mod rig;
mod units;
mod unwind;
