//! A recording of queues, compiles and installs in the [trace event format], which Perfetto and Chrome open.
//!
//! [trace event format]: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU

use crate::engine::Engine;
use crate::event::Event;
use crate::id::{Bead, TierId};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
// Not the shim's: a listener is no part of the protocol.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Events a [`Trace`] keeps: 2^20, some 200 MB.
pub const TRACE_LIMIT: usize = 1 << 20;

/// Records what an engine does, to be looked at in [Perfetto](https://ui.perfetto.dev) or `chrome://tracing`: per lane the time
/// requests waited and were compiled, and installs, failures, bailouts and invalidations as instants. Needs the feature `trace`.
///
/// ```
/// use beadwork::{Engine, Trace};
/// let trace = Trace::new();
/// let engine = Engine::builder().on_event(trace.listener()).build()?;
/// // … run the program …
/// let mut file = Vec::new(); // or a File, buffered
/// trace.write(&engine, &mut file)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// After [`TRACE_LIMIT`] events the rest is only counted. A forked child records nothing.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Recording>);

#[derive(Debug)]
struct Recording {
    start: Instant,
    /// A thread of the parent's may hold the lock when it forks.
    process: u32,
    events: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    events: Vec<(Duration, Event)>,
    left_out: u64,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace::new()
    }
}

impl Trace {
    /// An empty recording; its time starts now.
    pub fn new() -> Trace {
        let (start, process) = (Instant::now(), std::process::id());
        Trace(Arc::new(Recording { start, process, events: Mutex::default() }))
    }

    /// What records, for [`EngineBuilder::on_event`](crate::EngineBuilder::on_event).
    pub fn listener(&self) -> impl Fn(&Event) + Send + Sync + 'static {
        let trace = self.clone();
        move |event| trace.record(event)
    }

    /// Events that came after the limit was reached.
    pub fn left_out(&self) -> u64 {
        if self.is_elsewhere() { 0 } else { self.recorded().left_out }
    }

    fn is_elsewhere(&self) -> bool {
        std::process::id() != self.0.process
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, event: &Event) {
        if self.is_elsewhere() {
            return;
        }
        let at = self.0.start.elapsed();
        let mut recorded = self.recorded();
        if recorded.events.len() < TRACE_LIMIT {
            recorded.events.push((at, event.clone()));
        } else {
            recorded.left_out += 1;
        }
    }

    /// Writes the recording as JSON. Functions that are still live get their names from the engine.
    ///
    /// # Errors
    /// What `out` answers; and [`io::ErrorKind::Unsupported`] in a forked child.
    pub fn write(&self, engine: &Engine, out: impl io::Write) -> io::Result<()> {
        if self.is_elsewhere() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the recording belongs to the process that forked this one",
            ));
        }
        let events = self.recorded().events.clone();
        let mut writer =
            Writer { engine, waiting: HashMap::new(), spans: 0, rows: Vec::with_capacity(2 * events.len()) };
        writer
            .rows
            .push(json!({ "ph": "M", "name": "process_name", "pid": 1, "args": { "name": "beadwork" } }));
        for tier in 0..=engine.shared().drain.lanes.top().get() {
            let name = if tier == 0 { "T0 interpreter".to_owned() } else { format!("T{tier}") };
            writer.rows.push(
                json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": tier, "args": { "name": name } }),
            );
        }
        for (at, event) in events {
            writer.event(at, &event);
        }
        let trace = json!({ "displayTimeUnit": "ms", "traceEvents": writer.rows });
        serde_json::to_writer(out, &trace).map_err(io::Error::from)
    }
}

struct Writer<'e> {
    engine: &'e Engine,
    /// Since when each function waits for each tier.
    waiting: HashMap<(Bead, TierId), Duration>,
    spans: u64,
    rows: Vec<Value>,
}

impl Writer<'_> {
    fn event(&mut self, at: Duration, event: &Event) {
        match *event {
            Event::Queued { bead, tier, .. } => {
                self.waiting.insert((bead, tier), at);
                return;
            }
            Event::Installed { bead, tier, compile_time, .. } => self.ended(bead, tier, at, compile_time),
            Event::Failed { bead, tier, .. }
            | Event::Discarded { bead, tier, .. }
            | Event::AssumedInVain { bead, tier, .. }
            | Event::Cooled { bead, tier } => self.ended(bead, tier, at, Duration::ZERO),
            _ => (),
        }
        let tier = event.tier().unwrap_or(TierId::INTERPRETER).get();
        self.rows.push(json!({
            "ph": "i", "s": "t", "pid": 1, "tid": tier, "ts": micros(at), "name": event.name(),
            "args": { "function": event.bead().map(|bead| self.name(bead)), "event": format!("{event:?}") },
        }));
    }

    /// A request came to its end: where it waited, and where it was compiled, if it is known how long.
    fn ended(&mut self, bead: Bead, tier: TierId, at: Duration, compiling: Duration) {
        let began = at.saturating_sub(compiling);
        if let Some(asked) = self.waiting.remove(&(bead, tier)) {
            self.span("queue", bead, tier, asked, began.max(asked));
        }
        if !compiling.is_zero() {
            self.span("compile", bead, tier, began, at);
        }
    }

    /// Spans of a lane overlap, so they are of the format's asynchronous kind.
    fn span(&mut self, what: &str, bead: Bead, tier: TierId, from: Duration, to: Duration) {
        self.spans += 1;
        let name = self.name(bead);
        for (phase, at) in [("b", from), ("e", to)] {
            self.rows.push(json!({
                "ph": phase, "cat": what, "id": self.spans, "pid": 1, "tid": tier.get(), "ts": micros(at),
                "name": format!("{what} {name}"),
            }));
        }
    }

    fn name(&self, bead: Bead) -> String {
        self.engine.name(bead).map_or_else(|| bead.to_string(), |name| name.to_string())
    }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}
