//! What runtime symbols are called in a module.

use beadwork_object::Symbols;
use std::borrow::Cow;

/// What names in a module begin with that are this crate's, LLVM's intrinsics', those without mangling, and those of sections and labels
/// in objects.
const TAKEN: [&str; 4] = ["beadwork.", "llvm.", "\u{1}", "."];

/// What the names of symbols begin with that cannot have their own.
const NUMBERED: &str = "beadwork.symbol.";

/// What a symbol is called in a module: its name, by which LLVM knows functions of the C library, unless the name means something
/// else there.
pub(crate) fn in_module<'n>(symbols: &Symbols, name: &'n str) -> Cow<'n, str> {
    let taken = name.is_empty() || TAKEN.iter().any(|prefix| name.starts_with(prefix));
    match symbols.number(name) {
        Some(number) if taken => Cow::Owned(format!("{NUMBERED}{number}")),
        _ => Cow::Borrowed(name),
    }
}

/// The inverse of [`in_module`].
pub(crate) fn of_module<'n>(symbols: &'n Symbols, symbol: &'n str) -> &'n str {
    let number = symbol.strip_prefix(NUMBERED).and_then(|number| number.parse().ok());
    number.and_then(|number| symbols.name(number)).unwrap_or(symbol)
}
