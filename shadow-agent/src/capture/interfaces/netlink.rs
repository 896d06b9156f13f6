//! Asks the kernel for links, addresses and TC filters (rtnetlink), in the network namespace of the calling thread.
//!
//! `/sys/class/net` would answer for the namespace that it was mounted in. Changes nothing.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

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
    /// Whether it is a port of a bridge, bond or the like.
    pub enslaved: bool,
    /// The id of the XDP program attached to it.
    pub xdp: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// One TC filter at a `clsact` or `ingress` queueing discipline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// `ingress` or `egress`.
    pub hook: &'static str,
    /// Its preference; lower ones run first.
    pub priority: u16,
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
            link.addresses.extend(address(&message.attributes));
        }
    }
    Ok(links)
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        hardware: message.header.link_layer_type.into(),
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(_) => link.enslaved = true,
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
fn address(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

/// The TC filters of a device at its ingress and egress hooks.
///
/// # Errors
/// When the kernel does not answer.
pub fn filters(index: u32) -> io::Result<Vec<Filter>> {
    let mut found = Vec::new();
    for (hook, minor) in [("ingress", TcHandle::MIN_INGRESS), ("egress", TcHandle::MIN_EGRESS)] {
        let mut ask = TcMessage::default();
        ask.header.index = i32::try_from(index).unwrap_or_default();
        ask.header.parent = TcHandle { major: TcHandle::CLSACT.major, minor };
        for message in dump(RouteNetlinkMessage::GetTrafficFilter(ask))? {
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
    let mut filter =
        Filter { hook, priority: (message.header.info >> 16) as u16, kind: String::new(), program: None };
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
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(ask));
    message.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    message.header.sequence_number = 1;
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);
    socket.send(&buffer, 0)?;

    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while let Some(length) = message_length(rest) {
            let (bytes, behind) = rest.split_at_checked(length).ok_or(io::ErrorKind::InvalidData)?;
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(answer)) => answers.push(answer),
                Ok(NetlinkPayload::Done(_)) => return Ok(answers),
                Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                Ok(_) => {}
                // A device that a newer kernel describes in a way unknown here must not hide the others.
                Err(error) => tracing::debug!(%error, "passed over a netlink message"),
            }
            rest = behind.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        }
    }
}

/// The length that the next message says, its header included; `None` at the end.
fn message_length(bytes: &[u8]) -> Option<usize> {
    const HEADER: u32 = 16;
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    (length >= HEADER).then(|| usize::try_from(length).ok()).flatten()
}
