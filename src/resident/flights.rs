//! Attempts on their way.

use super::entry::Keyed;
use super::unit::Unit;
use crate::id::Bead;
use crate::shared::Shared;
use crate::sync::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// One attempt, from when its batch was handed over until it ends.
pub(super) struct Flight<K> {
    pub(super) unit: Arc<Unit<K>>,
    pub(super) entry: Keyed<K>,
    pub(super) loaded: bool,
    pub(super) begun: Instant,
}

pub(super) struct Flights<K>(Mutex<HashMap<Bead, Flight<K>>>);

impl<K> Flights<K> {
    pub(super) fn new() -> Flights<K> {
        Flights(Mutex::new(HashMap::new()))
    }

    /// Notes an attempt. Answers one of the same function that has not ended: its batch panicked, and it is tried again alone.
    pub(super) fn begin(&self, shared: &Shared, flight: Flight<K>) -> Option<Flight<K>> {
        let _no_fork = shared.gate.enter();
        lock(&self.0).insert(flight.entry.bead, flight)
    }

    /// It is an artifact that is linked.
    pub(super) fn is_loaded(&self, shared: &Shared, bead: Bead) {
        let _no_fork = shared.gate.enter();
        if let Some(flight) = lock(&self.0).get_mut(&bead) {
            flight.loaded = true;
        }
    }

    pub(super) fn end(&self, shared: &Shared, bead: Bead) -> Option<Flight<K>> {
        let _no_fork = shared.gate.enter();
        lock(&self.0).remove(&bead)
    }

    pub(super) fn len(&self, shared: &Shared) -> usize {
        let _no_fork = shared.gate.enter();
        lock(&self.0).len()
    }
}
