//! Captures as Wireshark reads them, of packets that nobody sent: each exchange has a TCP connection of its own, which is
//! opened, carries request and response, and is closed.
//!
//! Packets stand in the order of their times. They wait a while for others that precede them; one that comes too late
//! has the time of the last.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use super::wire;
use crate::exchange::{Exchange, Timestamp};

mod blocks;
mod packet;

use packet::{ACK, FIN, PSH, Route, SYN};

/// Bytes of packets held back; beyond it the oldest are written without waiting.
const MAX_HELD: usize = 16 << 20;

/// Connections remembered, so that none has the addresses of another that is open.
const MAX_PEERS: usize = 16_384;

/// Payload of one packet in bytes, so that it fits 1,500 with its headers.
const MAX_PAYLOAD: usize = 1_440;

/// Data packets that are acknowledged by one; less than fills the window.
const ACKED: usize = 16;

/// Ports given to clients whose own is in use (RFC 6335, section 6).
const FIRST_PORT: u16 = 49_152;

/// The packets of one exchange, in order.
#[derive(Debug, Default)]
pub(super) struct Conversation(Vec<(Timestamp, Vec<u8>)>);

impl Conversation {
    /// Bytes that it takes in the file.
    pub(super) fn size(&self) -> u64 {
        self.0.iter().map(|(_, packet)| blocks::size(packet.len()) as u64).sum()
    }
}

/// A packet that waits, and whether it is the last of its exchange.
#[derive(Debug)]
struct Held {
    packet: Vec<u8>,
    ends: bool,
}

/// What is remembered of one file.
#[derive(Debug)]
pub(super) struct PcapNg {
    /// By time, and where that is equal, by the order in which they came.
    held: BTreeMap<(Timestamp, u64), Held>,
    bytes: usize,
    exchanges: u64,
    count: u64,
    /// The time of the last packet written.
    last: Timestamp,
    /// When the last connection between two addresses ends.
    peers: HashMap<(SocketAddr, SocketAddr), Timestamp>,
    /// The port that is tried next.
    port: u16,
    /// The sequence number with which the next connection begins, on either side.
    sequence: u32,
}

impl Default for PcapNg {
    fn default() -> PcapNg {
        PcapNg {
            held: BTreeMap::new(),
            bytes: 0,
            exchanges: 0,
            count: 0,
            last: Timestamp::default(),
            peers: HashMap::new(),
            port: FIRST_PORT,
            sequence: 1,
        }
    }
}

impl PcapNg {
    /// What a file begins with.
    pub(super) fn head(&self) -> Vec<u8> {
        blocks::head()
    }

    /// The packets of an exchange.
    pub(super) fn conversation(&mut self, exchange: &Exchange) -> Conversation {
        let times = &exchange.times;
        let asked = wire::request(&exchange.request, &[]);
        let answered = wire::response(&exchange.response, &[]);
        let started = times.started;
        let request_done = times.request_done.max(started);
        let response_started = times.response_started.max(request_done);
        let response_done = times.response_done.max(response_started);
        let client = self.client(exchange, started, response_done);
        let mut talk = Talk::new(client, exchange.server, self.sequence);
        talk.send(Side::Client, started, SYN, &[]);
        talk.send(Side::Server, started, SYN | ACK, &[]);
        talk.send(Side::Client, started, ACK, &[]);
        let body = exchange.request.body.len();
        talk.message(Side::Client, &asked, body, started, request_done);
        let body = exchange.response.body.len();
        talk.message(Side::Server, &answered, body, response_started, response_done);
        talk.send(Side::Server, response_done, FIN | ACK, &[]);
        talk.send(Side::Client, response_done, FIN | ACK, &[]);
        talk.send(Side::Server, response_done, ACK, &[]);
        // Whoever has the same addresses next begins behind all that was sent.
        self.sequence =
            self.sequence.wrapping_add((asked.len().max(answered.len()) as u32).wrapping_add(65_536));
        talk.packets
    }

    /// The client's address, with another port when a connection with its own is open at the time.
    fn client(&mut self, exchange: &Exchange, start: Timestamp, end: Timestamp) -> SocketAddr {
        let start = start.max(self.last);
        let mut client = exchange.client;
        for _ in FIRST_PORT..=u16::MAX {
            if self.peers.get(&(client, exchange.server)).is_none_or(|end| *end <= start) {
                break;
            }
            client.set_port(self.port);
            self.port = self.port.checked_add(1).unwrap_or(FIRST_PORT);
        }
        self.peers.insert((client, exchange.server), end.max(self.last));
        client
    }

