//! How code refers to the outside while it is IR: pairs of a namespace and a number.

/// Runtime symbols by number. Unlikely numbers, so that names a frontend makes up are recognised as unknown.
pub(crate) const SYMBOLS: u32 = 0x6265_6100;
/// Functions placed together, by number.
pub(crate) const BODIES: u32 = 0x6265_6102;
/// Addresses and numbers of the engine, by number, in code that is to outlive the process.
pub(crate) const EMBEDS: u32 = 0x6265_6103;
/// Constants of the function itself, by number.
pub(crate) const DATA: u32 = 0x6265_6101;
