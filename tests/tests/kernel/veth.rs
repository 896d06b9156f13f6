//! Real TCP between namespaces, with segmentation offload as the kernel likes it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use shadow_agent::capture::kernel::{Attachment, KernelCapture, RingSource};
use shadow_agent::capture::{Direction, PacketResult, Segment, SegmentSource as _, TcpFlags};

use crate::netns::{DEVICE, Pair, SERVER};
use crate::{PORT, capture};

const MEBIBYTE: usize = 1024 * 1024;

/// Bytes that differ from their neighbours at every distance that matters here.
fn pattern(salt: u32) -> Vec<u8> {
    (0..MEBIBYTE as u32).map(|at| ((at ^ salt).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// One direction of one connection, put together by sequence number.
#[derive(Default)]
struct Stream {
    first: Option<u32>,
    bytes: BTreeMap<u32, u8>,
    finished: bool,
}

impl Stream {
    fn add(&mut self, segment: &Segment<'_>) {
        assert_eq!(segment.missing, 0);
        if segment.flags.has(TcpFlags::SYN) {
            self.first = Some(segment.seq.wrapping_add(1));
        }
        self.finished |= segment.flags.has(TcpFlags::FIN);
        let first = self.first.expect("the capture began before the connection");
        let start = segment.seq.wrapping_sub(first);
        for (at, byte) in segment.payload.iter().enumerate() {
            let known = self.bytes.insert(start + at as u32, *byte);
            assert!(known.is_none_or(|known| known == *byte), "a retransmission says something else");
        }
    }

    fn take(&self) -> Vec<u8> {
        assert!(self.bytes.keys().copied().eq(0..self.bytes.len() as u32), "there is a gap");
        self.bytes.values().copied().collect()
    }
}

/// Sends `request` to a server in one namespace that answers with `response`, from a client in the other.
fn exchange(pair: &Pair, server: SocketAddr, request: &[u8], response: &[u8]) {
    let (ready, started) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            pair.on_server(move || {
                let listener = TcpListener::bind(server).unwrap();
                ready.send(()).unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                let mut received = Vec::new();
                stream.read_to_end(&mut received).unwrap();
                assert!(received == request, "the network is at fault");
                stream.write_all(response).unwrap();
            });
        });
        scope.spawn(|| {
            pair.on_client(move || {
                started.recv().unwrap();
                let mut stream = TcpStream::connect(server).unwrap();
                stream.write_all(request).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut received = Vec::new();
                stream.read_to_end(&mut received).unwrap();
                assert!(received == response, "the network is at fault");
            });
        });
    });
}

/// Reads until both directions are finished, or long enough to call it a failure.
fn collect(source: &mut RingSource) -> (Stream, Stream, usize) {
    let (mut requests, mut responses) = (Stream::default(), Stream::default());
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut largest = 0;
    while !(requests.finished && responses.finished) && Instant::now() < deadline {
        source
            .poll(Duration::from_millis(100), &mut |segment| {
                largest = largest.max(segment.payload.len());
                match segment.direction.expect("the hook says the direction") {
                    Direction::ToServer => requests.add(segment),
                    Direction::ToClient => responses.add(segment),
                }
            })
            .unwrap();
    }
    (requests, responses, largest)
}

fn whole_streams_are_captured(attachment: Attachment) {
    let pair = Pair::new();
    let (request, response) = (pattern(1), pattern(2));
    let mut config = capture();
    config.ring_size = 16 * 1024 * 1024;
    let (mut capture, mut sources) =
        pair.on_server(|| KernelCapture::start_with(&config, &[pair.device()], true, attachment)).unwrap();
    assert_eq!(capture.attached().len(), 1);
    assert_eq!(capture.attached()[0].attachment, attachment);
    for address in SERVER {
        let server = SocketAddr::new(address.parse().unwrap(), PORT);
        capture.beat();
        exchange(&pair, server, &request, &response);
        let (requests, responses, largest) = collect(&mut sources[0]);
        assert!(requests.take() == request, "{address}: requests differ");
        assert!(responses.take() == response, "{address}: responses differ");
        assert!(largest > 1500, "{address}: no super-packet was seen, largest {largest}");
    }
    let counters = capture.counters().unwrap();
    for result in
        [PacketResult::RingFull, PacketResult::CopyError, PacketResult::Killed, PacketResult::Fragment]
    {
        assert_eq!(counters.packets[result as usize], 0, "{result:?}");
    }
    assert!(counters.bytes >= 4 * MEBIBYTE as u64);
    pair.on_server(|| capture.detach()).unwrap();
    assert_eq!(attached(&pair), "");
}

/// What the kernel says is attached to the device, both ways of attaching together; empty when nothing is.
fn attached(pair: &Pair) -> String {
    let mut found = String::new();
    for hook in ["ingress", "egress"] {
        found += &pair.output(&["tc", "filter", "show", "dev", DEVICE, hook]);
    }
    found
}

#[test]
fn whole_streams_are_captured_through_tcx() {
    whole_streams_are_captured(Attachment::Tcx);
}

#[test]
fn whole_streams_are_captured_through_clsact() {
    whole_streams_are_captured(Attachment::Clsact);
}
