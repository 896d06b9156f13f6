//! The kernel programs: entry points and maps, nothing else.
fn main() {}
