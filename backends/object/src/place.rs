//! Places what was compiled, and finishes the jobs it was compiled for.

use crate::part::Part;
use beadwork::{Bead, CodeMemory, CodeOwner, CompileError, CompiledCode, Job, Reclaim, TierId};
use beadwork_arena::{Arena, ArenaError, BlockToken, CodeGroup, Function};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Why a function that was compiled has no place; in [`CompileError::Backend`], or in [`CompileError::NoRoom`] if what is missing is
/// memory.
#[derive(Clone, Debug, thiserror::Error)]
#[error("function `{function}` was not placed: {error}")]
pub struct PlacementError {
    function: String,
    #[source]
    error: ArenaError,
}

impl PlacementError {
    /// The function's name.
    pub fn function(&self) -> &str {
        &self.function
    }

    /// What the arena said.
    pub fn arena(&self) -> &ArenaError {
        &self.error
    }
}

/// Whether the same function might be placed later, when code was freed.
fn lacks_memory(error: &ArenaError) -> bool {
    use ArenaError::{CapacityExhausted, ReservationRefused, TokensExhausted};
    matches!(error, CapacityExhausted { .. } | ReservationRefused { .. } | TokensExhausted)
}

/// Whether functions of the batch might be placed one by one. Where executable memory is refused, asking again for each function
/// costs a system call each.
fn may_be_one_functions(error: &ArenaError) -> bool {
    !matches!(error, ArenaError::ExecMemoryDenied { .. } | ArenaError::Unsupported { .. })
}

/// What a [`Placer`] tells a backend, for its statistics and its frontend.
pub trait Placing {
    /// A function of so many bytes was placed, with so many loop entries.
    fn placed(&self, bytes: usize, loops: usize);
    /// A function was not.
    fn failed(&self);
    /// A batch could not be placed as a whole, and is placed function by function.
    fn split(&self);
    /// A loop entry was left out, since there was no place for it.
    fn loop_failed(&self, bead: Bead, site: u64, error: CompileError);
}

/// Puts code into an arena, as a backend does for its jobs.
#[derive(Debug)]
pub struct Placer {
    arena: Arena,
    reclaim: Arc<ArenaReclaim>,
}

impl Placer {
    /// For a backend whose code lies in `arena`.
    pub fn new(arena: Arena) -> Placer {
        Placer { reclaim: Arc::new(ArenaReclaim::new(arena.clone())), arena }
    }

    /// The arena.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Places a batch, with one call of the arena if it can be, and finishes its jobs, which are in the same order. A function that
    /// has no place fails alone, and one whose loop entries have none does without.
    pub fn install(&self, jobs: &mut [&mut Job<'_>], batch: &mut [Staged], tells: &impl Placing) {
        let started = Instant::now();
        if batch.len() > 1 {
            let tiers: Vec<_> = jobs.iter().map(|job| job.tier()).collect();
            match self.place(batch, &tiers) {
                Ok(groups) => {
                    let share = started.elapsed() / batch.len() as u32;
                    for ((job, function), group) in jobs.iter_mut().zip(batch).zip(groups) {
                        job.finish(Ok(self.installable(function, group, share, tells)));
                    }
                    return;
                }
                Err(error) if !may_be_one_functions(&error) => {
                    for (job, function) in jobs.iter_mut().zip(batch) {
                        job.finish(Err(refused(function, error.clone(), tells)));
                    }
                    return;
                }
                Err(_) => tells.split(),
            }
        }
        for (job, function) in jobs.iter_mut().zip(batch) {
            let placed = self.install_one(job, function, tells);
            job.finish(placed);
        }
    }

    /// Places one function, and answers what its job is to be finished with.
    ///
    /// # Errors
    /// [`PlacementError`].
    pub fn install_one(
        &self,
        job: &Job<'_>,
        function: &mut Staged,
        tells: &impl Placing,
    ) -> Result<CompiledCode, CompileError> {
        let (bead, tiers) = (job.bead(), [job.tier()]);
        let started = Instant::now();
        let mut placed = self.place(std::slice::from_ref(function), &tiers);
        if let Err(error) = &placed
            && !function.loops.is_empty()
            && may_be_one_functions(error)
        {
            // It may be one of its loop entries that has no place, and the function can do without.
            for (site, part) in function.loops.drain(..) {
                let (function, error) = (part.name, error.clone());
                tells.loop_failed(bead, site, CompileError::because(PlacementError { function, error }));
            }
            placed = self.place(std::slice::from_ref(function), &tiers);
        }
        match placed.map(|groups| groups.into_iter().next()) {
            Ok(Some(group)) => Ok(self.installable(function, group, started.elapsed(), tells)),
            Ok(None) => Err(CompileError::failed("the arena placed nothing")),
            Err(error) => Err(refused(function, error, tells)),
        }
    }

    /// Places a batch, each function with all that belongs to it; the answer is in the same order. Profilers and debuggers see names with
    /// the tier behind them, without a space, as those of .NET look (`fib[T1]`, `fib@7[T2]` for a loop entry).
    fn place(&self, batch: &[Staged], tiers: &[TierId]) -> Result<Vec<CodeGroup>, ArenaError> {
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
    fn installable(
        &self,
        function: &Staged,
        group: CodeGroup,
        share: Duration,
        tells: &impl Placing,
    ) -> CompiledCode {
        let CodeGroup { block, entries } = group;
        let bytes = block.len();
        tells.placed(bytes, function.loops.len());
        // One token frees all entries.
        let owner = CodeOwner::token(self.reclaim.clone(), block.into_token().to_bits());
        let mut entries = function.parts().zip(entries).map(|(part, start)| start.wrapping_add(part.entry));
        let code = CompiledCode::new(entries.next().unwrap_or(std::ptr::null()));
        let code = code.owner(owner).with_bytes(bytes).with_compile_time(function.took + share);
        let loops = function.loops.iter().zip(entries.skip(function.bodies.len()));
        loops.fold(code, |code, ((site, _), entry)| code.osr(*site, entry))
    }
}

fn refused(function: &Staged, error: ArenaError, tells: &impl Placing) -> CompileError {
    tells.failed();
    let lacks_memory = lacks_memory(&error);
    let error = PlacementError { function: function.function.name.clone(), error };
    if lacks_memory { CompileError::no_room(error) } else { CompileError::because(error) }
}

/// What an arena's memory is, as an engine is [told](beadwork::Backend::memory) of it.
pub fn memory(arena: &Arena) -> CodeMemory {
    let stats = arena.stats();
    let (held, live) = (stats.resident_bytes as u64, stats.live_bytes as u64);
    CodeMemory::new(arena.id(), held, live, stats.live_blocks as u64)
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
