//! This library.

use super::{Broker, Contender, Loops, Setup, Who};
use beadwork::{Bead, CompiledCode, Core, Engine, FnBackend, Job, Mutator, Threshold, Tier, TierId};
use std::ops::Range;
use std::time::Duration;

/// beadwork, one tier.
pub struct Beadwork(Engine);

impl Beadwork {
    /// The engine, for what the others cannot be asked.
    pub fn engine(&self) -> &Engine {
        &self.0
    }
}

const ENOUGH: &str = "the capacity was given";
const LIVE: &str = "nothing else removes it";

impl Contender for Beadwork {
    const WHO: Who = Who::Beadwork;
    type Handle = Bead;
    type Mutator = Mutator;

    fn new(setup: &Setup) -> Beadwork {
        let compile = setup.compile;
        let backend =
            FnBackend::new(move |job: &mut Job<'_>| Ok(CompiledCode::new(compile(job.core()?.get()))));
        let tier = Tier::new(backend).policy(Threshold::new(setup.threshold));
        let engine = Engine::builder().capacity(setup.functions.max(1024)).workers(setup.workers).tier(tier);
        Beadwork(engine.build().expect("address space is there"))
    }

    fn register(&self, core: usize) -> Bead {
        self.0.register(Core::new(core)).expect(ENOUGH)
    }

    fn register_many(&self, cores: Range<usize>, into: &mut Vec<Bead>) {
        into.extend(self.0.register_many(cores.map(Core::new)).expect(ENOUGH).iter());
    }

    fn install(&self, &bead: &Bead, entry: *const u8) {
        self.0.install(bead, TierId::BASELINE, CompiledCode::new(entry)).expect(LIVE);
    }

    fn remove(&self, bead: Bead) {
        self.0.remove(bead).expect(LIVE);
    }

    fn mutator(&self) -> Mutator {
        self.0.mutator()
    }

    #[inline(always)]
    fn dispatch(m: &Mutator, &bead: &Bead) -> Option<*const u8> {
        m.dispatch(bead).map(|code| code.as_ptr())
    }

    #[inline(always)]
    fn safepoint(m: &mut Mutator) {
        m.safepoint();
    }
}

impl Broker for Beadwork {
    fn is_pending(&self, &bead: &Bead) -> bool {
        self.0.state(bead).is_ok_and(|state| state.pending.is_some())
    }

    fn settle(&self, _: &[Bead]) {
        self.0.drain(Duration::from_secs(60)).expect("compiles are short");
    }
}

impl Loops for Beadwork {
    fn install_with_loops(&self, &bead: &Bead, entry: *const u8, sites: &[u64]) {
        let code = sites.iter().fold(CompiledCode::new(entry), |code, &site| code.osr(site, entry));
        self.0.install(bead, TierId::BASELINE, code).expect(LIVE);
    }

    #[inline(always)]
    fn probe(m: &Mutator, &bead: &Bead, site: u64) -> Option<*const u8> {
        m.osr_entry(bead, site).map(|code| code.as_ptr())
    }
}
