//! Runtime symbols: functions and data of the VM that code refers to by name.

use crate::error::CraneliftError;
use std::collections::HashMap;

/// Names with addresses, numbered so that code can refer to them by a small number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Symbols {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
    addresses: Vec<u64>,
}

impl Symbols {
    /// Later entries replace earlier ones of the same name.
    pub(crate) fn new(named: &[(String, usize)]) -> Result<Symbols, CraneliftError> {
        let mut symbols = Symbols::default();
        for (name, address) in named {
            if *address == 0 {
                return Err(CraneliftError::NullSymbol { name: name.clone() });
            }
            match symbols.numbers.get(name) {
                Some(&number) => symbols.addresses[number as usize] = *address as u64,
                None => {
                    symbols.numbers.insert(name.clone(), symbols.addresses.len() as u32);
                    symbols.names.push(name.clone());
                    symbols.addresses.push(*address as u64);
                }
            }
        }
        Ok(symbols)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(crate) fn name(&self, number: u32) -> Option<&str> {
        self.names.get(number as usize).map(String::as_str)
    }

    pub(crate) fn address(&self, number: u32) -> Option<u64> {
        self.addresses.get(number as usize).copied()
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
