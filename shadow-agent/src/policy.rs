//! Decides which exchanges are replayed, and what may leave the process. Pure.

pub mod mask;
