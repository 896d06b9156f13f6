//! Plays a conversation on one connection, from its handshake to its end, through reassembly and HTTP.

use std::net::SocketAddr;

use shadow_agent::capture::{Direction, Segment, TcpFlags};
use shadow_agent::exchange::Timestamp;
use shadow_agent::shard::{Event, Pipeline};
use shadow_agent::tcp::Ending;

/// Turns of client and server, one after the other.
pub fn numbered<'a>(turns: &[&'a [u8]]) -> Vec<(Direction, &'a [u8])> {
    let direction = |turn| if turn % 2 == 0 { Direction::ToServer } else { Direction::ToClient };
    turns.iter().enumerate().map(|(turn, text)| (direction(turn), *text)).collect()
}

/// Plays turns in segments of that size; the books must balance at the end.
pub fn play(turns: &[(Direction, &[u8])], size: usize) -> Vec<Event> {
    let mut pipeline = Pipeline::new(&crate::settings(&crate::limits()));
    let mut events = Vec::new();
    let (client, server) = (SocketAddr::from(([10, 0, 0, 1], 4000)), SocketAddr::from(([10, 0, 0, 2], 80)));
    let mut next = [1_u32, 1];
    let mut give = |own: usize, flags: TcpFlags, seq, ack, payload: &[u8]| {
        let (source, destination) = if own == 0 { (client, server) } else { (server, client) };
        let direction = Some(if own == 0 { Direction::ToServer } else { Direction::ToClient });
        let (time, missing, is_shed) = (Timestamp(1), 0, false);
        let segment =
            Segment { time, source, destination, seq, ack, flags, direction, payload, missing, is_shed };
        pipeline.segment(&segment, &mut |event| events.push(event));
    };
    give(0, TcpFlags::SYN, 0, 0, &[]);
    give(1, TcpFlags::SYN.and(TcpFlags::ACK), 0, 1, &[]);
    for (direction, text) in turns {
        let own = usize::from(*direction == Direction::ToClient);
        for piece in text.chunks(size) {
            give(own, TcpFlags::ACK, next[own], next[1 - own], piece);
            next[own] = next[own].wrapping_add(piece.len() as u32);
        }
    }
    let fin = TcpFlags::FIN.and(TcpFlags::ACK);
    give(1, fin, next[1], next[0], &[]);
    give(0, fin, next[0], next[1].wrapping_add(1), &[]);
    pipeline.finish(Ending::Shutdown, &mut |event| events.push(event));
    crate::balanced(&pipeline, &events);
    events
}
