//! Panics on purpose.

use std::sync::Once;

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
                shown(panic);
            }
        }));
    });
}
