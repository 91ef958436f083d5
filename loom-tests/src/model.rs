//! What all models share: an engine of two beads, and memory that notices who runs it too early or too late.

use beadwork::{Bead, Code, CodeOwner, CompileError, CompiledCode, Core, Engine, FnBackend, Job, Tier};
use loom::cell::UnsafeCell;
use loom::sync::Arc;

/// Explores every interleaving of `body` up to the bound on preemptions.
pub fn model(body: impl Fn() + Sync + Send + 'static) {
    model_within(3, body);
}

/// The same with a bound of its own, for models of three threads. The environment's goes first.
pub fn model_within(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 50_000;
    builder.check(body);
}

/// Runs `one` and `other` on two threads, then `end`; which of them is the spawned one decides what loom finds within its
/// bound, so both ways are tried.
pub fn both_ways<S: Clone + Send + 'static>(
    start: impl Fn() -> S + Copy + Send + Sync + 'static,
    one: impl Fn(&S) + Copy + Send + Sync + 'static,
    other: impl Fn(&S) + Copy + Send + Sync + 'static,
    end: impl Fn(&S) + Copy + Send + Sync + 'static,
) {
    both_ways_within(3, start, one, other, end);
}

/// The same with a bound of its own on preemptions.
pub fn both_ways_within<S: Clone + Send + 'static>(
    preemptions: usize,
    start: impl Fn() -> S + Copy + Send + Sync + 'static,
    one: impl Fn(&S) + Copy + Send + Sync + 'static,
    other: impl Fn(&S) + Copy + Send + Sync + 'static,
    end: impl Fn(&S) + Copy + Send + Sync + 'static,
) {
    for swapped in [false, true] {
        model_within(preemptions, move || {
            let shared = start();
            let spawned = {
                let shared = shared.clone();
                loom::thread::spawn(move || if swapped { one(&shared) } else { other(&shared) })
            };
            if swapped {
                other(&shared)
            } else {
                one(&shared)
            }
            let _ = spawned.join();
            end(&shared);
        });
    }
}

/// Native code's memory: loom reports a race if it is run before it was written, or while it is freed.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Checked>);

#[derive(Debug)]
struct Checked(UnsafeCell<Life>);

// SAFETY: every access goes through loom, which reports those that race; finding them is what the models are for.
#[allow(unsafe_code)]
unsafe impl Send for Checked {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Checked {}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Unwritten,
    Runs,
    Freed,
}

/// Frees its memory when it is dropped.
#[derive(Debug)]
struct Owner(Memory);

impl Memory {
    /// Memory for one piece of code.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Memory {
        Memory(Arc::new(Checked(UnsafeCell::new(Life::Unwritten))))
    }

    /// Compiles: writes the code at `entry`.
    pub fn compile(&self, entry: usize) -> CompiledCode {
        self.change(Life::Unwritten, Life::Runs);
        let code = CompiledCode::new(std::ptr::without_provenance(entry));
        code.owner(CodeOwner::boxed(Owner(self.clone()))).with_bytes(16)
    }

    /// Runs the code.
    pub fn run(&self) {
        // SAFETY: loom checks that no write happens at the same time, which is what the model is about.
        #[allow(unsafe_code)]
        self.0.0.with(|life| assert_eq!(unsafe { *life }, Life::Runs, "ran code that is not there"));
    }

    /// Whether it was freed. Only for the end of a model.
    pub fn is_freed(&self) -> bool {
        // SAFETY: as in `run`.
        #[allow(unsafe_code)]
        self.0.0.with(|life| unsafe { *life } == Life::Freed)
    }

    /// Whether code was ever written here. Only for the end of a model.
    pub fn is_written(&self) -> bool {
        // SAFETY: as in `run`.
        #[allow(unsafe_code)]
        self.0.0.with(|life| unsafe { *life } != Life::Unwritten)
    }

    fn change(&self, from: Life, to: Life) {
        #[allow(unsafe_code)]
        self.0.0.with_mut(|life| {
            // SAFETY: as in `run`.
            let before = unsafe { life.replace(to) };
            assert_eq!(before, from, "written or freed twice");
        });
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.change(Life::Runs, Life::Freed);
    }
}

/// An engine of two beads and one tier.
pub fn engine(
    workers: usize,
    compile: impl Fn(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + Sync + 'static,
) -> Engine {
    match Engine::builder().capacity(2).workers(workers).tier(Tier::new(FnBackend::new(compile))).build() {
        Ok(engine) => engine,
        Err(error) => panic!("{error}"),
    }
}

/// A registered function.
pub fn bead(engine: &Engine) -> Bead {
    match engine.register(Core::new(1)) {
        Ok(bead) => bead,
        Err(error) => panic!("{error}"),
    }
}

/// Code entered at `entry`, of which nobody looks at the memory.
pub fn at(entry: usize) -> CompiledCode {
    CompiledCode::new(std::ptr::without_provenance(entry))
}

/// The entry a dispatch answered, 0 for none.
pub fn entry(code: Option<Code<'_>>) -> usize {
    code.map_or(0, |code| code.addr() as usize)
}

/// A backend that no model calls.
pub fn unused(_: &mut Job<'_>) -> Result<CompiledCode, CompileError> {
    Err(CompileError::Unfinished)
}
