//! What happens in an engine, in words.
#![allow(dead_code, reason = "each example uses a part")]

use beadwork::{Bead, Event, Reason};

/// The function an event is about, and what happened to it.
pub(crate) fn describe(event: &Event) -> (Option<Bead>, String) {
    match event {
        Event::Queued { bead, tier, reason, calls } => {
            let why = match reason {
                Reason::Hot => format!("because it is hot after {calls} calls"),
                Reason::Asked => "because it was asked for".to_owned(),
                Reason::Now => "because somebody waits for it".to_owned(),
                Reason::Resumed => "because it was asked for while another compile went on".to_owned(),
                other => format!("because of {other:?}"),
            };
            (Some(*bead), format!("queued for {tier} {why}"))
        }
        Event::Installed { bead, tier, bytes, compile_time, .. } => {
            let took = compile_time.as_secs_f64() * 1e6;
            (Some(*bead), format!("installed at {tier}: {bytes} bytes, compiled in {took:.0} µs"))
        }
        Event::Failed { bead, tier, error, failures, retry_after, .. } => {
            let text = format!("failed at {tier}, time {failures}: {error}; again after {retry_after} calls");
            (Some(*bead), text)
        }
        Event::GaveUp { bead, tier, error } => (Some(*bead), format!("given up for {tier}: {error}")),
        Event::Discarded { bead, tier, .. } => {
            (Some(*bead), format!("code for {tier} came too late: discarded"))
        }
        Event::Cooled { bead, tier } => (Some(*bead), format!("cooled while it waited for {tier}: dropped")),
        Event::Invalidated { bead } => (Some(*bead), "its code was taken back".to_owned()),
        Event::Removed { bead } => (Some(*bead), "removed".to_owned()),
        other => (None, format!("{other:?}")),
    }
}
