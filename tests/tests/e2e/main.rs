//! End-to-end tests: the agent as a program, between real servers, in network namespaces. They need root and fail
//! without it. `cargo xtask test --ring e2e` builds what they run.

mod harness;
