//! The byte budget, packet by packet.

use super::*;

/// A second's worth at the least budget there can be: the bucket holds a quarter of it.
const RATE: u64 = 64 * 1024;
const PAYLOAD: usize = 2000;

fn bench() -> Bench {
    Bench::new(&Capture { budget: Some(RATE), ..capture() })
}

fn from_client(port: u16, flags: u8) -> Vec<u8> {
    let mut packet = Packet::new(CLIENT, SERVER, &[7; PAYLOAD]);
    packet.source.set_port(port);
    packet.flags = flags;
    packet.bytes()
}

fn from_server(port: u16) -> Vec<u8> {
    let mut packet = Packet::new(SERVER, CLIENT, &[8; PAYLOAD]);
    packet.destination.set_port(port);
    packet.bytes()
}

#[test]
fn a_flow_that_empties_the_bucket_is_left_out_in_both_directions() {
    let mut bench = bench();
    bench.load(TO_SERVER);
    bench.load(TO_CLIENT);
    let mut copied = 0;
    let said = loop {
        match bench.run(TO_SERVER, &from_client(1, ACK), 0) {
            (PacketResult::Copied, _) => copied += PAYLOAD,
            (result, said) => {
                assert_eq!(result, PacketResult::Shed);
                break said;
            }
        }
        assert!(copied < RATE as usize, "nothing is ever shed");
    };
    // The agent is told, so that it gives up at once what is open.
    assert!(matches!(&*said, [one] if one.is_shed && one.payload.is_empty() && one.missing == 0), "{said:?}");
    // A quarter of a second's worth, and what came in meanwhile.
    assert!(copied >= RATE as usize / 4, "{copied}");
    assert_eq!(
        bench.run(TO_CLIENT, &from_server(1), 0),
        (PacketResult::Shed, Vec::new()),
        "and nothing is said again"
    );
    assert_eq!(
        bench.run(TO_SERVER, &from_client(2, ACK), 0).0,
        PacketResult::Shed,
        "another flow, below a quarter"
    );
    assert_eq!(
        bench.run(TO_SERVER, &from_client(1, SYN), 0).0,
        PacketResult::Shed,
        "nothing is left for a new one either"
    );
}

#[test]
fn a_flow_is_admitted_by_what_goes_toward_the_server_only() {
    let mut bench = bench();
    assert_eq!(
        bench.run(TO_CLIENT, &from_server(3), 0).0,
        PacketResult::Shed,
        "an answer without its request"
    );
    assert_eq!(bench.run(TO_SERVER, &from_client(3, ACK), 0).0, PacketResult::Copied);
    assert_eq!(bench.run(TO_CLIENT, &from_server(3), 0).0, PacketResult::Copied);
}

#[test]
fn what_a_header_claims_beyond_the_packet_is_not_paid_for() {
    let mut bench = bench();
    let claims = with(request(), |packet| packet.ip_length = Some(u16::MAX));
    for _ in 0..20 {
        assert_eq!(bench.run(TO_SERVER, &claims.bytes(), 0).0, PacketResult::Copied);
    }
}
