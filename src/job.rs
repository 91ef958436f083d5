//! One function to compile, as its backend sees it: what it is told, what it may ask the engine for, and how it ends.

use crate::assumption::{Assumed, Assumption};
use crate::code::CompiledCode;
use crate::contain::contain;
use crate::error::{CompileError, CoreError, Stale};
use crate::id::{Bead, Core, Reason, TierId};
use crate::moving::Inside;
use crate::native::CountingHost;
use crate::queue::Request;
use crate::snapshot::Snapshot;
use crate::state::Ticket;
use crate::sync::Arc;
use crate::unit::UnitHost;
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// What became of a finished job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The code is installed; dispatches find it from now on.
    Installed {
        /// The version given to the code, which a bailout names.
        version: u32,
    },
    /// The request was superseded while it was being compiled; the code has been dropped.
    Discarded,
    /// The result was an error; the bead is asked for again later.
    Failed,
    /// The job had been finished before; this result has been dropped.
    AlreadyFinished,
}

/// What the engine does for a job. The tests of a backend can stand in for an engine.
pub(crate) trait JobHost: CountingHost + UnitHost {
    fn core(&self, bead: Bead) -> Result<Core, Stale>;
    /// Keeps a moving collector away.
    fn enter_core(&self) -> Result<Inside<'_>, CoreError>;
    fn name(&self, bead: Bead) -> Option<Arc<str>>;
    fn key(&self, bead: Bead) -> u64;
    fn is_current(&self, ticket: Ticket) -> bool;
    /// The engine is being ended.
    fn is_closing(&self) -> bool;
    fn osr_sites(&self, ticket: Ticket) -> Vec<u64>;
    /// Lists the compile under an assumption; false if it does not hold.
    fn assume(&self, ticket: Ticket, assumption: Assumption) -> bool;
    /// Pins the callee's index and answers its slot's address.
    fn pin_slot(&self, callee: Bead) -> Result<Slot, Stale>;
    /// Pins the index of a callee whose slot's address the backend had before; refused if the address means another
    /// function by now.
    fn pin_embedded(&self, callee: Bead) -> Result<(), Stale>;
    fn unpin(&self, callees: &[Bead]);
    fn finish(&self, ticket: Ticket, result: Result<CompiledCode, CompileError>) -> Outcome;
}

/// One function to compile.
pub struct Job<'e> {
    host: &'e dyn JobHost,
    ticket: Ticket,
    request: Request,
    handed_over: Instant,
    /// Tells others that it is finished. Not the shim's: no protocol depends on it.
    done: &'e AtomicBool,
    /// Callees whose slots were asked for, and so pinned, and that no code owns yet.
    embeds: Vec<Bead>,
    /// What the compile relies on; `listed` while it holds.
    assumed: Vec<Assumed>,
    /// What the frontend noted when it was asked for.
    snapshot: Option<Snapshot>,
    finished: bool,
}

