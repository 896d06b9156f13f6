//! Captures that are made, not taken: connections side by side, one exchange after the other on each.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use shadow_agent::capture::{Direction, Segment, TcpFlags};
use shadow_agent::exchange::Timestamp;

use super::http2;

/// Payload of a packet on Ethernet, with timestamps in the TCP header.
const SEGMENT: usize = 1448;
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 1), super::PORT);
/// Microseconds between two packets.
const STEP: u64 = 5;

/// Whether the request that a flow ends with is whole and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framed {
    /// It is.
    Whole,
    /// Half of its body is there.
    Half,
    /// It is, by HTTP/2.
    WholeByHttp2,
}

/// A capture in memory, in the classic format.
pub(super) struct Capture {
    bytes: Arc<[u8]>,
    packets: u64,
}

/// What stands in the headers of one connection.
#[derive(Clone, Copy)]
struct Connection {
    client: (Ipv4Addr, u16),
    /// The next numbers of client and server.
    next: [u32; 2],
}

struct Writer {
    bytes: Vec<u8>,
    packets: u64,
}

impl Capture {
    /// So many small exchanges over HTTP/2, several at once on each of so many connections.
    pub(super) fn over_http2((exchanges, connections): (u32, u32)) -> Capture {
        let (mut writer, mut all) = Writer::begin(connections);
        for connection in &mut all {
            let [client, server] = http2::opening();
            writer.data(connection, Direction::ToServer, &client);
            writer.data(connection, Direction::ToClient, &server);
        }
        let (mut number, mut stream) = (0, 1);
        while number < exchanges {
            for connection in &mut all {
                let count = http2::AT_ONCE.min(exchanges - number);
                let [requests, answers] = http2::round(stream, count, number);
                writer.data(connection, Direction::ToServer, &requests);
                writer.data(connection, Direction::ToClient, &answers);
                number += count;
            }
            stream += 2 * http2::AT_ONCE;
        }
        writer.end()
    }

    /// So many exchanges on so many connections, each answered with a body of that size (0: some 200 bytes).
    pub(super) fn of((exchanges, connections): (u32, u32), body: usize) -> Capture {
        let (mut writer, mut all) = Writer::begin(connections);
        let content = vec![b'x'; if body == 0 { 200 } else { body }];
        let answer = [
            format!(
                "HTTP/1.1 200 OK\r\nServer: made\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                content.len()
            )
            .into_bytes(),
            content,
        ]
        .concat();
        let mut number = 0;
        while number < exchanges {
            for connection in &mut all {
                if number == exchanges {
                    break;
                }
                let request = format!(
                    "GET /api/v1/items/{number} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: made/1.0\r\n\
                     Accept: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
                );
                writer.data(connection, Direction::ToServer, request.as_bytes());
                writer.data(connection, Direction::ToClient, &answer);
                let numbers = connection.next;
                writer.packet(connection, Direction::ToServer, TcpFlags::ACK, numbers, b"");
                number += 1;
            }
        }
        writer.end()
    }

    pub(super) fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    pub(super) fn packets(&self) -> u64 {
        self.packets
    }
}

fn connection(number: u32) -> Connection {
    let client = (Ipv4Addr::from_bits(0x0A01_0000 + number / 50_000), 10_000 + (number % 50_000) as u16);
    Connection { client, next: [number.wrapping_mul(977), number.wrapping_mul(1_000_003)] }
}

impl Writer {
    /// A file in which so many connections are open.
    fn begin(connections: u32) -> (Writer, Vec<Connection>) {
        let mut writer = Writer { bytes: Vec::new(), packets: 0 };
        for value in [0xA1B2_C3D4, 0x0004_0002, 0, 0, 262_144, 1_u32] {
            writer.bytes.extend(value.to_le_bytes());
        }
        let mut all: Vec<Connection> = (0..connections).map(connection).collect();
        for connection in &mut all {
            let [client, server] = connection.next;
            writer.packet(connection, Direction::ToServer, TcpFlags::SYN, [client, 0], b"");
            let both = TcpFlags::SYN.and(TcpFlags::ACK);
            writer.packet(connection, Direction::ToClient, both, [server, client + 1], b"");
            connection.next = [client + 1, server + 1];
        }
        (writer, all)
    }

