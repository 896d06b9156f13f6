//! The layout of everything that crosses between the kernel programs and the agent.
//!
//! Explicit widths, no padding, sizes and offsets asserted at compile time. No behaviour. Integers are in the byte
//! order of the host, which both sides share.

use core::mem::{offset_of, size_of};

/// The most ring buffers there can be.
pub const MAX_SHARDS: usize = 32;
/// The most prefixes the network trie holds.
pub const MAX_NETWORKS: u32 = 1024;
/// How long the kernel keeps copying after the agent's last heartbeat, in nanoseconds.
pub const HEARTBEAT_STALE: u64 = 2_000_000_000;
/// The most sockets of the agent that can be excluded at once.
pub const MAX_OWN: u32 = 16_384;
/// Flows that the byte budget remembers; beyond, the one that was quiet longest is forgotten.
pub const MAX_BUDGETED: u32 = 65_536;
/// A [`Control::sample`] that admits every flow.
pub const SAMPLE_ALL: u32 = u32::MAX;
/// The value of [`Control::enabled`] when packets are copied.
pub const ENABLED: u32 = 1;

/// Payload sizes of ring records, ascending. A packet takes the smallest that holds it; one larger than the largest
/// takes several records.
pub const RECORD_SIZES: [usize; 6] = [256, 1536, 4096, 16_384, 32_768, 65_536];
/// The most records of the largest size that precede the last record of a packet: 512 KiB, the largest GSO packet
/// that Linux builds (`GSO_MAX_SIZE`).
pub const MAX_FULL_RECORDS: u32 = 8;

/// Programs at TC hooks by name, as the kernel shows them (15 bytes at most): Ethernet or layer 3, and where the hook leads.
pub const PROGRAMS: [&str; 6] =
    ["shadow_eth_srv", "shadow_eth_cli", "shadow_eth_any", "shadow_l3_srv", "shadow_l3_cli", "shadow_l3_any"];
/// The same at the XDP hook, which has only incoming packets; they begin with an Ethernet header.
pub const XDP_PROGRAMS: [&str; 2] = ["shadow_xdp_srv", "shadow_xdp_cli"];

/// Which way a packet travels, as far as the kernel can tell.
pub mod direction {
    /// Not known.
    pub const UNKNOWN: u8 = 0;
    /// From client to server.
    pub const TO_SERVER: u8 = 1;
    /// From server to client.
    pub const TO_CLIENT: u8 = 2;
}

/// What a record says beside its payload.
pub mod notice {
    /// Nothing.
    pub const NONE: u16 = 0;
    /// There is no payload: the byte budget leaves the flow out from here on. What is captured of it later begins anew.
    pub const SHED: u16 = 1;
}

/// Lists of networks: bits of a value in the trie, and of the constant that says which lists exist.
pub mod networks {
    /// Servers to capture.
    pub const SERVER_INCLUDE: u32 = 1;
    /// Servers to leave alone.
    pub const SERVER_EXCLUDE: u32 = 2;
    /// Clients to capture.
    pub const CLIENT_INCLUDE: u32 = 4;
    /// Clients to leave alone.
    pub const CLIENT_EXCLUDE: u32 = 8;
}

/// What precedes the payload in a ring record. A record's payload area is larger than `captured`; the rest is
/// undefined.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// When the packet passed: nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The sender; an IPv4 address is IPv4-mapped (RFC 4291, section 2.5.5.2).
    pub source: [u8; 16],
    /// The receiver, likewise.
    pub destination: [u8; 16],
    /// A hash of the flow, the same in both directions.
    pub flow: u32,
    /// The device's index.
    pub ifindex: u32,
    /// Sequence number of the first payload byte in this record (of the SYN itself, when SYN is set).
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Payload bytes that follow this header.
    pub captured: u32,
    /// Payload bytes of the packet from `seq` on that no later record of the same packet repeats.
    pub wire: u32,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// TCP control bits (RFC 9293, section 3.1), without those above the low eight.
    pub flags: u8,
    /// One of [`direction`].
    pub direction: u8,
    /// One of [`notice`].
    pub notice: u16,
}

