//! Reads Ethernet, VLAN, IPv4, IPv6 and TCP headers, through whatever gives bytes.
//!
//! It decides nothing and copies no payload: it says where things are. A VLAN tag that the device took off
//! (offloading) is not in the bytes and not seen here.

/// The deepest header byte that is looked at: more than any sane stack of headers needs, and a bound for the verifier.
pub const MAX_HEADER: u32 = 1024;
/// VLAN tags looked through: QinQ.
pub const MAX_VLANS: u32 = 2;
/// IPv6 extension headers looked through.
pub const MAX_EXTENSIONS: u32 = 6;

/// Gives bytes of a packet by their offset from the start of its first header.
pub trait Reader {
    /// Its length in bytes, padding included. Asked only when no header says it.
    fn length(&self) -> u32;

    /// The `N` bytes at `offset`, when the packet has them all. `N` is 2, 4 or 8: what a machine reads at once,
    /// and the verifier follows.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

impl Reader for [u8] {
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.get(offset as usize..)?.first_chunk().copied()
    }
}

/// What the packets of a device begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// An IP header.
    Ip,
}

/// Why a packet cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Another protocol.
    NotTcp,
    /// It ends within a header, or a header contradicts itself.
    Malformed,
    /// A fragment of an IP packet that carries TCP.
    Fragment,
}

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

/// An IPv6 address, or an IPv4 address mapped into IPv6 (RFC 4291, section 2.5.5.2): two integers, because that is
/// what the kernel's machine can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The first eight octets.
    pub high: u64,
    /// The last eight octets.
    pub low: u64,
}

impl Address {
    /// The octets in network order.
    #[inline(always)]
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        ((self.high as u128) << 64 | self.low as u128).to_be_bytes()
    }

    #[inline(always)]
    const fn mapped(address: u32) -> Address {
        Address { high: 0, low: 0xFFFF_0000_0000 | address as u64 }
    }
}

/// Where the headers of a TCP packet are: offsets from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The version of IP.
    pub family: Family,
    /// The IP header.
    pub ip: u32,
    /// The TCP header.
    pub tcp: u32,
    /// One past the last byte that belongs to the IP packet; padding follows.
    pub end: u32,
}

/// The fields of a TCP header that a passive observer needs, and where its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// The low eight control bits.
    pub flags: u8,
    /// Offset of the first payload byte.
    pub payload: u32,
    /// Payload bytes according to the IP header.
    pub length: u32,
}

/// TCP control bits (RFC 9293, section 3.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgment number is significant.
    pub const ACK: u8 = 0x10;
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86DD;
const IPPROTO_TCP: u8 = 6;
const TCP_HEADER: u32 = 20;

/// Finds the TCP header of a packet.
///
/// # Errors
/// When it is not TCP, a fragment, or not well-formed.
#[inline(always)]
pub fn locate<R: Reader + ?Sized>(packet: &R, layer: Layer) -> Result<Located, Unusable> {
    match layer {
        Layer::Ethernet => ethernet(packet),
        Layer::Ip => {
            let [first, _] = packet.read(0).ok_or(Unusable::Malformed)?;
            match first >> 4 {
                4 => ipv4(packet, 0),
                6 => ipv6(packet, 0),
                _ => Err(Unusable::NotTcp),
            }
        }
    }
}

#[inline(always)]
fn ethernet<R: Reader + ?Sized>(packet: &R) -> Result<Located, Unusable> {
    let kind = |offset| packet.read(offset).map(u16::from_be_bytes).ok_or(Unusable::Malformed);
    // Apart, so that for nearly all packets every offset up to the IP header's end is a constant.
    let first = kind(12)?;
    match first {
        ETHERTYPE_IPV4 => return ipv4(packet, 14),
        ETHERTYPE_IPV6 => return ipv6(packet, 14),
        _ => {}
    }
    let (mut offset, mut last) = (12, first);
    for _ in 0..MAX_VLANS {
        // IEEE 802.1Q, 802.1ad, and the tag that came before the latter was standardised.
        if !matches!(last, 0x8100 | 0x88A8 | 0x9100) {
            break;
        }
        offset += 4;
        last = kind(offset)?;
    }
    match last {
        ETHERTYPE_IPV4 => ipv4(packet, offset + 2),
        ETHERTYPE_IPV6 => ipv6(packet, offset + 2),
        _ => Err(Unusable::NotTcp),
    }
}

