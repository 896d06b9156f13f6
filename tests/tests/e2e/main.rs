//! End-to-end tests: the agent as a program, between real servers, in network namespaces. They need root and fail
//! without it. `cargo xtask test --ring e2e` builds what they run.

mod application;
mod bodies;
mod budget;
mod control;
mod endings;
mod faults;
mod guard;
mod guards;
mod harness;
mod http2;
mod impaired;
mod inspect;
mod interfaces;
mod masking;
mod monitoring;
mod namespaces;
mod ordered;
mod own;
mod planted;
mod privacy;
mod privileges;
mod recognised;
mod record;
mod refusals;
mod removed;
mod replayed;
mod secure;
mod site;
mod stateful;
mod steady;
mod traces;
mod trouble;
mod xdp;