impl RecordHeader {
    /// Reads the header at the start of a ring record; `None` when the record is too short for one.
    #[must_use]
    pub fn from_bytes(record: &[u8]) -> Option<RecordHeader> {
        fn field<const N: usize>(record: &[u8], offset: usize) -> Option<[u8; N]> {
            record.get(offset..)?.first_chunk().copied()
        }
        let [flags] = field(record, offset_of!(RecordHeader, flags))?;
        let [direction] = field(record, offset_of!(RecordHeader, direction))?;
        Some(RecordHeader {
            time: u64::from_ne_bytes(field(record, offset_of!(RecordHeader, time))?),
            source: field(record, offset_of!(RecordHeader, source))?,
            destination: field(record, offset_of!(RecordHeader, destination))?,
            flow: u32::from_ne_bytes(field(record, offset_of!(RecordHeader, flow))?),
            ifindex: u32::from_ne_bytes(field(record, offset_of!(RecordHeader, ifindex))?),
            seq: u32::from_ne_bytes(field(record, offset_of!(RecordHeader, seq))?),
            ack: u32::from_ne_bytes(field(record, offset_of!(RecordHeader, ack))?),
            captured: u32::from_ne_bytes(field(record, offset_of!(RecordHeader, captured))?),
            wire: u32::from_ne_bytes(field(record, offset_of!(RecordHeader, wire))?),
            source_port: u16::from_ne_bytes(field(record, offset_of!(RecordHeader, source_port))?),
            destination_port: u16::from_ne_bytes(field(record, offset_of!(RecordHeader, destination_port))?),
            flags,
            direction,
            notice: u16::from_ne_bytes(field(record, offset_of!(RecordHeader, notice))?),
        })
    }
}

/// Where a sleeping consumer asks to be woken, alone in its cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sleeper {
    /// Not 0 when the consumer of this shard is about to block; the kernel clears it and wakes.
    pub asleep: u32,
    /// Zero.
    pub reserved: [u32; 15],
}

/// The one value that the agent and the running programs share. It is mapped into the agent, so a write is a store.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// When the agent was last known to be well: nanoseconds of `CLOCK_MONOTONIC`.
    pub heartbeat: u64,
    /// The kill switch: [`ENABLED`], or anything else for off.
    pub enabled: u32,
    /// Flows whose hash is below are in the sample; [`SAMPLE_ALL`] admits every flow.
    pub sample: u32,
    /// The heartbeat that a program found stale; written by the programs only. While it is the last one, nothing is
    /// copied, and no clock is read to know that.
    pub stale: u64,
    /// Zero.
    pub reserved: [u64; 5],
    /// By shard.
    pub sleepers: [Sleeper; MAX_SHARDS],
    /// The captured ports.
    pub ports: Ports,
    /// The local ports of the agent's own sockets: a port without its bit has no [`Endpoint`] in the map of them.
    pub own_ports: Ports,
}

/// One end of a connection, as a key: an address and a port in the byte order of the host.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The first eight octets of the address, an IPv4 address being IPv4-mapped.
    pub high: u64,
    /// The last eight octets.
    pub low: u64,
    /// The port.
    pub port: u64,
}

/// The byte budget of all CPUs together.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Up to when what was copied is paid for: nanoseconds of `CLOCK_MONOTONIC`.
    pub paid: u64,
    /// Zero; the bucket has its cache line for itself.
    pub reserved: [u64; 7],
}

/// A set of ports, one bit each: port `p` is bit `p % 64` of word `p / 64`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Ports(pub [u64; 1024]);

impl Ports {
    /// The word and the bit within it that stand for a port.
    #[inline(always)]
    #[must_use]
    pub const fn place(port: u16) -> (usize, u64) {
        ((port >> 6) as usize, 1 << (port & 63))
    }
}

/// One CPU's counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets by [`Outcome`].
    pub packets: [u64; Outcome::ALL.len()],
    /// Payload bytes copied.
    pub bytes: u64,
}

/// What became of a packet. The order is that of the agent's `capture::PacketResult`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Copied into a ring.
    Copied,
    /// Not TCP, not a configured port or network, or a header that cannot be read.
    Filtered,
    /// Sent by this agent.
    Own,
    /// The kill switch is off, or the heartbeat is stale.
    Killed,
    /// The flow is not in the sample.
    SampledOut,
    /// A bare acknowledgment.
    NoPayload,
    /// An IP fragment.
    Fragment,
    /// Over the byte budget.
    Shed,
    /// The ring was full.
    RingFull,
    /// The bytes could not be read from the packet.
    CopyError,
}

