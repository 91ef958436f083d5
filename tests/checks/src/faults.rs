//! Panics on purpose.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    /// The first panic of this thread that was not on purpose: the engine contains those within compiles.
    static WRONG: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The payload of a panic on purpose, which is not shown.
pub(crate) struct OnPurpose;

pub(crate) fn panic_on_purpose() -> ! {
    std::panic::panic_any(OnPurpose)
}

/// Shows panics as before, but for those on purpose.
pub(crate) fn hide() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.payload().is::<OnPurpose>() {
                WRONG.with_borrow_mut(|wrong| {
                    let _ = wrong.get_or_insert_with(|| panic.to_string());
                });
                shown(panic);
            }
        }));
    });
}

/// What went wrong within a compile, once.
pub(crate) fn wrong() -> Option<String> {
    WRONG.take()
}
