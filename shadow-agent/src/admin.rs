//! The HTTP API: probes, metrics, status, and the kill switch. Reads everything, writes only `control`.
