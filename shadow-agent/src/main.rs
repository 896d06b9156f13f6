//! Starts the agent.
fn main() {}
