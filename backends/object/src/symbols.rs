//! Runtime symbols: functions and data of the VM that code refers to by name.

use std::collections::HashMap;

/// Names with addresses, numbered from 0 on so that code can refer to them by a small number.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
    addresses: Vec<u64>,
}

/// A runtime symbol was given a null address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the runtime symbol `{name}` was given a null address")]
pub struct NullSymbol {
    /// The symbol.
    pub name: String,
}

impl Symbols {
    /// Later entries replace earlier ones of the same name.
    ///
    /// # Errors
    /// The first one whose address is null.
    pub fn new(named: &[(String, usize)]) -> Result<Symbols, NullSymbol> {
        let mut symbols = Symbols::default();
        for (name, address) in named {
            if *address == 0 {
                return Err(NullSymbol { name: name.clone() });
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

    /// The number of a name.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The name with a number.
    pub fn name(&self, number: u32) -> Option<&str> {
        self.names.get(number as usize).map(String::as_str)
    }

    /// The address with a number.
    pub fn address(&self, number: u32) -> Option<u64> {
        self.addresses.get(number as usize).copied()
    }

    /// The address of a name.
    pub fn address_of(&self, name: &str) -> Option<u64> {
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
        assert_eq!((symbols.number("b"), symbols.name(1), symbols.name(2)), (Some(1), Some("b"), None));
        let error = Symbols::new(&[named("hole", 0)]).unwrap_err();
        assert!(error.to_string().contains("`hole`"), "{error}");
    }
}
