//! The guide: how to embed beadwork, what native code has to promise, how to tune, and what holds on which platform.
//! Documentation only.
//!
//! | page | for whom |
//! |---|---|
//! | [`embedding`] | you have an interpreter and want to tier it, step by step |
//! | [`native_code`] | what native code, its compiler and its callers have to promise: the safety contract |
//! | [`tuning`] | something is slow, large or stormy: which knob |
//! | [`platforms`] | fork, longjmp, exceptions, green threads, async, several engines, no executable memory, `panic = "abort"` |
//! | [`from_beadie`] | call by call, for those who embed beadie |
//!
//! The memory and ordering model is the page [`protocol`](crate::protocol).

#[doc = include_str!("guide/embedding.md")]
pub mod embedding {}

#[doc = include_str!("guide/from_beadie.md")]
pub mod from_beadie {}

#[doc = include_str!("guide/native_code.md")]
pub mod native_code {}

#[doc = include_str!("guide/platforms.md")]
pub mod platforms {}

#[doc = include_str!("guide/tuning.md")]
pub mod tuning {}
