//! Assumptions: made, relied on, broken.

use super::Engine;
use crate::assumption::{Assumed, Assumption, Dependent};
use crate::drain::Crew;
use crate::error::{InstallError, Stale};
use crate::event::Event;
use crate::id::{Bead, Reason, TierId};
use crate::job::Outcome;
use crate::shared::Shared;
use crate::state::{Ended, Ticket, VERSION_MAX};
use crate::stats::add;
use crate::table::{Installed, Ready, Revoked};
use crate::taken::TakenBack;

impl Engine {
    /// Makes an assumption, which holds until it is [invalidated](Engine::invalidate_assumption). Costs a lock and about 64
    /// bytes, which are given back when it is broken.
    ///
    /// ```
    /// # use beadwork::*;
    /// # extern "C" fn native() {}
    /// let engine = Engine::builder().tier(Tier::new(FnBackend::new(|_| Err(CompileError::Unfinished)))).build()?;
    /// let bead = engine.register(Core::ZERO)?;
    /// let no_subclasses = engine.assumption();
    /// let code = CompiledCode::new(native as *const u8).assumes(no_subclasses);
    /// engine.install(bead, TierId::BASELINE, code)?;
    /// // A class is loaded that breaks it:
    /// assert_eq!(engine.invalidate_assumption(no_subclasses), 1);
    /// assert!(engine.mutator().dispatch(bead).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn assumption(&self) -> Assumption {
        let _no_fork = self.shared().gate.enter();
        self.shared().assumptions.make()
    }

    /// Whether the assumption is one of this engine's that was not broken.
    pub fn is_valid(&self, assumption: Assumption) -> bool {
        let _no_fork = self.shared().gate.enter();
        self.shared().assumptions.holds(assumption)
    }

    /// Breaks an assumption, for good: takes back all code that relied on it, ends compiles that do, and answers how many
    /// functions' code or compile it took. Costs time proportional to the code that relied on it.
    ///
    /// A dispatch that happens after this returned does not answer such code; threads that are in it finish. Their functions
    /// count from zero again, and a compile that named the assumption is [discarded](Outcome::Discarded), which is no
    /// failure. Callbacks and events come once for each function that lost code, after all of them did. The assumption's second
    /// invalidation takes nothing, and returns no sooner than the code is gone either.
    pub fn invalidate_assumption(&self, assumption: Assumption) -> usize {
        let shared = self.shared();
        let Some(lost) = shared.take_what_relies_on(assumption) else { return 0 };
        let functions = lost.len();
        shared.tell_all_lost(lost);
        shared.emit(&Event::AssumptionBroken { assumption, functions });
        functions
    }
}

/// What a dependent of a broken assumption lost.
pub(crate) struct Lost {
    bead: Bead,
    /// Its code, and the version afterwards; else its compile.
    code: Option<(TakenBack, u32)>,
    requeue: Option<TierId>,
    pushed: bool,
}

impl Shared {
    /// Breaks an assumption, outside any section; answers what was lost, to be [told](Shared::tell_all_lost). `None` if it was broken
    /// before. Runs no foreign code.
    pub(crate) fn take_what_relies_on(&self, assumption: Assumption) -> Option<Vec<Lost>> {
        let dependents = {
            let _no_fork = self.gate.enter();
            self.assumptions.break_it(assumption)
        };
        // The lock is left before any bead's publishing bit is taken.
        let lost = dependents?.iter().filter_map(|dependent| self.revoke(dependent)).collect();
        let _no_fork = self.gate.enter();
        self.assumptions.forget(assumption);
        Some(lost)
    }

    pub(crate) fn tell_all_lost(&self, lost: Vec<Lost>) {
        lost.into_iter().for_each(|lost| self.tell_lost(lost));
    }

    fn revoke(&self, dependent: &Dependent) -> Option<Lost> {
        let (bead, now) = (dependent.bead, self.now());
        let mut pushed = false;
        let revoke = || {
            let revoked = self.table.revoke(dependent);
            if let Revoked::Compile(Ended::Requeue(next)) = revoked {
                pushed = self.push(bead, next, Reason::Resumed, 0, now);
            }
            Ok::<_, Stale>(revoked)
        };
        let (revoked, taken) =
            self.take_back(bead, revoke, |revoked| matches!(revoked, Revoked::Code(_))).ok()?;
        let (version, requeue) = match revoked {
            Revoked::Nothing => return None,
            Revoked::Compile(Ended::Requeue(next)) => (0, Some(next)),
            Revoked::Compile(Ended::Idle | Ended::Superseded) => (0, None),
            Revoked::Code(version) => (version, None),
        };
        Some(Lost { bead, code: taken.map(|taken| (taken, version)), requeue, pushed })
    }

    fn tell_lost(&self, lost: Lost) {
        self.resumed(lost.bead, lost.requeue, lost.pushed);
        match lost.code {
            Some((taken, version)) => {
                self.over(lost.bead, TierId::MAX, version);
                self.tell_taken(Some(taken));
            }
            None => self.changed(lost.bead),
        }
    }

