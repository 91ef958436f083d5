//! Unwind information: from a code generator's DWARF to the process's unwinder.

mod image;
mod info;
mod register;
mod table;

#[cfg(all(feature = "gdb", target_os = "linux"))]
pub(crate) use image::ImageBuilder;
pub use info::{FdeRecord, UnwindInfo};
pub(crate) use register::Unwinder;
pub(crate) use table::{NewRecord, Tables};

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests;