    /// Holds the packets of an exchange back, and writes the oldest when there are too many.
    pub(super) fn hold(&mut self, conversation: Conversation, write: &mut dyn FnMut(&[u8], bool)) {
        let mut left = conversation.0.len();
        for (time, packet) in conversation.0 {
            left -= 1;
            self.count += 1;
            self.bytes += blocks::size(packet.len());
            self.held.insert((time.max(self.last), self.count), Held { packet, ends: left == 0 });
        }
        self.exchanges += 1;
        while self.bytes > MAX_HELD && self.write_one(write) {}
        if self.peers.len() >= MAX_PEERS {
            let last = self.last;
            self.peers.retain(|_, end| *end > last);
            if self.peers.len() >= MAX_PEERS {
                self.release(None, write);
                self.peers.clear();
            }
        }
    }

    /// Writes the packets of the time before, or of all time.
    pub(super) fn release(&mut self, before: Option<Timestamp>, write: &mut dyn FnMut(&[u8], bool)) {
        let due = |held: &BTreeMap<(Timestamp, u64), Held>| {
            held.first_key_value().is_some_and(|((time, _), _)| before.is_none_or(|before| *time <= before))
        };
        while due(&self.held) && self.write_one(write) {}
    }

    /// Bytes held back, as they will be in the file.
    pub(super) fn held(&self) -> usize {
        self.bytes
    }

    /// Exchanges that are not written whole.
    pub(super) fn exchanges(&self) -> u64 {
        self.exchanges
    }

    fn write_one(&mut self, write: &mut dyn FnMut(&[u8], bool)) -> bool {
        let Some(((time, _), Held { packet, ends })) = self.held.pop_first() else { return false };
        self.last = self.last.max(time);
        self.bytes -= blocks::size(packet.len());
        self.exchanges -= u64::from(ends);
        write(&blocks::packet(self.last, &packet), ends);
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// One connection under way.
struct Talk {
    packets: Conversation,
    client: SocketAddr,
    server: SocketAddr,
    /// The next sequence number of each side.
    asked: u32,
    answered: u32,
}

impl Talk {
    fn new(client: SocketAddr, server: SocketAddr, sequence: u32) -> Talk {
        Talk { packets: Conversation::default(), client, server, asked: sequence, answered: sequence }
    }

    fn send(&mut self, side: Side, time: Timestamp, flags: u8, payload: &[u8]) {
        let (source, destination, seq, ack) = match side {
            Side::Client => (self.client, self.server, self.asked, self.answered),
            Side::Server => (self.server, self.client, self.answered, self.asked),
        };
        let ack = if flags & ACK == 0 { 0 } else { ack };
        let route = Route { source, destination };
        self.packets.0.push((time, packet::tcp(&route, seq, ack, flags, payload)));
        let taken = (payload.len() as u32).wrapping_add(u32::from(flags & (SYN | FIN) != 0));
        let next = match side {
            Side::Client => &mut self.asked,
            Side::Server => &mut self.answered,
        };
        *next = next.wrapping_add(taken);
    }

    /// Sends a message whose first byte is seen at one time, the last at another, and has it acknowledged.
    fn message(&mut self, side: Side, bytes: &[u8], body: usize, first: Timestamp, last: Timestamp) {
        let other = if side == Side::Client { Side::Server } else { Side::Client };
        let mut parts: Vec<&[u8]> = bytes.chunks(MAX_PAYLOAD).collect();
        if parts.len() == 1 && first != last {
            // Head and body, or whatever has a beginning and an end.
            let at = if body > 0 { bytes.len().saturating_sub(body) } else { bytes.len().saturating_sub(2) };
            parts = Vec::from(<[&[u8]; 2]>::from(bytes.split_at(at)));
        }
        let count = parts.len();
        for (index, part) in parts.into_iter().enumerate() {
            let time = between(first, last, index, count);
            let is_last = index + 1 == count;
            self.send(side, time, if is_last { PSH | ACK } else { ACK }, part);
            if is_last || (index + 1) % ACKED == 0 {
                self.send(other, time, ACK, &[]);
            }
        }
    }
}

/// The time of one of so many packets, which are spread evenly.
fn between(first: Timestamp, last: Timestamp, index: usize, count: usize) -> Timestamp {
    let span = u128::from(last.0 - first.0.min(last.0));
    let steps = (count as u128).saturating_sub(1).max(1);
    let passed = span * index as u128 / steps;
    Timestamp(first.0 + u64::try_from(passed).unwrap_or_default())
}