impl<'e> Job<'e> {
    pub(crate) fn new(
        host: &'e dyn JobHost,
        ticket: Ticket,
        request: Request,
        handed_over: Instant,
        done: &'e AtomicBool,
    ) -> Job<'e> {
        Job {
            host,
            ticket,
            request,
            handed_over,
            done,
            embeds: Vec::new(),
            assumed: Vec::new(),
            snapshot: None,
            finished: false,
        }
    }

    /// The function.
    pub fn bead(&self) -> Bead {
        self.ticket.bead
    }

    /// The tier to compile for.
    pub fn tier(&self) -> TierId {
        self.ticket.tier
    }

    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Why it is compiled.
    pub fn reason(&self) -> Reason {
        self.request.reason
    }

    /// Calls counted when it was asked for; 0 where nobody counted.
    pub fn calls(&self) -> u32 {
        self.request.calls
    }

    /// The VM's handle for the function, read from the column now: a moving collector may have updated it, and may again. To
    /// follow a core that is a pointer, use [`with_core`](Job::with_core).
    ///
    /// # Errors
    /// [`Stale`] if the function was removed meanwhile; finish the job with that error.
    pub fn core(&self) -> Result<Core, Stale> {
        self.host.core(self.ticket.bead)
    }

    /// The same for another function, whose body is to be [included](Job::include) in this one's code. To follow a core that is
    /// a pointer, use [`with_core_of`](Job::with_core_of).
    ///
    /// # Errors
    /// [`Stale`] if it is not live.
    pub fn core_of(&self, bead: Bead) -> Result<Core, Stale> {
        self.host.core(bead)
    }

    /// What the frontend noted of the function on the thread that asked for this compile, when it did; see
    /// [`EngineBuilder::snapshot`](crate::EngineBuilder::snapshot). Dropped with the job.
    ///
    /// `None` if it noted nothing or something of another type; and now and then where the compile was not asked for as such: an
    /// interrupted one that a forked child takes up again, or one that was asked for just as an earlier one ended. So a
    /// backend has to be able to do without.
    pub fn snapshot<T: Any>(&self) -> Option<&T> {
        self.snapshot.as_ref()?.downcast_ref()
    }

    pub(crate) fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    pub(crate) fn give_snapshot(&mut self, snapshot: Option<Snapshot>) {
        self.snapshot = snapshot;
    }

    /// The name given at registration.
    pub fn name(&self) -> Option<Arc<str>> {
        self.host.name(self.ticket.bead)
    }

    /// The key given at registration, 0 if none was.
    pub fn key(&self) -> u64 {
        self.key_of(self.ticket.bead)
    }

    /// The key of another function, 0 if it has none or is not live.
    pub fn key_of(&self, bead: Bead) -> u64 {
        self.host.key(bead)
    }

    /// Whether the compile relies on [assumptions](Job::assume) so far. They are those of this engine, so the code is of no use to
    /// another one.
    pub fn relies_on_assumptions(&self) -> bool {
        !self.assumed.is_empty()
    }

    /// The version the code will have when it is installed; a bailout of it names this.
    pub fn version(&self) -> u32 {
        self.ticket.code_version()
    }

    /// The loops for which native entries were asked for, most iterations first; with [`Reason::Osr`] at least one. A
    /// backend gives the entries by [`CompiledCode::osr`], and may give others. A loop that was asked for and gets none is asked for again
    /// only after 8,000 iterations more, doubling each time. Empty after code was taken back, until a loop is hot again.
    pub fn osr_sites(&self) -> Vec<u64> {
        self.host.osr_sites(self.ticket)
    }

    /// Has the result rely on an assumption; answers whether it holds. From now on the compile is one of those that
    /// [`Engine::invalidate_assumption`](crate::Engine::invalidate_assumption) ends, and
    /// [`is_current`](Job::is_current) tells so.
    ///
    /// If it does not hold, compile without it, in a way that needs it not ([`CompiledCode::assumes`] and this remember what was
    /// named), or give up: finish with [`CompileError::AssumptionBroken`]. Only an assumption that holds is noted here, so a job
    /// may ask for several and use those that do.
    #[must_use = "code must not rely on an assumption that does not hold"]
    pub fn assume(&mut self, assumption: Assumption) -> bool {
        if self.assumed.iter().any(|assumed| assumed.on == assumption) {
            return self.host.is_current(self.ticket);
        }
        let holds = self.host.assume(self.ticket, assumption);
        if holds {
            self.assumed.push(Assumed { on: assumption, listed: true });
        }
        holds
    }

    /// Whether the result is still wanted: it would be installed, and the engine is not being ended. A long compile can look now
    /// and then and give up early, with [`CompileError::Withdrawn`]; a backend that compiles one function after the other looks
    /// before each.
    pub fn is_current(&self) -> bool {
        !self.host.is_closing() && self.host.is_current(self.ticket)
    }

    /// The stable address of `callee`'s code pointer, for code that calls through it.
    ///
    /// The callee's index is not reused while the code of this job exists, so the address never comes to mean
    /// another function: after the callee is removed, the slot holds the engine's fallback.
    ///
    /// # Errors
    /// [`Stale`] if the callee is not live.
    pub fn slot(&mut self, callee: Bead) -> Result<Slot, Stale> {
        let slot = self.host.pin_slot(callee)?;
        self.embeds.push(callee);
        Ok(slot)
    }

    /// Hands over the result; code is installed before this returns, if the request is still current.
    pub fn finish(&mut self, result: Result<CompiledCode, CompileError>) -> Outcome {
        if std::mem::replace(&mut self.finished, true) {
            return Outcome::AlreadyFinished;
        }
        let result = match result {
            Ok(mut code) => self.hand_over(&mut code).map(|()| code),
            Err(error) => Err(error),
        };
        // What no code has taken over.
        self.host.unpin(&std::mem::take(&mut self.embeds));
        let outcome = self.host.finish(self.ticket, result);
        self.done.store(true, Relaxed);
        outcome
    }

    /// Has the code own what was asked for in its name.
    fn hand_over(&mut self, code: &mut CompiledCode) -> Result<(), CompileError> {
        code.compile_time.get_or_insert_with(|| self.handed_over.elapsed());
        if code.has_extras().is_none() && self.embeds.is_empty() && self.assumed.is_empty() {
            return Ok(());
        }
        let extras = code.extras();
        for callee in std::mem::take(&mut extras.embeds) {
            self.host.pin_embedded(callee)?;
            self.embeds.push(callee);
        }
        extras.embeds = std::mem::take(&mut self.embeds);
        extras.assumed.retain(|named| self.assumed.iter().all(|listed| listed.on != named.on));
        extras.assumed.append(&mut self.assumed);
        Ok(())
    }

    /// Whether the callee is pinned already.
    pub(crate) fn embeds_slot_of(&self, callee: Bead) -> bool {
        self.embeds.contains(&callee)
    }

    pub(crate) fn host(&self) -> &'e dyn JobHost {
        self.host
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        self.host.unpin(&self.embeds);
        let Some(snapshot) = self.snapshot.take() else { return };
        if let Err(message) = contain(|| drop(snapshot)) {
            tracing::error!(target: "beadwork", message, "dropping a snapshot panicked");
        }
    }
}

impl fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("bead", &self.bead()).field("tier", &self.tier()).finish_non_exhaustive()
    }
}

/// The stable address of a function's code pointer.
///
/// The cell holds the entry of the function's newest code, or the engine's
/// [fallback](crate::EngineBuilder::fallback) (0 without one) while there is none. Native code loads it with an
/// ordinary load and calls; the next install retargets such calls without touching them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot(pub(crate) usize);

impl Slot {
    /// The cell's address, to be embedded in code. 8-byte aligned, constant for the engine's life.
    pub fn addr(self) -> usize {
        self.0
    }

    /// The cell as a pointer to the code pointer. Reading it is safe only while the engine lives, and has to be an
    /// atomic (Acquire) load in Rust.
    pub fn as_ptr(self) -> *const std::sync::atomic::AtomicPtr<u8> {
        std::ptr::with_exposed_provenance(self.0)
    }
}
