//! What a function is called from run to run.

use std::collections::HashMap;

use beadwork::ContentKey;

use crate::bytecode::Op;
use crate::hir::FuncIndex;
use crate::program::Program;

/// The keys of a program's functions: hashes of their listings and positions, so that they stay the same as long as the functions do.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<u64>,
    by_key: HashMap<u64, FuncIndex>,
    callees: Vec<Vec<FuncIndex>>,
}

impl Keys {
    /// Those of a program.
    #[must_use]
    pub fn of(program: &Program) -> Self {
        let (mut keys, mut by_key, mut callees) = (Vec::new(), HashMap::new(), Vec::new());
        for function in program.functions() {
            let listing = function.to_string();
            let index = function.index.0.to_le_bytes();
            let digest = ContentKey::of([&index[..], listing.as_bytes()]).to_bytes();
            let key = digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)).max(1);
            keys.push(key);
            by_key.insert(key, function.index);
            let called = function.code.iter().filter_map(|op| match op {
                Op::Call { func, .. } => Some(*func),
                _ => None,
            });
            callees.push(called.collect());
        }
        Self { keys, by_key, callees }
    }

    /// The key of a function, 0 if there is no such function.
    #[must_use]
    pub fn get(&self, function: FuncIndex) -> u64 {
        self.keys.get(function.index()).copied().unwrap_or(0)
    }

    /// The function with that key.
    #[must_use]
    pub fn find(&self, key: u64) -> Option<FuncIndex> {
        self.by_key.get(&key).copied()
    }

    /// The keys of the functions that a function calls, in order.
    #[must_use]
    pub fn callees(&self, function: FuncIndex) -> Vec<u8> {
        let callees = self.callees.get(function.index()).map_or(&[][..], Vec::as_slice);
        callees.iter().flat_map(|&callee| self.get(callee).to_le_bytes()).collect()
    }

    /// One number for all of them: the tag of the program's profile.
    #[must_use]
    pub fn tag(&self) -> u64 {
        let all: Vec<u8> = self.keys.iter().flat_map(|key| key.to_le_bytes()).collect();
        ContentKey::of([&all[..]]).to_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}
