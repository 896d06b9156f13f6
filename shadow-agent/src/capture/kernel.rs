//! Live capture: loads the kernel programs, attaches them, and reads their rings.

pub mod probe;
