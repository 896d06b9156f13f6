//! The agent's own sockets, known by their local ends.

use super::*;

#[test]
fn packets_of_registered_sockets_are_left_alone_in_both_directions() {
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut bench = Bench::new(&Capture { side: Side::Both, ..capture() });
        let request = Packet::new(client, server, b"GET / HTTP/1.1\r\n\r\n").bytes();
        let response = Packet::new(server, client, b"HTTP/1.1 200 OK\r\n\r\n").bytes();
        let check = |bench: &mut Bench, expected| {
            assert_eq!(bench.run(EITHER, &request, 0).0, expected, "{client}");
            assert_eq!(bench.run(EITHER, &response, 0).0, expected, "{client}");
            for entry in ingress() {
                assert_eq!(bench.run(entry, &request, 0).0, expected, "{client}");
            }
        };
        check(&mut bench, PacketResult::Copied);
        let own = bench.kernel.own_sockets();
        let socket = own.register(client.parse().unwrap()).unwrap();
        let again = own.register(client.parse().unwrap()).unwrap();
        check(&mut bench, PacketResult::Own);
        // Another host with the same port is another end.
        let other = Packet::new(&client.replace("1]", "9]").replace(".1:", ".9:"), server, b"GET").bytes();
        assert_eq!(bench.run(EITHER, &other, 0).0, PacketResult::Copied);
        drop(socket);
        check(&mut bench, PacketResult::Own);
        drop(again);
        check(&mut bench, PacketResult::Copied);
        assert_eq!(own.count(), 0);
    }
}

#[test]
fn a_socket_beyond_the_bound_is_refused() {
    let bench = Bench::new(&capture());
    let own = bench.kernel.own_sockets();
    let end = |number: u32| SocketAddr::from((std::net::Ipv4Addr::from(0x0A00_0000 + number), 1));
    let mut all: Vec<_> = (0..MAX_OWN).map(|number| own.register(end(number)).unwrap()).collect();
    let refused = own.register(end(MAX_OWN)).unwrap_err();
    assert!(refused.to_string().contains("the agent has 16384 connections"), "{refused}");
    all.pop();
    drop(own.register(end(MAX_OWN)).unwrap());
}
