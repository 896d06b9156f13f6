//! Finds which hook of a device leads to the server, from what the device is and what it is joined to.
//!
//! An endpoint receives requests: ingress leads to the server. A device that this host hands packets out by to a
//! workload behind it (a container, a virtual machine) sends them: egress does. Reads nothing from the kernel.

use super::netlink::Link;
use super::{ARPHRD_ETHER, ARPHRD_LOOPBACK, Toward};

/// How many devices may stand on each other; the kernel allows 8.
const MAX_NESTED: usize = 8;

/// Which hook of `link` leads to the server; `links` are all devices of its network namespace.
pub(super) fn toward(link: &Link, links: &[Link]) -> Toward {
    if link.hardware == ARPHRD_LOOPBACK {
        Toward::Both
    } else if leads_to_workload(link, links) {
        Toward::Egress
    } else {
        Toward::Ingress
    }
}

fn leads_to_workload(link: &Link, links: &[Link]) -> bool {
    let mut link = link;
    for _ in 0..MAX_NESTED {
        if is_pair(link) || is_tap(link) {
            return match find(link.master, links).map(|master| master.kind.as_str()) {
                Some("bridge" | "openvswitch") => true,
                Some("bond" | "team") => false,
                _ => !is_endpoint(link),
            };
        }
        match link.kind.as_str() {
            "bridge" => return is_for_workloads(link, links),
            // It leads where the device leads that it stands on.
            "vlan" => match find(link.parent, links) {
                Some(parent) if parent.kind == "bridge" || !is_endpoint(link) => link = parent,
                _ => return false,
            },
            // Network cards and what bundles them; macvlan and ipvlan, and also macvtap and ipvtap, whose reader gets
            // what the device receives; tunnels, through which others reach us.
            _ => return false,
        }
    }
    false
}

/// Whether the rest of the world is behind none of a bridge's ports. A bridge without ports has yet to get them.
fn is_for_workloads(bridge: &Link, links: &[Link]) -> bool {
    let mut ports = links.iter().filter(|port| port.master == Some(bridge.index));
    !bridge.default_route && ports.all(|port| is_pair(port) || is_tap(port) || port.kind == "dummy")
}

/// One end of a pair, of which the other end is usually in the network namespace of a workload.
fn is_pair(link: &Link) -> bool {
    matches!(link.kind.as_str(), "veth" | "netkit")
}

/// What a virtual machine sends is received by its tap; a tun, which is no Ethernet device, is a tunnel's end.
fn is_tap(link: &Link) -> bool {
    link.kind == "tun" && link.hardware == ARPHRD_ETHER
}

/// Whether one end of a pair is ours rather than a workload's gateway: it has an address in a network, or the default
/// route. An address without a network (`/32`) is what gateways of workloads get, and every device that is up has a
/// link-local one.
fn is_endpoint(link: &Link) -> bool {
    let in_network = link.addresses.iter().any(|net| {
        let link_local = match net.addr() {
            std::net::IpAddr::V4(ip) => ip.is_link_local(),
            std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        !link_local && net.prefix_len() < net.max_prefix_len()
    });
    in_network || link.default_route
}

fn find(index: Option<u32>, links: &[Link]) -> Option<&Link> {
    links.iter().find(|link| Some(link.index) == index)
}
