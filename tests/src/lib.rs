//! What the end-to-end tests, the demo and the benchmarks share: network namespaces, servers, clients, and the agent
//! as a program. Knows the agent by its command line, its files and its HTTP API only, never by its code; the benchmarks
//! of single stages are the exception.

#![deny(unsafe_code)]

pub mod agent;
pub mod bed;
pub mod bench;
pub mod client;
pub mod demo;
pub mod load;
pub mod metrics;
pub mod netns;
pub mod process;
pub mod report;
pub mod servers;
pub mod service;
pub mod silence;
pub mod tshark;
pub mod wire;