#[inline(always)]
fn ipv4<R: Reader + ?Sized>(packet: &R, ip: u32) -> Result<Located, Unusable> {
    // The fixed part is read before anything whose offset varies.
    let [version, _, total_high, total_low, _, _, fragment_high, fragment_low] =
        packet.read(ip).ok_or(Unusable::Malformed)?;
    let [_, protocol] = packet.read(ip + 8).ok_or(Unusable::Malformed)?;
    if protocol != IPPROTO_TCP {
        return Err(Unusable::NotTcp);
    }
    let header = u32::from(version & 0x0F) * 4;
    if version >> 4 != 4 || header < 20 {
        return Err(Unusable::Malformed);
    }
    // More fragments, or an offset (RFC 791, section 3.1).
    if u16::from_be_bytes([fragment_high, fragment_low]) & 0x3FFF != 0 {
        return Err(Unusable::Fragment);
    }
    let total = u32::from(u16::from_be_bytes([total_high, total_low]));
    // A packet too large for the field (BIG TCP) has 0 in it.
    let end = if total == 0 { packet.length() } else { ip + total };
    Ok(Located { family: Family::V4, ip, tcp: ip + header, end })
}

#[inline(always)]
fn ipv6<R: Reader + ?Sized>(packet: &R, ip: u32) -> Result<Located, Unusable> {
    let [version, _, _, _, payload_high, payload_low, mut next, _] =
        packet.read(ip).ok_or(Unusable::Malformed)?;
    if version >> 4 != 6 {
        return Err(Unusable::Malformed);
    }
    let payload = u32::from(u16::from_be_bytes([payload_high, payload_low]));
    // With a jumbo payload option (RFC 2675) the field is 0.
    let end = if payload == 0 { packet.length() } else { ip + 40 + payload };
    let mut offset = ip + 40;
    let mut fragment = false;
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            IPPROTO_TCP if fragment => return Err(Unusable::Fragment),
            IPPROTO_TCP => return Ok(Located { family: Family::V6, ip, tcp: offset, end }),
            // Hop-by-hop options, routing, fragment, authentication, destination options, mobility, HIP, shim6.
            0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 => {
                let [following, words, high, low] = packet.read(offset).ok_or(Unusable::Malformed)?;
                offset += match next {
                    // The length of a fragment header is fixed; its second byte is reserved.
                    44 => 8,
                    // In units of four bytes, less two (RFC 4302, section 2.2).
                    51 => (u32::from(words) + 2) * 4,
                    _ => (u32::from(words) + 1) * 8,
                };
                // An offset or more fragments; neither is an atomic fragment, which is whole (RFC 6946).
                if next == 44 && u16::from_be_bytes([high, low]) & 0xFFF9 != 0 {
                    fragment = true;
                    // What follows a fragment that is not the first is not a header.
                    if u16::from_be_bytes([high, low]) & 0xFFF8 != 0 {
                        let tcp = following == IPPROTO_TCP;
                        return Err(if tcp { Unusable::Fragment } else { Unusable::NotTcp });
                    }
                }
                next = following;
            }
            _ => return Err(Unusable::NotTcp),
        }
    }
    Err(Unusable::Malformed)
}

/// Source and destination port.
#[inline(always)]
pub fn ports<R: Reader + ?Sized>(packet: &R, located: &Located) -> Option<(u16, u16)> {
    let both = u32::from_be_bytes(packet.read(located.tcp)?);
    Some(((both >> 16) as u16, both as u16))
}

/// Source and destination address.
#[inline(always)]
pub fn addresses<R: Reader + ?Sized>(packet: &R, located: &Located) -> Option<(Address, Address)> {
    match located.family {
        Family::V4 => {
            let both = u64::from_be_bytes(packet.read(located.ip + 12)?);
            Some((Address::mapped((both >> 32) as u32), Address::mapped(both as u32)))
        }
        Family::V6 => Some((address(packet, located.ip + 8)?, address(packet, located.ip + 24)?)),
    }
}

#[inline(always)]
fn address<R: Reader + ?Sized>(packet: &R, offset: u32) -> Option<Address> {
    let high = u64::from_be_bytes(packet.read(offset)?);
    let low = u64::from_be_bytes(packet.read(offset + 8)?);
    Some(Address { high, low })
}

/// The TCP header after its ports, and where the payload is.
#[inline(always)]
pub fn tcp<R: Reader + ?Sized>(packet: &R, located: &Located) -> Result<Tcp, Unusable> {
    let numbers = u64::from_be_bytes(packet.read(located.tcp + 4).ok_or(Unusable::Malformed)?);
    let [words, flags] = packet.read(located.tcp + 12).ok_or(Unusable::Malformed)?;
    let header = u32::from(words >> 4) * 4;
    let payload = located.tcp + header;
    if header < TCP_HEADER || payload > located.end {
        return Err(Unusable::Malformed);
    }
    Ok(Tcp {
        seq: (numbers >> 32) as u32,
        ack: numbers as u32,
        flags,
        payload,
        length: located.end - payload,
    })
}

#[cfg(test)]
mod tests;
