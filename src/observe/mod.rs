//! Listeners that carry what the engine tells into formats others read.

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "trace")]
mod trace;

#[cfg(feature = "metrics")]
pub use metrics::record_metrics;
#[cfg(feature = "trace")]
pub use trace::{TRACE_LIMIT, Trace};
