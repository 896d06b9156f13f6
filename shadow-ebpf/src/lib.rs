//! What the kernel programs and the agent share: the records between them, and the reading of packets.
//!
//! Pure and `no_std`: the same code runs in the kernel, in unit tests and in the fuzzer. Nothing here knows maps,
//! helpers or a host.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
pub mod backlog;
pub mod budget;
pub mod filter;
pub mod flow;
pub mod heartbeat;
pub mod packet;
