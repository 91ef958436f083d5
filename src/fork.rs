//! What a fork does to engines: `pthread_atfork` handlers that close every engine's gate, so that no section is cut
//! in two, and in the child forget the workers that do not exist there.

use crate::shared::Shared;
use crate::sync::{Arc, lock};
use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, Once, Weak};

type Engines = Vec<Weak<Shared>>;

/// The list of engines, locked, and the engines themselves.
type Held = (MutexGuard<'static, Engines>, Vec<Arc<Shared>>);

/// Every engine of the process.
static ENGINES: Mutex<Engines> = Mutex::new(Vec::new());

thread_local! {
    /// What the forking thread holds from the prepare handler to the parent's or the child's.
    static FORKING: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Makes an engine known to the handlers, and registers them with the first one.
pub(crate) fn enlist(engine: &Arc<Shared>) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the handlers are functions of this program and are never unloaded before it ends. They take only
        // locks that no thread holds while it forks (ours, outside any section).
        #[allow(unsafe_code)]
        let failed = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
        if failed != 0 {
            tracing::warn!(target: "beadwork", errno = failed, "no fork handler: do not use engines after a fork");
        }
    });
    let mut engines = lock(&ENGINES);
    engines.retain(|known| known.strong_count() > 0);
    engines.push(Arc::downgrade(engine));
}

/// Forgets an engine that has ended.
pub(crate) fn delist(engine: &Arc<Shared>) {
    lock(&ENGINES).retain(|known| known.as_ptr() != Arc::as_ptr(engine));
}

extern "C" fn prepare() {
    let held = lock(&ENGINES);
    let engines: Vec<_> = held.iter().filter_map(Weak::upgrade).collect();
    // A thread whose thread-locals are gone forks without care for its engines' workers.
    let _ = FORKING.try_with(|forking| {
        engines.iter().for_each(|engine| engine.gate.close());
        *forking.borrow_mut() = Some((held, engines));
    });
}

extern "C" fn parent() {
    if let Some((held, engines)) = taken() {
        engines.iter().for_each(|engine| engine.gate.open());
        // The list first: the last reference to an engine frees code, which is foreign.
        drop(held);
    }
}

extern "C" fn child() {
    if let Some((held, engines)) = taken() {
        for engine in &engines {
            engine.mend_after_fork();
            engine.gate.open_in_child();
        }
        drop(held);
    }
}

fn taken() -> Option<Held> {
    FORKING.try_with(|forking| forking.borrow_mut().take()).ok().flatten()
}
