//! Finds network devices, what they are, and which direction leads to the server.
