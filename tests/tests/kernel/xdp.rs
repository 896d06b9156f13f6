//! Mode xdp: packets in fragments, whole streams over real devices, and what others have attached.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use aya::Ebpf;
use aya::programs::Xdp;
use shadow_agent::capture::interfaces::{Device, Layer, Toward};
use shadow_agent::capture::kernel::{Attachment, Entry, KernelCapture, KernelError, RingSource, XdpObstacle};
use shadow_agent::capture::{Direction, PacketResult, SegmentSource as _};
use shadow_agent::config::{Capture, Mode, Side, XdpMode};
use shadow_agent::privileges::{self, KernelVersion};

use crate::coexist::other;
use crate::netns::{DEVICE, Pair, SERVER, device};
use crate::packet::Packet;
use crate::veth::{MEBIBYTE, attached, collect, exchange, pattern, server, while_beating};
use crate::{PORT, capture};

const MODES: [XdpMode; 2] = [XdpMode::Generic, XdpMode::Native];

/// Whether this kernel can do it. Where it cannot, it must say so and name the remedy.
pub(crate) fn is_there() -> bool {
    static IS_THERE: OnceLock<bool> = OnceLock::new();
    *IS_THERE.get_or_init(|| {
        let running = KernelVersion::running().unwrap();
        if running >= KernelVersion::XDP {
            return true;
        }
        let Err(error) = KernelCapture::start(&config(XdpMode::Generic), &[], true) else {
            panic!("Linux {running} has all that mode xdp needs")
        };
        assert!(matches!(error, KernelError::XdpKernel { .. }), "{error:?}");
        let said = format!("capture.mode xdp needs Linux 5.18, and this is {running}: set it to tc");
        assert!(error.to_string().starts_with(&said), "{error}");
        crate::host::differs("no mode xdp before Linux 5.18, refused");
        false
    })
}

fn config(mode: XdpMode) -> Capture {
    Capture { mode: Mode::Xdp(mode), ring_size: 16 * 1024 * 1024, ..capture() }
}

fn start(
    pair: &Pair,
    mode: XdpMode,
    devices: &[Device],
) -> Result<(KernelCapture, Vec<RingSource>), KernelError> {
    pair.on_server(|| KernelCapture::start_with(&config(mode), devices, true, Attachment::Tcx))
}

/// What `ip` says about the XDP programs of the server's device.
fn shown(pair: &Pair) -> String {
    pair.output(&["ip", "-details", "link", "show", "dev", DEVICE])
}

fn has_xdp(pair: &Pair) -> bool {
    shown(pair).contains("prog/xdp")
}

#[test]
fn payloads_across_fragments_are_whole() {
    if !is_there() {
        return;
    }
    let (mut kernel, mut sources) =
        KernelCapture::start_with(&config(XdpMode::Generic), &[], true, Attachment::Tcx).unwrap();
    let entry = Entry::Xdp(Direction::ToServer);
    kernel.run_packet(entry, &[0; 64], 0, 1).unwrap();
    let all: Vec<u8> = pattern(1);
    // The first fragment holds about 3.5 KiB, and every other a page; the last size is the most that IP can say.
    for size in [3400, 3600, 4096, 7600, 8948, 16_384, 16_385, 32_768, 32_769, 60_000, 65_495] {
        let packet = Packet::new("10.0.0.1:40000", "10.0.0.2:8080", &all[..size]);
        kernel.beat();
        let ran = kernel.run_packet(entry, &packet.bytes(), 0, 1).unwrap();
        assert_eq!(ran.verdict, entry.verdict());
        let mut captured = Vec::new();
        sources[0].poll(Duration::ZERO, &mut |segment| captured.extend_from_slice(segment.payload)).unwrap();
        assert!(captured == packet.payload, "{} of {size} bytes", captured.len());
    }
    let counters = kernel.counters().unwrap();
    assert_eq!(counters.packets[PacketResult::Copied as usize], 11, "{counters:?}");
}

