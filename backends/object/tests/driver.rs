//! A driver with a compiler that is told what to do.

use beadwork::{Bead, CompileError, ContentKey, Core, Engine, Job, Manual, Tier, TierId};
use beadwork_arena::Arena;
use beadwork_object::{BackendStats, Compiler, Driver, Dump, Hears, Keeper, Part, Staged};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

type Build = dyn Fn(&Job<'_>) -> Result<(), CompileError> + Send + Sync;

/// What it compiles is a byte that nobody runs.
struct Fake {
    build: Box<Build>,
    refuses: bool,
    lent: AtomicUsize,
    taken_back: AtomicUsize,
}

impl Compiler for Fake {
    type Worker = ();

    fn lend(&self) -> Result<(), CompileError> {
        self.lent.fetch_add(1, SeqCst);
        if self.refuses { Err(CompileError::failed("no context")) } else { Ok(()) }
    }

    fn take_back(&self, (): ()) {
        self.taken_back.fetch_add(1, SeqCst);
    }

    fn compile(&self, (): &mut (), job: &mut Job<'_>, _: &Hears<'_, Self>) -> Result<Staged, CompileError> {
        (self.build)(job)?;
        let (name, code) = (job.bead().to_string(), vec![0xc3]);
        let (relocations, imports) = (Vec::new(), Vec::new());
        let function = Part { name, code, align: 16, entry: 0, relocations, imports, unwind: None };
        let took = std::time::Duration::from_nanos(1);
        Ok(Staged { function, bodies: Vec::new(), loops: Vec::new(), took, assumes: false })
    }

    fn content(&self, _: &Job<'_>) -> Option<ContentKey> {
        None
    }

    fn function(&self, _: u64) -> Option<Bead> {
        None
    }

    fn symbol(&self, _: &str) -> Option<u64> {
        None
    }

    fn loop_failed(&self, _: Bead, _: u64, _: &CompileError) {}

    fn keeper(&self) -> Option<&Keeper> {
        None
    }

    fn dump(&self) -> Option<&Dump> {
        None
    }
}

struct Rig {
    engine: Engine,
    backend: Arc<Driver<Fake>>,
    beads: Vec<Bead>,
}

impl Rig {
    fn new(
        refuses: bool,
        build: impl Fn(&Job<'_>) -> Result<(), CompileError> + Send + Sync + 'static,
    ) -> Rig {
        let (lent, taken_back) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let compiler = Fake { build: Box::new(build), refuses, lent, taken_back };
        let arena = Arena::builder().build().unwrap();
        let backend = Arc::new(Driver::new(compiler, arena, "fake".to_owned()));
        let tier = Tier::new(backend.clone()).policy(Manual);
        let engine = Engine::builder().inline().capacity(64).tier(tier).build().unwrap();
        let beads = engine.register_many((0..8).map(Core::new)).unwrap().iter().collect();
        Rig { engine, backend, beads }
    }

    fn compile(&self) -> BackendStats {
        self.beads.iter().for_each(|&bead| self.engine.promote(bead, TierId::BASELINE).unwrap());
        self.engine.run_pending(usize::MAX);
        self.backend.stats()
    }

    /// How often something was lent and taken back.
    fn workers(&self) -> (u64, u64) {
        let Fake { lent, taken_back, .. } = self.backend.compiler();
        (lent.load(SeqCst) as u64, taken_back.load(SeqCst) as u64)
    }
}

#[test]
fn a_batch_is_compiled_with_one_worker_which_is_taken_back() {
    let rig = Rig::new(false, |job| match job.core()?.get() {
        3 => Err(CompileError::failed("odd")),
        _ => Ok(()),
    });
    let stats = rig.compile();
    assert_eq!((stats.compiled, stats.failed, stats.arena.live_blocks), (7, 1, 7));
    assert!(stats.batches < 8, "{stats:?}");
    assert_eq!(rig.workers(), (stats.batches, stats.batches));
}

#[test]
fn where_nothing_can_be_lent_it_is_asked_for_once_and_each_function_fails_with_the_reason() {
    let rig = Rig::new(true, |_| panic!("there is nothing to compile with"));
    let stats = rig.compile();
    assert_eq!((stats.compiled, stats.failed), (0, 8));
    assert!(stats.batches < 8, "{stats:?}");
    assert_eq!(rig.workers(), (stats.batches, 0));
    for &bead in &rig.beads {
        assert_eq!(
            rig.engine.fault(bead, TierId::BASELINE).unwrap().last,
            CompileError::failed("no context")
        );
    }
}

#[test]
fn what_was_lent_does_not_come_back_from_a_compile_that_unwinds() {
    let rig = Rig::new(false, |job| match job.core()?.get() {
        0 => panic!("half-filled"),
        _ => Ok(()),
    });
    let stats = rig.compile();
    assert_eq!((rig.engine.stats().failed, stats.arena.live_blocks), (1, 7));
    let (lent, taken_back) = rig.workers();
    assert!(lent > taken_back && taken_back > 0, "{lent} {taken_back}");
}

#[test]
fn a_job_superseded_before_its_turn_is_withdrawn_and_not_compiled() {
    let shared = Arc::new(OnceLock::<(Engine, Vec<Bead>)>::new());
    let known = shared.clone();
    // Whichever function is built first removes all the others.
    let rig = Rig::new(false, move |job| {
        let (engine, beads) = known.get().unwrap();
        beads.iter().filter(|&&other| other != job.bead()).for_each(|&other| {
            engine.remove(other).unwrap();
        });
        Ok(())
    });
    shared.set((rig.engine.clone(), rig.beads.clone())).unwrap();
    let stats = rig.compile();
    assert_eq!((stats.compiled, stats.failed), (1, 0), "a second build would have failed to remove");
    assert!(stats.superseded > 0);
    assert_eq!(rig.engine.stats().discarded, stats.superseded);
}
