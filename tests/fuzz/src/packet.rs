//! Decoding of packets: every offset that is given lies where it is said to.

use shadow_ebpf::packet::{self, Layer};

/// The first byte chooses what the packet begins with.
pub fn check(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let layer = if choice % 2 == 0 { Layer::Ethernet } else { Layer::Ip };
    let Ok(located) = packet::locate(bytes, layer) else { return };
    assert!(located.ip < located.tcp, "{located:?}");
    if let Ok(tcp) = packet::tcp(bytes, &located) {
        assert!(tcp.payload >= located.tcp + 20, "{located:?} {tcp:?}");
        assert_eq!(tcp.payload + tcp.length, located.end);
        assert!(packet::ports(bytes, &located).is_some());
    }
    let addresses = packet::addresses(bytes, &located);
    if bytes.len() >= located.tcp as usize {
        assert!(addresses.is_some(), "the IP header is there: {located:?}");
    }
}

/// Ethernet with and without tags, both versions of IP, and extension headers.
pub fn seeds() -> Vec<Vec<u8>> {
    let tcp: Vec<u8> =
        [&[0, 80, 1, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0][..], b"payload"].concat();
    let v4 = [&[0x45, 0, 0, 47, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..], &tcp].concat();
    let v6 = |next: u8, more: &[u8]| {
        let length = (more.len() + tcp.len()) as u8;
        [&[0x60, 0, 0, 0, 0, length, next, 64][..], &[0xFD; 32], more, &tcp].concat()
    };
    let ethernet = |kind: &[u8], rest: &[u8]| [&[0; 13][..], kind, rest].concat();
    vec![
        ethernet(&[8, 0], &v4),
        ethernet(&[0x81, 0, 0, 1, 8, 0], &v4),
        ethernet(&[0x86, 0xDD], &v6(6, &[])),
        [&[1][..], &v4].concat(),
        [&[1][..], &v6(0, &[44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 1])].concat(),
        [&[1][..], &v6(51, &[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])].concat(),
    ]
}
