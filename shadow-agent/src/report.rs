//! What is known about each endpoint, and the verdict.
