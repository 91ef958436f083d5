//! What is compared, behind one trait, so that every case is written once.

mod beadie;
mod beadwork;
mod dashmap;
mod raw;
mod rwlock;

pub use self::beadie::Beadie;
pub use self::beadwork::Beadwork;
pub use self::dashmap::DashMapShape;
pub use self::raw::Raw;
pub use self::rwlock::RwLockShape;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// Compiles the function with that core; answers its entry. Borrowed for ever, so that passing it on costs nothing per call.
pub type Compile = &'static (dyn Fn(usize) -> *const u8 + Sync);

/// The name of a contender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Who {
    /// Plain atomics: what no broker can be faster than.
    Raw,
    /// This library.
    Beadwork,
    /// beadie 0.3.
    Beadie,
    /// A sharded map of counted entries, as in revmc's runtime.
    DashMap,
    /// Two maps behind reader-writer locks, as in the tiered backends of Zyntax and Rayzor.
    RwLock,
}

impl Who {
    /// All of them, in the order of the tables' columns.
    pub const ALL: [Who; 5] = [Who::Raw, Who::Beadwork, Who::Beadie, Who::DashMap, Who::RwLock];

    /// As written in tables.
    pub fn name(self) -> &'static str {
        ["raw", "beadwork", "beadie", "DashMap+Arc", "RwLock<HashMap>"][self as usize]
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a contender is made with.
#[derive(Clone, Copy)]
pub struct Setup {
    /// How many functions there will be.
    pub functions: usize,
    /// Calls at which a function is compiled.
    pub threshold: u32,
    /// Threads that compile, where that can be chosen.
    pub workers: usize,
    /// Requests the queue holds, where that can be chosen; `None` is the default.
    pub queue: Option<usize>,
    /// The compiler.
    pub compile: Compile,
}

impl Setup {
    /// Nothing is ever promoted.
    pub fn unpromoted(functions: usize) -> Setup {
        Setup {
            functions,
            threshold: u32::MAX,
            workers: 1,
            queue: None,
            compile: &|_| crate::measure::trivial_entry(),
        }
    }
}

/// One way of keeping functions, their counts and their code.
pub trait Contender: Sized + Send + Sync + 'static {
    /// Which one.
    const WHO: Who;
    /// What the VM keeps in its own function object.
    type Handle: Clone + Send + Sync + 'static;
    /// What a thread of the guest program has.
    type Mutator: Send + 'static;

    /// An empty one.
    fn new(setup: &Setup) -> Self;
    /// Registers one function.
    fn register(&self, core: usize) -> Self::Handle;
    /// Registers many, in the fastest way there is.
    fn register_many(&self, cores: Range<usize>, into: &mut Vec<Self::Handle>) {
        into.extend(cores.map(|core| self.register(core)));
    }
    /// Installs code without compiling anything.
    fn install(&self, handle: &Self::Handle, entry: *const u8);
    /// Ends a function.
    fn remove(&self, handle: Self::Handle);
    /// Frees what removals left.
    fn collect(&self) {}
    /// A thread's own part.
    fn mutator(&self) -> Self::Mutator;
    /// What happens at every call: the code to run, or a count.
    fn dispatch(m: &Self::Mutator, handle: &Self::Handle) -> Option<*const u8>;
    /// The same for a function that is known to have no code; false if it has.
    #[inline(always)]
    fn count(m: &Self::Mutator, handle: &Self::Handle) -> bool {
        Self::dispatch(m, handle).is_none()
    }
    /// The thread holds no code pointer.
    fn safepoint(_m: &mut Self::Mutator) {}
    /// Ends it, in a way that it survives.
    fn end(self, _handles: Vec<Self::Handle>) {}
}

/// One that has code compiled by itself, in the background.
pub trait Broker: Contender {
    /// Whether the function waits for a compile.
    fn is_pending(&self, handle: &Self::Handle) -> bool;

    /// Waits until nothing is pending any more.
    fn settle(&self, handles: &[Self::Handle]) {
        for handle in handles {
            while self.is_pending(handle) {
                std::thread::yield_now();
            }
        }
    }
}

/// One that knows native entries into loops.
pub trait Loops: Contender {
    /// Installs code with entries for these sites.
    fn install_with_loops(&self, handle: &Self::Handle, entry: *const u8, sites: &[u64]);
    /// The entry for a site, without counting.
    fn probe(m: &Self::Mutator, handle: &Self::Handle, site: u64) -> Option<*const u8>;
}
