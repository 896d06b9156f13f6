//! Asks the kernel for links, addresses, default routes and TC filters (rtnetlink), in the network namespace of the
//! calling thread.
//!
//! `/sys/class/net` would answer for the namespace that it was mounted in. Changes nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

mod connection;

pub(in crate::capture) use connection::{Connection, message_length};

/// One network device as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// What its packets begin with (`ARPHRD_*`).
    pub hardware: u16,
    /// The driver's name for a virtual device: `veth`, `bridge`, `tun`; empty for most others.
    pub kind: String,
    /// Whether it is up.
    pub up: bool,
    /// The index of the bridge, bond or the like that it is a port of.
    pub master: Option<u32>,
    /// The index of the device that it stands on (VLAN, macvlan) or that is its other end (veth), when that is in the
    /// same network namespace.
    pub parent: Option<u32>,
    /// The id of the XDP program attached to it.
    pub xdp: Option<u32>,
    /// Its addresses, each with the length of its prefix.
    pub addresses: Vec<IpNet>,
    /// Whether packets to the rest of the world leave by it.
    pub default_route: bool,
}

/// One TC filter at a `clsact` or `ingress` queueing discipline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// `ingress` or `egress`.
    pub hook: &'static str,
    /// Its preference; lower ones run first.
    pub priority: u16,
    /// What names it among those of its preference.
    pub handle: u32,
    /// Its classifier: `bpf`, `flower`.
    pub kind: String,
    /// The name of its program, when it has one.
    pub program: Option<String>,
}

/// All devices with their addresses.
///
/// # Errors
/// When the kernel does not answer.
pub fn links() -> io::Result<Vec<Link>> {
    let mut links: Vec<Link> = dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => Some(link(message)),
            _ => None,
        })
        .collect();
    for message in dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        let RouteNetlinkMessage::NewAddress(message) = message else { continue };
        if let Some(link) = links.iter_mut().find(|link| link.index == message.header.index) {
            link.addresses.extend(address(&message));
        }
    }
    for index in ELSEWHERE.into_iter().filter_map(|elsewhere| leaves_by(elsewhere).ok().flatten()) {
        if let Some(link) = links.iter_mut().find(|link| link.index == index) {
            link.default_route = true;
        }
    }
    Ok(links)
}

/// Addresses that nobody has (RFC 5737, RFC 3849): what a packet to one of them leaves by has the default route.
const ELSEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The index of the device that a packet to that address leaves by. Nothing is sent.
fn leaves_by(address: IpAddr) -> io::Result<Option<u32>> {
    let mut ask = RouteMessage::default();
    let (family, length, address) = match address {
        IpAddr::V4(ip) => (AddressFamily::Inet, 32, RouteAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(ip)),
    };
    ask.header.address_family = family;
    ask.header.destination_prefix_length = length;
    ask.attributes.push(RouteAttribute::Destination(address));
    let answers = Connection::open()?.get(RouteNetlinkMessage::GetRoute(ask))?;
    Ok(answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => {
            route.attributes.into_iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(index),
                _ => None,
            })
        }
        _ => None,
    }))
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        hardware: message.header.link_layer_type.into(),
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    let elsewhere = message.attributes.iter().any(|one| matches!(one, LinkAttribute::LinkNetNsId(_)));
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) if !elsewhere => link.parent = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.kind = kind.unwrap_or_default();
            }
            LinkAttribute::Xdp(parts) => {
                link.xdp = parts.iter().find_map(|part| match part {
                    LinkXdp::ProgId(id) if *id > 0 => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

/// The local address: on a point-to-point link, `Address` is the peer's.
fn address(message: &AddressMessage) -> Option<IpNet> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let ip = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })?;
    IpNet::new(ip, message.header.prefix_len).ok()
}

/// The TC filters of a device at its ingress and egress hooks.
///
/// # Errors
/// When the kernel does not answer.
pub fn filters(index: u32) -> io::Result<Vec<Filter>> {
    filters_of(&mut Connection::open()?, index, None)
}

/// The same, through `connection`, and only those of one priority when that is given.
pub(in crate::capture) fn filters_of(
    connection: &mut Connection,
    index: u32,
    priority: Option<u16>,
) -> io::Result<Vec<Filter>> {
    let mut found = Vec::new();
    for (hook, minor) in [("ingress", TcHandle::MIN_INGRESS), ("egress", TcHandle::MIN_EGRESS)] {
        let mut ask = TcMessage::default();
        ask.header.index = i32::try_from(index).unwrap_or_default();
        ask.header.parent = TcHandle { major: TcHandle::CLSACT.major, minor };
        ask.header.info = u32::from(priority.unwrap_or_default()) << 16;
        for message in connection.dump(RouteNetlinkMessage::GetTrafficFilter(ask))? {
            let RouteNetlinkMessage::NewTrafficFilter(message) = message else { continue };
            // Every classifier instance is preceded by a message about its chain, without options.
            if message.attributes.iter().any(|attribute| matches!(attribute, TcAttribute::Options(_))) {
                found.push(filter(hook, &message));
            }
        }
    }
    Ok(found)
}

fn filter(hook: &'static str, message: &TcMessage) -> Filter {
    let mut filter = Filter {
        hook,
        priority: (message.header.info >> 16) as u16,
        handle: message.header.handle.into(),
        kind: String::new(),
        program: None,
    };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => filter.kind.clone_from(kind),
            TcAttribute::Options(options) => {
                filter.program = options.iter().find_map(|option| match option {
                    TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    filter
}

fn dump(ask: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    Connection::open()?.dump(ask)
}
