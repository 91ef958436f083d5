//! A picture of a warm-up: what an engine did while a program was run again and again, as one HTML page that needs nothing else.

mod chart;
mod page;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use beadwork::{Engine, Event, HotFunction, TierId};

/// Functions the page lists.
const LISTED: usize = 12;

/// One or more runs of the program, and the engine right after them.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When they ended.
    pub at: Duration,
    /// How long each took, on average.
    pub took: Duration,
    /// Functions by tier, the interpreter first.
    pub tiers: Vec<u64>,
    /// Requests that wait.
    pub queued: u64,
    /// Functions being compiled.
    pub compiling: u64,
    /// Bytes of code.
    pub code_bytes: u64,
}

/// Collects what the page shows.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    events: Arc<Mutex<Vec<(Duration, Event)>>>,
    samples: Vec<Sample>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { start: Instant::now(), events: Arc::default(), samples: Vec::new() }
    }
}

impl Recorder {
    /// Time starts now.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What hears the engine's events.
    pub fn listener(&self) -> impl Fn(&Event) + Send + Sync + 'static {
        let (start, events) = (self.start, self.events.clone());
        move |event| {
            let at = start.elapsed();
            events.lock().unwrap_or_else(PoisonError::into_inner).push((at, event.clone()));
        }
    }

    /// Notes runs that have just ended and took `took` each.
    pub fn sample(&mut self, engine: &Engine, took: Duration) {
        let at = self.start.elapsed();
        let (census, stats) = (engine.census(Default::default()), engine.stats());
        self.samples.push(Sample {
            at,
            took,
            tiers: census.tiers[..=usize::from(census.top.get())].to_vec(),
            queued: stats.queued,
            compiling: stats.compiling,
            code_bytes: stats.code_bytes,
        });
    }

    /// What was noted so far.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The page.
    #[must_use]
    pub fn page(&self, title: &str, engine: &Engine) -> String {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        page::write(title, &self.samples, &installs(engine, &events), &engine.hot_functions(LISTED), engine)
    }
}

/// Code that was installed, as the page marks it.
struct Install {
    at: Duration,
    tier: TierId,
    name: String,
}

fn installs(engine: &Engine, events: &[(Duration, Event)]) -> Vec<Install> {
    let install = |(at, event): &(Duration, Event)| match *event {
        Event::Installed { bead, tier, .. } => {
            let name = engine.name(bead).map_or_else(|| bead.to_string(), |name| name.to_string());
            Some(Install { at: *at, tier, name })
        }
        _ => None,
    };
    events.iter().filter_map(install).collect()
}

/// What a row of the table shows.
fn row(hot: &HotFunction) -> [String; 3] {
    let name = hot.name.as_ref().map_or_else(|| hot.bead.to_string(), |name| name.to_string());
    [name, hot.tier.to_string(), hot.calls.to_string()]
}