impl Outcome {
    /// Every outcome, in order, with its name in metrics.
    pub const ALL: [(Outcome, &'static str); 10] = [
        (Outcome::Copied, "copied"),
        (Outcome::Filtered, "filtered"),
        (Outcome::Own, "own"),
        (Outcome::Killed, "killed"),
        (Outcome::SampledOut, "sampled_out"),
        (Outcome::NoPayload, "no_payload"),
        (Outcome::Fragment, "fragment"),
        (Outcome::Shed, "shed"),
        (Outcome::RingFull, "ring_full"),
        (Outcome::CopyError, "copy_error"),
    ];
}

const _: () = {
    assert!(size_of::<RecordHeader>() == 72);
    assert!(offset_of!(RecordHeader, source) == 8);
    assert!(offset_of!(RecordHeader, destination) == 24);
    assert!(offset_of!(RecordHeader, flow) == 40);
    assert!(offset_of!(RecordHeader, seq) == 48);
    assert!(offset_of!(RecordHeader, captured) == 56);
    assert!(offset_of!(RecordHeader, source_port) == 64);
    assert!(offset_of!(RecordHeader, flags) == 68);
    assert!(offset_of!(RecordHeader, direction) == 69);
    assert!(offset_of!(RecordHeader, notice) == 70);
    assert!(size_of::<Sleeper>() == 64);
    assert!(size_of::<Control>() == 64 + 64 * MAX_SHARDS + 2 * size_of::<Ports>());
    assert!(offset_of!(Control, enabled) == 8);
    assert!(offset_of!(Control, sample) == 12);
    assert!(offset_of!(Control, stale) == 16);
    assert!(offset_of!(Control, sleepers) == 64);
    assert!(offset_of!(Control, ports) == 64 + 64 * MAX_SHARDS);
    assert!(offset_of!(Control, own_ports) == 64 + 64 * MAX_SHARDS + size_of::<Ports>());
    assert!(size_of::<Endpoint>() == 24);
    assert!(size_of::<Bucket>() == 64);
    assert!(size_of::<Ports>() == 65_536 / 8);
    assert!(size_of::<Counts>() == 8 * (Outcome::ALL.len() + 1));
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_numbered_by_their_place() {
        for (place, (outcome, _)) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }

    #[test]
    fn a_header_is_read_from_where_the_kernel_puts_it() {
        let mut record: [u8; 80] = core::array::from_fn(|at| at as u8);
        let header = RecordHeader::from_bytes(&record).unwrap();
        assert_eq!(header.time.to_ne_bytes(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(header.source, core::array::from_fn(|at| at as u8 + 8));
        assert_eq!(header.destination, core::array::from_fn(|at| at as u8 + 24));
        assert_eq!(header.flow.to_ne_bytes(), [40, 41, 42, 43]);
        assert_eq!(header.ifindex.to_ne_bytes(), [44, 45, 46, 47]);
        assert_eq!(header.seq.to_ne_bytes(), [48, 49, 50, 51]);
        assert_eq!(header.ack.to_ne_bytes(), [52, 53, 54, 55]);
        assert_eq!(header.captured.to_ne_bytes(), [56, 57, 58, 59]);
        assert_eq!(header.wire.to_ne_bytes(), [60, 61, 62, 63]);
        assert_eq!(header.source_port.to_ne_bytes(), [64, 65]);
        assert_eq!(header.destination_port.to_ne_bytes(), [66, 67]);
        assert_eq!((header.flags, header.direction), (68, 69));
        assert_eq!(RecordHeader::from_bytes(&record[..72]), Some(header));
        assert_eq!(RecordHeader::from_bytes(&record[..71]), None);
        record[68] = 0;
        assert_ne!(RecordHeader::from_bytes(&record), Some(header));
    }

    #[test]
    fn every_port_has_a_bit_of_its_own() {
        let mut ports = Ports([0; 1024]);
        for port in 0..=u16::MAX {
            let (word, bit) = Ports::place(port);
            assert_eq!(ports.0[word] & bit, 0, "{port}");
            ports.0[word] |= bit;
        }
        assert!(ports.0.iter().all(|word| *word == u64::MAX));
    }

    #[test]
    fn program_names_survive_the_kernel_s_limit() {
        for name in PROGRAMS.into_iter().chain(XDP_PROGRAMS) {
            assert!(name.len() <= 15, "{name}");
        }
    }

    #[test]
    fn record_sizes_ascend_and_keep_records_aligned() {
        assert!(RECORD_SIZES.is_sorted());
        assert!(RECORD_SIZES.iter().all(|size| size % 8 == 0));
    }
}
