//! Reassembly against a naive oracle: an image of the stream in which the first byte to arrive at a place stays.

use std::net::SocketAddr;

use shadow_agent::capture::{Direction, Segment, TcpFlags};
use shadow_agent::config::Limits;
use shadow_agent::exchange::Timestamp;
use shadow_agent::shard::PipelineSettings;
use shadow_agent::tcp::{Ending, Event, FlowTable, Handler, Interest, Load, Peers};

/// Where streams may reach: within every window.
const LONGEST: usize = 1 << 14;

/// Takes down what is handed on toward the server.
#[derive(Default)]
struct Recorder {
    bytes: Vec<u8>,
    over: u32,
}

impl Handler for Recorder {
    type Connection = ();

    fn open(&mut self, _: &Peers) {}

    fn handle(&mut self, _: &mut (), event: Event<'_>) -> Interest {
        match event {
            Event::Data(chunk) => {
                assert_eq!(chunk.direction, Direction::ToServer);
                assert_eq!(chunk.offset, self.bytes.len() as u64, "in order, once");
                assert!(!chunk.bytes.is_empty());
                self.bytes.extend_from_slice(chunk.bytes);
            }
            Event::Gap { .. } => panic!("a gap before its time"),
            Event::Over(_) => self.over += 1,
            Event::End { .. } | Event::Tick(_) => {}
        }
        Interest::Follow
    }

    fn load(&self, _: &()) -> Load {
        Load::default()
    }

    fn guess(&self, _: &[u8]) -> Option<Direction> {
        None
    }
}

/// Four bytes choose where the stream starts; then each five are a segment: its place, its length, and what is in it.
pub fn check(bytes: &[u8]) {
    let Some((first, mut rest)) = bytes.split_first_chunk::<4>() else { return };
    let isn = u32::from_be_bytes(*first);
    let limits = Limits { flow_buffer: 64 << 20, total_buffer: 64 << 20, ..Limits::default() };
    let mut table = FlowTable::new(PipelineSettings::new(&limits, &[(80, 80)], 1, 0).tcp);
    let mut recorder = Recorder::default();
    let mut image: Vec<Option<u8>> = vec![None; LONGEST];
    let (client, server) = (SocketAddr::from(([10, 0, 0, 1], 4000)), SocketAddr::from(([10, 0, 0, 2], 80)));
    let mut give = |seq: u32, flags, payload: &[u8]| {
        let segment = Segment {
            time: Timestamp(1),
            source: client,
            destination: server,
            seq,
            ack: 0,
            flags,
            direction: Some(Direction::ToServer),
            payload,
            missing: 0,
            is_shed: false,
        };
        table.segment(&segment, &mut recorder);
    };
    give(isn, TcpFlags::SYN, &[]);
    while let Some(([high, low, long, short, salt], more)) = rest.split_first_chunk::<5>() {
        rest = more;
        let place = usize::from(u16::from_be_bytes([*high, *low])) % LONGEST;
        let length = usize::from(u16::from_be_bytes([*long % 8, *short])).min(LONGEST - place);
        let payload: Vec<u8> = (place..place + length).map(|at| (at as u8).wrapping_mul(31) ^ salt).collect();
        for (at, &byte) in (place..).zip(&payload) {
            if let Some(place) = image.get_mut(at) {
                place.get_or_insert(byte);
            }
        }
        give(isn.wrapping_add(1).wrapping_add(place as u32), TcpFlags::ACK, &payload);
    }
    let expected: Vec<u8> = image.iter().map_while(|byte| *byte).collect();
    assert!(recorder.bytes == expected, "{} bytes instead of {}", recorder.bytes.len(), expected.len());
    table.finish(Ending::Shutdown, &mut recorder);
    assert_eq!((recorder.over, table.stats().buffered, table.stats().flows), (1, 0, 0));
}

/// In order, in reverse, overlapping, and across the wrap of sequence numbers.
pub fn seeds() -> Vec<Vec<u8>> {
    let segments = |isn: u32, all: &[(u16, u16, u8)]| {
        let mut seed = isn.to_be_bytes().to_vec();
        for (place, length, salt) in all {
            seed.extend(place.to_be_bytes());
            seed.extend(length.to_be_bytes());
            seed.push(*salt);
        }
        seed
    };
    vec![
        segments(0, &[(0, 10, 0), (10, 10, 0), (20, 10, 0)]),
        segments(7, &[(20, 10, 0), (10, 10, 0), (0, 10, 0)]),
        segments(u32::MAX - 12, &[(5, 20, 1), (0, 10, 2), (10, 5, 3), (3, 40, 4)]),
        segments(1, &[(100, 100, 1), (300, 100, 2), (50, 400, 3), (0, 60, 4), (0, 500, 5)]),
    ]
}
