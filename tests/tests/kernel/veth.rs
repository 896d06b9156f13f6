//! Real TCP between namespaces, with segmentation offload as the kernel likes it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};
use shadow_agent::capture::interfaces::Toward;
use shadow_agent::capture::kernel::{Attachment, KernelCapture, KernelError, RingSource};
use shadow_agent::capture::{Direction, PacketResult, Segment, SegmentSource as _, TcpFlags};
use shadow_agent::config::{Capture, Side};
use shadow_ebpf::abi::{PROGRAMS, RECORD_SIZES};

use crate::host::{at_least, differs, expected_attachment};
use crate::netns::{DEVICE, Pair, SERVER, device};
use crate::packet::Packet;
use crate::{PORT, capture};

pub(crate) const MEBIBYTE: usize = 1024 * 1024;
/// What takes as long hangs.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// Bytes that differ from their neighbours at every distance that matters here.
pub(crate) fn pattern(salt: u32) -> Vec<u8> {
    (0..MEBIBYTE as u32).map(|at| ((at ^ salt).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// One direction of one connection, put together by sequence number.
#[derive(Default)]
pub(crate) struct Stream {
    first: Option<u32>,
    bytes: Vec<Option<u8>>,
    finished: bool,
}

impl Stream {
    fn add(&mut self, segment: &Segment<'_>) {
        assert_eq!(segment.missing, 0);
        if segment.flags.has(TcpFlags::SYN) {
            self.first = Some(segment.seq.wrapping_add(1));
        }
        self.finished |= segment.flags.has(TcpFlags::FIN);
        if segment.payload.is_empty() {
            return;
        }
        let first = self.first.expect("the capture began before the connection");
        let start = segment.seq.wrapping_sub(first) as usize;
        let end = start + segment.payload.len();
        self.bytes.resize(self.bytes.len().max(end), None);
        for (known, byte) in self.bytes[start..end].iter_mut().zip(segment.payload) {
            assert!(
                known.replace(*byte).is_none_or(|known| known == *byte),
                "a retransmission says something else"
            );
        }
    }

    pub(crate) fn take(&self) -> Vec<u8> {
        self.bytes.iter().map(|byte| byte.expect("there is no gap")).collect()
    }
}

/// Keeps the heartbeat going while something is done.
pub(crate) fn while_beating<T>(capture: &KernelCapture, work: impl FnOnce() -> T) -> T {
    let (done, stop) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while stop.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
                capture.beat();
            }
        });
        capture.beat();
        let result = work();
        drop(done);
        result
    })
}

pub(crate) fn server() -> SocketAddr {
    SocketAddr::new(SERVER[0].parse().unwrap(), PORT)
}

/// Sends `request` to a server in one namespace that answers with `response`, from a client in the other.
pub(crate) fn exchange(pair: &Pair, server: SocketAddr, request: &[u8], response: &[u8]) {
    exchange_between(|work| pair.on_server(work), |work| pair.on_client(work), server, request, response);
}

type Work<'a> = Box<dyn FnOnce() + Send + 'a>;

/// The same, with the two ends wherever the first two arguments run their work.
fn exchange_between<'a>(
    serving: impl FnOnce(Work<'a>) + Send,
    asking: impl FnOnce(Work<'a>) + Send,
    server: SocketAddr,
    request: &'a [u8],
    response: &'a [u8],
) {
    let (ready, started) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            serving(Box::new(move || {
                let listener = TcpListener::bind(server).unwrap();
                ready.send(()).unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                let mut received = Vec::new();
                stream.read_to_end(&mut received).unwrap();
                assert!(received == request, "the network is at fault");
                stream.write_all(response).unwrap();
            }));
        });
        scope.spawn(|| {
            asking(Box::new(move || {
                started.recv().unwrap();
                let mut stream = TcpStream::connect(server).unwrap();
                stream.write_all(request).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut received = Vec::new();
                stream.read_to_end(&mut received).unwrap();
                assert!(received == response, "the network is at fault");
            }));
        });
    });
}

