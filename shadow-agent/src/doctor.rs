//! Says what this host can and cannot do, and how to fix it.