#[test]
fn a_packet_beyond_the_reach_of_xdp_is_counted_and_goes_on() {
    if !is_there() {
        return;
    }
    let (mut kernel, mut sources) =
        KernelCapture::start_with(&config(XdpMode::Generic), &[], true, Attachment::Tcx).unwrap();
    let entry = Entry::Xdp(Direction::ToServer);
    kernel.run_packet(entry, &[0; 64], 0, 1).unwrap();
    // BIG TCP: its length is in no header.
    let mut packet = Packet::new("10.0.0.1:40000", "10.0.0.2:8080", &pattern(2)[..66_000]);
    packet.ip_length = Some(0);
    kernel.beat();
    let ran = kernel.run_packet(entry, &packet.bytes(), 0, 1).unwrap();
    assert_eq!(ran.verdict, entry.verdict());
    assert_eq!(kernel.counters().unwrap().packets[PacketResult::CopyError as usize], 1);
    assert_eq!(sources[0].poll(Duration::ZERO, &mut |_| ()).unwrap(), Some(0), "nothing of it is told");
}

fn whole_streams_are_captured(mode: XdpMode, mtu: u32, toward: Toward) {
    let pair = Pair::new();
    pair.set_mtu(mtu);
    let (request, response) = (pattern(3), pattern(4));
    let (capture, mut sources) = start(&pair, mode, &[device(DEVICE, toward)]).unwrap();
    assert_eq!(capture.attached()[0].xdp, Some(mode));
    let expected = match mode {
        XdpMode::Generic => "xdpgeneric",
        XdpMode::Native => "xdp ",
    };
    assert!(shown(&pair).contains(expected), "{}", shown(&pair));
    assert_eq!(attached(&pair).len(), 1, "egress only");
    for address in SERVER {
        let server = SocketAddr::new(address.parse().unwrap(), PORT);
        let (requests, responses, _) = while_beating(&capture, || {
            exchange(&pair, server, &request, &response);
            collect(&mut sources[0])
        });
        assert!(requests.take() == request, "{mode:?} {mtu} {address}: requests differ");
        assert!(responses.take() == response, "{mode:?} {mtu} {address}: responses differ");
    }
    let counters = capture.counters().unwrap();
    for result in
        [PacketResult::RingFull, PacketResult::CopyError, PacketResult::Killed, PacketResult::Fragment]
    {
        assert_eq!(counters.packets[result as usize], 0, "{result:?}");
    }
    assert!(counters.bytes >= 4 * MEBIBYTE as u64);
    pair.on_server(|| capture.detach()).unwrap();
    assert!(!has_xdp(&pair), "{}", shown(&pair));
    assert_eq!(attached(&pair), Vec::<String>::new());
}

#[test]
fn whole_streams_are_captured_in_generic_mode() {
    if !is_there() {
        return;
    }
    for mtu in [1500, 9000] {
        whole_streams_are_captured(XdpMode::Generic, mtu, Toward::Ingress);
    }
}

#[test]
fn whole_streams_are_captured_in_native_mode() {
    if !is_there() {
        return;
    }
    for mtu in [1500, 9000] {
        whole_streams_are_captured(XdpMode::Native, mtu, Toward::Ingress);
    }
}

#[test]
fn the_host_s_side_of_a_veth_leads_the_other_way() {
    if !is_there() {
        return;
    }
    for mode in MODES {
        let pair = Pair::new();
        let config = Capture { side: Side::Client, ..config(mode) };
        let devices = [device(DEVICE, Toward::Egress)];
        let (capture, mut sources) =
            pair.on_server(|| KernelCapture::start_with(&config, &devices, true, Attachment::Tcx)).unwrap();
        let (requests, responses, _) = while_beating(&capture, || {
            exchange(&pair, server(), b"ping", b"pong");
            collect(&mut sources[0])
        });
        assert_eq!((requests.take(), responses.take()), (b"ping".to_vec(), b"pong".to_vec()), "{mode:?}");
    }
}

#[test]
fn where_xdp_is_no_use_all_is_captured_at_tc() {
    if !is_there() {
        return;
    }
    let pair = Pair::new();
    let layer3 = Device { layer: Layer::Ip, ..device(DEVICE, Toward::Ingress) };
    for mode in MODES {
        let (capture, _sources) = start(&pair, mode, std::slice::from_ref(&layer3)).unwrap();
        assert_eq!((capture.attached()[0].xdp, attached(&pair).len(), has_xdp(&pair)), (None, 2, false));
        pair.on_server(|| capture.detach()).unwrap();
        let (capture, _sources) = start(&pair, mode, &[device("lo", Toward::Both)]).unwrap();
        assert_eq!(capture.attached()[0].xdp, None);
    }
}