    fn end(self) -> Capture {
        Capture { bytes: self.bytes.into(), packets: self.packets }
    }

    fn data(&mut self, connection: &mut Connection, direction: Direction, bytes: &[u8]) {
        let own = usize::from(direction == Direction::ToClient);
        for part in bytes.chunks(SEGMENT) {
            let [client, server] = connection.next;
            let numbers = if own == 0 { [client, server] } else { [server, client] };
            self.packet(connection, direction, TcpFlags::ACK, numbers, part);
            let Some(next) = connection.next.get_mut(own) else { continue };
            *next = next.wrapping_add(part.len() as u32);
        }
    }

    /// An Ethernet frame with the numbers of sequence and acknowledgment; checksums are left out, as offloading does.
    fn packet(
        &mut self,
        connection: &Connection,
        direction: Direction,
        flags: TcpFlags,
        [seq, ack]: [u32; 2],
        payload: &[u8],
    ) {
        let time = self.packets * STEP;
        self.packets += 1;
        let length = 14 + 20 + 32 + payload.len();
        let (seconds, micros) = (1_700_000_000 + time / 1_000_000, time % 1_000_000);
        for value in [seconds as u32, micros as u32, length as u32, length as u32] {
            self.bytes.extend(value.to_le_bytes());
        }
        let (source, destination) = match direction {
            Direction::ToServer => (connection.client, SERVER),
            Direction::ToClient => (SERVER, connection.client),
        };
        let total = (length - 14) as u16;
        self.bytes.extend([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
        self.bytes.extend(total.to_be_bytes());
        self.bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        self.bytes.extend(source.0.octets());
        self.bytes.extend(destination.0.octets());
        self.bytes.extend(source.1.to_be_bytes());
        self.bytes.extend(destination.1.to_be_bytes());
        self.bytes.extend(seq.to_be_bytes());
        self.bytes.extend(ack.to_be_bytes());
        self.bytes.extend([0x80, flags.0, 0xFF, 0xFF, 0, 0, 0, 0, 1, 1, 8, 10]);
        self.bytes.extend([0; 8]);
        self.bytes.extend(payload);
    }
}

/// The segments of one flow that then rests.
pub(super) fn segments(flow: u32, framed: Framed, handle: &mut dyn FnMut(&Segment<'_>)) {
    let connection = connection(flow);
    let (client, server) = (SocketAddr::from(connection.client), SocketAddr::from(SERVER));
    let mut give = |direction, flags, seq, ack, payload: &[u8]| {
        let (source, destination) =
            if direction == Direction::ToServer { (client, server) } else { (server, client) };
        handle(&Segment {
            time: Timestamp(1),
            source,
            destination,
            seq,
            ack,
            flags,
            direction: Some(direction),
            payload,
            missing: 0,
            is_shed: false,
        });
    };
    give(Direction::ToServer, TcpFlags::SYN, 0, 0, b"");
    if framed == Framed::WholeByHttp2 {
        let ([client, server], [request, answer]) = (http2::opening(), http2::round(1, 1, flow));
        let [client, server] = [[client, request].concat(), [server, answer].concat()];
        give(Direction::ToServer, TcpFlags::ACK, 1, 1, &client);
        return give(Direction::ToClient, TcpFlags::ACK, 1, 1 + client.len() as u32, &server);
    }
    let mut request = Vec::new();
    // Writing to memory does not fail.
    let _ =
        write!(request, "POST /items/{flow} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4096\r\n\r\n");
    let length = if framed == Framed::Whole { 4096 } else { 2048 };
    request.resize(request.len() + length, b'x');
    give(Direction::ToServer, TcpFlags::ACK, 1, 1, &request);
    if framed == Framed::Whole {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        give(Direction::ToClient, TcpFlags::ACK, 1, 1 + request.len() as u32, answer);
    }
}
