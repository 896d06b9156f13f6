//! Traces: the context that a replayed request carries (W3C Trace Context), and the spans of an exchange (OpenTelemetry),
//! one for production and one for each target, which a collector may be told over OTLP.
//!
//! Span ids follow from the exchange, so that whoever marks a request and whoever tells its span need not meet. A span
//! holds no value from traffic but method, status and endpoint.

mod context;
mod export;
mod span;

pub use context::{Context, Contexts};
pub use export::{Exporter, Figures, TracesError};
pub(crate) use span::{Side, Told};