/// An XDP program of somebody else that lets everything pass.
fn attach_other(pair: &Pair, mode: aya::programs::XdpMode) -> Ebpf {
    // r0 = XDP_PASS; return r0
    let code = [0xB7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut ebpf = Ebpf::load(&other::object("xdp", &code)).unwrap();
    let program: &mut Xdp = ebpf.program_mut(other::NAME).unwrap().try_into().unwrap();
    program.load().unwrap();
    pair.on_server(|| program.attach(DEVICE, mode)).unwrap();
    ebpf
}

#[test]
fn a_program_of_somebody_else_is_named_and_left_alone() {
    if !is_there() {
        return;
    }
    use aya::programs::XdpMode::{Driver, Skb};
    for (theirs, ours) in [
        (Skb, XdpMode::Generic),
        (Skb, XdpMode::Native),
        (Driver, XdpMode::Generic),
        (Driver, XdpMode::Native),
    ] {
        let pair = Pair::new();
        let ebpf = attach_other(&pair, theirs);
        let program: &Xdp = ebpf.program(other::NAME).unwrap().try_into().unwrap();
        let before = shown(&pair);
        // The first device is let go again.
        let devices = [device("lo", Toward::Both), pair.device()];
        let Err(error) = start(&pair, ours, &devices) else { panic!("{theirs:?}: took its place") };
        let KernelError::Xdp { device, obstacle: XdpObstacle::Program(found), .. } = &error else {
            panic!("{theirs:?} {ours:?}: {error:?}")
        };
        assert_eq!((device.as_str(), found.id), (DEVICE, program.info().unwrap().id()));
        assert_eq!(found.name.as_deref(), Some(other::NAME));
        assert_eq!(shown(&pair), before);
        assert_eq!(attached(&pair), Vec::<String>::new());
        exchange(&pair, server(), b"ping", b"pong");
        // TC goes with it.
        let config = Capture { mode: Mode::Tc, ..config(ours) };
        let devices = [pair.device()];
        pair.on_server(|| KernelCapture::start_with(&config, &devices, true, Attachment::Tcx)).unwrap();
    }
}

#[test]
fn what_a_driver_cannot_do_is_said_with_the_remedy() {
    if !is_there() {
        return;
    }
    let pair = Pair::new();
    let Err(error) = start(&pair, XdpMode::Native, &[pair.device(), device("lo", Toward::Ingress)]) else {
        panic!("lo has native XDP now")
    };
    assert_eq!(
        error.to_string(),
        "capture.mode xdp cannot be had on lo: its driver has no native XDP: set capture.xdp to generic, or \
         capture.mode to tc"
    );
    assert_eq!((attached(&pair), has_xdp(&pair)), (Vec::new(), false), "the first one is let go");
    let Err(error) = start(&pair, XdpMode::Native, &[device("gone0", Toward::Ingress)]) else {
        panic!("attached to nothing")
    };
    assert!(matches!(error, KernelError::Device { .. }), "{error:?}");
}

#[test]
fn dropping_a_capture_detaches_it() {
    if !is_there() {
        return;
    }
    let pair = Pair::new();
    for mode in MODES {
        let started = start(&pair, mode, &[pair.device()]).unwrap();
        assert!(has_xdp(&pair));
        pair.on_server(|| started.0.retain(&[])).unwrap();
        assert!(!has_xdp(&pair));
        pair.on_server(|| started.0.attach(&pair.device())).unwrap();
        assert!(has_xdp(&pair));
        drop(started);
        assert!(!has_xdp(&pair));
    }
}

#[test]
fn a_device_can_be_attached_to_after_privileges_were_dropped() {
    if !is_there() {
        return;
    }
    let pair = Pair::new();
    pair.on_server(|| {
        let (capture, _sources) = KernelCapture::start(&config(XdpMode::Generic), &[], true).unwrap();
        privileges::drop_after_loading().unwrap();
        capture.attach(&pair.device()).unwrap();
        assert_eq!(capture.attached()[0].xdp, Some(XdpMode::Generic));
    });
}
