//! Events and statistics through the [`metrics`](https://docs.rs/metrics) facade.

use crate::event::Event;
use crate::stats::Stats;
use metrics::{counter, gauge, histogram};

/// A [listener](crate::EngineBuilder::on_event) that counts events with whatever recorder of the `metrics` facade is installed:
/// counter `beadwork_events` by `event` and, where there is one, `tier`; histogram `beadwork_compile_seconds` by `tier`; counter
/// `beadwork_code_bytes_installed`. Needs the feature `metrics`. Events come on slow paths only.
///
/// ```
/// use beadwork::{Engine, record_metrics};
/// let engine = Engine::builder().on_event(record_metrics).build()?;
/// // Now and then, for gauges:
/// engine.stats().record_metrics();
/// # Ok::<(), beadwork::BuildError>(())
/// ```
pub fn record_metrics(event: &Event) {
    const EVENTS: &str = "beadwork_events";
    match event.tier() {
        Some(tier) => counter!(EVENTS, "event" => event.name(), "tier" => tier.to_string()).increment(1),
        None => counter!(EVENTS, "event" => event.name()).increment(1),
    }
    if let Event::Installed { tier, bytes, compile_time, .. } = event {
        histogram!("beadwork_compile_seconds", "tier" => tier.to_string()).record(compile_time.as_secs_f64());
        counter!("beadwork_code_bytes_installed").increment(*bytes as u64);
    }
}

impl Stats {
    /// Sets gauges of the `metrics` facade: `beadwork_beads`, `beadwork_queued`, `beadwork_compiling`, `beadwork_code_bytes`,
    /// `beadwork_retired_bytes`, `beadwork_column_bytes`, `beadwork_mutators`. Needs the feature `metrics`.
    pub fn record_metrics(&self) {
        for (name, value) in [
            ("beadwork_beads", self.beads),
            ("beadwork_queued", self.queued),
            ("beadwork_compiling", self.compiling),
            ("beadwork_code_bytes", self.code_bytes),
            ("beadwork_retired_bytes", self.retired_bytes),
            ("beadwork_column_bytes", self.column_bytes),
            ("beadwork_mutators", self.mutators),
        ] {
            gauge!(name).set(value as f64);
        }
    }
}