/// Reads until both directions are finished, or long enough to call it a failure.
pub(crate) fn collect(source: &mut RingSource) -> (Stream, Stream, usize) {
    let (mut requests, mut responses) = (Stream::default(), Stream::default());
    let deadline = Instant::now() + HANG;
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

fn whole_streams_are_captured(preferred: Attachment, attachment: Attachment) {
    let pair = Pair::new();
    let (request, response) = (pattern(1), pattern(2));
    let mut config = capture();
    config.ring_size = 16 * 1024 * 1024;
    let (capture, mut sources) =
        pair.on_server(|| KernelCapture::start_with(&config, &[pair.device()], true, preferred)).unwrap();
    assert_eq!(capture.attached().len(), 1);
    assert_eq!(capture.attached()[0].attachment, attachment);
    for address in SERVER {
        let server = SocketAddr::new(address.parse().unwrap(), PORT);
        let (requests, responses, largest) = while_beating(&capture, || {
            exchange(&pair, server, &request, &response);
            collect(&mut sources[0])
        });
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
    assert_eq!(attached(&pair).len(), 2, "one program a hook");
    assert_eq!(has_clsact(&pair), attachment == Attachment::Clsact);
    pair.on_server(|| capture.detach()).unwrap();
    assert_eq!((attached(&pair), has_clsact(&pair)), (Vec::new(), false));
}

/// Whether the device has a `clsact` queueing discipline.
pub(crate) fn has_clsact(pair: &Pair) -> bool {
    pair.output(&["tc", "qdisc", "show", "dev", DEVICE]).contains("clsact")
}

/// The names of the programs of ours that the kernel says are attached to the device, whichever way.
pub(crate) fn attached(pair: &Pair) -> Vec<String> {
    let mut found = Vec::new();
    for (hook, kind) in [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)] {
        let filters = pair.output(&["tc", "filter", "show", "dev", DEVICE, hook]);
        let ours = |line: &&str| PROGRAMS.iter().any(|name| line.contains(name));
        found.extend(filters.lines().filter(ours).map(str::to_owned));
        let queried = pair.on_server(|| SchedClassifier::query_tcx(DEVICE, kind));
        assert_eq!(queried.is_ok(), at_least(6, 6), "{queried:?}");
        let programs = queried.map(|(_, programs)| programs).unwrap_or_default();
        let names = programs.iter().filter_map(|program| program.name_as_str());
        found.extend(names.filter(|name| PROGRAMS.contains(name)).map(str::to_owned));
    }
    found
}

#[test]
fn whole_streams_are_captured_through_tcx() {
    whole_streams_are_captured(Attachment::Tcx, expected_attachment());
}

#[test]
fn whole_streams_are_captured_through_clsact() {
    whole_streams_are_captured(Attachment::Clsact, Attachment::Clsact);
}

#[test]
fn packets_larger_than_the_largest_record_are_split_over_several() {
    let pair = Pair::new();
    let huge = pair.set_largest_packet(400_000);
    assert_eq!(huge, at_least(5, 19), "BIG TCP");
    let (request, response) = (pattern(6), pattern(7));
    let config = Capture { ring_size: 16 * 1024 * 1024, ..capture() };
    let (capture, mut sources) =
        pair.on_server(|| KernelCapture::start(&config, &[pair.device()], true)).unwrap();
    let server = SocketAddr::new(SERVER[1].parse().unwrap(), PORT);
    let (requests, responses, largest) = while_beating(&capture, || {
        exchange(&pair, server, &request, &response);
        collect(&mut sources[0])
    });
    assert!(requests.take() == request, "requests differ");
    assert!(responses.take() == response, "responses differ");
    let most = RECORD_SIZES[RECORD_SIZES.len() - 1];
    if huge {
        assert_eq!(largest, most, "no packet was that large");
    } else {
        differs("no BIG TCP below 5.19: no packet needs several records");
        assert!(largest < most, "{largest}");
    }
    drop(capture);
}

#[test]
fn dropping_a_capture_detaches_it() {
    let pair = Pair::new();
    for attachment in [Attachment::Tcx, Attachment::Clsact] {
        pair.on_server(|| {
            let started = KernelCapture::start_with(&capture(), &[pair.device()], true, attachment).unwrap();
            assert_eq!(attached(&pair).len(), 2);
            drop(started);
        });
        assert_eq!((attached(&pair), has_clsact(&pair)), (Vec::new(), false));
    }
}

#[test]
fn clsact_stays_while_somebody_else_has_a_filter_in_it() {
    let pair = Pair::new();
    let (capture, _sources) = pair
        .on_server(|| KernelCapture::start_with(&capture(), &[pair.device()], true, Attachment::Clsact))
        .unwrap();
    let other = ["egress", "prio", "1", "protocol", "ip", "u32", "match", "ip", "dport", "1", "0xffff"];
    pair.output(&[&["tc", "filter", "add", "dev", DEVICE][..], &other, &["flowid", "1:1"]].concat());
    pair.on_server(|| capture.detach()).unwrap();
    assert_eq!((attached(&pair), has_clsact(&pair)), (Vec::new(), true));
}

#[test]
fn the_host_s_side_of_a_veth_leads_the_other_way() {
    let pair = Pair::new();
    let inverted = device(DEVICE, Toward::Egress);
    let config = Capture { side: Side::Client, ..capture() };
    // Seen from this end, the server is ours and the workload at the far end is the client.
    let (capture, mut sources) = pair.on_server(|| KernelCapture::start(&config, &[inverted], true)).unwrap();
    let (requests, responses, _) = while_beating(&capture, || {
        exchange(&pair, server(), b"ping", b"pong");
        collect(&mut sources[0])
    });
    assert_eq!((requests.take(), responses.take()), (b"ping".to_vec(), b"pong".to_vec()));
    drop(capture);
}

#[test]
fn on_loopback_every_byte_is_seen_once() {
    let pair = Pair::new();
    let (request, response) = (pattern(3), pattern(4));
    let config = Capture { ring_size: 16 * 1024 * 1024, ..capture() };
    let (capture, mut sources) =
        pair.on_server(|| KernelCapture::start(&config, &[device("lo", Toward::Both)], true)).unwrap();
    let address = SocketAddr::new("127.0.0.1".parse().unwrap(), PORT);
    let (requests, responses, _) = while_beating(&capture, || {
        let inside = |work: Work<'_>| pair.on_server(work);
        exchange_between(inside, inside, address, &request, &response);
        collect(&mut sources[0])
    });
    assert!(requests.take() == request, "requests differ");
    assert!(responses.take() == response, "responses differ");
    let counters = capture.counters().unwrap();
    assert!(counters.bytes < 2 * MEBIBYTE as u64 + 64 * 1024, "{counters:?}");
    pair.on_server(|| capture.detach()).unwrap();
}

#[test]
fn a_consumer_that_sleeps_is_woken_by_the_first_record() {
    let pair = Pair::new();
    let (capture, mut sources) =
        pair.on_server(|| KernelCapture::start(&capture(), &[pair.device()], true)).unwrap();
    let mut source = sources.remove(0);
    for _ in 0..20 {
        let asleep = thread::spawn(move || {
            let start = Instant::now();
            let count = source.poll(HANG, &mut |_| ()).unwrap();
            (source, count, start.elapsed())
        });
        // Long enough for the consumer to have gone to sleep, which changes nothing if it has not.
        thread::sleep(Duration::from_millis(30));
        while_beating(&capture, || exchange(&pair, server(), b"ping", b"pong"));
        let (woken, count, elapsed) = asleep.join().unwrap();
        source = woken;
        assert!(count.unwrap() > 0 && elapsed < HANG, "woken by the timeout after {elapsed:?}");
        while source.poll(Duration::ZERO, &mut |_| ()).unwrap().unwrap() > 0 {}
    }
}

#[test]
fn headers_outside_the_linear_part_are_read() {
    let pair = Pair::new();
    pair.set_mtu(9000);
    let (capture, mut sources) =
        pair.on_server(|| KernelCapture::start(&capture(), &[pair.device()], true)).unwrap();
    let payload: Vec<u8> = pattern(5)[..5000].to_vec();
    for packet in [
        Packet::new("10.77.0.2:40000", "10.77.0.1:8080", &payload),
        Packet::new("[fd77::2]:40000", "[fd77::1]:8080", &payload),
    ] {
        let mut captured = Vec::new();
        let mut check = |segment: &Segment<'_>| {
            assert_eq!((segment.source, segment.destination), (packet.source, packet.destination));
            assert_eq!((segment.seq, segment.ack), (packet.seq, packet.ack));
            captured.extend_from_slice(segment.payload);
        };
        while_beating(&capture, || {
            // Only the Ethernet header is linear: the kernel takes that from the virtual header.
            pair.send_with_linear_part(&packet.bytes(), 14);
            sources[0].poll(HANG, &mut check).unwrap();
        });
        assert!(captured == payload, "{} bytes of {}", captured.len(), payload.len());
    }
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let pair = Pair::new();
    let result =
        pair.on_server(|| KernelCapture::start(&capture(), &[device("gone0", Toward::Ingress)], true));
    let Err(error) = result else { panic!("attached to nothing") };
    assert!(matches!(error, KernelError::Device { .. }), "{error:?}");
    assert!(error.to_string().contains("\"gone0\""), "{error}");
}
