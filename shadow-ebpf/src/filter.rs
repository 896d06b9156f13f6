//! Decides about a packet: which flow it belongs to and whether it is wanted, cheapest question first.
//!
//! A pure function of the packet and of what it looks up. What happens to a wanted packet is not decided here.

use crate::abi::{self, Outcome, direction, networks};
use crate::flow::FlowHash;
use crate::packet::{self, Address, Layer, Reader, Unusable, flags};

/// Where the hook that saw a packet leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// To our side of the interface.
    TowardServer,
    /// Away from our side.
    TowardClient,
    /// Both directions pass it.
    Either,
}

/// Whose requests are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Flows whose server is on our side.
    Server,
    /// Flows whose client is on our side.
    Client,
    /// Both.
    Both,
}

impl Side {
    /// As a constant of the kernel programs.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Side::Server => 0,
            Side::Client => 1,
            Side::Both => 2,
        }
    }

    /// The reverse of [`Side::code`]; anything else means both.
    #[inline(always)]
    #[must_use]
    pub const fn from_code(code: u8) -> Side {
        match code {
            0 => Side::Server,
            1 => Side::Client,
            _ => Side::Both,
        }
    }
}

/// What is wanted of the captured ports' packets, fixed while a program is loaded except for the sample.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The mark of our own packets; 0 means that they carry none.
    pub mark: u32,
    /// Seeds the flow hash.
    pub seed: u32,
    /// Which lists of [`networks`] have entries.
    pub lists: u32,
    /// Flows whose hash is below are in the sample; [`abi::SAMPLE_ALL`] admits every flow.
    pub sample: u32,
}

/// What is known of a packet besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// What it begins with.
    pub layer: Layer,
    /// Which hook saw it.
    pub hook: Hook,
    /// Whose requests are meant there.
    pub side: Side,
}

/// What a decision consults. Each is asked only when the answer is needed: an uninteresting packet is to cost next to
/// nothing.
pub trait Tables {
    /// Whether a port is configured.
    fn port(&self, port: u16) -> bool;
    /// The packet's mark.
    fn mark(&self) -> u32;
    /// What is wanted.
    fn rules(&self) -> Rules;
    /// Whether a socket of the agent has this address and port.
    fn own(&self, address: Address, port: u16) -> bool;
    /// The bits of [`networks`] of the longest prefix that holds an address.
    fn networks(&self, address: Address) -> u32;
}

/// A packet that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Sender's address and port.
    pub source: (Address, u16),
    /// Receiver's address and port.
    pub destination: (Address, u16),
    /// Its flow.
    pub hash: FlowHash,
    /// One of [`direction`].
    pub direction: u8,
    /// Its TCP header.
    pub tcp: packet::Tcp,
}

/// Decides about one packet.
///
/// # Errors
/// The outcome to count when it is not wanted.
#[inline(always)]
pub fn decide<R: Reader + ?Sized, T: Tables>(packet: &R, seen: &Seen, tables: &T) -> Result<Wanted, Outcome> {
    let located = packet::locate(packet, seen.layer).map_err(outcome)?;
    let (source_port, destination_port) = packet::ports(packet, &located).ok_or(Outcome::Filtered)?;
    let toward =
        by_ports(seen.side, seen.hook, || tables.port(source_port), || tables.port(destination_port))?;
    let rules = tables.rules();
    if rules.mark != 0 && tables.mark() == rules.mark {
        return Err(Outcome::Own);
    }
    let (source, destination) = packet::addresses(packet, &located).ok_or(Outcome::Filtered)?;
    if tables.own(source, source_port) || tables.own(destination, destination_port) {
        return Err(Outcome::Own);
    }
    if rules.lists != 0
        && !admitted(rules.lists, toward, tables.networks(source), tables.networks(destination))
    {
        return Err(Outcome::Filtered);
    }
    let hash = FlowHash::new(rules.seed, (source, source_port), (destination, destination_port));
    if rules.sample != abi::SAMPLE_ALL && hash.sample() >= rules.sample {
        return Err(Outcome::SampledOut);
    }
    let tcp = packet::tcp(packet, &located).map_err(outcome)?;
    if tcp.length == 0 && tcp.flags & (flags::SYN | flags::FIN | flags::RST) == 0 {
        return Err(Outcome::NoPayload);
    }
    Ok(Wanted {
        source: (source, source_port),
        destination: (destination, destination_port),
        hash,
        direction: toward,
        tcp,
    })
}

#[inline(always)]
const fn outcome(unusable: Unusable) -> Outcome {
    match unusable {
        Unusable::NotTcp | Unusable::Malformed => Outcome::Filtered,
        Unusable::Fragment => Outcome::Fragment,
    }
}

/// Which way a packet travels, judged by the ports that the side and the hook allow to be the server's.
#[inline(always)]
fn by_ports(
    side: Side,
    hook: Hook,
    source: impl FnOnce() -> bool,
    destination: impl FnOnce() -> bool,
) -> Result<u8, Outcome> {
    match (side, hook) {
        (Side::Server, Hook::TowardServer) | (Side::Client, Hook::TowardClient) => {
            if destination() {
                Ok(direction::TO_SERVER)
            } else {
                Err(Outcome::Filtered)
            }
        }
        (Side::Server, Hook::TowardClient) | (Side::Client, Hook::TowardServer) => {
            if source() {
                Ok(direction::TO_CLIENT)
            } else {
                Err(Outcome::Filtered)
            }
        }
        (Side::Both, _) | (_, Hook::Either) => match (source(), destination()) {
            (false, false) => Err(Outcome::Filtered),
            (false, true) => Ok(direction::TO_SERVER),
            (true, false) => Ok(direction::TO_CLIENT),
            (true, true) => Ok(direction::UNKNOWN),
        },
    }
}

/// Whether the lists admit a flow between `source` and `destination`; either way round, when the direction is unknown.
#[inline(always)]
const fn admitted(lists: u32, toward: u8, source: u32, destination: u32) -> bool {
    match toward {
        direction::TO_SERVER => orientation(lists, destination, source),
        direction::TO_CLIENT => orientation(lists, source, destination),
        _ => orientation(lists, destination, source) || orientation(lists, source, destination),
    }
}

#[inline(always)]
const fn orientation(lists: u32, server: u32, client: u32) -> bool {
    use networks::{CLIENT_EXCLUDE, CLIENT_INCLUDE, SERVER_EXCLUDE, SERVER_INCLUDE};
    let found = (server & (SERVER_INCLUDE | SERVER_EXCLUDE)) | (client & (CLIENT_INCLUDE | CLIENT_EXCLUDE));
    let wanted = lists & (SERVER_INCLUDE | CLIENT_INCLUDE);
    found & wanted == wanted && found & (SERVER_EXCLUDE | CLIENT_EXCLUDE) == 0
}

#[cfg(test)]
mod tests;
