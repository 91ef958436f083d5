//! Runtime symbols: functions and data of the VM that code refers to by name.

use crate::error::LlvmError;
use std::borrow::Cow;
use std::collections::HashMap;

/// What names in a module begin with that are this crate's, LLVM's intrinsics', those without mangling, and those of sections and labels
/// in objects.
const TAKEN: [&str; 4] = ["beadwork.", "llvm.", "\u{1}", "."];

/// What the names of symbols begin with that cannot have their own.
const NUMBERED: &str = "beadwork.symbol.";

/// Names with addresses, numbered so that code can refer to them by a small number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Symbols {
    numbers: HashMap<String, u32>,
    addresses: Vec<u64>,
}

impl Symbols {
    /// Later entries replace earlier ones of the same name.
    pub(crate) fn new(named: &[(String, usize)]) -> Result<Symbols, LlvmError> {
        let mut symbols = Symbols::default();
        for (name, address) in named {
            if *address == 0 {
                return Err(LlvmError::NullSymbol { name: name.clone() });
            }
            match symbols.numbers.get(name) {
                Some(&number) => symbols.addresses[number as usize] = *address as u64,
                None => {
                    symbols.numbers.insert(name.clone(), symbols.addresses.len() as u32);
                    symbols.addresses.push(*address as u64);
                }
            }
        }
        Ok(symbols)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(crate) fn address(&self, number: u32) -> Option<u64> {
        self.addresses.get(number as usize).copied()
    }

    /// What a symbol is called in a module: its name, by which LLVM knows functions of the C library, unless the name means something
    /// else there.
    pub(crate) fn in_module<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let taken = name.is_empty() || TAKEN.iter().any(|prefix| name.starts_with(prefix));
        match self.number(name) {
            Some(number) if taken => Cow::Owned(format!("{NUMBERED}{number}")),
            _ => Cow::Borrowed(name),
        }
    }

    /// The inverse of [`in_module`](Symbols::in_module).
    pub(crate) fn of_module<'n>(&'n self, symbol: &'n str) -> &'n str {
        let number = symbol.strip_prefix(NUMBERED).and_then(|number| number.parse::<u32>().ok());
        let name = number.and_then(|number| self.numbers.iter().find(|&(_, &other)| other == number));
        name.map_or(symbol, |(name, _)| name)
    }

    pub(crate) fn address_of(&self, name: &str) -> Option<u64> {
        self.address(self.number(name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_given_again_replaces_the_first_and_null_is_refused_by_name() {
        let named = |name: &str, address| (name.to_owned(), address);
        let symbols = Symbols::new(&[named("a", 1), named("b", 2), named("a", 3)]).unwrap();
        assert_eq!((symbols.address_of("a"), symbols.address_of("b")), (Some(3), Some(2)));
        assert_eq!((symbols.address_of("c"), symbols.address(2)), (None, None));
        let error = Symbols::new(&[named("hole", 0)]).unwrap_err();
        assert!(error.to_string().contains("`hole`"), "{error}");
    }
}
