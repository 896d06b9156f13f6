//! Finds network devices, what they are, and which direction leads to the server. Attaches nothing.

use std::io;
use std::net::IpAddr;

use globset::Glob;

use crate::config::{Capture, Polarity};

pub mod netlink;

use netlink::Link;

/// What a device's packets begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// An IP header (tun, WireGuard, ipip, netkit in L3 mode).
    Ip,
}

/// Which hook carries requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Toward {
    /// Ingress leads to the server; attach both hooks.
    Ingress,
    /// Egress leads to the server; attach both hooks.
    Egress,
    /// Both directions pass either hook (`lo`): attach egress only, direction unknown.
    Both,
}

/// A device to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name in this network namespace.
    pub name: String,
    /// Its index in this network namespace.
    pub index: u32,
    /// What its packets begin with.
    pub layer: Layer,
    /// Which hook carries requests to the server.
    pub toward_server: Toward,
}

/// Why there is nothing to attach to.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// A name that no device has.
    #[error("there is no interface `{name}` here; give one of those that exist: {existing}")]
    NoSuchInterface {
        /// The name.
        name: String,
        /// The names that exist, separated by commas.
        existing: String,
    },
    /// A glob that matches no device.
    #[error("no interface matches `{glob}`; give a name or a glob for those that exist: {existing}")]
    NothingMatches {
        /// The glob.
        glob: String,
        /// The names that exist, separated by commas.
        existing: String,
    },
    /// A device whose packets the kernel programs cannot read.
    #[error(
        "interface `{name}` has link type {hardware}, whose packets shadow-agent cannot read; give an Ethernet, loopback or IP tunnel interface"
    )]
    UnsupportedType {
        /// The device.
        name: String,
        /// Its `ARPHRD_*` number.
        hardware: u16,
    },
    /// A glob that is none; `config` refuses it earlier, with its line.
    #[error("`{glob}` is not a glob ({error}); write one such as \"veth*\"")]
    Glob {
        /// The glob.
        glob: String,
        /// What the glob parser said.
        error: globset::Error,
    },
    /// The kernel did not say which devices there are.
    #[error("the kernel does not list its interfaces ({0}); netlink sockets (AF_NETLINK) must be allowed")]
    Netlink(#[from] io::Error),
}

/// Something that is likely not meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Nothing passes the device now.
    #[error("interface {0} is down; it is captured from once it is up (ip link set {0} up)")]
    Down(String),
    /// The same packets pass devices of both kinds, with different addresses behind NAT.
    #[error(
        "{uplink} is this host's own and {workload} leads to a workload; a flow that passes both is seen twice, so capture on one level only"
    )]
    TwoLevels {
        /// A device with an address of ours.
        uplink: String,
        /// A device that leads to a workload.
        workload: String,
    },
    /// A device that a glob matched and that cannot be captured from.
    #[error("interface {name} has link type {hardware} and is left out")]
    LeftOut {
        /// The device.
        name: String,
        /// Its `ARPHRD_*` number.
        hardware: u16,
    },
}

/// What the configured names and globs mean here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The devices, each once, in the kernel's order.
    pub devices: Vec<Device>,
    /// What is likely not meant.
    pub warnings: Vec<Warning>,
}

/// The devices that `capture` means in this thread's network namespace; warnings are logged. Asking again finds devices
/// that came later.
///
/// # Errors
/// When a name or glob means no device, or one that cannot be captured from.
pub fn resolve(capture: &Capture) -> Result<Vec<Device>, InterfaceError> {
    let selection = select(capture, &netlink::links()?)?;
    for warning in &selection.warnings {
        tracing::warn!("{warning}");
    }
    Ok(selection.devices)
}

/// Every address of this host, in this thread's network namespace.
///
/// # Errors
/// When the kernel does not say.
pub fn own_addresses() -> Result<Vec<IpAddr>, InterfaceError> {
    Ok(netlink::links()?.into_iter().flat_map(|link| link.addresses).collect())
}

