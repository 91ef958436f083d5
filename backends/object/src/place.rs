//! Places what was compiled.

use crate::part::Part;
use beadwork::{CodeMemory, CodeOwner, CompiledCode, Reclaim, TierId};
use beadwork_arena::{Arena, ArenaError, BlockToken, CodeGroup, Function};
use std::sync::Arc;
use std::time::Duration;

/// A function that has no place yet.
#[derive(Clone, Debug)]
pub struct Staged {
    /// The entry for calls.
    pub function: Part,
    /// Other functions that it contains.
    pub bodies: Vec<Part>,
    /// Its loop entries, by site.
    pub loops: Vec<(u64, Part)>,
    /// What building and compiling took, or loading.
    pub took: Duration,
    /// Whether it relies on assumptions of this engine.
    pub assumes: bool,
}

impl Staged {
    /// All code of the function, in the order in which relocations number it.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        let loops = self.loops.iter().map(|(_, part)| part);
        std::iter::once(&self.function).chain(&self.bodies).chain(loops)
    }

    fn len(&self) -> usize {
        1 + self.bodies.len() + self.loops.len()
    }
}

/// Puts code into an arena.
#[derive(Debug)]
pub(crate) struct Placer {
    arena: Arena,
    reclaim: Arc<ArenaReclaim>,
}

impl Placer {
    /// For a backend whose code lies in `arena`.
    pub(crate) fn new(arena: Arena) -> Placer {
        Placer { reclaim: Arc::new(ArenaReclaim::new(arena.clone())), arena }
    }

    /// The arena.
    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// What the arena's memory is, as an engine is told of it.
    pub(crate) fn memory(&self) -> CodeMemory {
        let stats = self.arena.stats();
        let (held, live) = (stats.resident_bytes as u64, stats.live_bytes as u64);
        CodeMemory::new(self.arena.id(), held, live, stats.live_blocks as u64)
    }

    /// Places a batch, each function with all that belongs to it; the answer is in the same order. Profilers and debuggers see names with
    /// the tier behind them, without a space, as those of .NET look (`fib[T1]`, `fib@7[T2]` for a loop entry).
    pub(crate) fn place(&self, batch: &[Staged], tiers: &[TierId]) -> Result<Vec<CodeGroup>, ArenaError> {
        let tiered = batch.iter().zip(tiers);
        let names = tiered
            .flat_map(|(function, tier)| function.parts().map(move |part| format!("{}[{tier}]", part.name)));
        let names: Vec<_> = names.collect();
        let parts: Vec<&Part> = batch.iter().flat_map(Staged::parts).collect();
        let mut relocations = Vec::with_capacity(parts.len());
        for function in batch {
            let first = relocations.len() as u32;
            relocations
                .extend(function.parts().zip(first..).map(|(part, own)| part.relocations_at(first, own)));
        }
        let functions = parts.iter().zip(&relocations).zip(&names);
        let functions: Vec<_> = functions
            .map(|((part, relocations), name)| Function { name, ..part.function(relocations) })
            .collect();
        let mut rest = functions.as_slice();
        let groups = batch.iter().map(|function| {
            let (group, later) = rest.split_at(function.len());
            rest = later;
            group
        });
        self.arena.place_groups(&groups.collect::<Vec<_>>())
    }

    /// What was placed, as the engine takes it.
    pub(crate) fn installable(&self, function: &Staged, group: CodeGroup, share: Duration) -> CompiledCode {
        let CodeGroup { block, entries } = group;
        let bytes = block.len();
        // One token frees all entries.
        let owner = CodeOwner::token(self.reclaim.clone(), block.into_token().to_bits());
        let mut entries = function.parts().zip(entries).map(|(part, start)| start.wrapping_add(part.entry));
        let code = CompiledCode::new(entries.next().unwrap_or(std::ptr::null()));
        let code = code.owner(owner).with_bytes(bytes).with_compile_time(function.took + share);
        let loops = function.loops.iter().zip(entries.skip(function.bodies.len()));
        loops.fold(code, |code, ((site, _), entry)| code.osr(*site, entry))
    }
}

/// Lets an engine free blocks of an arena by token, many at once.
///
/// It keeps the arena alive as long as any code of it is installed.
#[derive(Clone, Debug)]
pub struct ArenaReclaim(Arena);

impl ArenaReclaim {
    /// For owners made by `CodeOwner::token(Arc::new(ArenaReclaim::new(arena)), block.into_token().to_bits())`. Use
    /// one value per arena: the engine frees the tokens of one reclaimer together.
    pub fn new(arena: Arena) -> ArenaReclaim {
        ArenaReclaim(arena)
    }
}

impl Reclaim for ArenaReclaim {
    fn reclaim(&self, tokens: &[u32]) {
        let blocks: Vec<_> = tokens.iter().copied().map(BlockToken::from_bits).collect();
        if self.0.free_many(&blocks).is_err() {
            // One of them is not ours; the others still have to be freed, and a stranger cannot be.
            for &block in &blocks {
                let _ = self.0.free_many(&[block]);
            }
        }
    }
}
