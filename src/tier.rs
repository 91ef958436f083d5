//! How one compiled tier is configured.

use crate::backend::Backend;
use crate::id::{Bead, TierId};
use crate::policy::{Policy, Threshold};
use crate::shared::Filter;
use crate::sync::Arc;
use std::fmt;
use std::time::Duration;

/// Functions of the baseline given to a backend in one call, unless the tier says otherwise. Higher tiers compile one at a time, so
/// that lower ones can go first between jobs.
pub const DEFAULT_BATCH: usize = 32;

/// One compiled tier, for [`EngineBuilder::tier`](crate::EngineBuilder::tier): who compiles, when functions enter,
/// and how much at once.
pub struct Tier {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) batch: Option<usize>,
    pub(crate) max_parallel: usize,
    pub(crate) filter: Option<Filter>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) counts: bool,
    pub(crate) callees: usize,
}

impl Tier {
    /// A tier compiled by `backend`, entered at [`Threshold::default`] (1,000 calls), in batches of up to
    /// [`DEFAULT_BATCH`] as the baseline and one by one above it, by as many workers as there are (above the baseline, one
    /// less of two or more).
    pub fn new(backend: impl Backend) -> Tier {
        Tier {
            backend: Arc::new(backend),
            policy: Arc::new(Threshold::default()),
            batch: None,
            max_parallel: usize::MAX,
            filter: None,
            timeout: None,
            counts: false,
            callees: 0,
        }
    }

    /// When functions enter the tier.
    #[must_use]
    pub fn policy(mut self, policy: impl Policy) -> Tier {
        self.policy = Arc::new(policy);
        self
    }

    /// The most functions given to the backend in one call; 0 means 1. By default [`DEFAULT_BATCH`] for the baseline and 1
    /// above it. A worker takes a fair share of what waits,
    /// so that the others find work, and never more than this.
    #[must_use]
    pub fn batch(mut self, functions: usize) -> Tier {
        self.batch = Some(functions.max(1));
        self
    }

    /// Takes only functions `filter` agrees to; by name, by key, by size. It is asked on the mutator's thread when a policy is
    /// about to be, and when a function is promoted by hand.
    #[must_use]
    pub fn filter(mut self, filter: impl Fn(&Candidate) -> bool + Send + Sync + 'static) -> Tier {
        self.filter = Some(Arc::new(filter));
        self
    }

    /// How long a compile may take, from when its batch was taken, before it counts as failed. The backend is not interrupted: its late result is dropped. It is
    /// noticed when the result comes, and before that by other workers between their batches and by calls of the function.
    /// No limit by default.
    #[must_use]
    pub fn timeout(mut self, time: Duration) -> Tier {
        self.timeout = Some(time);
        self
    }

    /// States that the tier's code counts its calls (by [`Job::budget_slot`](crate::Job::budget_slot)) and iterations itself, so that
    /// calls from native code and native loops drive promotion too. Dispatches of it are not counted then. False by default.
    /// Backends ask [`Job::counts`](crate::Job::counts), which is false in the highest tier in any case.
    #[must_use]
    pub fn counts_itself(mut self, counts: bool) -> Tier {
        self.counts = counts;
        self
    }

    /// When a policy promotes a function to this tier, asks for up to `callees` of its most frequent callees too, by its
    /// [call profile](crate::Engine::callees), ahead of their policies and behind all other requests of the tier
    /// ([`Reason::Speculative`](crate::Reason::Speculative)). Callees with less than a hundredth of the calls counted are left
    /// out, and theirs are asked for only when they are hot themselves. 0 by default: none.
    #[must_use]
    pub fn speculate_on_callees(mut self, callees: usize) -> Tier {
        self.callees = callees;
        self
    }

    /// The most workers that compile for this tier at once; 0 means 1.
    #[must_use]
    pub fn max_parallel(mut self, workers: usize) -> Tier {
        self.max_parallel = workers.max(1);
        self
    }
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier")
            .field("backend", &self.backend.name())
            .field("batch", &self.batch)
            .field("max_parallel", &self.max_parallel)
            .finish_non_exhaustive()
    }
}

/// What a tier's [filter](Tier::filter) sees of a function: what was told at registration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// The function.
    pub bead: Bead,
    /// The tier it may enter.
    pub tier: TierId,
    /// Its name.
    pub name: Option<Arc<str>>,
    /// Its key.
    pub key: Option<u64>,
    /// Its size, in the VM's units.
    pub size: Option<u32>,
}
