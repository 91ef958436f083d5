//! Finishes the jobs of a batch with its code, or with why that has no place.

use crate::driver::{Compiler, Driver};
use crate::place::Staged;
use beadwork::{CompileError, CompiledCode, Job};
use beadwork_arena::{ArenaError, CodeGroup};
use std::time::{Duration, Instant};

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

impl<C: Compiler> Driver<C> {
    /// Places a batch, with one call of the arena if it can be, and finishes its jobs, which are in the same order. A function that
    /// has no place fails alone, and one whose loop entries have none does without.
    pub(crate) fn install(&self, jobs: &mut [&mut Job<'_>], batch: &mut [Staged]) {
        let started = Instant::now();
        if batch.len() > 1 {
            let tiers: Vec<_> = jobs.iter().map(|job| job.tier()).collect();
            match self.placer.place(batch, &tiers) {
                Ok(groups) => {
                    let share = started.elapsed() / batch.len() as u32;
                    for ((job, function), group) in jobs.iter_mut().zip(batch).zip(groups) {
                        job.finish(Ok(self.installable(function, group, share)));
                    }
                    return;
                }
                Err(error) if !may_be_one_functions(&error) => {
                    for (job, function) in jobs.iter_mut().zip(batch) {
                        job.finish(Err(self.refused(function, error.clone())));
                    }
                    return;
                }
                Err(_) => self.counters.split(),
            }
        }
        for (job, function) in jobs.iter_mut().zip(batch) {
            let placed = self.install_one(job, function);
            job.finish(placed);
        }
    }

    /// Places one function, and answers what its job is to be finished with.
    ///
    /// # Errors
    /// [`PlacementError`].
    pub(crate) fn install_one(
        &self,
        job: &Job<'_>,
        function: &mut Staged,
    ) -> Result<CompiledCode, CompileError> {
        let (bead, tiers) = (job.bead(), [job.tier()]);
        let started = Instant::now();
        let mut placed = self.placer.place(std::slice::from_ref(function), &tiers);
        if let Err(error) = &placed
            && !function.loops.is_empty()
            && may_be_one_functions(error)
        {
            // It may be one of its loop entries that has no place, and the function can do without.
            for (site, part) in function.loops.drain(..) {
                let (function, error) = (part.name, error.clone());
                self.loop_failed(bead, site, CompileError::because(PlacementError { function, error }));
            }
            placed = self.placer.place(std::slice::from_ref(function), &tiers);
        }
        match placed.map(|groups| groups.into_iter().next()) {
            Ok(Some(group)) => Ok(self.installable(function, group, started.elapsed())),
            Ok(None) => Err(CompileError::failed("the arena placed nothing")),
            Err(error) => Err(self.refused(function, error)),
        }
    }

    /// What was placed, as the engine takes it.
    fn installable(&self, function: &Staged, group: CodeGroup, share: Duration) -> CompiledCode {
        self.counters.placed(group.block.len(), function.loops.len());
        self.placer.installable(function, group, share)
    }

    fn refused(&self, function: &Staged, error: ArenaError) -> CompileError {
        self.counters.failed();
        let lacks_memory = lacks_memory(&error);
        let error = PlacementError { function: function.function.name.clone(), error };
        if lacks_memory { CompileError::no_room(error) } else { CompileError::because(error) }
    }
}
