//! An engine, a backend, and a program given as a list of function bodies.

use super::Tested;
use beadwork::{Bead, BeadInfo, CompileError, Core, Engine, EngineBuilder, Event, Manual, Tier, TierId};
use beadwork_object::BackendStats;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// The key of the first function.
pub const KEYS: u64 = 0x1000;

/// What a program's frontend knows and hears.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    beads: Arc<OnceLock<Vec<Bead>>>,
    failed_loops: Arc<Mutex<Vec<(u64, String)>>>,
}

impl Seen {
    /// All functions; none before they are registered.
    pub fn beads(&self) -> &[Bead] {
        self.beads.get().map_or(&[], |beads| beads)
    }

    /// The function with a key.
    pub fn function(&self, key: u64) -> Option<Bead> {
        self.beads().get(usize::try_from(key.checked_sub(KEYS)?).ok()?).copied()
    }

    pub fn loop_failed(&self, site: u64, error: &CompileError) {
        self.failed_loops.lock().unwrap().push((site, error.to_string()));
    }
}

#[allow(missing_debug_implementations, reason = "backends need not be printed")]
pub struct Rig<T: Tested> {
    pub engine: Engine,
    pub backend: Arc<T::Backend>,
    pub beads: Vec<Bead>,
    seen: Seen,
    failures: Arc<Mutex<Vec<(Bead, CompileError)>>>,
    installs: Arc<Mutex<Vec<(Bead, usize, Duration)>>>,
}

impl<T: Tested> Rig<T> {
    pub fn new(options: T::Options, bodies: Vec<T::Body>) -> Rig<T> {
        Rig::with(Engine::builder().inline(), options, bodies)
    }

    pub fn with(engine: EngineBuilder, options: T::Options, bodies: Vec<T::Body>) -> Rig<T> {
        Rig::beside(0, engine, options, bodies)
    }

    /// With other functions registered before, so that handles and addresses are others.
    pub fn beside(
        strangers: usize,
        engine: EngineBuilder,
        options: T::Options,
        bodies: Vec<T::Body>,
    ) -> Rig<T> {
        let (count, seen) = (bodies.len(), Seen::default());
        let backend = Arc::new(T::backend(options, bodies, seen.clone()));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let installs = Arc::new(Mutex::new(Vec::new()));
        let (failed, installed) = (failures.clone(), installs.clone());
        let engine = engine
            .capacity(1 << 12)
            .tier(Tier::new(backend.clone()).policy(Manual))
            .on_event(move |event| match event {
                Event::Failed { bead, error, .. } => failed.lock().unwrap().push((*bead, error.clone())),
                Event::Installed { bead, bytes, compile_time, .. } => {
                    installed.lock().unwrap().push((*bead, *bytes, *compile_time));
                }
                _ => (),
            })
            .build()
            .unwrap();
        for _ in 0..strangers {
            engine.register(Core::new(usize::MAX)).unwrap();
        }
        let register = |number| {
            let name = format!("function_{number}");
            let info = BeadInfo::named(&name).key(number as u64 + KEYS);
            engine.register_with(Core::new(number), &info).unwrap()
        };
        let beads: Vec<_> = (0..count).map(register).collect();
        seen.beads.set(beads.clone()).unwrap();
        Rig { engine, backend, beads, seen, failures, installs }
    }

    /// With these compiled.
    pub fn compiled(options: T::Options, bodies: Vec<T::Body>) -> Rig<T> {
        let rig = Rig::new(options, bodies);
        rig.compile(0..rig.beads.len());
        rig
    }

    /// Compiles these functions, as one batch if they are few.
    pub fn compile(&self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            self.engine.promote(self.beads[number], TierId::BASELINE).unwrap();
        }
        self.engine.run_pending(usize::MAX);
    }

    pub fn stats(&self) -> BackendStats {
        T::stats(&self.backend)
    }

    pub fn is_native(&self, number: usize) -> bool {
        self.engine.pin().code(self.beads[number]).is_some()
    }

    /// Calls the compiled function.
    pub fn call(&self, number: usize, x: i64) -> i64 {
        let pinned = self.engine.pin();
        let code = pinned.code(self.beads[number]);
        let code = code.unwrap_or_else(|| panic!("not compiled: {:?}", self.failure(number)));
        // SAFETY: every function of a program is `i64 -> i64`, and the mutator is pinned during the call.
        let f: extern "C-unwind" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        f(x)
    }

    /// The same for backends that pass callee bits.
    pub fn call_with_bits(&self, number: usize, x: i64) -> i64 {
        let pinned = self.engine.pin();
        let code = pinned.code(self.beads[number]);
        let code = code.unwrap_or_else(|| panic!("not compiled: {:?}", self.failure(number)));
        // SAFETY: with callee bits every function is `(u64, i64) -> i64`; the mutator is pinned during the call.
        let f: extern "C" fn(u64, i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        f(self.beads[number].to_bits(), x)
    }

    /// Whether a function has an entry at this loop.
    pub fn has(&self, number: usize, site: u64) -> bool {
        self.engine.pin().osr_entry(self.beads[number], site).is_some()
    }

    /// Calls a loop entry with a frame.
    pub fn enter<W>(&self, number: usize, site: u64, frame: &mut [W]) -> i64 {
        let pinned = self.engine.pin();
        let code = pinned.osr_entry(self.beads[number], site);
        let code = code.unwrap_or_else(|| panic!("no entry: {:?}", self.failed_loops()));
        // SAFETY: every loop entry of a program takes the address of a frame, and the caller gives one as long as it expects.
        let f: extern "C-unwind" fn(*mut W) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        f(frame.as_mut_ptr())
    }

    /// Which loop entries were left out, and why, as the frontend heard it.
    pub fn failed_loops(&self) -> Vec<(u64, String)> {
        self.seen.failed_loops.lock().unwrap().clone()
    }

    /// Why a function failed last.
    pub fn failure(&self, number: usize) -> Option<String> {
        let failures = self.failures.lock().unwrap();
        let mut of_it = failures.iter().rev().filter(|(bead, _)| *bead == self.beads[number]);
        of_it.next().map(|(_, error)| error.to_string())
    }

    /// What the engine was told of each install: function, bytes, compile time.
    pub fn installs(&self) -> Vec<(Bead, usize, Duration)> {
        self.installs.lock().unwrap().clone()
    }
}
