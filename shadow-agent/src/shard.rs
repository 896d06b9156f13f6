//! One shard: from segments to exchanges. Pure but for the thread that drives it.
//!
//! [`Pipeline`] joins `tcp` and `http`; [`run`] is the body of a shard's thread. Neither waits for the runtime: what it
//! does not take is lost, and counted.

mod pipeline;
mod run;
#[cfg(test)]
mod tests;

pub use crate::http::Event;
pub use pipeline::{Pipeline, PipelineSettings, Stats};
pub use run::{Links, run};
