//! The kernel ring: the real programs in the real kernel, with crafted packets and with traffic between namespaces.
//!
//! It needs root. Without it every test here fails; none is skipped.

mod crafted;
mod netns;
mod packet;
mod veth;

use ipnet::IpNet;
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

fn networks(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|network| network.parse().expect("a network")).collect()
}
