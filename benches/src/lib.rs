//! beadwork against the limit and against its peers, in one process.
//!
//! `cargo run --release -p beadwork-bench -- compare --help` is what this is for; `cargo bench -p beadwork-bench` watches
//! the hot paths of beadwork alone.
//!
//! A [`contender`] is one way of doing it: plain atomics (the limit), beadwork, beadie, and the shapes of two other systems. A
//! [`case`] is one piece of work, written once for all contenders. [`run`] takes samples of all contenders in turn, so that what
//! else the machine does meets all of them; `report` shows medians, and [`publish`] writes what is published of them.

#![allow(missing_debug_implementations, reason = "nothing here is printed for debugging")]

pub mod case;
pub mod child;
pub mod contender;
pub mod instructions;
pub mod measure;
pub mod plot;
pub mod publish;
pub mod report;
pub mod run;
pub mod target;
