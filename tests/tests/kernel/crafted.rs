//! Crafted packets through the loaded programs.

use std::time::Duration;

use shadow_agent::capture::interfaces::Layer;
use shadow_agent::capture::kernel::{Entry, KernelCapture, Leads};
use shadow_agent::capture::{Counters, SegmentSource as _};

use crate::capture;
use crate::packet::Packet;

#[test]
fn first() {
    let (mut kernel, mut sources) = KernelCapture::start(&capture(), &[], true).unwrap();
    for leads in [Leads::ToServer, Leads::ToClient, Leads::Either] {
        for layer in [Layer::Ethernet, Layer::Ip] {
            let mut packet = Packet::new("10.0.0.1:40000", "10.0.0.2:8080", b"GET / HTTP/1.1\r\n\r\n");
            packet.ethernet = layer == Layer::Ethernet;
            let ran = kernel.run_packet(Entry { layer, leads }, &packet.bytes(), 0, 1).unwrap();
            println!("{layer:?} {leads:?} {ran:?}");
            println!("{:?}", kernel.counters().unwrap());
            sources[0].poll(Duration::ZERO, &mut |segment| println!("{segment:?}")).unwrap();
        }
    }
    let _: Counters = kernel.counters().unwrap();
}
