//! What the integration tests share: native functions to install, owners that count, backends with faults.

#![allow(dead_code)] // each test file uses its part

use beadwork::{
    Backend, Bead, CodeOwner, CompileError, CompiledCode, Core, Engine, FnBackend, Job, Threshold, Tier,
};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub(crate) mod cache;
pub(crate) mod rig;

/// Longer than anything takes; a test that waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

#[inline(never)] // one address
pub(crate) extern "C" fn one() -> u64 {
    1
}

#[inline(never)] // one address
pub(crate) extern "C" fn two() -> u64 {
    2
}

pub(crate) fn addr(function: extern "C" fn() -> u64) -> *const u8 {
    function as *const u8
}

pub(crate) fn code() -> CompiledCode {
    CompiledCode::new(addr(one))
}

/// Counts what is alive.
#[derive(Clone, Default)]
pub(crate) struct Alive(Arc<AtomicUsize>, Arc<AtomicUsize>);

struct Token(Alive);

impl Alive {
    /// Code owned by a value that this counts.
    pub(crate) fn code(&self) -> CompiledCode {
        self.code_at(addr(one))
    }

    /// The same, at an entry of the test's choice.
    pub(crate) fn code_at(&self, entry: *const u8) -> CompiledCode {
        self.0.fetch_add(1, SeqCst);
        self.1.fetch_add(1, SeqCst);
        CompiledCode::new(entry).owner(CodeOwner::boxed(Token(self.clone()))).with_bytes(16)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(SeqCst)
    }

    pub(crate) fn ever(&self) -> usize {
        self.1.load(SeqCst)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, SeqCst);
    }
}

/// A backend that answers the trivial function.
pub(crate) fn trivial() -> FnBackend<impl Fn(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + Sync>
{
    FnBackend::new(|_: &mut Job<'_>| Ok(code()))
}

/// An inline engine with one tier, entered at `threshold` calls.
pub(crate) fn inline(
    threshold: u32,
    compile: impl Fn(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + Sync + 'static,
) -> Engine {
    Engine::builder()
        .capacity(1 << 16)
        .inline()
        .tier(Tier::new(FnBackend::new(compile)).policy(Threshold::new(threshold)))
        .build()
        .unwrap()
}

pub(crate) fn beads(engine: &Engine, count: usize) -> Vec<Bead> {
    engine.register_many((0..count).map(Core::new)).unwrap().iter().collect()
}

/// Opens once.
#[derive(Clone, Default)]
pub(crate) struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }

    pub(crate) fn wait(&self) {
        let (open, timeout) =
            self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), LONG, |open| !*open).unwrap();
        assert!(*open && !timeout.timed_out());
    }
}

/// A clock that stands until it is set, in milliseconds.
#[derive(Clone, Default)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Time {
    pub(crate) fn set(&self, millis: u64) {
        self.0.store(millis, SeqCst);
    }

    pub(crate) fn clock(&self) -> impl Fn() -> Duration + Send + Sync + 'static {
        let time = self.0.clone();
        move || Duration::from_millis(time.load(SeqCst))
    }
}

/// Runs at the end of a scope, also when a test fails there, so that threads that wait for it end.
pub(crate) struct Finally<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A backend that says when it is in a compile, and stays there until it is let go.
pub(crate) fn held() -> (impl Backend, Latch, Latch) {
    let (inside, go) = (Latch::default(), Latch::default());
    let (entered, may_go) = (inside.clone(), go.clone());
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        entered.open();
        may_go.wait();
        Ok(code())
    });
    (backend, inside, go)
}

/// Runs this on a thread of its own and answers its result; fails if it does not end.
pub(crate) fn ends<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (says, hears) = std::sync::mpsc::channel();
    std::thread::spawn(move || says.send(run()));
    hears.recv_timeout(LONG).expect("it does not end, or it panicked")
}

/// Waits until this holds; fails if it never does.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "{what}");
        std::thread::yield_now();
    }
}
