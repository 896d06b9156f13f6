//! HTTP/1: heads, framing of bodies, and pairing of requests with responses. Pure.
