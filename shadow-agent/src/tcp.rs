//! Reassembly of TCP streams as a passive observer sees them. Pure.
