//! GDB's interface to JIT compilers: a list of symbol files in memory, and a function that GDB sets a breakpoint at.
//!
//! Each placement is a symbol file of its own: an ELF object without contents, whose sections are where the functions are, with a
//! symbol and unwind information for each. When some of its functions are freed it is replaced by one without them, so that no
//! name outlives its code. See "JIT Compilation Interface" in GDB's manual.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::block::BlockToken;
use crate::place::Function;
use crate::unwind::UnwindInfo;
use list::Registered;

mod list;
mod symfile;

/// A function as a debugger knows it.
#[derive(Debug)]
struct Named {
    token: BlockToken,
    address: usize,
    len: usize,
    name: Box<str>,
    unwind: Option<UnwindInfo>,
}

/// The symbol files of an arena.
#[derive(Debug, Default)]
pub(crate) struct SymbolFiles {
    /// By number, with what is in them.
    files: BTreeMap<u64, (Registered, Vec<Named>)>,
    file_of: BTreeMap<BlockToken, u64>,
    next: u64,
}

impl SymbolFiles {
    /// Announces a batch.
    pub(crate) fn name<'a>(&mut self, batch: impl Iterator<Item = (BlockToken, usize, &'a Function<'a>)>) {
        let named = batch.map(|(token, address, function)| Named {
            token,
            address,
            len: function.code.len(),
            name: function.name.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
            unwind: function.unwind.cloned(),
        });
        let number = self.next;
        self.next += 1;
        self.announce(number, named.collect());
    }

    /// Takes the names of freed functions back.
    pub(crate) fn forget(&mut self, tokens: impl Iterator<Item = BlockToken>) {
        let mut left: BTreeMap<u64, Vec<Named>> = BTreeMap::new();
        for token in tokens {
            let Some(number) = self.file_of.remove(&token) else { continue };
            // Its old file goes as soon as the first of its functions does.
            if let Some((_, named)) = self.files.remove(&number) {
                left.insert(number, named);
            }
            if let Some(named) = left.get_mut(&number) {
                named.retain(|function| function.token != token);
            }
        }
        for (number, named) in left {
            self.announce(number, named);
        }
    }

    fn announce(&mut self, number: u64, named: Vec<Named>) {
        if named.is_empty() {
            return;
        }
        self.file_of.extend(named.iter().map(|function| (function.token, number)));
        // An object the writer refuses has no names in the debugger; nothing else depends on it.
        if let Some(symfile) = symfile::write(&named) {
            self.files.insert(number, (Registered::new(symfile), named));
        }
    }
}

/// One list for the process. Taken inside an arena's lock only, and a fork takes all of those first: so nobody holds it in a child.
fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use object::{Object, ObjectSymbol};

    use crate::{Arena, BlockToken, Function};

    /// Names and addresses GDB would find now, of functions whose names begin like this, file by file.
    fn known(prefix: &str) -> Vec<Vec<(String, u64)>> {
        let files = super::list::all();
        let names = files.iter().map(|file| {
            let file = object::File::parse(&**file).expect("an object file");
            let symbols = file.symbols().filter_map(|symbol| {
                let name = symbol.name().ok()?;
                let section =
                    object::ObjectSection::address(&file.section_by_index(symbol.section_index()?).ok()?);
                name.starts_with(prefix).then(|| (name.to_string(), section + symbol.address()))
            });
            symbols.collect::<Vec<_>>()
        });
        names.filter(|names| !names.is_empty()).collect()
    }

    #[test]
    fn a_debugger_knows_what_is_live_and_nothing_else() {
        let function = |name| Function { name, code: &[0xc3], align: 1, relocations: &[], unwind: None };
        let arena = Arena::builder().gdb(true).build().expect("Linux");
        let blocks =
            arena.place(&[function("known.a"), function("known.b\n"), function("known.c")]).expect("room");
        let other = arena.place(&[function("known.d")]).expect("room");
        let at: Vec<u64> = blocks.iter().chain(&other).map(|block| block.entry().addr() as u64).collect();
        let named = |name: &str, at: u64| (name.to_string(), at);
        let first = [named("known.a", at[0]), named("known.b?", at[1]), named("known.c", at[2])];
        assert_eq!(known("known."), [vec![named("known.d", at[3])], first.to_vec()]);
        let tokens: Vec<BlockToken> = blocks.into_iter().map(|block| block.into_token()).collect();
        arena.free_many(&[tokens[1]]).expect("live");
        assert_eq!(
            known("known."),
            [vec![first[0].clone(), first[2].clone()], vec![named("known.d", at[3])]]
        );
        arena.free_many(&[tokens[0], tokens[2]]).expect("live");
        drop(other);
        assert!(known("known.").is_empty());
        let left = arena.place(&[function("known.e")]).expect("room");
        drop(arena);
        assert_eq!(known("known.").len(), 1, "its block keeps the arena");
        drop(left);
        assert!(known("known.").is_empty());
    }
}
