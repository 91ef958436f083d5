//! What `fork` means for code memory.
//!
//! A dual-mapped region is shared memory, so after a fork two processes map it. Were either to write it, it would
//! change the code under the other's feet. Hence one set of handlers per process:
//! * *prepare* takes the registry's lock and then every arena's lock, so no placement is half done at the fork,
//! * *parent* and *child* seal every region and release the locks.
//!
//! Sealed regions lose their writable view, keep running what they hold, and are unmapped by each process when its
//! last block in them is freed. Private regions are copied by the kernel and stay as they are.
//!
//! Lock order: registry, then arenas in registry order. No thread takes the registry's lock while it holds an
//! arena's. The unwinder has a lock of its own, taken inside an arena's; prepare cannot hold that one, so a child of
//! a process where another thread was unwinding at the moment of the fork may find it taken, as with any use of
//! the unwinder after such a fork.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::arena::Shared;
use crate::error::ArenaError;
use crate::state::State;

type Registry = Vec<Weak<Shared>>;

/// Every arena of the process.
static REGISTRY: Mutex<Registry> = Mutex::new(Vec::new());

/// The locks held between prepare and the handler after it.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

/// Field order is drop order: guards go before what they guard, the registry last.
struct Held {
    states: Vec<MutexGuard<'static, State>>,
    arenas: Vec<Arc<Shared>>,
    registry: MutexGuard<'static, Registry>,
}

// SAFETY: a guard may not be released by another thread than the one that took it. `prepare`, `parent` and `child`
// run on the thread that forks, and between them `registry` keeps every other forking thread out.
unsafe impl Send for Held {}

/// The thread (`pthread_self`) between prepare and the handler after it; 0 if none. Only compared with the own id.
static FORKING: AtomicUsize = AtomicUsize::new(0);

/// Registers the handlers, and makes sure that `arena` is sealed at every fork from now on.
///
/// There is no `Once` here: a fork while another thread is inside one leaves the child waiting for ever. Two threads, or a
/// parent and its child, may therefore register the handlers twice, which the handlers allow for.
pub(crate) fn watch(arena: &Arc<Shared>) -> Result<(), ArenaError> {
    install()?;
    let mut registry = lock(&REGISTRY);
    registry.retain(|arena| arena.strong_count() > 0);
    registry.push(Arc::downgrade(arena));
    Ok(())
}

/// Runs `f` while no fork can happen.
pub(crate) fn excluded<R>(f: impl FnOnce() -> R) -> Result<R, ArenaError> {
    install()?;
    let _registry = lock(&REGISTRY);
    Ok(f())
}

/// Invariant: the registry's lock is only taken after this, so every fork while it is held waits in `prepare`.
fn install() -> Result<(), ArenaError> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.load(Relaxed) {
        // SAFETY: the handlers are functions of this crate that never unwind and may be registered repeatedly.
        let errno = unsafe { libc::pthread_atfork(Some(prepare), Some(after), Some(after)) };
        if errno != 0 {
            return Err(ArenaError::ForkHandlersRefused { errno });
        }
        REGISTERED.store(true, Relaxed);
    }
    Ok(())
}

fn this_thread() -> usize {
    // SAFETY: no preconditions. The forking thread has the same id in the child.
    unsafe { libc::pthread_self() as usize }
}

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn prepare() {
    if FORKING.load(Relaxed) == this_thread() {
        return; // registered twice, and this is the second call
    }
    let registry = lock(&REGISTRY);
    let arenas: Vec<Arc<Shared>> = registry.iter().filter_map(Weak::upgrade).collect();
    let states = arenas.iter().map(|arena| {
        // SAFETY: only lengthens the guard's lifetime. `Held` keeps the arena it points into alive longer than the
        // guard, by its field order.
        unsafe { mem::transmute::<MutexGuard<'_, State>, MutexGuard<'static, State>>(arena.lock()) }
    });
    let states = states.collect();
    *lock(&HELD) = Some(Held { states, arenas, registry });
    FORKING.store(this_thread(), Relaxed);
}

/// In the parent and in the child alike. Only the thread that ran `prepare` comes here with something held.
extern "C" fn after() {
    if FORKING.load(Relaxed) != this_thread() {
        return;
    }
    let Some(Held { mut states, arenas, registry }) = lock(&HELD).take() else { return };
    FORKING.store(0, Relaxed);
    for state in &mut states {
        state.seal();
    }
    drop(states);
    drop(registry);
    // Only now: dropping the last handle of an arena frees its memory, which needs no lock of ours.
    drop(arenas);
}
