//! The backend against a real engine. Engines are inline unless a test is about workers, so nothing depends on timing.
#![allow(unsafe_code)] // Calling compiled code is what is tested.

mod artifacts;
mod calls;
mod common;
mod counting;
mod dump;
mod failures;
mod flags;
mod jit_module;
mod kept;
mod lifetime;
mod loops;
mod parallel;
mod rig;
mod survey;
mod units;
mod unwind;