    /// Whether a dependent can be struck off.
    fn is_gone(&self, dependent: &Dependent) -> bool {
        self.table.is_gone(dependent.bead, dependent.version)
    }

    /// Lists the result of a compile, inside a section, before it is published; answers what it relied on in vain.
    pub(crate) fn rely(&self, assumed: &[Assumed], ticket: Ticket) -> Result<(), Assumption> {
        // By S1 the ticket's version stands until the install raises it.
        let dependent = Dependent {
            bead: ticket.bead,
            version: ticket.version + u32::from(!mutant!("assume-old-version")),
            claim: Some(ticket.tier),
        };
        self.assumptions.register(assumed, dependent, |dependent| self.is_gone(dependent)).map(|_| ())
    }

    /// Installs code of the VM's own that may rely on something, inside a section. It has no claim, so it is listed under the
    /// version it would have if nothing came between, and again if something did.
    pub(crate) fn vm_install(
        &self,
        bead: Bead,
        tier: TierId,
        ready: Ready,
        assumed: &[Assumed],
    ) -> Result<Installed, InstallError> {
        if assumed.is_empty() {
            return self.table.vm_install(bead, tier, ready, None, || true).ok_or(Stale(bead).into());
        }
        loop {
            let now = self.table.live(bead)?;
            let at = now.version();
            if at >= VERSION_MAX {
                return Err(InstallError::VersionsUsedUp(bead));
            }
            let dependent = Dependent { bead, version: now.version_for_vm(), claim: None };
            let broken = self
                .assumptions
                .register(assumed, dependent, |dependent| self.is_gone(dependent))
                .map_err(InstallError::AssumptionBroken)?;
            let holds = || self.assumptions.broken() == broken || mutant!("assume-uncounted");
            if let Some(installed) = self.table.vm_install(bead, tier, ready, Some(at), holds) {
                return Ok(installed);
            }
        }
    }

    /// Ends a compile that relied on what does not hold any more, or lacked what it needs. That is no failure: the function
    /// counts from zero again.
    pub(crate) fn withdraw(&self, ticket: Ticket, broken: Option<Assumption>) -> Outcome {
        let (bead, now) = (ticket.bead, self.now());
        let (ended, pushed) = {
            let _no_fork = self.gate.enter();
            let ended = self.table.state(bead.index()).abandon(ticket);
            if ended != Ended::Superseded {
                self.table.start_over(bead.index());
            }
            let pushed =
                matches!(ended, Ended::Requeue(next) if self.push(bead, next, Reason::Resumed, 0, now));
            (ended, pushed)
        };
        let requeue = if let Ended::Requeue(next) = ended { Some(next) } else { None };
        self.resumed(bead, requeue, pushed);
        self.say_discarded(ticket, broken);
        if ended != Ended::Superseded {
            self.changed(bead);
        }
        Outcome::Discarded
    }

    /// Counts a result that came too late, and tells why.
    pub(crate) fn say_discarded(&self, ticket: Ticket, broken: Option<Assumption>) {
        let (bead, tier, version) = (ticket.bead, ticket.tier, ticket.code_version());
        add(&self.counters.discarded, 1);
        match broken {
            Some(assumption) => self.emit(&Event::AssumedInVain { bead, tier, version, assumption }),
            None => self.emit(&Event::Discarded { bead, tier, version }),
        }
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;
    use crate::code::CompiledCode;

    #[test]
    fn code_that_could_not_be_told_from_the_next_may_assume_nothing() {
        let engine = Engine::builder().capacity(4).inline().build().unwrap();
        let (bead, assumption) = (engine.register(0.into()).unwrap(), engine.assumption());
        let table = &engine.shared().table;
        let held = table.state(bead.index()).publish(bead, |_| true).unwrap();
        held.release(|state| state.set_version(VERSION_MAX));
        let code = || CompiledCode::new(std::ptr::without_provenance(1));
        let refused = engine.install(bead, TierId::BASELINE, code().assumes(assumption));
        assert_eq!(refused, Err(InstallError::VersionsUsedUp(bead)));
        assert_eq!(engine.install(bead, TierId::BASELINE, code()), Ok(VERSION_MAX));
    }

    #[test]
    fn a_million_recompiles_under_one_assumption_hold_no_memory_and_only_the_last_is_taken() {
        let engine = Engine::builder().capacity(4).inline().build().unwrap();
        let (bead, assumption) = (engine.register(0.into()).unwrap(), engine.assumption());
        let code = || CompiledCode::new(std::ptr::without_provenance(1)).assumes(assumption);
        for _ in 0..1_000_000 {
            engine.install(bead, TierId::BASELINE, code()).unwrap();
            assert!(engine.shared().assumptions.listed(assumption) <= 64);
        }
        assert_eq!(engine.invalidate_assumption(assumption), 1);
        assert!(engine.mutator().code(bead).is_none());
    }
}
