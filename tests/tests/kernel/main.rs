//! The kernel ring: the real programs in the real kernel, with crafted packets and with traffic between namespaces.
//!
//! It needs root. Without it every test here fails; none is skipped.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of a test fails the test by panicking, as the test itself does"
)]

mod coexist;
mod crafted;
mod host;
mod netns;
mod packet;
mod privileges;
mod veth;
mod xdp;

use shadow_agent::config::{Capture, Networks};

/// The captured port of every test.
const PORT: u16 = 8080;

/// A configuration that captures [`PORT`] on the server's side.
fn capture() -> Capture {
    Capture {
        ports: vec![(PORT, PORT), (9000, 9010)],
        ring_size: 2 * 1024 * 1024,
        shards: Some(1),
        ..Capture::default()
    }
}

fn networks(include: &[&str], exclude: &[&str]) -> Networks {
    let parse = |list: &[&str]| list.iter().map(|network| network.parse().unwrap()).collect();
    Networks { include: parse(include), exclude: parse(exclude) }
}
