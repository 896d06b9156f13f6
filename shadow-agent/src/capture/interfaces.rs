//! Finds network devices, what they are, and which direction leads to the server. Attaches nothing.

use std::io;
use std::net::IpAddr;

use globset::Glob;

use crate::config::{Capture, NetNs, Polarity};

pub mod netlink;
pub mod netns;
mod polarity;
pub mod roster;
pub mod watch;

use netlink::Link;
use netns::NetNsError;

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
    /// The network namespace that they are in is not to be had.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// Something that is likely not meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Nothing passes the device now.
    #[error("interface {0} is down; it is captured from once it is up (ip link set {0} up)")]
    Down(String),
    /// The same packets pass devices of both kinds, with different addresses behind NAT.
    #[error(
        "{uplink} is this host's own and {workload} leads to a workload; a flow that passes both is seen twice, and \
         behind NAT as two flows, so capture on one level only"
    )]
    TwoLevels {
        /// An endpoint.
        uplink: String,
        /// A device that leads to a workload.
        workload: String,
    },
    /// The same packets pass one device and then the other, unchanged.
    #[error(
        "what passes {lower} passes {upper} too; each segment is copied twice and counted as a duplicate, so capture \
         on one of them only"
    )]
    Stacked {
        /// A bridge, bond, VLAN or the like, or one end of a pair.
        upper: String,
        /// Its port, the device that it stands on, or the other end.
        lower: String,
    },
    /// A glob that matches nothing yet.
    #[error("no interface matches `{0}` yet; one that comes is captured from")]
    NothingYet(String),
    /// A device that a glob matched and that cannot be captured from.
    #[error("interface {name} has link type {hardware} and is left out")]
    LeftOut {
        /// The device.
        name: String,
        /// Its `ARPHRD_*` number.
        hardware: u16,
    },
}

/// A configured name or glob that means no device here.
#[derive(Debug)]
pub struct Unmet {
    /// As configured.
    pub pattern: String,
    /// Why it means none.
    pub reason: InterfaceError,
}

/// What the configured names and globs mean here.
#[derive(Debug, Default)]
pub struct Selection {
    /// The devices, each once, in the kernel's order.
    pub devices: Vec<Device>,
    /// What is likely not meant.
    pub warnings: Vec<Warning>,
    /// Names and globs without a device.
    pub unmet: Vec<Unmet>,
}

impl Selection {
    /// Whether one may start with it: every name means a device, and so does at least one of the globs, if there is
    /// nothing but globs. The others become warnings.
    ///
    /// # Errors
    /// When a name means no device, a pattern cannot be understood, or there is no device at all.
    pub fn checked(mut self) -> Result<Selection, InterfaceError> {
        for Unmet { pattern, reason } in self.unmet.drain(..) {
            match reason {
                InterfaceError::NothingMatches { .. } if !self.devices.is_empty() => {
                    self.warnings.push(Warning::NothingYet(pattern));
                }
                reason => return Err(reason),
            }
        }
        Ok(self)
    }
}

/// The devices that `capture` means, in the network namespace that it names; warnings are logged.
///
/// # Errors
/// When the namespace is not to be had, and as for [`Selection::checked`].
pub fn resolve(capture: &Capture) -> Result<Vec<Device>, InterfaceError> {
    let links = netns::within(capture.netns.as_ref(), netlink::links)??;
    let selection = select(capture, &links).checked()?;
    for warning in &selection.warnings {
        tracing::warn!("{warning}");
    }
    Ok(selection.devices)
}

/// Every address of this host, as seen in a network namespace; `None` is this thread's own.
///
/// # Errors
/// When the namespace is not to be had, or the kernel does not say.
pub fn own_addresses(netns: Option<&NetNs>) -> Result<Vec<IpAddr>, InterfaceError> {
    let links = netns::within(netns, netlink::links)??;
    Ok(links.into_iter().flat_map(|link| link.addresses).map(|net| net.addr()).collect())
}

/// The devices among `links`, all those of one network namespace, that `capture` means.
#[must_use]
pub fn select(capture: &Capture, links: &[Link]) -> Selection {
    let mut selection = Selection::default();
    let mut meant = vec![false; links.len()];
    for pattern in &capture.interfaces {
        if let Err(reason) = choose(pattern, links, &mut meant, &mut selection.warnings) {
            selection.unmet.push(Unmet { pattern: pattern.clone(), reason });
        }
    }
    let chosen: Vec<&Link> =
        links.iter().zip(meant).filter_map(|(link, meant)| meant.then_some(link)).collect();
    let down = chosen.iter().filter(|link| !link.up).map(|link| Warning::Down(link.name.clone()));
    selection.warnings.extend(down);
    selection.warnings.extend(two_levels(&chosen, links));
    selection.warnings.extend(stacked(&chosen));
    selection.devices = chosen.into_iter().filter_map(|link| device(link, links, capture.polarity)).collect();
    selection
}

/// Marks the devices that one name or glob means.
fn choose(
    pattern: &str,
    links: &[Link],
    meant: &mut [bool],
    warnings: &mut Vec<Warning>,
) -> Result<(), InterfaceError> {
    let is_exact = links.iter().any(|link| link.name == *pattern);
    let is_glob = !is_exact && pattern.contains(['*', '?', '[', '{']);
    let glob = Glob::new(pattern)
        .map_err(|error| InterfaceError::Glob { glob: pattern.to_owned(), error })?
        .compile_matcher();
    let mut matched = false;
    for (link, meant) in links.iter().zip(meant) {
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
    if matched {
        return Ok(());
    }
    let existing = links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ");
    Err(match is_glob {
        true => InterfaceError::NothingMatches { glob: pattern.to_owned(), existing },
        false => InterfaceError::NoSuchInterface { name: pattern.to_owned(), existing },
    })
}

/// The first endpoint and the first device that leads to a workload, if there are both.
fn two_levels(chosen: &[&Link], links: &[Link]) -> Option<Warning> {
    let first = |toward| {
        let found = chosen.iter().find(|link| polarity::toward(link, links) == toward);
        found.map(|link| link.name.clone())
    };
    Some(Warning::TwoLevels { uplink: first(Toward::Ingress)?, workload: first(Toward::Egress)? })
}

/// The first two devices of which one is a port of the other, stands on it, or is its other end.
fn stacked(chosen: &[&Link]) -> Option<Warning> {
    chosen.iter().find_map(|lower| {
        let upper = chosen
            .iter()
            .find(|upper| lower.master == Some(upper.index) || upper.parent == Some(lower.index))?;
        Some(Warning::Stacked { upper: upper.name.clone(), lower: lower.name.clone() })
    })
}

fn device(link: &Link, links: &[Link], polarity: Polarity) -> Option<Device> {
    let toward_server = match (polarity::toward(link, links), polarity) {
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

#[cfg(test)]
mod tests;
