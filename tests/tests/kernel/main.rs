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

mod crafted;
mod netns;
mod packet;
mod veth;

use shadow_agent::config::{Capture, Networks, Polarity, Share, Side};

/// The captured port of every test.
const PORT: u16 = 8080;

/// A configuration that captures [`PORT`] on the server's side.
fn capture() -> Capture {
    Capture {
        interfaces: Vec::new(),
        ports: vec![(PORT, PORT), (9000, 9010)],
        side: Side::Server,
        polarity: Polarity::Auto,
        server: Networks::default(),
        client: Networks::default(),
        seed: 0,
        mark: 0x5AD0,
        sample: Share::ALL,
        ring_size: 2 * 1024 * 1024,
        shards: Some(1),
        kernel_log: false,
    }
}

fn networks(include: &[&str], exclude: &[&str]) -> Networks {
    let parse = |list: &[&str]| list.iter().map(|network| network.parse().unwrap()).collect();
    Networks { include: parse(include), exclude: parse(exclude) }
}
