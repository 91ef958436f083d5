//! What the calling thread is doing for which drain, so that foreign code that comes back in is known for what it is: a
//! backend that asks for another compile and waits for it, a callback that shuts its own engine down.

use crate::id::Bead;
use crate::sync::thread_local;
use std::cell::RefCell;

enum Doing {
    /// It has a seat.
    Seated,
    /// It is in a backend that compiles these.
    Compiling(Vec<Bead>),
}

thread_local! {
    /// By the drain's address, innermost last.
    // Not `const`: loom's macro does not know that.
    #[allow(clippy::missing_const_for_thread_local)]
    static HERE: RefCell<Vec<(usize, Doing)>> = RefCell::new(Vec::new());
}

/// What was entered lasts until this is dropped.
pub(crate) struct Here(());

/// The calling thread has a seat of the drain at that address.
pub(crate) fn sit_down(drain: usize) -> Here {
    enter(drain, Doing::Seated)
}

/// The calling thread is going to compile `beads`.
pub(crate) fn compile(drain: usize, beads: Vec<Bead>) -> Here {
    enter(drain, Doing::Compiling(beads))
}

fn enter(drain: usize, doing: Doing) -> Here {
    // A thread that is ending has no such values any more, and does not come back in either.
    let _ = HERE.try_with(|here| here.borrow_mut().push((drain, doing)));
    Here(())
}

impl Drop for Here {
    fn drop(&mut self) {
        let _ = HERE.try_with(|here| here.borrow_mut().pop());
    }
}

/// How many of the drain's seats the calling thread has: more than one if it helps from inside of a compile.
pub(crate) fn seats(drain: usize) -> usize {
    let meant = |(of, doing): &&(usize, Doing)| *of == drain && matches!(doing, Doing::Seated);
    HERE.try_with(|here| here.borrow().iter().filter(meant).count()).unwrap_or(0)
}

/// Whether the calling thread is inside of a compile of that function.
pub(crate) fn is_compiling(drain: usize, bead: Bead) -> bool {
    let meant = |(of, doing): &(usize, Doing)| {
        *of == drain && matches!(doing, Doing::Compiling(beads) if beads.contains(&bead))
    };
    HERE.try_with(|here| here.borrow().iter().any(meant)).unwrap_or(false)
}
