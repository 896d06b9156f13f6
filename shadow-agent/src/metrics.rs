//! The Prometheus metrics of a running agent, gathered when asked for.
