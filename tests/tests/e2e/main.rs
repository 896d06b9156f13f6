//! End-to-end tests: the agent as a program, between real servers, in network namespaces. They need root and fail
//! without it. `cargo xtask test --ring e2e` builds what they run.

mod application;
mod bodies;
mod endings;
mod harness;
mod monitoring;
mod planted;
mod privacy;
mod recognised;
mod refusals;
mod steady;
mod trouble;