/// The devices among `links` that `capture` means.
///
/// # Errors
/// As for [`resolve`].
pub fn select(capture: &Capture, links: &[Link]) -> Result<Selection, InterfaceError> {
    let mut meant = vec![false; links.len()];
    let mut warnings = Vec::new();
    for pattern in &capture.interfaces {
        let mut matched = false;
        let is_exact = links.iter().any(|link| link.name == *pattern);
        let is_glob = !is_exact && pattern.contains(['*', '?', '[', '{']);
        let glob = Glob::new(pattern)
            .map_err(|error| InterfaceError::Glob { glob: pattern.clone(), error })?
            .compile_matcher();
        for (link, meant) in links.iter().zip(&mut meant) {
            if if is_glob { !glob.is_match(&link.name) } else { link.name != *pattern } {
                continue;
            }
            match (layer(link.hardware), is_glob) {
                (Some(_), _) => {
                    *meant = true;
                    matched = true;
                }
                (None, true) => {
                    warnings.push(Warning::LeftOut { name: link.name.clone(), hardware: link.hardware });
                }
                (None, false) => {
                    let (name, hardware) = (link.name.clone(), link.hardware);
                    return Err(InterfaceError::UnsupportedType { name, hardware });
                }
            }
        }
        if !matched {
            let existing = links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(match is_glob {
                true => InterfaceError::NothingMatches { glob: pattern.clone(), existing },
                false => InterfaceError::NoSuchInterface { name: pattern.clone(), existing },
            });
        }
    }
    let chosen: Vec<&Link> =
        links.iter().zip(meant).filter_map(|(link, meant)| meant.then_some(link)).collect();
    warnings.extend(chosen.iter().filter(|link| !link.up).map(|link| Warning::Down(link.name.clone())));
    let first =
        |toward| chosen.iter().find(|link| found_toward(link) == toward).map(|link| link.name.clone());
    if let (Some(uplink), Some(workload)) = (first(Toward::Ingress), first(Toward::Egress)) {
        warnings.push(Warning::TwoLevels { uplink, workload });
    }
    let devices = chosen.into_iter().filter_map(|link| device(link, capture.polarity)).collect();
    Ok(Selection { devices, warnings })
}

fn device(link: &Link, polarity: Polarity) -> Option<Device> {
    let toward_server = match (found_toward(link), polarity) {
        (Toward::Both, _) => Toward::Both,
        (found, Polarity::Auto) => found,
        (_, Polarity::Ingress) => Toward::Ingress,
        (_, Polarity::Egress) => Toward::Egress,
    };
    Some(Device { name: link.name.clone(), index: link.index, layer: layer(link.hardware)?, toward_server })
}

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_PPP: u16 = 512;
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_TUNNEL: u16 = 768;
const ARPHRD_TUNNEL6: u16 = 769;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_SIT: u16 = 776;
const ARPHRD_IPGRE: u16 = 778;
const ARPHRD_IP6GRE: u16 = 823;
const ARPHRD_NONE: u16 = 0xFFFE;

/// What packets begin with where TC programs see them.
fn layer(hardware: u16) -> Option<Layer> {
    match hardware {
        ARPHRD_ETHER | ARPHRD_LOOPBACK => Some(Layer::Ethernet),
        ARPHRD_PPP | ARPHRD_RAWIP | ARPHRD_TUNNEL | ARPHRD_TUNNEL6 | ARPHRD_SIT | ARPHRD_IPGRE
        | ARPHRD_IP6GRE | ARPHRD_NONE => Some(Layer::Ip),
        _ => None,
    }
}

/// Which hook leads to the server, from the device alone: an endpoint receives requests; the host's end of a pair, or a
/// tap, hands them out to a workload.
fn found_toward(link: &Link) -> Toward {
    let is_pair = matches!(link.kind.as_str(), "veth" | "netkit");
    let is_tap = matches!(link.kind.as_str(), "tun" | "macvtap" | "ipvtap") && link.hardware == ARPHRD_ETHER;
    let is_endpoint = link.addresses.iter().any(|ip| !is_link_local(*ip));
    if link.hardware == ARPHRD_LOOPBACK {
        Toward::Both
    } else if (is_pair || is_tap) && (link.enslaved || !is_endpoint) {
        Toward::Egress
    } else {
        Toward::Ingress
    }
}

/// Every device that is up has a link-local IPv6 address; it makes no endpoint of it.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
