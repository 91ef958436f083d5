//! Requests somebody waits for, and compiles that come with the request.

use crate::backend::Job;
use crate::code::CompiledCode;
use crate::error::CompileError;
use crate::id::{Bead, TierId};
use crate::sync::{Arc, AtomicUsize, Mutex, lock};
use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::Thread;

/// How a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Code is installed, of this version.
    Installed(u32),
    Failed(CompileError),
    /// Cancelled, or overtaken by something else.
    Superseded,
}

/// One thread that waits for a function to reach a tier.
struct Wait {
    bead: Bead,
    tier: TierId,
    end: Mutex<Option<End>>,
    thread: Thread,
}

/// Threads that wait for compiles.
#[derive(Default)]
pub(crate) struct Waits {
    all: Mutex<Vec<Arc<Wait>>>,
    /// How many there are, so that nobody takes the lock while nobody waits.
    len: AtomicUsize,
}

/// The end of a wait that has been announced; take it back with [`Waits::leave`].
pub(crate) struct Ticket(Arc<Wait>);

impl Ticket {
    pub(crate) fn end(&self) -> Option<End> {
        lock(&self.0.end).clone()
    }
}

impl Waits {
    /// Announces that the calling thread waits. Announce before asking, so that no end is missed.
    pub(crate) fn join(&self, bead: Bead, tier: TierId) -> Ticket {
        let wait = Arc::new(Wait { bead, tier, end: Mutex::new(None), thread: std::thread::current() });
        let mut all = lock(&self.all);
        all.push(wait.clone());
        self.len.store(all.len(), Relaxed);
        Ticket(wait)
    }

    pub(crate) fn leave(&self, ticket: &Ticket) {
        let mut all = lock(&self.all);
        all.retain(|wait| !Arc::ptr_eq(wait, &ticket.0));
        self.len.store(all.len(), Relaxed);
    }

    /// A request of `bead` ended: for `tier` if it was compiled, for any if it was cancelled. Answers whom to wake.
    pub(crate) fn settle(&self, bead: Bead, tier: Option<TierId>, end: &End) -> Vec<Thread> {
        if self.len.load(Relaxed) == 0 {
            return Vec::new();
        }
        let meant = |wait: &&Arc<Wait>| {
            wait.bead == bead
                && match (tier, end) {
                    // Code of a higher tier serves as well.
                    (Some(tier), End::Installed(_)) => wait.tier <= tier,
                    (Some(tier), _) => wait.tier == tier,
                    (None, _) => true,
                }
        };
        let all = lock(&self.all);
        all.iter()
            .filter(meant)
            .map(|wait| {
                lock(&wait.end).get_or_insert_with(|| end.clone());
                wait.thread.clone()
            })
            .collect()
    }

    /// Whether somebody waits for a function of this index.
    pub(crate) fn wants(&self, index: u32) -> bool {
        self.len.load(Relaxed) != 0 && lock(&self.all).iter().any(|wait| wait.bead.index() == index)
    }

    /// Everybody, to look at the world anew.
    pub(crate) fn everybody(&self) -> Vec<Thread> {
        lock(&self.all).iter().map(|wait| wait.thread.clone()).collect()
    }
}

/// A compile that came with its request. Every closure that fits [`Engine::submit`](crate::Engine::submit) is one.
pub(crate) trait OneShot: Send {
    fn compile(self: Box<Self>, job: &mut Job<'_>) -> Result<CompiledCode, CompileError>;
    /// To hand it back as what it was.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<F> OneShot for F
where
    F: FnOnce(&mut Job<'_>) -> Result<CompiledCode, CompileError> + Send + 'static,
{
    fn compile(self: Box<Self>, job: &mut Job<'_>) -> Result<CompiledCode, CompileError> {
        self(job)
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

type Key = (Bead, TierId);

/// One-shot compiles that wait for their workers.
#[derive(Default)]
pub(crate) struct OneShots {
    all: Mutex<HashMap<Key, Box<dyn OneShot>>>,
    /// How many there are, so that nobody takes the lock while there is none.
    len: AtomicUsize,
}

impl OneShots {
    /// Keeps a compile; answers it if there is one for this function and tier already.
    pub(crate) fn put(&self, key: Key, compile: Box<dyn OneShot>) -> Option<Box<dyn OneShot>> {
        let mut all = lock(&self.all);
        if all.contains_key(&key) {
            return Some(compile);
        }
        all.insert(key, compile);
        self.len.store(all.len(), Relaxed);
        None
    }

    pub(crate) fn take(&self, key: Key) -> Option<Box<dyn OneShot>> {
        // Relaxed: who put a compile there queued the bead afterwards, and the caller claimed it (edge CLAIM).
        if self.len.load(Relaxed) == 0 {
            return None;
        }
        let mut all = lock(&self.all);
        let compile = all.remove(&key);
        self.len.store(all.len(), Relaxed);
        compile
    }

    /// Takes out everything of a function whose requests were cancelled. The caller drops it, outside any section.
    pub(crate) fn purge(&self, bead: Bead) -> Vec<Box<dyn OneShot>> {
        if self.len.load(Relaxed) == 0 {
            return Vec::new();
        }
        let mut all = lock(&self.all);
        let keys: Vec<_> = all.keys().filter(|(of, _)| *of == bead).copied().collect();
        let purged = keys.iter().filter_map(|key| all.remove(key)).collect();
        self.len.store(all.len(), Relaxed);
        purged
    }
}
