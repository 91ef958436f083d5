//! Pins: native code holds the address of a function's slot, so the index must not be used again.
//!
//! A slot's address carries no generation. If code that embeds it outlived the function and the index were reused,
//! that code would call another function. So compiled code that embeds a slot pins the callee's index until that
//! code has been reclaimed, and a slot the VM asked for by itself pins it until the VM promises to have forgotten it.

use crate::sync::{Mutex, lock};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

#[derive(Default)]
struct Pin {
    /// Live or retired compiled code that embeds the slot.
    dependents: u32,
    /// How often the VM itself asked for the address.
    held: u32,
    /// The index came off the free list and waits here for its last pin to go.
    parked: bool,
}

impl Pin {
    fn free(&self) -> bool {
        self.dependents == 0 && self.held == 0
    }
}

/// Pins by index; only functions whose slot was asked for are here.
#[derive(Default)]
pub(crate) struct Pins(Mutex<HashMap<u32, Pin>>);

impl Pins {
    /// Compiled code is about to embed the slot.
    pub(crate) fn add(&self, index: u32) {
        lock(&self.0).entry(index).or_default().dependents += 1;
    }

    /// The VM holds the address.
    pub(crate) fn hold(&self, index: u32) {
        lock(&self.0).entry(index).or_default().held += 1;
    }

    /// Code that embedded the slot is gone. True: the index was parked, put it back onto the free list.
    #[must_use]
    pub(crate) fn remove(&self, index: u32) -> bool {
        self.change(index, |pin| pin.dependents = pin.dependents.saturating_sub(1))
    }

    /// A hold came to nothing. True as for [`remove`](Pins::remove).
    #[must_use]
    pub(crate) fn unhold(&self, index: u32) -> bool {
        self.change(index, |pin| pin.held = pin.held.saturating_sub(1))
    }

    /// The VM has forgotten the address. True as for [`remove`](Pins::remove).
    #[must_use]
    pub(crate) fn let_go(&self, index: u32) -> bool {
        self.change(index, |pin| pin.held = 0)
    }

    /// May this index be used again? If not, it stays here until its last pin goes.
    pub(crate) fn park(&self, index: u32) -> bool {
        match lock(&self.0).get_mut(&index) {
            Some(pin) if !pin.free() => {
                pin.parked = true;
                true
            }
            _ => false,
        }
    }

    /// Whether code or the VM holds an address of this index.
    pub(crate) fn pinned(&self, index: u32) -> bool {
        lock(&self.0).get(&index).is_some_and(|pin| !pin.free())
    }

    fn change(&self, index: u32, change: impl FnOnce(&mut Pin)) -> bool {
        let mut pins = lock(&self.0);
        let Entry::Occupied(mut pin) = pins.entry(index) else { return false };
        change(pin.get_mut());
        pin.get().free() && pin.remove().parked
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_parked_index_comes_free_with_its_last_pin() {
        let pins = Pins::default();
        pins.add(3);
        pins.add(3);
        pins.hold(3);
        assert!(pins.park(3));
        assert!(!pins.remove(3));
        assert!(!pins.remove(3));
        assert!(pins.let_go(3));
        assert!(!pins.park(3));
    }

    #[test]
    fn an_index_without_pins_is_not_parked_and_unpinning_it_changes_nothing() {
        let pins = Pins::default();
        assert!(!pins.park(3));
        assert!(!pins.remove(3));
        pins.add(3);
        assert!(!pins.remove(3), "it was never parked");
    }
}
