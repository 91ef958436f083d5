//! Attempts on their way.

use super::entry::Keyed;
use super::unit::Unit;
use crate::id::{Bead, TierId};
use crate::shared::Shared;
use crate::sync::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// One attempt, from when its batch was handed over until it ends.
pub(super) struct Flight<K> {
    pub(super) unit: Arc<Unit<K>>,
    pub(super) entry: Keyed<K>,
    pub(super) tier: TierId,
    /// The version of the code, which tells it from earlier attempts of the function that have been given up and not come back yet.
    pub(super) version: u32,
    pub(super) loaded: bool,
    pub(super) begun: Instant,
}

pub(super) struct Flights<K>(Mutex<HashMap<(Bead, u32), Flight<K>>>);

impl<K> Flights<K> {
    pub(super) fn new() -> Flights<K> {
        Flights(Mutex::new(HashMap::new()))
    }

    /// Notes an attempt. Answers the same one if it has not ended: its batch panicked, and it is tried again alone.
    pub(super) fn begin(&self, shared: &Shared, flight: Flight<K>) -> Option<Flight<K>> {
        let _no_fork = shared.gate.enter();
        lock(&self.0).insert((flight.entry.bead, flight.version), flight)
    }

    /// Something was found out about it.
    pub(super) fn amend(
        &self,
        shared: &Shared,
        bead: Bead,
        version: u32,
        amend: impl FnOnce(&mut Flight<K>),
    ) {
        let _no_fork = shared.gate.enter();
        if let Some(flight) = lock(&self.0).get_mut(&(bead, version)) {
            amend(flight);
        }
    }

    pub(super) fn end(&self, shared: &Shared, bead: Bead, version: u32) -> Option<Flight<K>> {
        let _no_fork = shared.gate.enter();
        lock(&self.0).remove(&(bead, version))
    }

    pub(super) fn len(&self, shared: &Shared) -> usize {
        let _no_fork = shared.gate.enter();
        lock(&self.0).len()
    }
}
