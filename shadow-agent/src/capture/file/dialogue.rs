//! Makes connections of messages that somebody recorded without them: each request, with its response, has its own.
//!
//! So they take the same way as what was captured, through reassembly and all.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use crate::capture::{Direction, Segment, TcpFlags};
use crate::exchange::Timestamp;

/// How many requests may come between a request and its response; behind that, it gets none.
const MAX_BETWEEN: usize = 65_536;

/// Where all requests go (RFC 5737: for documentation, so it is nobody's).
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 80);
/// Where they come from: addresses of the network for benchmarks (RFC 2544, appendix C.2.2), ports from this one on.
const CLIENTS: u32 = 0xC612_0000;
const FIRST_PORT: u32 = 1024;
const PORTS: u32 = 65_536 - FIRST_PORT;
/// The first byte of every stream has this number.
const FIRST: u32 = 1;

/// A message as somebody recorded it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) direction: Direction,
    /// What a request and its response have in common.
    pub(super) name: &'a str,
    pub(super) time: Timestamp,
    /// Head and body as they were on the wire.
    pub(super) bytes: &'a [u8],
}

/// The requests that wait for their responses.
#[derive(Debug, Default)]
pub(super) struct Dialogues {
    waiting: HashMap<Box<str>, Waiting>,
    /// The last requests, answered or not.
    order: VecDeque<(Box<str>, SocketAddr)>,
    /// Connections made so far.
    count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    client: SocketAddr,
    /// The number of the byte behind the request.
    asked: u32,
}

impl Dialogues {
    /// Gives the segments of a message. Says no for a response that nobody asked for.
    pub(super) fn take(&mut self, message: &Message<'_>, handle: &mut dyn FnMut(&Segment<'_>)) -> bool {
        let Message { direction, name, time, bytes } = *message;
        let server = SocketAddr::from(SERVER);
        let (client, asked) = match direction {
            Direction::ToServer => (self.client(), FIRST),
            Direction::ToClient => match self.waiting.remove(name) {
                Some(Waiting { client, asked }) => (client, asked),
                None => return false,
            },
        };
        let segment = |direction, seq, ack, flags: TcpFlags, payload| {
            let (source, destination) =
                if direction == Direction::ToServer { (client, server) } else { (server, client) };
            Segment {
                time,
                source,
                destination,
                seq,
                ack,
                flags,
                direction: Some(direction),
                payload,
                missing: 0,
                is_shed: false,
            }
        };
        let end = |first: u32| first.wrapping_add(bytes.len() as u32);
        let (syn, ack, fin) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN.and(TcpFlags::ACK));
        match direction {
            Direction::ToServer => {
                handle(&segment(direction, FIRST - 1, 0, syn, &[]));
                handle(&segment(Direction::ToClient, FIRST - 1, FIRST, syn.and(ack), &[]));
                handle(&segment(direction, FIRST, FIRST, ack, bytes));
                self.wait(name, client, end(FIRST));
            }
            Direction::ToClient => {
                handle(&segment(direction, FIRST, asked, ack, bytes));
                handle(&segment(direction, end(FIRST), asked, fin, &[]));
                handle(&segment(Direction::ToServer, asked, end(FIRST).wrapping_add(1), fin, &[]));
            }
        }
        true
    }

    /// The client of the next connection, which none has that is remembered.
    fn client(&mut self) -> SocketAddr {
        let count = self.count;
        self.count = self.count.wrapping_add(1);
        let address = CLIENTS | (count / PORTS) & 0x1_FFFF;
        SocketAddr::from((Ipv4Addr::from_bits(address), (FIRST_PORT + count % PORTS) as u16))
    }

    fn wait(&mut self, name: &str, client: SocketAddr, asked: u32) {
        self.waiting.insert(name.into(), Waiting { client, asked });
        self.order.push_back((name.into(), client));
        if self.order.len() > MAX_BETWEEN
            && let Some((name, client)) = self.order.pop_front()
            && self.waiting.get(&name).is_some_and(|waiting| waiting.client == client)
        {
            self.waiting.remove(&name);
        }
    }
}
