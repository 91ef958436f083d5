//! beadie 0.3.

use super::{Broker, Compile, Contender, Loops, Setup, Who};
use beadie::{Bead, BeadState, OsrCompileResult, OsrEntry, ThresholdPolicy};
use std::ptr::without_provenance_mut;
use std::sync::Arc;

/// beadie, one tier, without its backend adapter.
pub struct Beadie {
    beadie: Arc<beadie::Beadie>,
    compile: Compile,
}

/// The broker and the compiler that goes with a call.
pub struct BeadieMutator {
    beadie: Arc<beadie::Beadie>,
    compile: Compile,
}

impl Contender for Beadie {
    const WHO: Who = Who::Beadie;
    type Handle = Arc<Bead>;
    type Mutator = BeadieMutator;

    fn new(setup: &Setup) -> Beadie {
        let policy = ThresholdPolicy::new(setup.threshold);
        let beadie = match setup.queue {
            Some(queue) => beadie::Beadie::with_policy_and_capacity(policy, queue),
            None => beadie::Beadie::with_policy(policy),
        };
        Beadie { beadie: Arc::new(beadie), compile: setup.compile }
    }

    fn register(&self, core: usize) -> Arc<Bead> {
        self.beadie.register(without_provenance_mut(core), None)
    }

    fn install(&self, bead: &Arc<Bead>, entry: *const u8) {
        bead.eager_install(entry.cast_mut().cast());
    }

    fn remove(&self, bead: Arc<Bead>) {
        bead.invalidate();
    }

    fn collect(&self) {
        self.beadie.prune();
    }

    fn mutator(&self) -> BeadieMutator {
        BeadieMutator { beadie: self.beadie.clone(), compile: self.compile }
    }

    #[inline(always)]
    fn dispatch(m: &BeadieMutator, bead: &Arc<Bead>) -> Option<*const u8> {
        let compile = m.compile;
        let code = m.beadie.on_invoke(bead, move |bead| compile(bead.core_handle().addr()).cast_mut().cast());
        code.map(|code| code.cast_const().cast())
    }

    /// Its list of beads is dropped recursively, which overflows the stack if it is long; pruning is not.
    fn end(self, beads: Vec<Arc<Bead>>) {
        beads.iter().for_each(|bead| bead.invalidate());
        drop(beads);
        self.beadie.prune();
    }
}

impl Broker for Beadie {
    fn is_pending(&self, bead: &Arc<Bead>) -> bool {
        matches!(bead.state(), BeadState::Queued | BeadState::Compiling)
    }
}

impl Loops for Beadie {
    fn install_with_loops(&self, bead: &Arc<Bead>, entry: *const u8, sites: &[u64]) {
        let (entry, sites) = (entry.expose_provenance(), sites.to_vec());
        let result = self.beadie.submit_osr(bead, move |_| {
            let code = std::ptr::with_exposed_provenance_mut(entry);
            let osr = sites.into_iter().map(|site| OsrEntry { site, code }).collect();
            OsrCompileResult { entry: code, osr }
        });
        assert!(result.is_accepted());
        self.settle(std::slice::from_ref(bead));
    }

    #[inline(always)]
    fn probe(_: &BeadieMutator, bead: &Arc<Bead>, site: u64) -> Option<*const u8> {
        bead.osr_entry(site).map(|code| code.cast_const().cast())
    }
}
