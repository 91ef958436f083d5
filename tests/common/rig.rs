//! One function on an inline engine with a virtual clock, called and bailed out of step by step.

use super::{Alive, LONG, Time};
use beadwork::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// What was compiled, in order: tier, version and why.
pub(crate) type Compiled = Arc<Mutex<Vec<(TierId, u32, Reason)>>>;

/// An inline engine on a virtual clock whose backends give each compile an entry of its own, and one function.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) m: Mutator,
    pub(crate) bead: Bead,
    pub(crate) time: Time,
    pub(crate) alive: Alive,
    pub(crate) compiled: Compiled,
    pub(crate) versions: Arc<Mutex<HashMap<u64, u32>>>,
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
    pub(crate) failing: Arc<AtomicBool>,
}

impl Rig {
    /// Tiers are entered at these numbers of calls.
    pub(crate) fn new(thresholds: &[u32], configure: impl FnOnce(EngineBuilder) -> EngineBuilder) -> Rig {
        let (time, alive, compiled) = (Time::default(), Alive::default(), Compiled::default());
        let (versions, failing) = (Arc::<Mutex<HashMap<_, _>>>::default(), Arc::<AtomicBool>::default());
        let events = Arc::<Mutex<Vec<_>>>::default();
        let sink = events.clone();
        let builder =
            Engine::builder().capacity(64).inline().clock(time.clock()).deopt(TieredDeopt::default());
        let builder = builder.on_event(move |event| sink.lock().unwrap().push(event.clone()));
        let entries = Arc::new(AtomicU32::new(0x1000));
        let tiers = thresholds.iter().fold(configure(builder), |builder, &threshold| {
            let (entries, compiled, versions) = (entries.clone(), compiled.clone(), versions.clone());
            let (alive, failing) = (alive.clone(), failing.clone());
            let backend = FnBackend::new(move |job: &mut Job<'_>| {
                compiled.lock().unwrap().push((job.tier(), job.version(), job.reason()));
                if failing.load(SeqCst) {
                    return Err(CompileError::failed("not this time"));
                }
                let entry = entries.fetch_add(1, SeqCst);
                versions.lock().unwrap().insert(entry.into(), job.version());
                Ok(alive.code_at(std::ptr::without_provenance(entry as usize)))
            });
            builder.tier(Tier::new(backend).policy(Threshold::new(threshold)))
        });
        let engine = tiers.build().unwrap();
        let (bead, m) = (engine.register(Core::new(0)).unwrap(), engine.mutator());
        Rig { engine, m, bead, time, alive, compiled, versions, events, failing }
    }

    /// One call: the version of the code that ran, if any did.
    pub(crate) fn call(&mut self) -> Option<u32> {
        let entry = self.m.dispatch(self.bead).map(|code| code.addr());
        if self.engine.state(self.bead).unwrap().pending.is_some() {
            self.engine.run_pending(usize::MAX);
        }
        self.m.safepoint();
        entry.map(|entry| self.versions.lock().unwrap()[&entry])
    }

    /// Calls until there is code; answers its version and the calls it took.
    pub(crate) fn warm(&mut self) -> (u32, u32) {
        for calls in 0..2_000_000 {
            if let Some(version) = self.call() {
                return (version, calls);
            }
        }
        panic!("never compiled");
    }

    pub(crate) fn bail(&mut self, version: u32) -> DeoptDecision {
        self.bail_with(BailoutInfo::new(version).guard(1).pc(9))
    }

    pub(crate) fn bail_with(&mut self, info: BailoutInfo) -> DeoptDecision {
        self.engine.bailout(self.bead, info).unwrap()
    }

    pub(crate) fn tier(&self) -> TierId {
        self.engine.tier(self.bead).unwrap()
    }

    /// Has code compiled for a tier, whatever the policies say.
    pub(crate) fn compile(&mut self, tier: TierId) -> u32 {
        self.engine.compile_now(self.bead, tier, LONG).unwrap()
    }

    pub(crate) fn deopts(&self) -> DeoptHistory {
        self.engine.deopts(self.bead).unwrap()
    }

    pub(crate) fn stats(&self) -> DeoptStats {
        self.engine.stats().deopts
    }

    pub(crate) fn compiles(&self) -> usize {
        self.compiled.lock().unwrap().len()
    }

    /// A million calls of code whose guard always fails; `guard` numbers it by the bailout. Answers bailouts and compiles.
    pub(crate) fn storm(&mut self, guard: impl Fn(u32) -> u32) -> (u32, usize) {
        let mut bailouts = 0;
        for _ in 0..1_000_000 {
            if let Some(version) = self.call() {
                let info = BailoutInfo::new(version).guard(guard(bailouts));
                bailouts += 1;
                assert_ne!(self.bail_with(info), DeoptDecision::Outdated);
            }
        }
        (bailouts, self.compiles())
    }
}

pub(crate) fn pause(calls: u32) -> DeoptDecision {
    DeoptDecision::Pause { calls }
}

pub(crate) const RECOMPILE: DeoptDecision = DeoptDecision::Recompile;
pub(crate) const REVERT_AT_ONCE: DeoptDecision = DeoptDecision::Revert { at_once: true };
